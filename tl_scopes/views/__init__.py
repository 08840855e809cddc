"""Pictures of results; they read results and nothing else."""

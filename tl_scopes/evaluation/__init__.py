"""Many prompts: AOPC, gold alignment, passages and resumable records."""

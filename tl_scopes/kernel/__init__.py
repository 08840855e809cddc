"""V pulled back into results: one forward, vector-Jacobian products, scores."""

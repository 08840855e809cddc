"""A TransformerLens model: its classes, hooks, forward pass, state and memory; the only folder that knows them."""

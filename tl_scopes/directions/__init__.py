"""The choice of V: one file per direction at the final hidden state."""

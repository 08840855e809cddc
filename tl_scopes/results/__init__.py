"""What a call gives back: frozen, saved, shown by name."""

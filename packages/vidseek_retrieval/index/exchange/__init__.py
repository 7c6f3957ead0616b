"""A published collection to one file and back."""

"""Which clips to caption next, so that the next training gains most."""

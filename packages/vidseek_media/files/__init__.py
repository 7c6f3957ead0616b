"""Files that are read in bounds and written whole or absent."""

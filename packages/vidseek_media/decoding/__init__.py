"""Video files to frames as a player shows them, in confined workers."""

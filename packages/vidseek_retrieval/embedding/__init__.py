"""Clips and texts to vectors."""

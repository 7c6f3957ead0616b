"""Compares videos frame by frame, aligned in time and in the picture."""

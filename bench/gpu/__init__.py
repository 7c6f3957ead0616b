"""Checks and figures on a GPU."""

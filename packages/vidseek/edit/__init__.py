"""Moments on the timelines of editing programs, and as files."""

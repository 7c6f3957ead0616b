"""Frames of clips in tar shards."""

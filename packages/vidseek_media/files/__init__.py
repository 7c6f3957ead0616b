"""Reads files with limits, and writes them whole or not at all."""

"""Commands for what leaves the archive."""

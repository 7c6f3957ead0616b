"""Near-duplicate videos."""

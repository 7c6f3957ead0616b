"""A query to ranked moments."""

"""Vectors to an index, and a query to ranked moments."""

"""What changed between the tables and a stored collection, told by digests."""

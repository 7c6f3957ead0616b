"""The embedded index: Qdrant Edge."""

"""Benchmarks of embedding, search and near-duplicates."""

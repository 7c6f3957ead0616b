"""Benchmarks and proofs that take longer than tests; each writes a JSON file beside itself."""

"""Benchmarks of decoding, shots and gates."""

"""Benchmarks of the service and the encoder."""

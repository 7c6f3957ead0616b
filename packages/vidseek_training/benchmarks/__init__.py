"""Published retrieval benchmarks."""

"""Data quality gates: Great Expectations suites over tables, and their reports."""

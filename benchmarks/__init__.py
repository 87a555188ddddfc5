"""Benchmarks: what the numbers in the documentation are measured with."""

"""Benchmarks: the model zoo and the comparison of Tensmith with other inference engines."""

"""Benchmarks of nconv and its rivals."""

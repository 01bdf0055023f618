"""Benchmarks, scoring, statistics and the report of a run."""

"""Benchmarks: one script for each claim about speed or accuracy."""

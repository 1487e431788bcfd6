"""Measurements, each beside its limit and its peers: ``python -m benchmarks --help``."""

"""Measurements: `python -m benchmarks.<name>`. Ratios within one run."""

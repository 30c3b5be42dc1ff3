"""Benchmarks: `python -m benchmarks.NAME [--quick] [--json]`. A speed-up is a ratio measured in one run."""

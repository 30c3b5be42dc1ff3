"""Benchmarks: `python -m benchmarks.NAME [--quick] [--json]`; a speed-up is a ratio measured side by side in one run."""

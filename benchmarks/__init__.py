"""What is timed against what; run from the repository's root: `python -m benchmarks.steps`."""

"""GPU catalogue, benchmarks, duration and cost."""

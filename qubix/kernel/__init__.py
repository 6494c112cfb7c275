"""Money, ids, clock, errors, events: the standard library and nothing else."""

"""Placement, reconciliation, the sweeper, agent sessions and frames, the fabric port."""

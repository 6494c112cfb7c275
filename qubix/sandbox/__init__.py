"""The sandbox: its limits, its command, its run, and what may leave it."""

"""What runs on a provider's node: devices, the agent protocol, the spool, the runner."""

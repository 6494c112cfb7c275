"""Providers, their nodes and devices, heartbeats and metrics."""

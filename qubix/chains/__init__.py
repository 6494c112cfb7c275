"""Chains: one folder each."""

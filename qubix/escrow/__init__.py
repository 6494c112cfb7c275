"""Escrow states, settlement lines, disputes."""

"""Offers, quotes, search, matching and ranking."""

"""Uploads: streamed, counted and hashed."""

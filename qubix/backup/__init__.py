"""Backups of a whole platform: taken while it runs, verified, and restored into an empty place."""

"""Deposits and withdrawals (the chain comes with a later step)."""

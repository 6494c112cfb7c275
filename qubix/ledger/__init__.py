"""Accounts, transfers, holds and the acts that move money; the rules live in the database."""

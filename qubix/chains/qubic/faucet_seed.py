"""The seed of the devnet's faucet. Everybody knows it: all that it holds is test money, and it must never hold anything else."""

from typing import Final

FAUCET_SEED: Final = "qubixdevnetfaucet" + "a" * 38

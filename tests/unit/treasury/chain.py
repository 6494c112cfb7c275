"""Signed transactions, and how an archive shows them."""

from __future__ import annotations

import dataclasses

from qubix.chains.qubic import identity, keys
from qubix.chains.qubic.answers import ArchivedTransaction
from qubix.chains.qubic.transaction import Transaction

TICK = 1_000


@dataclasses.dataclass(frozen=True)
class Wallet:
    """Somebody with a key."""

    subseed: bytes
    public_key: bytes
    identity: str


def wallet(letter: str) -> Wallet:
    subseed = keys.subseed_from_seed(letter * keys.SEED_LETTERS)
    public_key = keys.public_key_from_subseed(subseed)
    return Wallet(subseed, public_key, identity.encode(public_key))


HOUSE, PAYER, ALICE, BOB = (wallet(letter) for letter in "hpab")


def pay(source: Wallet, destination: bytes, amount: int, payload: bytes = b"", tick: int = TICK) -> Transaction:
    return Transaction(source.public_key, destination, amount, tick, 0, payload).signed_by(source.subseed)


def shown(signed: Transaction, *, money_flew: bool | None = True) -> ArchivedTransaction:
    """The transaction as an archive shows it."""
    return ArchivedTransaction(
        signed.id,
        identity.encode(signed.source),
        identity.encode(signed.destination),
        signed.amount,
        signed.tick,
        signed.input_type,
        signed.payload,
        signed.signature,
        money_flew,
        0,
    )

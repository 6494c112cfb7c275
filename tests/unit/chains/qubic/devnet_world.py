"""A small network for tests: four people, a faucet, transactions without the cost of signing them."""

from __future__ import annotations

from qubix.chains.qubic import identity
from qubix.chains.qubic.devnet import wire
from qubix.chains.qubic.devnet.ledger import FIRST_TICK, Ledger, Tick, genesis
from qubix.chains.qubic.devnet.wire import Wire

FAUCET, ANNA, BERT, CARL, DORA = (bytes([n]) * 32 for n in range(1, 6))
PEOPLE = (ANNA, BERT, CARL, DORA)
QX = identity.contract(1)
SUPPLY = 1_000_000
NOW_MS = 1_700_000_000_000


def encoded(
    source: bytes, destination: bytes, amount: int, tick: int, *, input_type: int = 0, payload: bytes = b"", signature: bytes = bytes(64)
) -> bytes:
    head = source + destination + amount.to_bytes(8, "little", signed=True) + tick.to_bytes(4, "little")
    return head + input_type.to_bytes(2, "little") + len(payload).to_bytes(2, "little") + payload + signature


def transfer(source: bytes, destination: bytes, amount: int, tick: int, payload: bytes = b"", input_type: int = 0) -> Wire:
    """A transfer that nobody signed: the ledger leaves signatures to its door."""
    return wire.read(encoded(source, destination, amount, tick, input_type=input_type, payload=payload))


def order(*payments: tuple[bytes, int]) -> bytes:
    """A send-many's payload."""
    unused = 25 - len(payments)
    return b"".join([*(payee for payee, _ in payments), bytes(32 * unused)]) + b"".join(
        [*(amount.to_bytes(8, "little", signed=True) for _, amount in payments), bytes(8 * unused)]
    )


def send_many(source: bytes, amount: int, tick: int, *payments: tuple[bytes, int]) -> Wire:
    return transfer(source, wire.QUTIL, amount, tick, order(*payments), wire.SEND_TO_MANY)


def young(**limits: int) -> Ledger:
    """A network whose money is all at the faucet."""
    return Ledger(genesis(FAUCET, supply=SUPPLY), **limits)


def rich(**limits: int) -> Ledger:
    """A network in which Anna has 10 000 and the faucet the rest; its current tick is FIRST_TICK + 3."""
    ledger = young(**limits)
    ledger.admit(transfer(FAUCET, ANNA, 10_000, FIRST_TICK + 3))
    steps(ledger, 3)
    return ledger


def steps(ledger: Ledger, count: int) -> Tick:
    """The last of `count` ticks."""
    for _ in range(count):
        tick = ledger.step(NOW_MS)
    return tick

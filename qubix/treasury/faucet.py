"""Test money on the devnet: a real transaction of its faucet, whose seed everybody knows. There is no such thing on mainnet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

from qubix.chains.qubic import identity, keys
from qubix.chains.qubic.answers import Refused
from qubix.chains.qubic.faucet_seed import FAUCET_SEED
from qubix.chains.qubic.rpc import QubicRpc
from qubix.chains.qubic.transaction import AMOUNT_MAX, Transaction
from qubix.kernel.errors import Conflict, Invalid
from qubix.kernel.money import written
from qubix.observability import logger

AHEAD: Final = 5
"""Ticks from the head to the gift's: enough to get there, and soon."""
AHEAD_FAST: Final = 20
"""The same where a tick takes less than a second."""

AGAIN: Final = "ask again, with a fresh Idempotency-Key"

log = logger("faucet")


@cache
def _key() -> tuple[bytes, bytes]:
    """The faucet's subseed and public key."""
    subseed = keys.subseed_from_seed(FAUCET_SEED)
    return subseed, keys.public_key_from_subseed(subseed)


class NotGiven(Conflict):
    """The network did not take the gift."""

    code = "faucet_refused"


@dataclass(frozen=True)
class Gift:
    """A payment of the faucet; the same fields are the same bytes. Args: purpose, what keeps two equal gifts apart."""

    address: str
    amount: int
    tick: int
    purpose: str

    @cached_property
    def signed(self) -> Transaction:
        """The transaction."""
        memo = b"qubix:faucet:" + hashlib.sha256(self.purpose.encode()).hexdigest()[:32].encode()
        subseed, source = _key()
        return Transaction(source, identity.decode(self.address), self.amount, self.tick, payload=memo).signed_by(subseed)

    @property
    def tx_id(self) -> str:
        """Its id."""
        return self.signed.id


async def plan(qubic: QubicRpc, address: str, amount: int, purpose: str) -> Gift:
    """A gift for a tick soon.

    Raises: Invalid for more than the faucet has; RpcUnavailable.
    """
    left = (await qubic.balance(identity.encode(_key()[1]))).amount
    if not 0 < amount <= min(left, AMOUNT_MAX):
        raise Invalid(f"the faucet gives between 1 QU and the {written(left)} that it has", next_step="ask for another amount")
    head = await qubic.tick_info()
    return Gift(address, amount, head.tick + (AHEAD if head.duration_s >= 1 else AHEAD_FAST), purpose)


async def send(qubic: QubicRpc, gift: Gift) -> bool:
    """Broadcast it; again is harmless. Returns: whether it was sent, which is too late from its tick on.

    Raises: NotGiven if every endpoint refused it; RpcUnavailable if not a byte left us.
    """
    if (await qubic.tick_info()).tick >= gift.tick:
        return False
    outcome = await qubic.broadcast(gift.signed.to_bytes())
    state = type(outcome).__name__.lower()
    log.info("chain transaction", tx=gift.tx_id, tick=gift.tick, kind="faucet", amount=gift.amount, address=gift.address, state=state)
    if isinstance(outcome, Refused) and (await qubic.tick_info()).tick < gift.tick:
        raise NotGiven(f"the devnet refused the payment: {outcome.reason}", next_step=AGAIN)
    return not isinstance(outcome, Refused)

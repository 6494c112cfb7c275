"""What the demo's people do with Qubic wallets of their own, beside the platform; and whether the ledger and the chain agree."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import asyncpg

from qubix.chains.qubic import identity, keys
from qubix.chains.qubic.faucet_seed import FAUCET_SEED
from qubix.chains.qubic.pace import RpcLimits
from qubix.chains.qubic.rpc import QubicRpc, Wire
from qubix.chains.qubic.transaction import Transaction
from qubix.kernel.clock import SystemClock
from qubix.kernel.errors import Unavailable

AHEAD: Final = 12
"""Ticks from the head to a payment's own. The devnet's last a quarter of a second, and what comes too late is lost without a word."""
PAID_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.1

T = TypeVar("T")


@dataclass(frozen=True)
class Purse:
    """Somebody's own wallet, which no part of the platform knows the seed of."""

    seed: str = field(default_factory=keys.new_seed, repr=False)

    @property
    def subseed(self) -> bytes:
        """What signs."""
        return keys.subseed_from_seed(self.seed)

    @property
    def public_key(self) -> bytes:
        """Whose signature it is."""
        return keys.public_key_from_subseed(self.subseed)

    @property
    def identity(self) -> str:
        """Its address."""
        return identity.encode(self.public_key)


FAUCET: Final = Purse(FAUCET_SEED)


@dataclass(frozen=True)
class Network:
    """A Qubic network as its wallets see it. Args: url, of an endpoint."""

    url: str

    def pay(self, purse: Purse, destination: str, amount: int, memo: bytes = b"") -> str:
        """Sign a payment and broadcast it. Returns: the transaction's id; whether it executes is seen later."""

        async def work(rpc: QubicRpc) -> str:
            tick = (await rpc.tick_info()).tick + AHEAD
            unsigned = Transaction(purse.public_key, identity.decode(destination), amount, tick, payload=memo)
            signed = unsigned.signed_by(purse.subseed)
            await rpc.broadcast(signed.to_bytes())
            return signed.id

        return self._ask(work)

    def balance(self, address: str) -> int:
        """What an identity has now."""

        async def work(rpc: QubicRpc) -> int:
            return (await rpc.balance(address, max_age_s=0)).amount

        return self._ask(work)

    def await_balance(self, address: str, at_least: int) -> int:
        """Wait until an identity has so much. Raises: Unavailable if it does not come."""
        deadline = time.monotonic() + PAID_TIMEOUT_S
        while (found := self.balance(address)) < at_least:
            if time.monotonic() > deadline:
                raise Unavailable(f"{address} has {found}, not {at_least}, after {PAID_TIMEOUT_S:.0f} s")
            time.sleep(_POLL_S)
        return found

    def balances(self, addresses: Sequence[str]) -> int:
        """What the identities have together."""

        async def work(rpc: QubicRpc) -> int:
            return sum([(await rpc.balance(address, max_age_s=0)).amount for address in addresses])

        return self._ask(work)

    def _ask(self, work: Callable[[QubicRpc], Awaitable[T]]) -> T:
        async def asked() -> T:
            async with QubicRpc(Wire([self.url], clock=SystemClock(), limits=RpcLimits(requests_per_s=100.0))) as rpc:
                return await work(rpc)

        return asyncio.run(asked())


def books_agree(network: Network, url_file: Path) -> tuple[bool, str]:
    """Whether all our addresses together hold on the chain what the ledger says that we hold there.

    Looked at until it is so, for some seconds: between two questions a tick may move money from one address to another.
    Args: url_file, with the URL of a database role that may read both. Returns: the answer, and the figures.
    """
    deadline = time.monotonic() + PAID_TIMEOUT_S
    while True:
        addresses, booked = asyncio.run(_booked(url_file.read_text().strip()))
        on_chain = network.balances(addresses)
        if on_chain == booked or time.monotonic() > deadline:
            return on_chain == booked, f"{len(addresses)} addresses hold {on_chain}, the ledger says {booked}"
        time.sleep(_POLL_S)


async def _booked(url: str) -> tuple[list[str], int]:
    connection = await asyncpg.connect(url)
    try:
        addresses = [row["identity"] for row in await connection.fetch("SELECT identity FROM chain_addresses")]
        held = await connection.fetchval("SELECT -posted FROM accounts WHERE kind = 'chain' AND asset = 1")
    finally:
        await connection.close()
    return addresses, int(held)

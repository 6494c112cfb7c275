"""What every endpoint shows of a transaction from one of our addresses: the evidence that `sending.verdict` judges."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass, field, replace

from qubix.chains.qubic.errors import RpcUnavailable, TickNotYetProcessed, TickSkipped
from qubix.chains.qubic.rpc import QubicRpc
from qubix.kernel.clock import Clock
from qubix.treasury.sending import Counters, Moved, Observed, Outgoing, Sighting, Signed
from qubix.treasury.watch_store import ChainState
from qubix.treasury.witnesses import Witnesses


@dataclass(slots=True)
class Looks:
    """What was seen of one transaction since this process began to ask."""

    sightings: list[Sighting] = field(default_factory=list)
    outgoing: list[tuple[float, Outgoing]] = field(default_factory=list)
    moved: list[tuple[float, Moved]] = field(default_factory=list)


class Observer:
    """Asks each endpoint for itself. Args: keep_s, how long a look counts."""

    def __init__(self, witnesses: Witnesses, *, clock: Clock, keep_s: float) -> None:
        self._rpc = witnesses.rpc
        self._clock = clock
        self._keep_s = keep_s

    async def observe(self, signed: Signed, state: ChainState, looks: Looks) -> Observed:
        """One more look by every endpoint, beside those that still count; what is not answered is not seen. Raises: RpcUnavailable."""
        intervals = await self._rpc.tick_intervals()
        asked = [self._look(self._rpc.pinned(base), base, signed, looks) for base in self._rpc.endpoints]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, RpcUnavailable | TickNotYetProcessed):
                raise outcome
        self._forget(looks)
        return Observed(
            state.head,
            state.processed,
            intervals,
            tuple(looks.sightings),
            tuple(one for _, one in looks.outgoing),
            tuple(one for _, one in looks.moved),
            len(self._rpc.endpoints),
        )

    async def _look(self, pin: QubicRpc, base: str, signed: Signed, looks: Looks) -> None:
        processed = await pin.last_processed()
        sighting = Sighting(base, self._clock.now(), processed.tick, await pin.transaction(signed.tx_id))
        try:
            listed = await pin.transactions_of_tick(signed.tick)
            ticked = await pin.tick_data(signed.tick)
            sighting = replace(sighting, listed=listed, hashes=ticked.transaction_ids if ticked else None)
        except TickSkipped:
            sighting = replace(sighting, skipped=True)
        moved = await pin.transfers(signed.tx_id)
        wallet = await pin.balance(signed.source, max_age_s=0)
        now = self._clock.monotonic()
        looks.sightings.append(sighting)
        looks.outgoing.append((now, Outgoing(base, wallet.valid_for_tick, Counters(wallet.outgoing_transfers, wallet.outgoing_amount))))
        looks.moved.append((now, Moved(base, processed.log_tick, moved.transfers, moved.complete)))

    def _forget(self, looks: Looks) -> None:
        """Drop looks that are too old, so that a slip of an endpoint heals; never that the payment was once shown, or moved money."""
        oldest = self._clock.monotonic() - self._keep_s
        oldest_at = self._clock.now() - dt.timedelta(seconds=self._keep_s)
        found = {one.endpoint: one for one in looks.sightings if one.found}
        looks.sightings = [one for one in looks.sightings if one.at >= oldest_at or found.get(one.endpoint) is one]
        looks.outgoing = [(at, one) for at, one in looks.outgoing if at >= oldest]
        moved = {one.endpoint: one for _, one in looks.moved if one.transfers}
        looks.moved = [(at, one) for at, one in looks.moved if at >= oldest or moved.get(one.endpoint) is one]

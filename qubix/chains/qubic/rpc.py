"""The client of Qubic's RPC: `live/v1` (the head, balances, broadcasts) and `query/v1` (the archive), over several endpoints.

    async with QubicRpc(Wire(["https://rpc.qubic.org", "https://…"], clock=SystemClock())) as rpc:
        head = await rpc.tick_info()
        outcome = await rpc.broadcast(signed.to_bytes())

Every question goes through the endpoints until one gives an answer that can be used: complete, well-formed, and not older than what was
seen before. Between two rounds it waits, longer each time. Questions change nothing, and a broadcast of the same bytes is the same
transaction, so all of them may be repeated. What an answer proves is decided elsewhere: one endpoint may lie, see `pinned`.
"""

from __future__ import annotations

import base64
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from qubix.chains.qubic import answers, identity
from qubix.chains.qubic.answers import (
    Accepted,
    Ambiguous,
    ArchivedTransaction,
    Balance,
    Broadcast,
    LastProcessed,
    Refused,
    TickData,
    TickInfo,
    TickInterval,
    Transfers,
)
from qubix.chains.qubic.endpoints import Endpoint, NotSent, Question, ask
from qubix.chains.qubic.errors import MalformedAnswer, NotThere, RpcRefused, RpcUnavailable, TickNotYetProcessed, TickSkipped
from qubix.chains.qubic.pace import Pace, RpcLimits
from qubix.chains.qubic.ticks import Standing, TickGuard
from qubix.chains.qubic.transaction import Transaction
from qubix.kernel.clock import Clock

PUBLIC: Final = "https://rpc.qubic.org"
BALANCE_AGE_MAX_S: Final = 30.0
BALANCE_LAG_MAX: Final = 30
"""A balance from more ticks behind the head than this comes from a node that has lost touch."""
BALANCES_KEPT_MAX: Final = 4_096
EVENTS_MAX: Final = 100
"""More movements of money than a send-many causes."""

_QUTIL, _GET_SEND_MANY_FEE = 4, 1
"""A contract, and one of its functions."""

T = TypeVar("T")


class _Behind(RpcUnavailable):
    """The endpoint answers from an older tick than we have seen."""


class Wire:
    """What a client and its pinned ones share: connections, pace, limits, endpoints and their records.

    Args: bases, URLs of endpoints, each with `live/v1` and `query/v1` under it; clock, for pace, pauses and ages; transport, what carries
        the requests (tests); jitter, a number from 0 to 1 that spreads the pauses.
    """

    def __init__(
        self,
        bases: Sequence[str],
        *,
        clock: Clock,
        limits: RpcLimits | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if not bases or any(urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname for base in bases):
            raise ValueError("the endpoints are URLs, at least one")
        self.clock = clock
        self.limits = limits or RpcLimits()
        self.endpoints = [Endpoint(base, clock) for base in dict.fromkeys(base.rstrip("/") for base in bases)]
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        self.client = httpx.AsyncClient(transport=transport, timeout=self.limits.timeout_s, headers=headers, trust_env=False)
        self._pace = Pace(clock, self.limits.requests_per_s, self.limits.burst)
        self._jitter = jitter

    async def ask(self, endpoint: Endpoint, question: Question, parse: Callable[[object], T]) -> T:
        """One question to one endpoint, when the pace allows it; see `endpoints.ask`."""
        await self._pace.wait()
        return await ask(self.client, endpoint, question, parse, self.limits)

    async def pause(self, number: int, wait_s: float) -> None:
        """The pause before round `number` (from 1), at least `wait_s` seconds."""
        backoff_s = min(self.limits.backoff_max_s, self.limits.backoff_min_s * 2.0 ** (number - 1))
        await self.clock.sleep(max(wait_s, backoff_s * (1 + self._jitter()) / 2))


class QubicRpc:
    """The network as its endpoints show it.

    Every method raises RpcUnavailable when no endpoint gives an answer that can be used (MalformedAnswer if the last one answered
    nonsense), and RpcRefused when one says that the question is wrong. Ticks are whole numbers, amounts whole units.
    """

    def __init__(self, wire: Wire, only: Endpoint | None = None) -> None:
        self._wire = wire
        self._endpoints = [only] if only else wire.endpoints
        self._alone = len(self._endpoints) == 1
        self._head, self._archive = TickGuard(alone=self._alone), TickGuard(alone=self._alone)
        self._balances: OrderedDict[str, tuple[Balance, float]] = OrderedDict()
        self._pins: dict[str, QubicRpc] = {}
        self._broadcasts = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, which pinned clients use too."""
        await self._wire.client.aclose()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints' base URLs."""
        return tuple(endpoint.base for endpoint in self._endpoints)

    def pinned(self, base: str) -> QubicRpc:
        """A client of that endpoint alone: for proofs that need two witnesses, and must not be poisoned by what another one says.

        It shares the wire, but believes its own ticks and balances.
        Raises: ValueError for a base that is none of `endpoints`.
        """
        if base not in self._pins:
            self._pins[base] = QubicRpc(self._wire, self._endpoints[self.endpoints.index(base)])
        return self._pins[base]

    async def tick_info(self) -> TickInfo:
        """The network's head; never an older one than before."""
        return await self._ask(Question("GET", "/live/v1/tick-info"), answers.tick_info, self._head, lambda info: info.tick)

    def learn_head(self, tick: int) -> None:
        """Take a head on which pinned clients agreed: what lies far behind it is not believed."""
        self._head.believe(tick)

    async def balance(self, owner: str, *, max_age_s: float = BALANCE_AGE_MAX_S) -> Balance:
        """What an identity has; kept for max_age_s seconds, at most 30. Its age counts from when we asked.

        Raises: InvalidIdentity, before anything is asked.
        """
        identity.decode(owner)
        kept = self._balances.get(owner)
        if kept and (age_s := self._wire.clock.monotonic() - kept[1]) < min(max_age_s, BALANCE_AGE_MAX_S):
            return replace(kept[0], age_s=age_s)
        believed = max(kept[0].valid_for_tick if kept else 0, self._head.highest - BALANCE_LAG_MAX)
        guard = TickGuard(alone=self._alone, highest=believed)
        asked_at = self._wire.clock.monotonic()
        question = Question("GET", f"/live/v1/balances/{owner}")
        found = await self._ask(question, lambda answer: answers.balance(answer, owner), guard, lambda balance: balance.valid_for_tick)
        self._keep(found, asked_at)
        return replace(found, age_s=self._wire.clock.monotonic() - asked_at)

    def _keep(self, found: Balance, asked_at: float) -> None:
        kept = self._balances.get(found.identity)
        if kept and kept[0].valid_for_tick > found.valid_for_tick:
            return  # another question, asked at the same time, was answered from a later tick
        self._balances[found.identity] = (found, asked_at)
        self._balances.move_to_end(found.identity)
        if len(self._balances) > BALANCES_KEPT_MAX:
            self._balances.popitem(last=False)

    async def broadcast(self, encoded: bytes) -> Broadcast:
        """Hand a signed transaction to one endpoint, or the next ones; the next call begins with another one.

        Returns: Accepted as soon as one has handed it on. Refused if every one that it reached refused it. Ambiguous if any one of them
            may have handed it on. None of them proves anything about the chain.
        Raises: InvalidTransaction for bytes that are none; RpcUnavailable if not a byte left us.
        """
        tx_id = Transaction.from_bytes(encoded).id
        question = Question("POST", "/live/v1/broadcast-transaction", {"encodedTransaction": base64.b64encode(encoded).decode()})
        refused, unclear = None, None
        first = self._broadcasts % len(self._endpoints)
        self._broadcasts += 1
        for endpoint in self._usable(self._endpoints[first:] + self._endpoints[:first]):
            try:
                peers = await self._wire.ask(endpoint, question, lambda answer: answers.broadcast_peers(answer, tx_id))
                return Accepted(tx_id, endpoint.base, peers)
            except NotSent:
                continue
            except RpcRefused as error:
                refused = refused or Refused(tx_id, endpoint.base, error.message)
            except (RpcUnavailable, TickNotYetProcessed, TickSkipped) as error:
                unclear = unclear or Ambiguous(tx_id, endpoint.base, error.message)
        if outcome := unclear or refused:
            return outcome
        raise RpcUnavailable("no endpoint can be reached to broadcast", next_step="broadcast the same bytes again")

    async def call_contract(self, contract: int, function: int, request: bytes = b"") -> bytes:
        """What a contract's function answers to `request`."""
        body = {
            "contractIndex": contract,
            "inputType": function,
            "inputSize": len(request),
            "requestData": base64.b64encode(request).decode(),
        }
        return await self._ask(Question("POST", "/live/v1/querySmartContract", body), answers.contract_answer)

    async def send_many_fee(self) -> int:
        """What QUTIL asks for a send-many now."""
        answer = await self.call_contract(_QUTIL, _GET_SEND_MANY_FEE)
        fee = int.from_bytes(answer[:8], "little", signed=True)
        if len(answer) < 8 or fee < 0:
            raise MalformedAnswer("a fee that is none")
        return fee

    async def last_processed(self) -> LastProcessed:
        """How far the archive has come; never less far than before."""
        question = Question("GET", "/query/v1/getLastProcessedTick")
        return await self._ask(question, answers.last_processed, self._archive, lambda processed: processed.tick)

    async def tick_intervals(self) -> tuple[TickInterval, ...]:
        """Which ticks the archive has; what lies between was skipped."""
        return await self._ask(Question("GET", "/query/v1/getProcessedTickIntervals"), answers.tick_intervals)

    async def transaction(self, tx_id: str) -> ArchivedTransaction | None:
        """A transaction of the archive; None, which means nothing before the archive has passed its tick, if it is not there."""
        question = Question("POST", "/query/v1/getTransactionByHash", {"hash": tx_id})
        try:
            return await self._ask(question, lambda answer: answers.transaction(answer, tx_id))
        except NotThere:
            return None

    async def transactions_of_tick(self, tick: int) -> tuple[ArchivedTransaction, ...]:
        """All transactions of a tick.

        Raises: TickNotYetProcessed, TickSkipped.
        """
        question = Question("POST", "/query/v1/getTransactionsForTick", {"tickNumber": tick}, tick)
        return await self._ask(question, lambda answer: answers.transactions_of_tick(answer, tick))

    async def tick_data(self, tick: int) -> TickData | None:
        """What was signed for a tick; None for an empty one.

        Raises: TickNotYetProcessed, TickSkipped.
        """
        question = Question("POST", "/query/v1/getTickData", {"tickNumber": tick}, tick)
        try:
            return await self._ask(question, lambda answer: answers.tick_data(answer, tick))
        except NotThere:
            return None

    async def transfers(self, tx_id: str) -> Transfers:
        """The QU transfers that a transaction caused, by the event logs: the second proof."""
        filters = {"transactionHash": tx_id, "logType": "0"}
        question = Question("POST", "/query/v1/getEventLogs", {"filters": filters, "pagination": {"offset": 0, "size": EVENTS_MAX}})
        return await self._ask(question, lambda answer: answers.transfers(answer, tx_id))

    async def _ask(
        self,
        question: Question,
        parse: Callable[[object], T],
        guard: TickGuard | None = None,
        tick_of: Callable[[T], int] = lambda _: 0,
    ) -> T:
        trouble: RpcUnavailable | None = None
        for number in range(self._wire.limits.rounds_max):
            if number:
                await self._pause(number)
            ahead: list[T] = []
            behind = False
            for endpoint in self._usable(self._endpoints):
                try:
                    found = await self._one(endpoint, question, parse)
                    standing = guard.judge(endpoint.base, tick_of(found)) if guard else Standing.GOOD
                    if standing is Standing.GOOD:
                        return found
                    if standing is Standing.OLDER:
                        raise _Behind(f"{endpoint.base} answers from an older tick than before", next_step="ask again later")
                    ahead.append(found)
                except RpcUnavailable as error:
                    trouble = error
                    behind |= isinstance(error, _Behind)
            if guard and ahead and self._alone:
                trouble = RpcUnavailable("the endpoint names a tick far ahead, and has to say so again", next_step="ask again")
            elif guard and ahead and not behind:
                # Nobody contradicts: the others do not answer, or are ahead too, and further.
                nearest = min(ahead, key=tick_of)
                guard.believe(tick_of(nearest))
                return nearest
        raise trouble or self._left_alone()

    async def _one(self, endpoint: Endpoint, question: Question, parse: Callable[[object], T]) -> T:
        try:
            return await self._wire.ask(endpoint, question, parse)
        except TickNotYetProcessed as error:
            if question.tick <= self._archive.highest:
                raise _Behind(f"{endpoint.base} has forgotten tick {question.tick}", next_step="ask again later") from error
            raise

    def _usable(self, endpoints: Sequence[Endpoint]) -> Iterator[Endpoint]:
        return (endpoint for endpoint in endpoints if not endpoint.wait_s)

    async def _pause(self, number: int) -> None:
        wait_s = min(endpoint.wait_s for endpoint in self._endpoints)
        if wait_s > self._wire.limits.backoff_max_s:
            raise self._left_alone()
        await self._wire.pause(number, wait_s)

    def _left_alone(self) -> RpcUnavailable:
        wait_s = min(endpoint.wait_s for endpoint in self._endpoints)
        return RpcUnavailable("every endpoint is to be left alone for now", next_step="ask again later", retry_after_s=round(wait_s, 1))

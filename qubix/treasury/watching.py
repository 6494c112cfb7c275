"""The treasury's eyes: where the chain is, what came in, and when it counts (rules D1 to D5).

Every tick is read once, in order; its credits and the cursor's move are one transaction. What cannot be credited yet is written down in that
same transaction and judged again later, so that nothing holds the cursor but a tick that cannot be read.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from qubix import observability
from qubix.chains.qubic.answers import ArchivedTransaction
from qubix.chains.qubic.errors import RpcUnavailable, TickNotYetProcessed, TickSkipped
from qubix.kernel.clock import Clock
from qubix.kernel.errors import Conflict
from qubix.kernel.failpoints import reach
from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import Code
from qubix.treasury import sending
from qubix.treasury.books import Books, OpenBooks
from qubix.treasury.halting import stop_for_person
from qubix.treasury.receiving import Credit, Doubt, Doubtful, NotYet, Payment, Shown, Wait, next_scan, payments_in, proved
from qubix.treasury.sending import CONFIRMATIONS, EpochWatch
from qubix.treasury.store import Deposit
from qubix.treasury.watch_store import ChainState, Change, Noted, Open
from qubix.treasury.witnesses import Evidence, Found, Gone, Jump, Key, Read, Reading, Witnesses, findings, written_down

TICKS_AT_ONCE: Final = 16
"""Ticks that are read at the same time; what concerns nobody here is dropped as soon as it is read."""
SCAN_TICKS_MAX: Final = 256
"""Ticks in one transaction when there is much to catch up with."""
SCAN_S: Final = 3.0
"""How long ticks are read for one transaction: who sends and decides goes by the head and the archive, which are looked at in between."""
PEEK_TICKS_MAX: Final = 16
REJUDGE_MAX: Final = 50
ADDRESS_OVERLAP: Final = dt.timedelta(minutes=10)
"""No transaction that makes addresses takes longer from its first clock reading to its commit."""
TICKS_PER_S_MAX: Final = 10
"""Faster than ticks ever come: how far back an address of a certain age can have been paid."""
TICK_WINDOW_S: Final = 60.0
TICK_MIN_S, TICK_MAX_S = 0.05, 60.0

log = observability.logger("treasury")


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long until something is asked again. Args: waiting, a payment without its second proof; doubtful, one that a person is shown."""

    waiting_s: float = 4.0
    doubtful_s: float = 20.0


@dataclass(slots=True)
class _Batch:
    """What one transaction writes down."""

    noted: list[Noted] = field(default_factory=list)
    credits: list[tuple[Credit, Mapping[str, object]]] = field(default_factory=list)
    gone: list[Key] = field(default_factory=list)
    strangers: list[ArchivedTransaction] = field(default_factory=list)


class Watcher:
    """Watches the chain for payments to us.

    Args: witnesses, the endpoints; books, begins a transaction; pauses, between two questions about the same payment.
    """

    def __init__(self, witnesses: Witnesses, books: OpenBooks, *, clock: Clock, pauses: Pauses | None = None) -> None:
        self.witnesses = witnesses
        self._books = books
        self._clock = clock
        self._pauses = pauses or Pauses()
        self._ours: dict[str, str] = {}
        self._ours_at: dt.datetime | None = None
        self._heads: deque[tuple[float, int]] = deque()
        self._looked = False
        self._asked: dict[Key, float] = {}
        self._waited_until = -math.inf
        self.doubt = ""
        """Why the cursor does not move; empty while it does."""

    def expect(self, for_s: float) -> None:
        """Somebody waits for a payment: look ahead of the cursor for so long."""
        self._waited_until = max(self._waited_until, self._clock.monotonic() + for_s)

    # -- where the chain is --

    async def look(self) -> ChainState:
        """Ask where the network and its archive are, and write it down. Raises: RpcUnavailable."""
        head, processed = await self.witnesses.look()
        now = self._clock.now()
        async with self._books() as books:
            before = await books.rows.state()
            if before is None:
                await books.rows.begin(await self._first_cursor(books, processed.tick))
            seen = EpochWatch(before.epoch, before.epoch_advanced_at) if before and before.epoch else None
            epoch = sending.watch(seen, processed, now)
            advanced = before is None or processed.tick > before.processed
            state = ChainState(
                0,
                0,
                head.tick,
                processed.tick,
                self._tick_s(head.tick, before.tick_s if before else float(max(1, head.duration_s))),
                epoch.epoch,
                epoch.advanced_at,
                now if advanced or before is None else before.advanced_at,
            )
            if not self._looked:
                await books.rows.await_restored(head.tick + sending.LEAD)
                self._looked = True
            return await books.rows.look(state)

    async def _first_cursor(self, books: Books, processed: int) -> int:
        """Where to begin: nothing of ours is older than our oldest address."""
        age_s = await books.rows.first_address_s()
        back = 0 if age_s is None else math.ceil(age_s * TICKS_PER_S_MAX)
        cursor = max(0, processed - CONFIRMATIONS - back)
        log.info("the first look at the chain", cursor=cursor, processed=processed)
        return cursor

    def _tick_s(self, head: int, before: float) -> float:
        """How long a tick takes, by the head's advance over the last minute."""
        now = self._clock.monotonic()
        if self._heads and not 0 <= head - self._heads[-1][1] <= TICK_WINDOW_S * TICKS_PER_S_MAX:
            self._heads.clear()  # ticks were skipped
        self._heads.append((now, head))
        while now - self._heads[0][0] > TICK_WINDOW_S:
            self._heads.popleft()
        first_at, first = self._heads[0]
        if head == first or now - first_at < 1:
            return before
        return min(max((now - first_at) / (head - first), TICK_MIN_S), TICK_MAX_S)

    # -- what came in --

    async def scan(self) -> int:
        """Read the ticks that are final since the cursor, credit what is proved, and move the cursor. Returns how many ticks were done.

        Raises: RpcUnavailable when not even the first of them can be read.
        """
        async with self._books() as books:
            state = await books.rows.state()
            if state is None:
                return 0
            # Read after the archive's last tick was: an address that it is paid at in these ticks is among them.
            await self._load_ours(books)
        if isinstance(next_scan(state.cursor, state.processed), Wait):
            return 0
        last = min(state.processed - CONFIRMATIONS, state.cursor + SCAN_TICKS_MAX)
        reads, cursor = await self._read(state, last)
        if cursor == state.cursor:
            return 0
        batch = await self._judge(reads)
        async with self._books() as books:
            changes = await self._write(books, batch)
            changes += await books.rows.vanished(cursor, "the archive does not show it any more")
            if not await books.rows.move_cursor(state.cursor, cursor):
                raise Conflict("the cursor was moved by somebody else")
            books.tell_changes(changes)
            reach("treasury.before_credit")
        reach("treasury.credited")
        self._log(batch)
        return cursor - state.cursor

    async def _load_ours(self, books: Books) -> None:
        since = self._ours_at - ADDRESS_OVERLAP if self._ours_at else None
        for identity, purpose, made_at in await books.rows.addresses(since):
            self._ours[identity] = purpose
            self._ours_at = max(made_at, self._ours_at or made_at)

    async def _read(self, state: ChainState, last: int) -> tuple[list[Read], int]:
        """The ticks from the cursor to `last`, as far as they can be read one after the other, and the cursor after them."""
        reads: list[Read] = []
        cursor = state.cursor
        began = self._clock.monotonic()
        while cursor < last and (cursor == state.cursor or self._clock.monotonic() - began < SCAN_S):
            ticks = range(cursor + 1, min(cursor + TICKS_AT_ONCE, last) + 1)
            answers = await asyncio.gather(
                *(self.witnesses.read(tick, state.processed, self._ours) for tick in ticks), return_exceptions=True
            )
            for tick, answer in zip(ticks, answers, strict=True):
                if not isinstance(answer, Read):
                    if not isinstance(answer, Jump):
                        return self._stopped(state, reads, cursor, tick, answer)
                    cursor = answer.cursor  # what was read beyond it was skipped too
                    break
                cursor = tick
                if any(answer.lists.values()):
                    reads.append(answer)
        self.doubt = ""
        return reads, cursor

    def _stopped(
        self, state: ChainState, reads: list[Read], cursor: int, tick: int, why: Reading | BaseException
    ) -> tuple[list[Read], int]:
        """A tick could not be read: what came before it still counts."""
        if isinstance(why, Doubt):
            if self.doubt != why.reason:
                log.warning("the scan waits: what was said does not fit together", tick=tick, reason=why.reason)
            self.doubt = why.reason
        elif isinstance(why, RpcUnavailable | TickNotYetProcessed):
            if cursor == state.cursor and isinstance(why, RpcUnavailable):
                raise why
        elif isinstance(why, BaseException):
            raise why
        return reads, cursor

    async def _judge(self, reads: Sequence[Read]) -> _Batch:
        """What every witness proves of the payments in these ticks. The reads hold nothing that does not concern us."""
        batch = _Batch()
        if not reads:
            return batch
        shown = [read.transactions() for read in reads]
        from_us = [one for listed in shown for one in listed.values() if one.source in self._ours]
        incoming = [(read, listed) for read, listed in zip(reads, shown, strict=True) if self._paid_to_us(listed)]
        if not incoming and not from_us:
            return batch
        async with self._books() as books:
            known = await books.rows.signed_by_us([one.id for one in from_us])
            addresses = {payment.address for _, listed in incoming for payment in self._paid_to_us(listed)}
            credited = await books.rows.credited(addresses)
        # What one of several witnesses shows alone and nobody signed, it has made up: payouts do not stop for that.
        agreed = {tx_id for read in reads for tx_id in read.agreed()}
        batch.strangers = [one for one in from_us if one.id not in known and (one.id in agreed or one.is_signed())]
        for start in range(0, len(incoming), TICKS_AT_ONCE):
            some = incoming[start : start + TICKS_AT_ONCE]
            evidence = await asyncio.gather(*(self._evidence(read) for read, _ in some))
            for (_, listed), found in zip(some, evidence, strict=True):
                self._take(batch, findings(found, credited), listed, credited)
        return batch

    def _paid_to_us(self, listed: Mapping[str, ArchivedTransaction]) -> tuple[Payment, ...]:
        return payments_in([one for one in listed.values() if one.source not in self._ours], self._ours)

    async def _evidence(self, read: Read) -> dict[str, Evidence]:
        """The tick's evidence; without its second proofs where no endpoint gives them, so that the payments wait for these."""
        try:
            return await self.witnesses.evidence(read, self._ours)
        except RpcUnavailable as error:
            log.warning("no second proof for now", tick=read.tick, error=error.message)
            return self.witnesses.bare(read, self._ours)

    def _take(self, batch: _Batch, found: Sequence[Found], listed: Mapping[str, ArchivedTransaction], credited: dict[str, int]) -> None:
        for one in found:
            payment = one.payment
            if isinstance(one, Gone):
                batch.gone.append(payment.key)
                continue
            raw = written_down(listed[payment.tx_id])
            if isinstance(one, Credit):
                batch.credits.append((one, raw))
                credited[payment.address] = credited.get(payment.address, 0) + payment.amount
            elif isinstance(one, Doubtful):
                batch.noted.append(Noted(payment, "DOUBTFUL", _proved(payment), _with_twin(payment, one.reason), raw))
            elif isinstance(one, NotYet):
                reason = _with_twin(payment, "the second proof is not there yet")
                batch.noted.append(Noted(payment, "WAITING", _proved(payment), reason, raw))

    async def _write(self, books: Books, batch: _Batch) -> list[Change]:
        """Credit what is proved, by one act, and write down all that was found."""
        noted = list(batch.noted)
        codes = await books.acts.deposit([_deposit(credit) for credit, _ in batch.credits]) if batch.credits else []
        for (credit, raw), code in zip(batch.credits, codes, strict=True):
            payment = credit.payment
            if code in (Code.DONE, Code.DONE_ALREADY):
                noted.append(Noted(payment, "CREDITED", CONFIRMATIONS, _with_twin(payment, credit.proof), raw))
            else:
                noted.append(Noted(payment, "DOUBTFUL", _proved(payment), f"the ledger refused it: {code.name.lower()}", raw))
        if any(code is Code.DONE for code in codes):
            books.wake("jobs")
        for stranger in batch.strangers:
            log.error(
                "chain transaction", tx=stranger.id, tick=stranger.tick, kind="stranger", amount=stranger.amount, address=stranger.source
            )
            await books.rows.stranger(stranger)
            await stop_for_person(
                books.rows, "S5", f"transaction {stranger.id} of our address {stranger.source} was not signed here", tick=stranger.tick
            )
        return await books.rows.note(noted) + await books.rows.gone(batch.gone, "by no account did money move")

    def _log(self, batch: _Batch) -> None:
        for credit, _ in batch.credits:
            _tell(credit.payment, "credited", credit.proof)
        for noted in batch.noted:
            _tell(noted.payment, noted.state.lower(), noted.reason)

    # -- again, and ahead --

    async def rejudge(self) -> int:
        """Judge again what waits for its second proof, or is doubtful and may have become clear. Returns how many were credited."""
        now = self._clock.monotonic()
        async with self._books() as books:
            state = await books.rows.state()
            waiting = await books.rows.open_incoming(state.cursor, 10 * REJUDGE_MAX) if state else []
        open_keys = {(one.tx_id, one.place) for one in waiting}
        self._asked = {key: at for key, at in self._asked.items() if key in open_keys}
        due = sorted((one for one in waiting if self._is_due(one, now)), key=lambda one: self._asked.get((one.tx_id, one.place), -math.inf))
        due = due[:REJUDGE_MAX]
        if state is None or not due:
            return 0
        for one in due:
            self._asked[one.tx_id, one.place] = now
        keys = {(one.tx_id, one.place) for one in due}
        credits = 0
        for tick in sorted({one.tick for one in due}):
            credits += await self._judge_again(state, tick, keys)
        return credits

    async def read_again(self, tick: int) -> int:
        """Judge a tick that the cursor has passed once more, with all that it shows now. Returns how many payments were credited or known."""
        async with self._books() as books:
            state = await books.rows.state()
        return await self._judge_again(state, tick, None) if state and tick <= state.cursor else 0

    def _is_due(self, one: Open, now: float) -> bool:
        pause_s = self._pauses.waiting_s if one.state == "WAITING" else self._pauses.doubtful_s
        return now - self._asked.get((one.tx_id, one.place), -math.inf) >= pause_s

    async def _judge_again(self, state: ChainState, tick: int, keys: set[Key] | None) -> int:
        """Judge what a tick shows now. Args: keys, the payments that this is about; None: all of them."""
        read = await self.witnesses.read(tick, state.processed, self._ours)
        if not isinstance(read, Read):
            return 0
        found = await self._judge([read])
        batch = _Batch(
            [noted for noted in found.noted if keys is None or noted.payment.key in keys],
            [credit for credit in found.credits if keys is None or credit[0].payment.key in keys],
            [key for key in found.gone if keys is None or key in keys],
        )
        async with self._books() as books:
            books.tell_changes(await self._write(books, batch))
        for credit, _ in batch.credits:
            _tell(credit.payment, "credited", credit.proof)
        return len(batch.credits)

    async def peek(self) -> None:
        """While somebody waits, show what the archive has of payments that are not final yet. Raises: RpcUnavailable."""
        async with self._books() as books:
            state = await books.rows.state()
            if state is None:
                return
            books.tell_changes(await books.rows.count_confirmations(state.processed, CONFIRMATIONS - 1))
            waited = self._clock.monotonic() < self._waited_until or await books.rows.is_waited_for()
            await self._load_ours(books)
        first = max(state.peeked, state.cursor, state.processed - PEEK_TICKS_MAX) + 1
        for tick in range(first, state.processed + 1) if waited else ():
            try:
                listed = await self.witnesses.rpc.transactions_of_tick(tick)
            except (TickNotYetProcessed, TickSkipped):
                return
            seen = payments_in([one for one in listed if one.source not in self._ours], self._ours)
            raws = {one.id: written_down(one) for one in listed if seen}
            noted = [
                Noted(payment, "SEEN", _early(payment, state.processed), "", raws[payment.tx_id]) for payment in seen if payment.genuine
            ]
            async with self._books() as books:
                books.tell_changes(await books.rows.note(noted))
                await books.rows.peeked(tick)
            for one in noted:
                _tell(one.payment, "seen", "")


def _proved(payment: Payment) -> int:
    """The confirmations of a payment that is final, and lacks its second proof."""
    return CONFIRMATIONS - 1 if payment.money_flew else 0


def _early(payment: Payment, processed: int) -> int:
    return proved(Shown(processed, payment.tick, found=True, flown=bool(payment.money_flew), second_proof=False))


def _with_twin(payment: Payment, reason: str) -> str:
    return f"{reason}; the same payment is in its tick under another id too ({payment.twin})" if payment.twin else reason


def _deposit(credit: Credit) -> Deposit:
    payment = credit.payment
    return Deposit(
        payment.tx_id, payment.place, Asset.QUBIC, Qu(payment.amount), payment.address, payment.tick, credit.proof, payment.payer
    )


def _tell(payment: Payment, state: str, proof: str) -> None:
    log.info(
        "chain transaction",
        tx=payment.tx_id,
        tick=payment.tick,
        kind="deposit",
        amount=payment.amount,
        address=payment.address,
        state=state,
        proof=proof,
    )

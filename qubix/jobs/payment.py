"""Jobs that wait for a payment on the chain: what is asked for, what has come, and what to do next. Pure.

The money always enters the wallet first, and a waiting job is funded from there once the wallet holds its ceiling: so a payment can be short,
too much or late, and nothing of it is lost.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from qubix.kernel.money import Qu
from qubix.treasury.arrivals import Arrival, ArrivalState
from qubix.treasury.sending import CONFIRMATIONS

WAITING_MAX: Final = 3
"""Jobs of one account that may wait for their payment at once: each holds devices that nobody has paid for."""
SEEN_QUOTE_S: Final = 300
"""How long a quote lives, once, from the moment when its payment is first seen on the chain."""
NOTHING: Final = Qu(0)
_MEMO: Final = "qubix:job:"
_LIVE: Final = frozenset({ArrivalState.SEEN, ArrivalState.WAITING, ArrivalState.CREDITED})


def memo_of(job_id: UUID) -> str:
    """What names the job in a payment, for wallets that can write it."""
    return f"{_MEMO}{job_id}"


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """What a waiting job's owner is shown.

    Args: received, of what came for it, in the wallet; missing, neither in the wallet nor on its way; confirmations, what is proved of
        the whole amount that was asked for, 0 to 3; tx_ids, of the payments that count for it.
    """

    received: Qu = NOTHING
    missing: Qu = NOTHING
    confirmations: int = 0
    tx_ids: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A payment that a job asks for, and what its owner was told of it.

    Args: ceiling, what the escrow will hold; amount, what was missing in the wallet when it was asked for; expires_at, when its quote
        runs out; extended, the quote got its one extension; paid_at, when the escrow was funded; cancelling, its owner wants no more.
    """

    job_id: UUID
    owner_id: UUID
    quote_id: UUID | None
    address: str
    ceiling: Qu
    amount: Qu
    asked_at: dt.datetime
    expires_at: dt.datetime | None
    extended: bool
    shown: Shown
    paid_at: dt.datetime | None = None
    cancelling: bool = False

    @property
    def memo(self) -> str:
        """See `memo_of`."""
        return memo_of(self.job_id)


class Next(enum.StrEnum):
    """What to do with a waiting job. LATE: its quote is over, the sweeper ends it; a payment stays in the wallet."""

    FUND = "fund"
    EXTEND = "extend"
    TELL = "tell"
    WAIT = "wait"
    LATE = "late"


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """The next step of one waiting job, and what to show with it."""

    next: Next
    shown: Shown


def asked(ceiling: Qu, available: Qu, promised: int) -> Qu:
    """What to ask for. Args: available, in the wallet; promised, the ceilings of the wallet's jobs that wait already."""
    return Qu(max(1, ceiling - max(0, available - promised)))


def decide(
    requests: Sequence[Request],
    available: Qu,
    arrivals: Sequence[Arrival],
    now: dt.datetime,
    *,
    taken: Collection[str] = (),
) -> dict[UUID, Decision]:
    """The next step of each waiting job of one wallet.

    Funded is what the wallet can pay: a job whose own payment (by its memo) has come before others, then the oldest first; the sum of what
    is funded never exceeds what is available, so no two jobs are funded from the same money.
    Args: requests, of one wallet; arrivals, the payments to its address, in the order in which they were first seen; taken, the
        transactions that funded other jobs.
    """
    shares = allot(requests, arrivals, taken=taken)
    left = available
    coming = available + sum(
        arrival.amount for arrival in arrivals if arrival.state in _LIVE and arrival.state is not ArrivalState.CREDITED
    )
    decisions: dict[UUID, Decision] = {}
    for request in in_order(requests, arrivals):
        over = request.cancelling or request.expires_at is None or request.expires_at <= now
        share = shares[request.job_id]
        if over:
            decisions[request.job_id] = Decision(Next.LATE, request.shown)
            continue
        if left >= request.ceiling:
            left = Qu(left - request.ceiling)
            coming -= request.ceiling
            credited = [arrival for arrival in share if arrival.state is ArrivalState.CREDITED]
            decisions[request.job_id] = Decision(Next.FUND, shown(request, credited, NOTHING))
            continue
        seen = shown(request, share, Qu(max(0, request.ceiling - coming)))
        coming = max(0, coming - request.ceiling)
        if share and not request.extended:
            decisions[request.job_id] = Decision(Next.EXTEND, seen)
        else:
            decisions[request.job_id] = Decision(Next.WAIT if seen == request.shown else Next.TELL, seen)
    return decisions


def in_order(requests: Sequence[Request], arrivals: Sequence[Arrival]) -> list[Request]:
    """The order in which a wallet's money goes to its waiting jobs."""
    named = {arrival.memo for arrival in arrivals if arrival.state is ArrivalState.CREDITED}
    return sorted(requests, key=lambda request: (request.memo.encode() not in named, request.asked_at, request.job_id))


def allot(requests: Sequence[Request], arrivals: Sequence[Arrival], *, taken: Collection[str] = ()) -> dict[UUID, list[Arrival]]:
    """Which payments count for which job: one with a job's memo for that job; any other for the oldest job whose amount is not covered yet.

    What no job needs is nobody's: it simply is in the wallet.
    """
    oldest = sorted(requests, key=lambda request: (request.asked_at, request.job_id))
    by_memo = {request.memo.encode(): request for request in oldest}
    shares: dict[UUID, list[Arrival]] = {request.job_id: [] for request in oldest}
    for arrival in arrivals:
        if arrival.state not in _LIVE or arrival.tx_id in taken:
            continue
        candidates = [by_memo[arrival.memo]] if arrival.memo in by_memo else oldest
        for request in candidates:
            share = shares[request.job_id]
            named = arrival.memo == request.memo.encode()
            covered = sum(other.amount for other in share) >= request.amount
            if arrival.seen_at >= request.asked_at and (named or not covered):
                share.append(arrival)
                break
    return shares


def shown(request: Request, share: Sequence[Arrival], missing: Qu) -> Shown:
    """What to show of a job with these payments. The count never falls, and never exceeds what was once proved of the whole amount."""
    received = sum(arrival.amount for arrival in share if arrival.state is ArrivalState.CREDITED)
    return Shown(
        received=Qu(received),
        missing=missing,
        confirmations=max(request.shown.confirmations, proved(share, request.amount)),
        tx_ids=tuple(dict.fromkeys(arrival.tx_id for arrival in share)),
    )


def proved(share: Sequence[Arrival], amount: Qu) -> int:
    """What is proved of the whole amount: the most confirmations that payments which cover it together have."""
    for count in range(CONFIRMATIONS, 0, -1):
        if sum(arrival.amount for arrival in share if arrival.proved >= count) >= amount:
            return count
    return 0

"""Jobs that are paid on the chain: a payment is asked for, followed until it is proved, and the escrow funded from the wallet. Orchestration."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

from qubix.jobs import news
from qubix.jobs.model import Job, JobState, JobStep, TooManyUnpaid, job_after
from qubix.jobs.payment import SEEN_QUOTE_S, WAITING_MAX, Decision, Next, Request, asked, decide
from qubix.kernel.errors import Unpaid
from qubix.kernel.events import Event
from qubix.kernel.money import Qu
from qubix.treasury.arrivals import Arrival, Arrivals, awaited_tick, is_held_up
from qubix.treasury.model import NotReconciled

if TYPE_CHECKING:
    from qubix.escrow.service import EscrowService
    from qubix.jobs.funding_store import FundingStore
    from qubix.jobs.store import JobStore
    from qubix.market.model import Quote

BATCH_MAX: Final = 200
"""Accounts with waiting jobs that one look covers."""


class Treasury(Protocol):
    """What is asked of chain money (qubix.treasury.service.TreasuryService)."""

    async def deposit_address(self, user: UUID) -> str: ...
    async def outlook(self) -> Outlook: ...


class Outlook(Protocol):
    """How the chain stands (qubix.treasury.model.Outlook)."""

    @property
    def delayed(self) -> bool: ...
    def wait_s(self, tick: int | None) -> int | None: ...


class Wallets(Protocol):
    """What a wallet can spend (qubix.ledger.service.LedgerService)."""

    async def available(self, user: UUID) -> Qu: ...


class Quotes(Protocol):
    """What keeps a quote's devices (qubix.market.service.MarketService)."""

    async def keep_quote(self, quote_id: UUID, *, ttl_s: float) -> bool: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Payment:
    """A payment request as its owner sees it. Args: expected_wait_s, until all that is on its way counts, or a payment made now; None: not known."""

    request: Request
    arrivals: tuple[Arrival, ...]
    expected_wait_s: int | None
    delayed: bool


class FundingService:
    """Payments for jobs, in one transaction; one money act per transaction.

    Args: store, jobs, arrivals over the transaction's connection; treasury, wallets, quotes, escrow, in the same transaction; tell, adds an
        event to its outbox; wake, after the commit; now, the process's clock; quote_s, how long a quote waits for its payment.
    """

    def __init__(
        self,
        store: FundingStore,
        jobs: JobStore,
        arrivals: Arrivals,
        *,
        treasury: Treasury,
        wallets: Wallets,
        quotes: Quotes,
        escrow: EscrowService,
        tell: Callable[[Event], None],
        wake: Callable[[str, str], None],
        now: Callable[[], dt.datetime],
        quote_s: int,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._arrivals = arrivals
        self._treasury = treasury
        self._wallets = wallets
        self._quotes = quotes
        self._escrow = escrow
        self._tell = tell
        self._wake = wake
        self._now = now
        self._quote_s = quote_s

    async def open(self, user_id: UUID) -> str:
        """Whether the account may have one more job wait for its payment. Call it first: it makes the account's requests queue.

        Returns: the deposit address. Raises: WrongNetwork on network none; Unavailable without a free address; TooManyUnpaid.
        """
        address = await self._treasury.deposit_address(user_id)
        waiting, _ = await self._store.promised(user_id)
        if waiting >= WAITING_MAX:
            raise TooManyUnpaid(
                f"{waiting} jobs of this account wait for their payment already",
                next_step="pay or cancel one of them: qubix jobs",
                waiting_max=WAITING_MAX,
            )
        return address

    async def covers(self, user_id: UUID, ceiling: Qu) -> bool:
        """Whether the wallet holds the ceiling already, so that no payment is needed."""
        return await self._wallets.available(user_id) >= ceiling

    async def ask(self, job_id: UUID, user_id: UUID, ceiling: Qu, quote: Quote | None, address: str) -> Job:
        """Let a job that was just inserted as AWAITING_FUNDS wait for a payment of what its wallet lacks.

        The quote keeps its devices for as long as the request lives: a payment needs 20 to 30 s at the least, and a person before it.
        """
        _, others = await self._store.promised(user_id)
        amount = asked(ceiling, await self._wallets.available(user_id), others - ceiling)
        await self._escrow.open_pending(job_id, user_id)
        if quote is not None:
            await self._quotes.keep_quote(quote.id, ttl_s=self._quote_s)
        await self._store.insert(job_id, address, amount)
        self._wake("deposits", "")  # the treasury looks ahead of what is final while somebody waits
        return await self._store.wait(job_id, ttl_s=self._quote_s)

    async def request(self, owner_id: UUID, job_id: UUID) -> Request | None:
        """What the owner's job asked for, and what was shown of it last; None where no payment was asked for."""
        return await self._store.get(job_id, owner_id)

    async def payment(self, owner_id: UUID, job_id: UUID) -> Payment | None:
        """The request of the owner's job, with what came for it, late payments that name the job included; None where none was made."""
        request = await self._store.get(job_id, owner_id)
        if request is None:
            return None
        arrivals = await self._arrivals.of(request.address, request.shown.tx_ids, request.memo.encode())
        if request.paid_at is not None:
            return Payment(request, tuple(arrivals), None, False)
        outlook = await self._treasury.outlook()
        delayed = outlook.delayed or is_held_up(arrivals, self._now())
        return Payment(request, tuple(arrivals), outlook.wait_s(awaited_tick(arrivals)), delayed)

    async def tx_ids(self, owner_id: UUID, job_id: UUID) -> tuple[str, ...]:
        """The transactions that funded the owner's job; none for a job that its wallet paid, or that was not funded."""
        request = await self._store.get(job_id, owner_id)
        return () if request is None or request.paid_at is None else request.shown.tx_ids

    async def due(self, *, after: UUID | None = None, most: int = BATCH_MAX) -> tuple[list[UUID], UUID | None]:
        """Waiting jobs for which there is something to do; `look` judges each again under its lock.

        Returns: them, and where the next page begins (None: this was the last).
        """
        owners = await self._store.owners(after=after, most=most)
        decided = await self._decide(owners)
        due = [request.job_id for request, decision in decided if decision.next not in (Next.WAIT, Next.LATE)]
        return due, owners[-1] if len(owners) == most else None

    async def look(self, job_id: UUID) -> bool:
        """Do for one waiting job what is due: fund it, extend its quote once, or tell what has come. Returns whether it was funded now."""
        owner_id = await self._store.lock(job_id)
        if owner_id is None:
            return False
        found = next((pair for pair in await self._decide([owner_id]) if pair[0].job_id == job_id), None)
        if found is None:
            return False
        request, decision = found
        match decision.next:
            case Next.FUND:
                return await self._fund(request, decision)
            case Next.EXTEND:
                await self._extend(request)
                await self._show(request, decision, extended=True)
            case Next.TELL:
                await self._show(request, decision)
        return False

    async def _decide(self, owners: Sequence[UUID]) -> list[tuple[Request, Decision]]:
        desk = await self._store.desk(owners)
        since: dict[str, dt.datetime] = {}
        for request in desk.requests:
            since[request.address] = min(request.asked_at, since.get(request.address, request.asked_at))
        arrivals = await self._arrivals.since(since)
        decided = []
        for owner in owners:
            own = [request for request in desk.requests if request.owner_id == owner]
            came = [arrival for arrival in arrivals if own and arrival.address == own[0].address]
            decisions = decide(own, desk.available.get(owner, Qu(0)), came, desk.now, taken=desk.taken)
            decided += [(request, decisions[request.job_id]) for request in own]
        return decided

    async def _fund(self, request: Request, decision: Decision) -> bool:
        try:
            await self._escrow.open_and_fund(request.job_id, request.owner_id, request.ceiling)
        except (Unpaid, NotReconciled):
            # It was spent since the look, or may have been before a restore: the next look decides what comes next.
            return False
        job_after(JobState.AWAITING_FUNDS, JobStep.FUND)
        await self._store.show(request.job_id, decision.shown, extended=False, paid=True)
        job = await self._jobs.make_pending(request.job_id)
        self._tell(news.status_changed(job.id, job.state, tx_ids=list(decision.shown.tx_ids), unplaceable=job.unplaceable))
        self._wake("jobs", "")
        return True

    async def _extend(self, request: Request) -> None:
        if request.quote_id is None or await self._quotes.keep_quote(request.quote_id, ttl_s=SEEN_QUOTE_S):
            await self._store.extend(request.job_id, ttl_s=SEEN_QUOTE_S)

    async def _show(self, request: Request, decision: Decision, *, extended: bool = False) -> None:
        await self._store.show(request.job_id, decision.shown, extended=extended, paid=False)
        self._tell(news.payment_came(request, decision.shown))

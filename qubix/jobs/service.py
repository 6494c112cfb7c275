"""Jobs for their owner: asking for one, watching it, cancelling it. What runs them is qubix.scheduling."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

from qubix.jobs import news, reading
from qubix.jobs.blobs import Blob
from qubix.jobs.model import (
    Artefact,
    Attempt,
    Input,
    Job,
    JobRequest,
    JobState,
    JobStep,
    LogLine,
    Pay,
    Receipt,
    TimelineEntry,
    WrongStep,
    job_after,
)
from qubix.kernel import money
from qubix.kernel.clock import Clock
from qubix.kernel.errors import Invalid, NotFound, Unavailable
from qubix.kernel.events import Event
from qubix.kernel.ids import UserId, new_id
from qubix.kernel.money import AMOUNT_MAX, Asset, Qu, written
from qubix.market.model import Needs, NothingMatches, Quote

if TYPE_CHECKING:
    from qubix.escrow.service import EscrowService
    from qubix.intake.model import Upload
    from qubix.jobs.catalogue import Catalogue, LibraryJob
    from qubix.jobs.funding import FundingService
    from qubix.jobs.store import JobStore
    from qubix.market.service import MarketService

PAGE_MAX: Final = 100
LOG_PAGE_MAX: Final = 1000
NAME_LENGTH_MAX: Final = 200
LIMIT_MS_MIN: Final = 1000


class Uploads(Protocol):
    """Where the inputs come from (qubix.intake.service.IntakeService)."""

    async def get(self, user_id: UserId, ids: Sequence[UUID]) -> list[Upload]: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The deployment's limits on jobs. Args: wait_s, for a match where the consumer names none."""

    attempts_max: int = 3
    wait_s: int = 600
    wait_max_s: int = 86_400
    duration_max_s: int = 7 * 86_400


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What a job may cost. Args: rate_max, units per hour for all GPUs; ceiling, what its escrow holds; why, it has no quote."""

    rate_max: Qu
    ceiling: Qu
    duration_max_s: int
    quote: Quote | None
    why: Mapping[str, Any] | None = None


class JobService:
    """Jobs in one transaction.

    Args: store, market, escrow, funding and uploads over the transaction's connection; catalogue, the library; tell, adds an event
        to its outbox; wake, after the commit; keep_blob, keeps stored bytes that a job will refer to; limits, the deployment's.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        clock: Clock,
        catalogue: Catalogue,
        market: MarketService,
        escrow: EscrowService,
        funding: FundingService,
        uploads: Uploads,
        keep_blob: Callable[[Blob], Awaitable[object]],
        tell: Callable[[Event], None],
        wake: Callable[[str, str], None],
        limits: Limits,
    ) -> None:
        self._store = store
        self._clock = clock
        self._catalogue = catalogue
        self._market = market
        self._escrow = escrow
        self._funding = funding
        self._uploads = uploads
        self._keep_blob = keep_blob
        self._tell = tell
        self._wake = wake
        self._limits = limits

    @property
    def catalogue(self) -> Catalogue:
        """The library's jobs."""
        return self._catalogue

    async def create(self, user_id: UserId, request: JobRequest) -> Job:
        """Make a job: its row, its inputs, a quote where an offer fits now, and the escrow, all or nothing.

        Returns: the job, PENDING and funded, with `unplaceable` where no offer fits now; or AWAITING_FUNDS, with a payment request, when
        it is to be paid on the chain and the wallet does not hold its ceiling already.
        Raises: Invalid with the field; NotFound for another's upload or quote; Unpaid with `missing`; OfferTaken or QuoteGone
        when the chosen offer is gone; as `FundingService.open` for a job to be paid on the chain. After any of them nothing was made.
        """
        library = self._catalogue.get(request.kind)
        self._check(request)
        address = await self._funding.open(user_id) if request.pay is Pay.CHAIN else None
        inputs = await self._inputs(user_id, library, request)
        params = library.read_params(request.params, [item.name for item in inputs])
        needs, limits = library.needs_with(request.needs)
        if request.price_max is not None:
            needs = dataclasses.replace(needs, price_max=request.price_max)
        terms = await self._terms(user_id, library, needs, request)
        job_id = new_id()
        state = job_after(JobState.DRAFT, JobStep.QUOTE) if terms.quote else JobState.DRAFT
        asks = address is not None and not await self._funding.covers(user_id, terms.ceiling)
        state = job_after(state, JobStep.AWAIT_FUNDS) if asks else state
        await self._store.insert(
            {
                "id": job_id,
                "owner_id": user_id,
                "name": request.name.strip()[:NAME_LENGTH_MAX] or request.kind,
                "kind": request.kind,
                "params": params,
                "needs": needs.as_json(),
                "limits": limits.model_dump(),
                "state": state.value,
                "attempts_max": self._limits.attempts_max,
                "rate_max": terms.rate_max,
                "ceiling": terms.ceiling,
                "duration_max_s": terms.duration_max_s,
                "asset": Asset.QUBIC.value,
                "quote_id": terms.quote.id if terms.quote else None,
                "offer_id": request.offer_id,
                "retry_own_failures": request.retry_own_failures,
                "wait_s": self._limits.wait_s if request.wait_s is None else request.wait_s,
            }
        )
        for item in sorted(inputs, key=lambda item: item.sha256):
            await self._keep_blob(Blob(item.sha256, item.size))
        await self._store.insert_inputs(job_id, inputs)
        if terms.why is not None:
            await self._store.tell_unplaceable(job_id, dict(terms.why))
        if asks and address is not None:
            job = await self._funding.ask(job_id, user_id, terms.ceiling, terms.quote, address)
        else:
            await self._escrow.open_and_fund(job_id, user_id, terms.ceiling)
            job_after(state, JobStep.FUND)
            job = await self._store.make_pending(job_id)
        self._tell(news.status_changed(job_id, job.state, unplaceable=job.unplaceable))
        self._wake("jobs", "")
        return job

    async def terms_while_waiting(self, request: JobRequest) -> Terms | None:
        """What `create` would lock for a job that nothing fits now; nothing is made.

        Returns: its terms; None where nobody offers a GPU and the request names no price. Raises: Invalid as `create`.
        """
        library = self._catalogue.get(request.kind)
        needs, _ = library.needs_with(request.needs)
        if request.price_max is not None:
            needs = dataclasses.replace(needs, price_max=request.price_max)
        duration_s = self._duration_s(library, request)
        rate = await self._rate_without_offer(needs, request, duration_s)
        return None if rate is None else self._priced(rate, duration_s, request, None)

    async def get(self, user_id: UUID, job_id: UUID) -> Job:
        """The owner's job. Raises: NotFound for anybody else's."""
        job = await self._store.get(job_id, user_id)
        if job is None:
            raise NotFound("you have no such job", next_step="list yours: qubix jobs")
        return job

    async def page(
        self, user_id: UUID, *, states: Sequence[JobState] | None = None, before: UUID | None = None, limit: int = 50
    ) -> list[Job]:
        """The owner's jobs, newest first, behind job `before`."""
        names = None if states is None else [state.value for state in states]
        return await self._store.page(user_id, states=names, before=before, most=min(max(limit, 1), PAGE_MAX))

    async def cancel(self, user_id: UUID, job_id: UUID) -> Job:
        """Ask for the job's end, at any stage. A repeat changes nothing.

        Its processes are gone within 5 s, the metered part is paid, the rest comes back; a success that comes first wins.
        Raises: NotFound; WrongStep when it has ended otherwise; Unavailable when it moved at this very moment (try again).
        """
        found = await self._store.lock_for_cancel(job_id, user_id)
        if found is None:
            raise NotFound("you have no such job", next_step="list yours: qubix jobs")
        job, locked_node, live_node = found
        if job.state is JobState.CANCELLED or (job.cancel_requested_at is not None and not job.state.final):
            return job
        if job.state.final:
            raise WrongStep(f"the job has ended already: {job.state}", next_step=f"see its receipt: qubix show {job_id}")
        if live_node != locked_node and live_node is not None:
            raise Unavailable("the job was being assigned at this moment", next_step="cancel again")
        await self._store.request_cancel(job_id, live_node)
        self._tell(news.status_changed(job_id, job.state, cancelling=True))
        if live_node is not None:
            self._wake("nodes", str(live_node))
        self._wake("jobs", "")
        return await self.get(user_id, job_id)

    async def attempts(self, user_id: UUID, job_id: UUID) -> list[Attempt]:
        """The job's attempts, in order. Raises: NotFound."""
        await self.get(user_id, job_id)
        return await self._store.attempts(job_id)

    async def inputs(self, user_id: UUID, job_id: UUID) -> list[Input]:
        """The job's inputs by name. Raises: NotFound."""
        await self.get(user_id, job_id)
        return await self._store.inputs(job_id)

    async def artefacts(self, user_id: UUID, job_id: UUID) -> list[Artefact]:
        """The job's results, the newest of each name. Raises: NotFound."""
        await self.get(user_id, job_id)
        return await self._store.artefacts(job_id)

    async def artefact(self, user_id: UUID, job_id: UUID, name: str) -> Artefact:
        """One result; its bytes are `blobs.open(sha256)`. Raises: NotFound."""
        for found in await self.artefacts(user_id, job_id):
            if found.name == name:
                return found
        raise NotFound(f"the job has no artefact {name!r}", next_step="list them: qubix artefacts")

    async def logs(self, user_id: UUID, job_id: UUID, *, after: int = 0, stream: str | None = None, limit: int = 200) -> list[LogLine]:
        """Log pieces behind position `after`, in order; the next page begins behind the last one's position. Raises: NotFound."""
        await self.get(user_id, job_id)
        return await self._store.logs(job_id, after=after, stream=stream, most=min(max(limit, 1), LOG_PAGE_MAX))

    async def timeline(self, user_id: UUID, job_id: UUID) -> list[TimelineEntry]:
        """What happened to the job, in order. Raises: NotFound."""
        job = await self.get(user_id, job_id)
        asked = await self._funding.request(user_id, job_id)
        return reading.timeline(job, await self._store.attempts(job_id), await self._store.checkpoints(job_id), asked)

    async def receipt(self, user_id: UUID, job_id: UUID) -> Receipt:
        """What the job cost; while it lives, what it has cost so far. Raises: NotFound."""
        job = await self.get(user_id, job_id)
        escrow, earnings = await self._escrow.get(job_id, user_id)
        made = reading.receipt(job, await self._store.attempts(job_id), escrow, earnings, now=self._clock.now())
        return dataclasses.replace(made, tx_ids=await self._funding.tx_ids(user_id, job_id))

    def _check(self, request: JobRequest) -> None:
        for name, value, most in (
            ("duration_max_s", request.duration_max_s, self._limits.duration_max_s),
            ("budget", request.budget, AMOUNT_MAX),
            ("price_max", request.price_max, AMOUNT_MAX),
        ):
            if value is not None and not 0 < value <= most:
                raise Invalid(f"{name} is {value}", next_step=f"give a number from 1 to {most}", field=name)
        if request.wait_s is not None and not 0 <= request.wait_s <= self._limits.wait_max_s:
            raise Invalid(f"wait_s is {request.wait_s}", next_step=f"give 0 to {self._limits.wait_max_s} seconds", field="wait_s")

    async def _inputs(self, user_id: UserId, library: LibraryJob, request: JobRequest) -> list[Input]:
        uploads = await self._uploads.get(user_id, [item.upload_id for item in request.inputs]) if request.inputs else []
        inputs = [Input(item.name, upload.sha256, upload.size) for item, upload in zip(request.inputs, uploads, strict=True)]
        library.check_inputs([(item.name, item.size) for item in inputs])
        return inputs

    async def _terms(self, user_id: UserId, library: LibraryJob, needs: Needs, request: JobRequest) -> Terms:
        duration_s = self._duration_s(library, request)
        if request.quote_id is not None:
            quote = await self._market.use_quote(request.quote_id, user_id)
            if quote.gpus != needs.gpus:
                raise Invalid(f"the quote is for {quote.gpus} GPUs", next_step=f"quote for {needs.gpus}", field="quote_id")
            named = request.duration_max_s or quote.duration_max_s
            return self._priced(quote.rate_max, named, request, quote, ceiling=quote.ceiling if request.budget is None else None)
        try:
            quote = await self._market.quote(
                user_id, needs, duration_max_s=duration_s, offer_id=request.offer_id, budget=request.budget, price_max=request.price_max
            )
        except NothingMatches as nothing:
            why = {
                "code": nothing.extra.get("reason", nothing.code),
                "message": nothing.message,
                "relaxation": nothing.extra.get("relaxation"),
            }
            rate = await self._rate_without_offer(needs, request, duration_s)
            if rate is None:
                raise Invalid(
                    "nothing is on offer yet, so the job has no price",
                    next_step="name the price per GPU-hour (price_max) or a budget",
                    field="price_max",
                ) from None
            return self._priced(rate, duration_s, request, None, why=why)
        quote = await self._market.use_quote(quote.id, user_id)
        return self._priced(quote.rate_max, duration_s, request, quote)

    def _duration_s(self, library: LibraryJob, request: JobRequest) -> int:
        return request.duration_max_s or min(library.duration_max_s, self._limits.duration_max_s)

    def _priced(
        self,
        rate_max: Qu,
        duration_s: int,
        request: JobRequest,
        quote: Quote | None,
        *,
        ceiling: Qu | None = None,
        why: Mapping[str, Any] | None = None,
    ) -> Terms:
        if request.budget is not None and request.duration_max_s is None:
            duration_s = max(1, min(request.budget * 3600 // rate_max, self._limits.duration_max_s))
        held = Qu(request.budget) if request.budget is not None else ceiling or money.ceiling(rate_max, duration_s)
        if money.limit_ms(held, rate_max) < LIMIT_MS_MIN:
            least = money.ceiling(rate_max, 1)
            raise Invalid(
                f"a budget of {written(held)} pays for less than a second at {written(rate_max)} an hour",
                next_step=f"give at least {written(least)}",
                field="budget",
            )
        return Terms(rate_max, held, duration_s, quote, why)

    async def _rate_without_offer(self, needs: Needs, request: JobRequest, duration_s: int) -> Qu | None:
        """The most per hour that a job may cost which nothing fits now: as told, or as the dearest offer of its kind, if any."""
        if needs.price_max is not None:
            return Qu(needs.price_max * needs.gpus)
        if request.budget is not None:
            return Qu(max(1, request.budget * 3600 // duration_s))
        groups = await self._market.models()
        wanted = {name.upper() for name in needs.gpu_models}
        fitting = [group for group in groups if group.key.upper() in wanted] or groups
        if not fitting:
            return None
        return Qu(max(group.price_max for group in fitting) * needs.gpus)

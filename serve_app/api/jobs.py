"""Jobs for their owner: the library, asking for one, watching it, its results."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any
from urllib.parse import quote as quoted
from uuid import UUID

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from qubix.bootstrap import Scope
from qubix.chains.qubic.explorer import Explorer
from qubix.identity.model import Principal
from qubix.identity.model import Scope as Grant
from qubix.jobs.catalogue import LibraryJob
from qubix.jobs.model import AttemptState, Fault, InputRequest, Job, JobRequest, JobState, Pay
from qubix.kernel.errors import NotFound
from qubix.kernel.money import Asset
from qubix.market.model import DURATION_MAX_S
from qubix.postgres import outbox
from serve_app.api.payments import PaymentView, payment_view
from serve_app.api.quotes import EstimateView, NeedsBody, Params, estimate_of, needs_of
from serve_app.api.shapes import FROM_TEXT, OPTIONAL_LOGIN, PROBLEMS, UNPAID, Body, Limit, Page, View
from serve_app.calls import DefaultCall, MoneyCall

router = APIRouter(prefix="/api/jobs", tags=["jobs"], responses=PROBLEMS)


class InputBody(Body):
    """An upload, and the name under which the job finds it in its working folder."""

    name: str = Field(min_length=1, max_length=200)
    upload_id: Annotated[UUID, FROM_TEXT]


class JobBody(Body):
    """A job to run. Its escrow holds `budget`, or the quote's ceiling, from this moment on.

    With `pay` = `chain`, from the moment when the wallet holds that much: at once, or after the payment that the answer asks for.
    """

    kind: str = Field(max_length=100, description="A job of the library; see /api/jobs/catalogue.")
    name: str = Field("", max_length=200)
    params: Params = Field(default={})
    needs: NeedsBody = NeedsBody()
    inputs: list[InputBody] = Field(default=[], max_length=100)
    quote_id: Annotated[UUID | None, FROM_TEXT] = None
    offer_id: Annotated[UUID | None, FROM_TEXT] = None
    duration_max_s: int | None = Field(None, gt=0, le=DURATION_MAX_S)
    budget: int | None = Field(None, gt=0, lt=1 << 63)
    price_max: int | None = Field(None, gt=0, lt=1 << 53, description="The most per GPU-hour, also for a retry elsewhere.")
    wait_s: int | None = Field(None, ge=0, le=86_400, description="How long to wait for a matching machine.")
    retry_own_failures: bool = False
    pay: Annotated[Pay, FROM_TEXT] = Pay.WALLET


class JobView(View):
    """A job. Amounts in whole units, progress 0 to 100; `unplaceable` says why it waits and what would help."""

    id: UUID
    name: str
    kind: str
    params: dict[str, str]
    needs: dict[str, Any]
    state: JobState
    attempts_max: int
    rate_max: int
    ceiling: int
    duration_max_s: int
    asset: str
    quote_id: UUID | None
    offer_id: UUID | None
    retry_own_failures: bool
    progress: float
    operation: str
    reason: str | None
    reason_detail: str | None
    unplaceable: dict[str, Any] | None
    wait_until: dt.datetime | None
    cancel_requested_at: dt.datetime | None
    created_at: dt.datetime
    pending_at: dt.datetime | None
    started_at: dt.datetime | None
    ended_at: dt.datetime | None


class AttemptView(View):
    """One try on one machine; `rate` is per hour for all its devices, `charge` is null until it is known."""

    id: UUID
    number: int
    node_id: UUID
    node_name: str
    provider_id: UUID
    offer_id: UUID
    rate: int
    limit_ms: int
    state: AttemptState
    device_uuids: list[str]
    created_at: dt.datetime
    accepted_at: dt.datetime | None
    running_at: dt.datetime | None
    reported_at: dt.datetime | None
    ended_at: dt.datetime | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    reason_detail: str | None
    fault: Fault | None
    metered_ms: int | None
    charge: int | None
    resumed_from: int | None
    restore_failed: bool
    progress: float


class ReceiptAttemptView(View):
    """An attempt's line of the receipt."""

    number: int
    node: str
    node_id: UUID
    status: AttemptState
    resumed_from: int | None
    metered_ms: int
    rate: int
    charge: int
    fault: Fault | None
    reason: str | None


class ReceiptView(View):
    """held = charged + refunded once it is final; before, `charged` is what it has cost so far.

    `tx_ids`: the payments on the chain that funded it; empty where the wallet did.
    """

    job_id: UUID
    final: bool
    held: int
    charged: int
    refunded: int | None
    fee: int
    escrow_state: str
    attempts: list[ReceiptAttemptView]
    tx_ids: list[str] = Field(default=[])


class InputView(View):
    """An input as stored."""

    name: str
    sha256: str
    size: int


class JobDetail(JobView):
    """A job with its attempts and its receipt; `payment` is what it waits or waited for on the chain, null where its wallet paid at once."""

    attempts: list[AttemptView]
    inputs: list[InputView]
    receipt: ReceiptView
    payment: PaymentView | None
    position: int


class NewJob(View):
    """The job and what it is expected to take and cost. `payment` is null for a job that is funded, from the wallet, also one to be paid on
    the chain whose ceiling the wallet holds already; else the job is AWAITING_FUNDS until that payment has come."""

    job: JobView
    estimate: EstimateView
    payment: PaymentView | None = None


class LogView(View):
    """A piece of a log; ask again with `after` = the last `position`."""

    position: int
    attempt_id: UUID
    attempt_number: int
    stream: str
    offset: int
    text: str
    node_at: dt.datetime
    created_at: dt.datetime


class Logs(View):
    """Pieces of a job's log in order; `position` of the page is the events' position, for the WebSocket."""

    items: list[LogView]
    position: int


class TimelineView(View):
    """One thing that happened."""

    at: dt.datetime
    what: str
    attempt_number: int | None
    detail: str


class Timeline(View):
    """What happened, in order."""

    items: list[TimelineView]


class ArtefactView(View):
    """A result file; its bytes are at /api/jobs/{id}/artefacts/{name}."""

    attempt_id: UUID
    name: str
    sha256: str
    size: int
    created_at: dt.datetime


class Artefacts(View):
    """The newest of each name."""

    items: list[ArtefactView]


class ParamView(View):
    """A parameter of a library job."""

    name: str
    type: str
    required: bool
    default: Any
    min: float | None
    max: float | None
    choices: list[str]
    allowed: str
    description: str = ""


class InputRuleView(View):
    """Input files that a library job takes."""

    name: str
    names: list[str]
    required: bool
    size_max_bytes: int
    description: str


class LibraryJobView(View):
    """A job of the library."""

    name: str
    title: str
    description: str
    needs: dict[str, Any]
    params: list[ParamView]
    inputs: list[InputRuleView]
    duration_max_s: int


class CatalogueView(View):
    """All jobs of the library."""

    items: list[LibraryJobView]


@router.post("/create", status_code=201, response_model=NewJob, responses=UNPAID)
async def create(body: JobBody, call: MoneyCall) -> Response:
    """Make and fund a job, all or nothing: 402 with the missing amount, 409 with the next best offer, and nothing was made.

    With `pay` = `chain`, on networks devnet and mainnet: what the wallet lacks is asked for as a payment, and the job waits for it.
    """

    async def work(s: Scope, caller: Principal) -> NewJob:
        job = await s.jobs.create(caller.user_id, _request(body))
        return NewJob(job=view_of(job), estimate=await _estimate(s, job), payment=await _payment(s, job))

    return await call.once(body, work, grant=Grant.JOBS, status=201)


@router.get("")
async def jobs(
    call: DefaultCall, state: Annotated[list[JobState] | None, Query()] = None, limit: Limit = 50, cursor: UUID | None = None
) -> Page[JobView]:
    """My jobs, newest first."""

    async def work(s: Scope, caller: Principal) -> Page[JobView]:
        position = await outbox.position(s.connection)
        found = await s.jobs.page(caller.user_id, states=state, before=cursor, limit=limit)
        after = str(found[-1].id) if len(found) == limit else None
        return Page(items=[view_of(job) for job in found], next_cursor=after, position=position)

    return await call.user(work)


@router.get("/catalogue", openapi_extra=OPTIONAL_LOGIN)
async def catalogue(call: DefaultCall) -> CatalogueView:
    """The library: each job's parameters, inputs and needs."""

    async def work(s: Scope, _: Principal | None) -> CatalogueView:
        return CatalogueView(items=[_library(job) for job in s.jobs.catalogue])

    return await call.public(work)


@router.get("/{job_id}")
async def job(job_id: UUID, call: DefaultCall) -> JobDetail:
    """My job with its attempts and its receipt."""

    async def work(s: Scope, caller: Principal) -> JobDetail:
        position = await outbox.position(s.connection)
        found = await s.jobs.get(caller.user_id, job_id)
        return JobDetail(
            **view_of(found).model_dump(),
            attempts=[AttemptView.model_validate(attempt) for attempt in await s.jobs.attempts(caller.user_id, job_id)],
            inputs=[InputView.model_validate(item) for item in await s.jobs.inputs(caller.user_id, job_id)],
            receipt=ReceiptView.model_validate(await s.jobs.receipt(caller.user_id, job_id)),
            payment=await _payment(s, found),
            position=position,
        )

    return await call.user(work)


@router.get("/{job_id}/payment")
async def payment(job_id: UUID, call: DefaultCall) -> PaymentView:
    """The payment that my job waits for, or that funded it."""

    async def work(s: Scope, caller: Principal) -> PaymentView:
        found = await _payment(s, await s.jobs.get(caller.user_id, job_id))
        if found is None:
            raise NotFound("no payment was asked for: the wallet paid for this job", next_step="see its receipt: GET /api/jobs/{id}")
        return found

    return await call.user(work)


@router.post("/{job_id}/cancel", response_model=JobView)
async def cancel(job_id: UUID, call: MoneyCall) -> Response:
    """End my job at any stage: the metered part is paid, the rest comes back."""

    async def work(s: Scope, caller: Principal) -> JobView:
        return view_of(await s.jobs.cancel(caller.user_id, job_id))

    return await call.once(None, work, grant=Grant.JOBS)


@router.get("/{job_id}/logs")
async def logs(
    job_id: UUID,
    call: DefaultCall,
    after: Annotated[int, Query(ge=0, description="The last `position` that you have.")] = 0,
    stream: Annotated[str | None, Query(pattern="^(out|err|agent)$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Logs:
    """My job's log, in order of arrival."""

    async def work(s: Scope, caller: Principal) -> Logs:
        position = await outbox.position(s.connection)
        found = await s.jobs.logs(caller.user_id, job_id, after=after, stream=stream, limit=limit)
        return Logs(items=[LogView.model_validate(line) for line in found], position=position)

    return await call.user(work)


@router.get("/{job_id}/timeline")
async def timeline(job_id: UUID, call: DefaultCall) -> Timeline:
    """What happened to my job."""

    async def work(s: Scope, caller: Principal) -> Timeline:
        return Timeline(items=[TimelineView.model_validate(entry) for entry in await s.jobs.timeline(caller.user_id, job_id)])

    return await call.user(work)


@router.get("/{job_id}/artefacts")
async def artefacts(job_id: UUID, call: DefaultCall) -> Artefacts:
    """My job's results."""

    async def work(s: Scope, caller: Principal) -> Artefacts:
        return Artefacts(items=[ArtefactView.model_validate(found) for found in await s.jobs.artefacts(caller.user_id, job_id)])

    return await call.user(work)


@router.get("/{job_id}/artefacts/{name:path}", response_class=StreamingResponse)
async def artefact(job_id: UUID, name: str, call: DefaultCall) -> StreamingResponse:
    """One result's bytes: always a download, never shown in the page's origin."""

    async def work(s: Scope, caller: Principal) -> ArtefactView:
        return ArtefactView.model_validate(await s.jobs.artefact(caller.user_id, job_id, name))

    found = await call.user(work)
    bare = found.name.rpartition("/")[2]
    headers = {
        "Content-Length": str(found.size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quoted(bare, safe='')}",
        "X-Content-SHA256": found.sha256,
        "ETag": f'"{found.sha256}"',
    }
    call.web.resources.blobs.path(found.sha256)
    return StreamingResponse(call.web.resources.blobs.open(found.sha256), media_type="application/octet-stream", headers=headers)


def view_of(found: Job) -> JobView:
    """A job as its owner sees it."""
    members = {name: getattr(found, name) for name in JobView.model_fields if name not in {"needs", "asset"}}
    return JobView(**members, needs=found.needs.as_json(), asset=Asset(found.asset).name)


def _request(body: JobBody) -> JobRequest:
    inputs = tuple(InputRequest(item.name, item.upload_id) for item in body.inputs)
    rest = body.model_dump(exclude={"inputs", "needs"})
    return JobRequest(**rest, inputs=inputs, needs=needs_of(body.needs))


async def _payment(s: Scope, found: Job) -> PaymentView | None:
    asked = await s.funding.payment(found.owner_id, found.id)
    if asked is None:
        return None
    explorer = Explorer(s.resources.settings.qubic_explorer_url)
    return payment_view(asked, explorer, waiting=found.state is JobState.AWAITING_FUNDS)


async def _estimate(s: Scope, found: Job) -> EstimateView:
    """From the quote that the job used; none is claimed while no offer is known."""
    if found.quote_id is None:
        return EstimateView()
    quote = await s.market.get_quote(found.quote_id)
    return estimate_of(s, found.kind, dict(found.params), quote.model, quote.price_per_hour, quote.gpus)


def _library(entry: LibraryJob) -> LibraryJobView:
    return LibraryJobView(
        name=entry.name,
        title=entry.title,
        description=entry.description,
        needs=entry.needs.as_json(),
        params=[ParamView.model_validate(param) for param in entry.params],
        inputs=[InputRuleView.model_validate(rule) for rule in entry.inputs],
        duration_max_s=entry.duration_max_s,
    )

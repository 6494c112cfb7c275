"""Quotes: an offer held for a minute, with the most that the job can cost."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import Field

from qubix.bootstrap import Scope
from qubix.identity.model import Principal
from qubix.identity.model import Scope as Grant
from qubix.jobs.model import JobRequest
from qubix.market.model import DURATION_MAX_S, Needs, NothingMatches
from qubix.market.ranking import By
from serve_app.api.gpus import OfferView
from serve_app.api.shapes import FROM_TEXT, PROBLEMS, Body, View
from serve_app.calls import MoneyCall

router = APIRouter(prefix="/api/quotes", tags=["quotes"], responses=PROBLEMS)
ALTERNATIVES_MAX = 5


Params = Annotated[dict[str, str | bool | int | float], Field(max_length=100)]


class InputName(Body):
    """The name of an input that the job will have; its upload need not exist yet."""

    name: str = Field(min_length=1, max_length=200)
    upload_id: Annotated[UUID | None, FROM_TEXT] = None


class NeedsBody(Body):
    """What a job asks of a machine; what is absent asks for nothing, or for what the library job states."""

    gpus: int | None = Field(None, ge=1, le=64)
    gpu_models: list[str] | None = Field(None, max_length=50)
    vram_bytes: int | None = Field(None, ge=0, lt=1 << 44)
    tflops: float | None = Field(None, ge=0, le=1e6)
    ram_bytes: int | None = Field(None, ge=0, lt=1 << 50)
    cpu_cores: int | None = Field(None, ge=0, le=4096)
    regions: list[str] | None = Field(None, max_length=50)
    reliability_min: float | None = Field(None, ge=0, le=1)
    verified: bool | None = None
    memory_bytes: int | None = Field(None, gt=0, description="Of the sandbox, and so of the machine.")
    cpus: float | None = Field(None, gt=0)
    disk_bytes: int | None = Field(None, gt=0)


class QuoteRequest(Body):
    """What is to run, and what it may cost."""

    kind: str = Field(max_length=100)
    params: Params = Field(default={})
    inputs: list[InputName] = Field(default=[], max_length=100)
    needs: NeedsBody = NeedsBody()
    offer_id: Annotated[UUID | None, FROM_TEXT] = None
    duration_max_s: int | None = Field(None, gt=0, le=DURATION_MAX_S)
    budget: int | None = Field(None, gt=0)
    price_max: int | None = Field(None, gt=0, description="The most per GPU-hour, also for a retry elsewhere.")
    by: Annotated[By, FROM_TEXT] = By.COST_BENEFIT


class QuoteView(View):
    """An offer held until `expires_at`; the escrow will hold `ceiling`."""

    id: UUID
    offer_id: UUID
    node_id: UUID
    model: str
    gpus: int
    price_per_hour: int
    rate_max: int
    ceiling: int
    duration_max_s: int
    expires_at: dt.datetime
    state: str


class EstimateView(View):
    """What one undisturbed run is expected to take and cost; null where no benchmark says."""

    duration_s: float | None = None
    duration_low_s: float | None = None
    duration_high_s: float | None = None
    duration: str = "unknown"
    confidence: str = "none"
    cost: int | None = None
    cost_per_minute: int | None = None
    breakdown: list[dict[str, Any]] = Field(default=[])


class Choice(OfferView):
    """An offer that would do too, with what it is expected to take and cost."""

    compatibility: str
    estimate: EstimateView


class TermsView(View):
    """What a job locks while it waits for a machine: `ceiling`, from the highest rate per hour for all its GPUs."""

    rate_max: int
    ceiling: int
    duration_max_s: int


class PlanView(View):
    """The quote with its offer and estimate; `quote` is null where nothing fits now, and `unplaceable` says why.

    `waiting` is then what a job would lock all the same; null where nobody offers a GPU and neither price_max nor budget is given.
    """

    quote: QuoteView | None
    offer: OfferView | None
    estimate: EstimateView
    alternatives: list[Choice]
    unplaceable: dict[str, Any] | None = None
    waiting: TermsView | None = None


@router.post("", response_model=PlanView)
async def make_quote(body: QuoteRequest, call: MoneyCall) -> Response:
    """Hold the best fitting offer, or the one named, for a minute. One open quote per account: an older one ends."""

    async def work(s: Scope, caller: Principal) -> PlanView:
        library = s.jobs.catalogue.get(body.kind)
        needs, _ = library.needs_with(needs_of(body.needs, body.price_max))
        return await _plan(s, caller, body, needs, body.duration_max_s or library.duration_max_s)

    return await call.once(body, work, grant=Grant.JOBS)


async def _plan(s: Scope, caller: Principal, body: QuoteRequest, needs: Needs, duration_max_s: int) -> PlanView:
    duration = s.estimates.durations(body.kind, body.params)
    ranked = await s.market.ranked(needs, duration=duration, by=body.by)
    alternatives = [
        Choice(
            **OfferView.model_validate(choice.offer).model_dump(),
            compatibility=choice.compatibility.value,
            estimate=estimate_of(s, body.kind, body.params, choice.offer.model, choice.offer.price_per_hour, needs.gpus),
        )
        for choice in ranked[:ALTERNATIVES_MAX]
    ]
    try:
        quote = await s.market.quote(
            caller.user_id,
            needs,
            duration_max_s=duration_max_s,
            offer_id=body.offer_id,
            budget=body.budget,
            price_max=body.price_max,
            duration=duration,
            by=body.by,
        )
    except NothingMatches as nothing:
        if body.offer_id is not None:
            raise
        why = {"code": nothing.extra.get("reason"), "message": nothing.message, "next_step": nothing.next_step, **nothing.extra}
        return PlanView(quote=None, offer=None, estimate=EstimateView(), alternatives=[], unplaceable=why, waiting=await _waiting(s, body))
    return PlanView(
        quote=QuoteView.model_validate(quote),
        offer=OfferView.model_validate(await s.market.offer(quote.offer_id)),
        estimate=estimate_of(s, body.kind, body.params, quote.model, quote.price_per_hour, quote.gpus),
        alternatives=alternatives,
    )


async def _waiting(s: Scope, body: QuoteRequest) -> TermsView | None:
    asked = JobRequest(
        body.kind, needs=needs_of(body.needs), duration_max_s=body.duration_max_s, budget=body.budget, price_max=body.price_max
    )
    terms = await s.jobs.terms_while_waiting(asked)
    return None if terms is None else TermsView.model_validate(terms)


@router.get("/{quote_id}")
async def get_quote(quote_id: UUID, call: MoneyCall) -> QuoteView:
    """My quote."""

    async def work(s: Scope, caller: Principal) -> QuoteView:
        return QuoteView.model_validate(await s.market.get_quote(quote_id, caller.user_id))

    return await call.user(work)


@router.delete("/{quote_id}", status_code=204)
async def drop_quote(quote_id: UUID, call: MoneyCall) -> None:
    """Give the held devices back before the minute is over."""

    async def work(s: Scope, caller: Principal) -> None:
        await s.market.drop_quote(quote_id, caller.user_id)

    await call.user(work, grant=Grant.JOBS)


def needs_of(body: NeedsBody, price_max: int | None = None) -> dict[str, Any]:
    """The needs that a request states."""
    stated = body.model_dump(exclude_none=True)
    return stated if price_max is None else {**stated, "price_max": price_max}


def estimate_of(s: Scope, kind: str, params: dict[str, Any], model: str, price_per_hour: int, gpus: int) -> EstimateView:
    """What a job is expected to take and cost on an offer."""
    plan = s.estimates.plan(kind, params, gpu_model=model, price_per_hour=price_per_hour, gpus=gpus)
    return EstimateView(**plan.as_json())

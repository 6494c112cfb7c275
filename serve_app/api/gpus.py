"""The market: search, one offer, comparison, models and providers on offer."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from qubix.bootstrap import Scope
from qubix.identity.model import Principal
from qubix.market.service import Group
from serve_app.api.shapes import PROBLEMS, Body, Cursor, Limit, Page, View
from serve_app.calls import SearchCall

router = APIRouter(prefix="/api/gpus", tags=["gpus"], responses=PROBLEMS)
Text = Annotated[str | None, Query(max_length=1000)]


class OfferView(View):
    """GPUs of one model on one machine, at a price per GPU-hour. `reliability` is null where no attempt has ended there yet."""

    id: UUID
    node_id: UUID
    provider_id: UUID
    provider: str
    model: str
    gpus: int
    gpus_free: int
    vram_bytes: int
    price_per_hour: int
    asset: str = "QUBIC"
    region: str
    cpu_model: str
    cpu_cores: int
    ram_bytes: int
    tflops: float
    reliability: float | None
    attempts: int
    verified: bool
    detected_by: str
    status: str


class OfferDetail(OfferView):
    """An offer with the live metrics of its devices."""

    devices: list[dict[str, object]]


class CompareRequest(Body):
    """Two or three offers."""

    ids: list[UUID] = Field(min_length=2, max_length=3)


class Comparison(View):
    """The offers, in the order asked."""

    items: list[OfferView]


class GroupView(View):
    """Offers of one model, or of one provider (`key` is then name/id)."""

    key: str
    offers: int
    gpus: int
    gpus_free: int
    price_min: int
    price_max: int
    vram_bytes: int
    members: list[str]


class Groups(View):
    """All groups."""

    items: list[GroupView]


@router.get("/search", response_model=Page[OfferView])
async def search(
    call: SearchCall,
    model: Annotated[str | None, Query(max_length=1000, description="Models, separated by commas.")] = None,
    vram_min: Annotated[str | None, Query(max_length=40, description="As 24GB, or bytes.")] = None,
    vram_max: Annotated[str | None, Query(max_length=40)] = None,
    price_min: Annotated[str | None, Query(max_length=40, description="Units per GPU-hour.")] = None,
    price_max: Annotated[str | None, Query(max_length=40)] = None,
    region: Annotated[str | None, Query(max_length=1000, description="Regions, separated by commas; eu covers eu-west.")] = None,
    provider: Text = None,
    gpus: Annotated[str | None, Query(max_length=10, description="Free GPUs, at least.")] = None,
    reliability_min: Annotated[str | None, Query(max_length=10)] = None,
    verified: Annotated[Literal["true", "false"] | None, Query()] = None,
    available: Annotated[Literal["true", "false", "any"] | None, Query(description="Default true: rentable now.")] = None,
    q: Annotated[str | None, Query(max_length=200, description="Free text.")] = None,
    query: Annotated[
        str | None, Query(max_length=2000, description="Typed, as: gpu=RTX_4090 vram>=24GB price<2000 region in [eu,us]")
    ] = None,
    sort: Annotated[Literal["price", "price_desc", "performance", "availability", "cost_benefit"] | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Offers by filters, free text or a typed query; default: what is rentable now, cheapest first."""
    await call.count_search()
    page = await call.web.resources.search.page(call.request.url.query)
    return Response(page, media_type="application/json")


@router.post("/compare")
async def compare(body: CompareRequest, call: SearchCall) -> Comparison:
    """Two or three offers side by side."""

    async def work(s: Scope, _: Principal | None) -> Comparison:
        return Comparison(items=[OfferView.model_validate(offer) for offer in await s.market.compare(body.ids)])

    return await call.public(work)


@router.get("/models")
async def models(call: SearchCall) -> Groups:
    """GPU models on offer, with counts and price ranges."""

    async def work(s: Scope, _: Principal | None) -> list[Group]:
        return await s.market.models()

    return Groups(items=[GroupView.model_validate(group) for group in await call.public(work)])


@router.get("/providers")
async def providers(call: SearchCall) -> Groups:
    """Providers with offers, with counts and price ranges."""

    async def work(s: Scope, _: Principal | None) -> list[Group]:
        return await s.market.providers()

    return Groups(items=[GroupView.model_validate(group) for group in await call.public(work)])


@router.get("/{offer_id}")
async def offer(offer_id: UUID, call: SearchCall) -> OfferDetail:
    """One offer with live metrics of its devices."""

    async def work(s: Scope, _: Principal | None) -> OfferDetail:
        found = await s.market.detail(offer_id)
        view = OfferView.model_validate(found.offer)
        return OfferDetail(**view.model_dump(), devices=list(found.devices))

    return await call.public(work)

"""The market: search, one offer, comparison, models and providers on offer."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import Field

from qubix.bootstrap import Scope
from qubix.identity.model import Principal
from qubix.market.filters import Availability, Sort
from qubix.market.service import Group
from serve_app.api.shapes import FROM_TEXT, OPTIONAL_LOGIN, PROBLEMS, Body, Page, View
from serve_app.calls import SearchCall

router = APIRouter(prefix="/api/gpus", tags=["gpus"], responses=PROBLEMS)


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

    ids: list[Annotated[UUID, FROM_TEXT]] = Field(min_length=2, max_length=3)


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


def _parameter(name: str, about: str, **schema: object) -> dict[str, object]:
    return {"name": name, "in": "query", "required": False, "description": about, "schema": {"type": "string", **schema}}


# Documented here and read once, by the search itself: as arguments of the route, FastAPI would read all of them at every request,
# which costs more than the search.
_PARAMETERS: Final = [
    _parameter("model", "Models, separated by commas."),
    _parameter("vram_min", "As 24GB; a bare number is GB."),
    _parameter("vram_max", "As 24GB; a bare number is GB."),
    _parameter("price_min", "Units per GPU-hour."),
    _parameter("price_max", "Units per GPU-hour."),
    _parameter("region", "Regions, separated by commas; eu covers eu-west."),
    _parameter("provider", "Names or ids, separated by commas."),
    _parameter("gpus", "Free GPUs on one machine, at least."),
    _parameter("reliability_min", "As 0.95 or 95%."),
    _parameter("verified", "Whether we measured the GPU.", enum=["true", "false"]),
    _parameter("available", "Default true: rentable now.", enum=[member.value for member in Availability]),
    _parameter("q", "Free text."),
    _parameter("query", "Typed, as: gpu=RTX_4090 vram>=24GB price<2000 region in [eu,us]"),
    _parameter("sort", "Default price.", enum=[member.value for member in Sort]),
    _parameter("limit", "1 to 100, default 50.", type="integer", minimum=1, maximum=100),
    _parameter("cursor", "What `next_cursor` said."),
]


@router.get("/search", response_model=Page[OfferView], openapi_extra={"parameters": _PARAMETERS, **OPTIONAL_LOGIN})
async def search(call: SearchCall) -> Response:
    """Offers by filters, free text or a typed query; default: what is rentable now, cheapest first."""
    await call.count_search()
    page = await call.web.resources.search.page(call.request.scope["query_string"].decode("latin-1"))
    return Response(page, media_type="application/json")


@router.post("/compare", openapi_extra=OPTIONAL_LOGIN)
async def compare(body: CompareRequest, call: SearchCall) -> Comparison:
    """Two or three offers side by side."""

    async def work(s: Scope, _: Principal | None) -> Comparison:
        return Comparison(items=[OfferView.model_validate(offer) for offer in await s.market.compare(body.ids)])

    return await call.public(work)


@router.get("/models", openapi_extra=OPTIONAL_LOGIN)
async def models(call: SearchCall) -> Groups:
    """GPU models on offer, with counts and price ranges."""

    async def work(s: Scope, _: Principal | None) -> list[Group]:
        return await s.market.models()

    return Groups(items=[GroupView.model_validate(group) for group in await call.public(work)])


@router.get("/providers", openapi_extra=OPTIONAL_LOGIN)
async def providers(call: SearchCall) -> Groups:
    """Providers with offers, with counts and price ranges."""

    async def work(s: Scope, _: Principal | None) -> list[Group]:
        return await s.market.providers()

    return Groups(items=[GroupView.model_validate(group) for group in await call.public(work)])


@router.get("/{offer_id}", openapi_extra=OPTIONAL_LOGIN)
async def offer(offer_id: UUID, call: SearchCall) -> OfferDetail:
    """One offer with live metrics of its devices."""

    async def work(s: Scope, _: Principal | None) -> OfferDetail:
        found = await s.market.detail(offer_id)
        view = OfferView.model_validate(found.offer)
        return OfferDetail(**view.model_dump(), devices=list(found.devices))

    return await call.public(work)

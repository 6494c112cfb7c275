"""One's own machines: price, pause, region, availability, drain, leave."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from qubix.bootstrap import Scope
from qubix.identity.model import Principal
from qubix.identity.model import Scope as Grant
from serve_app.api.gpus import OfferView
from serve_app.api.providers import NodeView
from serve_app.api.shapes import PROBLEMS, Body, View
from serve_app.calls import DefaultCall

router = APIRouter(prefix="/api/nodes", tags=["nodes"], responses=PROBLEMS)


class Window(Body):
    """A weekly span in UTC: weekday 0 is Monday; opens before it closes, in minutes of the day."""

    weekday: int = Field(ge=0, le=6)
    opens: int = Field(ge=0, lt=1440)
    closes: int = Field(gt=0, le=1440)


class NodeChange(Body):
    """What to change; quotes and jobs that exist keep their price."""

    price_per_hour: int | None = Field(None, gt=0, description="Units per GPU-hour.")
    model: str | None = Field(None, max_length=60, description="Only this GPU model's price.")
    paused: bool | None = None
    region: str | None = Field(None, max_length=40)
    availability: list[Window] | None = Field(None, max_length=50)


class DrainRequest(Body):
    """False takes a drain back."""

    draining: bool = True


class OwnNodeView(NodeView):
    """A machine with its offers."""

    offers: list[OfferView]


class Left(View):
    """The machine is off the market."""

    left: bool = True


@router.get("/{node_id}")
async def node(node_id: UUID, call: DefaultCall) -> OwnNodeView:
    """My machine."""

    async def work(s: Scope, caller: Principal) -> OwnNodeView:
        await s.providers.own_node(caller.user_id, node_id)
        return await _view(s, node_id)

    return await call.user(work)


@router.patch("/{node_id}")
async def change(node_id: UUID, body: NodeChange, call: DefaultCall) -> OwnNodeView:
    """Change my machine's price, pause, region or availability."""

    async def work(s: Scope, caller: Principal) -> OwnNodeView:
        availability = None if body.availability is None else [window.model_dump() for window in body.availability]
        await s.providers.update_node(caller.user_id, node_id, paused=body.paused, region=body.region, availability=availability)
        if body.price_per_hour is not None:
            await s.market.set_price(caller.user_id, node_id, body.price_per_hour, model=body.model)
        s.wake("jobs")
        return await _view(s, node_id)

    return await call.user(work, grant=Grant.PROVIDER)


@router.post("/{node_id}/drain")
async def drain(node_id: UUID, call: DefaultCall, body: DrainRequest | None = None) -> OwnNodeView:
    """Take no new jobs; what runs goes on."""

    async def work(s: Scope, caller: Principal) -> OwnNodeView:
        await s.providers.drain(caller.user_id, node_id, draining=(body or DrainRequest()).draining)
        return await _view(s, node_id)

    return await call.user(work, grant=Grant.PROVIDER)


@router.post("/{node_id}/leave")
async def leave(node_id: UUID, call: DefaultCall) -> Left:
    """Leave the market for good; earnings stay."""

    async def work(s: Scope, caller: Principal) -> None:
        await s.providers.leave(caller.user_id, node_id)

    await call.user(work, grant=Grant.PROVIDER)
    return Left()


async def _view(s: Scope, node_id: UUID) -> OwnNodeView:
    view = NodeView.model_validate(await s.providers.node(node_id))
    offers = [OfferView.model_validate(offer) for offer in await s.market.offers_of(node_id)]
    return OwnNodeView(**view.model_dump(), offers=offers)

"""What a provider earned."""

from __future__ import annotations

from fastapi import APIRouter

from qubix.bootstrap import Scope
from qubix.escrow.model import EarningsSummary
from qubix.identity.model import Principal
from qubix.postgres import outbox
from serve_app.api.shapes import PROBLEMS, View
from serve_app.calls import DefaultCall

router = APIRouter(prefix="/api/earnings", tags=["earnings"], responses=PROBLEMS)


class EarningsView(View):
    """Net of the fee, in whole units; days, weeks and months begin in UTC. `pending` waits for its window or an arbiter."""

    asset: str
    total: int
    today: int
    week: int
    month: int
    pending: int
    jobs: int
    metered_ms: int
    average_per_hour: int


class AllEarnings(View):
    """One summary per asset."""

    items: list[EarningsView]
    position: int


@router.get("")
async def earnings(call: DefaultCall) -> AllEarnings:
    """My earnings as a provider."""

    async def work(s: Scope, caller: Principal) -> AllEarnings:
        position = await outbox.position(s.connection)
        return AllEarnings(items=[_view(found) for found in await s.escrow.earnings(caller.user_id)], position=position)

    return await call.user(work)


def _view(found: EarningsSummary) -> EarningsView:
    return EarningsView(
        asset=found.asset.name,
        total=found.total,
        today=found.today,
        week=found.week,
        month=found.month,
        pending=found.pending,
        jobs=found.jobs,
        metered_ms=found.metered_ms,
        average_per_hour=found.average_per_hour,
    )

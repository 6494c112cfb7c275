"""Escrows: what was locked, paid and refunded; disputes and their decision."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import Field

from qubix.bootstrap import Scope
from qubix.escrow.model import Earning, Escrow
from qubix.identity.model import Principal, Role
from qubix.identity.model import Scope as Grant
from qubix.kernel.errors import NotFound
from qubix.kernel.money import Qu
from qubix.postgres import outbox
from serve_app.api.shapes import PROBLEMS, Body, View
from serve_app.calls import DefaultCall, MoneyCall

router = APIRouter(prefix="/api/escrows", tags=["escrows"], responses=PROBLEMS)


class LineView(View):
    """What one attempt earned; `to_payee` is null until it is final, and includes the fee."""

    id: UUID
    line: str
    gross: int
    fee: int
    state: str
    to_payee: int | None
    net: int
    matures_at: dt.datetime


class EscrowView(View):
    """An escrow in whole units; its id is the job's. A payee sees only their own lines.

    `tx_ids`, for its payer: the payments on the chain that funded it; empty where the wallet did.
    """

    id: UUID
    asset: str
    state: str
    funded: int
    paid: int
    refunded: int
    created_at: dt.datetime
    disputed_at: dt.datetime | None
    settled_at: dt.datetime | None
    lines: list[LineView]
    tx_ids: list[str] = Field(default=[])
    position: int = 0


class DisputeRequest(Body):
    """What is wrong, for the arbiter."""

    evidence: str = Field(min_length=1, max_length=10_000)


class Ruling(Body):
    """How much of what was metered the payees get (null: all of it); the rest goes back to the consumer."""

    to_payee: int | None = Field(ge=0)
    reason: str = Field(min_length=1, max_length=10_000, description="Why, for both sides.")


@router.get("/{escrow_id}")
async def escrow(escrow_id: UUID, call: DefaultCall) -> EscrowView:
    """An escrow, for its payer, a payee, an operator or an arbiter."""

    async def work(s: Scope, caller: Principal) -> EscrowView:
        return await _read(s, escrow_id, caller)

    return await call.user(work)


@router.post("/{escrow_id}/dispute", response_model=EscrowView)
async def dispute(escrow_id: UUID, body: DisputeRequest, call: MoneyCall) -> Response:
    """Freeze what a provider earned until an arbiter decides; a running job is asked to end. Only the payer may."""

    async def work(s: Scope, caller: Principal) -> EscrowView:
        await _end_disputed(s, caller, escrow_id)
        await s.escrow.dispute(escrow_id, caller.user_id, body.evidence)
        return await _read(s, escrow_id, caller)

    return await call.once(body, work, grant=Grant.MONEY)


@router.post("/{escrow_id}/resolve", response_model=EscrowView)
async def resolve(escrow_id: UUID, body: Ruling, call: MoneyCall) -> Response:
    """Decide a dispute (arbiters who are no party to it)."""

    async def work(s: Scope, caller: Principal) -> EscrowView:
        if not caller.has(Role.ARBITER):
            raise NotFound("There is nothing here.", next_step="See /api/docs for the paths.")
        to_payee = None if body.to_payee is None else Qu(body.to_payee)
        await s.escrow.rule(escrow_id, caller.user_id, to_payee, body.reason)
        s.wake("jobs")
        return await _read(s, escrow_id, caller)

    return await call.once(body, work, grant=Grant.MONEY)


async def _end_disputed(s: Scope, caller: Principal, job_id: UUID) -> None:
    """A dispute on a running job also asks for its cancellation; the job is locked before its escrow."""
    try:
        job = await s.jobs.get(caller.user_id, job_id)
    except NotFound:
        return
    if not job.state.final:
        await s.jobs.cancel(caller.user_id, job_id)


async def _read(s: Scope, escrow_id: UUID, caller: Principal) -> EscrowView:
    position = await outbox.position(s.connection)
    oversees = caller.has(Role.OPERATOR) or caller.has(Role.ARBITER)
    found, earnings = await s.escrow.get(escrow_id, caller.user_id, oversees=oversees)
    return view_of(found, earnings, position, tx_ids=await s.funding.tx_ids(caller.user_id, escrow_id))


def view_of(found: Escrow, earnings: Sequence[Earning], position: int = 0, *, tx_ids: Sequence[str] = ()) -> EscrowView:
    """An escrow with the lines that the caller may see."""
    return EscrowView(
        id=found.id,
        asset=found.asset.name,
        state=found.state.value,
        funded=found.funded,
        paid=found.paid,
        refunded=found.refunded,
        created_at=found.created_at,
        disputed_at=found.disputed_at,
        settled_at=found.settled_at,
        lines=[LineView.model_validate(earning) for earning in earnings],
        tx_ids=list(tx_ids),
        position=position,
    )

"""Wallets: balance, history, test funds."""

from __future__ import annotations

import datetime as dt
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from qubix.bootstrap import Scope
from qubix.identity.model import Principal
from qubix.identity.model import Scope as Grant
from qubix.kernel.ids import new_id
from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import Balance, Entry, EntryStatus, EntryType
from qubix.postgres import outbox
from serve_app.api.shapes import PROBLEMS, Body, Cursor, Limit, Page, View
from serve_app.calls import DefaultCall, MoneyCall

router = APIRouter(prefix="/api/wallets", tags=["wallets"], responses=PROBLEMS)


class WalletView(View):
    """One wallet in whole units: `available` can be spent now, `held` waits in withdrawals, `in_escrow` is locked for my jobs."""

    asset: str
    available: int
    held: int
    in_escrow: int
    pending_earnings: int
    earned: int
    spent: int


class WalletsView(View):
    """One wallet per asset."""

    wallets: list[WalletView]
    position: int


class TransactionView(View):
    """One line of the history. `change` is what it did to the balance, `balance` what it was afterwards (null while it is pending),
    `job_id` whose money it was (null for what came from or went outside)."""

    id: UUID
    type: EntryType
    status: EntryStatus
    asset: str
    amount: int
    change: int
    balance: int | None
    subject_id: UUID
    job_id: UUID | None
    created_at: dt.datetime


class FaucetRequest(Body):
    """How much test money."""

    amount: int = Field(gt=0)


@router.get("/balance")
async def balance(call: DefaultCall) -> WalletsView:
    """My wallets."""

    async def work(s: Scope, caller: Principal) -> WalletsView:
        return await _wallets(s, caller)

    return await call.user(work)


@router.get("/transactions")
async def transactions(
    call: DefaultCall,
    type: Annotated[list[EntryType] | None, Query(description="Only these types.")] = None,
    since: Annotated[dt.datetime | None, Query(description="RFC 3339, included.")] = None,
    until: Annotated[dt.datetime | None, Query(description="RFC 3339, excluded.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[TransactionView]:
    """What moved, newest first."""

    async def work(s: Scope, caller: Principal) -> Page[TransactionView]:
        position = await outbox.position(s.connection)
        page = await s.ledger.history(caller.user_id, types=type, since=_aware(since), until=_aware(until), cursor=cursor, limit=limit)
        return Page(items=[_transaction(entry) for entry in page.items], next_cursor=page.next_cursor, position=position)

    return await call.user(work)


@router.post("/faucet", response_model=WalletsView)
async def faucet(body: FaucetRequest, call: MoneyCall) -> Response:
    """Draw test funds; only on network `none`, and they cannot be withdrawn."""

    async def work(s: Scope, caller: Principal) -> WalletsView:
        await s.ledger.faucet(caller.user_id, Qu(body.amount), call.idempotency_key or new_id().hex)
        return await _wallets(s, caller)

    return await call.once(body, work, grant=Grant.MONEY)


async def _wallets(s: Scope, caller: Principal) -> WalletsView:
    position = await outbox.position(s.connection)
    return WalletsView(wallets=[_wallet(found) for found in await s.ledger.balances(caller.user_id)], position=position)


def _wallet(found: Balance) -> WalletView:
    return WalletView(
        asset=found.asset.name,
        available=found.available,
        held=found.held,
        in_escrow=found.held_in_escrow,
        pending_earnings=found.pending_earnings,
        earned=found.earned,
        spent=found.spent,
    )


def _transaction(entry: Entry) -> TransactionView:
    return TransactionView(
        id=entry.id,
        type=entry.type,
        status=entry.status,
        asset=Asset(entry.asset).name,
        amount=entry.amount,
        change=entry.change,
        balance=entry.balance_after,
        subject_id=entry.subject_id,
        job_id=entry.escrow_id,
        created_at=entry.created_at,
    )


def _aware(at: dt.datetime | None) -> dt.datetime | None:
    return at.replace(tzinfo=dt.UTC) if at is not None and at.tzinfo is None else at

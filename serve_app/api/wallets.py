"""Wallets: balance, history, deposits, withdrawals, test funds."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from qubix.bootstrap import Scope
from qubix.chains.qubic.explorer import Explorer
from qubix.chains.qubic.transaction import MEMO_BYTES_MAX
from qubix.identity.model import Principal
from qubix.identity.model import Scope as Grant
from qubix.kernel.errors import NotFound
from qubix.kernel.ids import new_id
from qubix.kernel.money import Asset, Qu
from qubix.ledger.model import ANALYTICS_DAYS_MAX, Balance, Entry, EntryStatus, EntryType
from qubix.ledger.model import Page as History
from qubix.postgres import outbox
from qubix.treasury import faucet as devnet_faucet
from qubix.treasury.model import ChainFacts, ChainState, Incoming, Outlook, deposit_id, entry_of
from qubix.treasury.sending import CONFIRMATIONS
from serve_app.api.shapes import PROBLEMS, UNPAID, Body, Cursor, Limit, Moment, Page, View
from serve_app.calls import Call, DefaultCall, MoneyCall
from serve_app.chain import ask_chain
from serve_app.limits import Bucket

router = APIRouter(prefix="/api/wallets", tags=["wallets"], responses=PROBLEMS)


class WalletView(View):
    """One wallet in whole units: `available` can be spent now, `held` waits in withdrawals, `in_escrow` is locked for my jobs, `incoming`
    was seen on the chain and is not in the wallet yet."""

    asset: str
    available: int
    held: int
    in_escrow: int
    pending_earnings: int
    earned: int
    spent: int
    incoming: int


class WalletsView(View):
    """One wallet per asset, and the network whose money it is: `none` (test money without a chain), `devnet`, `mainnet`."""

    wallets: list[WalletView]
    network: str
    position: int


class TransactionView(View):
    """One line of the history. `change` is what it did to the balance, `balance` what it was afterwards (null while it is pending),
    `job_id` whose money it was (null for what came from or went outside).

    `id` is the ledger's. A movement on the chain also has `tx_id` (null while nothing is signed), its `tick`, `explorer_url`, the proved
    `confirmations` of 3, `address` (of a deposit mine, of a withdrawal where it goes), `counterparty`, and `chain_state` and `detail`, how far
    it is in a word and in a sentence. While it is pending, `expected_wait_s` says about how long still; `delayed`, that nobody can say,
    since the chain's archive does not advance. `cancellable`: nothing is signed for this withdrawal.
    """

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
    tx_id: str | None = None
    tick: int | None = None
    explorer_url: str | None = None
    confirmations: int | None = None
    address: str | None = None
    counterparty: str | None = None
    chain_state: ChainState | None = None
    detail: str = ""
    expected_wait_s: int | None = None
    delayed: bool = False
    cancellable: bool = False


class TransactionsView(Page[TransactionView]):
    """A page of the history. `incoming`, on the first page: deposits seen on the chain that are in no wallet yet, newest first, at most 100.
    Such a row has the `id` under which it will stand among the items."""

    incoming: list[TransactionView] = Field(default_factory=list)


class DepositView(View):
    """Where to pay. What arrives at `address` enters my wallet once it is confirmed, whoever pays and whatever the memo says."""

    network: str
    asset: str
    address: str
    explorer_url: str
    memo_required: bool
    memo_bytes_max: int
    confirmations: int
    expected_wait_s: int | None
    delayed: bool
    notes: list[str]
    incoming: list[TransactionView]


class WithdrawRequest(Body):
    """How much, and to which Qubic identity."""

    amount: int = Field(gt=0)
    address: str = Field(max_length=200)


class MovedView(View):
    """What moved: `spent` is what escrows paid out, `refunded` came back from them, `locked` went into them."""

    deposited: int
    withdrawn: int
    locked: int
    spent: int
    refunded: int
    earned: int
    fees: int
    transactions: int


class DayView(MovedView):
    """What moved on one day, UTC."""

    date: dt.date


class AnalyticsView(View):
    """The last days, the oldest first, and their sum."""

    asset: str
    days: list[DayView]
    total: MovedView


class FaucetRequest(Body):
    """How much test money."""

    amount: int = Field(gt=0)


class FaucetPaymentView(View):
    """The devnet's payment to my deposit address: `id` is the transaction's in my history once the chain shows it."""

    id: UUID
    tx_id: str
    tick: int
    address: str
    explorer_url: str
    expected_wait_s: int | None


class FaucetView(WalletsView):
    """My wallets, and on the devnet the payment that is on its way; null where the money is there at once."""

    payment: FaucetPaymentView | None = None


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
    status: Annotated[list[EntryStatus] | None, Query(description="Only these statuses.")] = None,
    since: Annotated[Moment | None, Query(description="RFC 3339, included.")] = None,
    until: Annotated[Moment | None, Query(description="RFC 3339, excluded.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> TransactionsView:
    """What moved, newest first, each with the chain's side of it."""
    begin, end = _aware(since), _aware(until)

    async def work(s: Scope, caller: Principal) -> TransactionsView:
        position = await outbox.position(s.connection)
        shown = await _shower(s)
        coming: list[Incoming] = []
        if cursor is None and (type is None or EntryType.DEPOSIT in type):
            states = [state for state in ChainState if status is None or state.status in status]
            coming = await s.treasury.incoming(caller.user_id, states=states, since=begin, until=end)
        page: History = await s.ledger.history(
            caller.user_id, types=type, statuses=status, since=begin, until=end, cursor=cursor, limit=limit
        )
        facts = await s.treasury.chain_facts([entry.subject_id for entry in page.items if entry.type in _ON_CHAIN])
        return TransactionsView(
            items=[shown.entry(entry, facts.get(entry.subject_id)) for entry in page.items],
            incoming=[shown.incoming(found) for found in coming],
            next_cursor=page.next_cursor,
            position=position,
        )

    return await call.user(work)


@router.get("/transactions/{transaction_id}")
async def transaction(transaction_id: UUID, call: DefaultCall) -> TransactionView:
    """One transaction of mine; also a deposit that is still on its way."""

    async def work(s: Scope, caller: Principal) -> TransactionView:
        shown = await _shower(s)
        try:
            return await _one(s, shown, caller, transaction_id)
        except NotFound:
            for found in await s.treasury.incoming(caller.user_id):
                if found.entry_id == transaction_id:
                    return shown.incoming(found)
            raise

    return await call.user(work)


@router.post("/deposit")
async def deposit(call: DefaultCall) -> DepositView:
    """My deposit address, always the same, and what is on its way to it. It takes no Idempotency-Key: a repeat changes nothing."""

    async def work(s: Scope, caller: Principal) -> DepositView:
        address = await s.treasury.deposit_address(caller.user_id)
        shown = await _shower(s)
        return DepositView(
            network=s.resources.settings.network,
            asset=Asset.QUBIC.name,
            address=address,
            explorer_url=shown.explorer.address(address),
            memo_required=False,
            memo_bytes_max=MEMO_BYTES_MAX,
            confirmations=CONFIRMATIONS,
            expected_wait_s=shown.outlook.wait_s(None),
            delayed=shown.outlook.delayed,
            notes=[
                "send any amount from any wallet; no memo is needed",
                "do not send from a contract (such as QX): what a contract pays is no transaction, and comes in only when a person has seen it",
            ],
            incoming=[shown.incoming(found) for found in await s.treasury.incoming(caller.user_id)],
        )

    return await call.user(work, grant=Grant.MONEY)


@router.post("/withdraw", response_model=TransactionView, status_code=202, responses=UNPAID)
async def withdraw(body: WithdrawRequest, call: MoneyCall) -> Response:
    """Pay out to a Qubic identity. The money is held at once and leaves the wallet when the chain has paid it."""

    async def work(s: Scope, caller: Principal) -> TransactionView:
        hold = await s.treasury.withdraw(caller.user_id, body.address, Qu(body.amount), key=call.idempotency_key)
        return await _one(s, await _shower(s), caller, hold)

    return await call.once(body, work, grant=Grant.MONEY, status=202)


@router.delete("/withdrawals/{withdrawal_id}")
async def cancel_withdrawal(withdrawal_id: UUID, call: MoneyCall) -> TransactionView:
    """Call a withdrawal off, as long as nothing is signed for it; a repeat changes nothing."""

    async def work(s: Scope, caller: Principal) -> TransactionView:
        await s.treasury.cancel(caller.user_id, withdrawal_id)
        return await _one(s, await _shower(s), caller, withdrawal_id)

    return await call.user(work, grant=Grant.MONEY)


@router.get("/analytics")
async def analytics(
    call: DefaultCall, days: Annotated[int, Query(ge=1, le=ANALYTICS_DAYS_MAX, description="How many, today the last.")] = 30
) -> AnalyticsView:
    """What moved in my wallet, by day and in all."""

    async def work(s: Scope, caller: Principal) -> AnalyticsView:
        found = await s.ledger.analytics(caller.user_id, days, s.clock.now())
        by_day = [DayView(date=day, **dataclasses.asdict(moved)) for day, moved in found.days]
        return AnalyticsView(asset=Asset.QUBIC.name, days=by_day, total=MovedView.model_validate(found.total))

    return await call.user(work)


@router.post("/faucet", response_model=FaucetView)
async def faucet(body: FaucetRequest, call: MoneyCall) -> Response:
    """Draw test funds: at once on network `none`, by a real transaction to my deposit address on the devnet; not on mainnet."""
    if call.web.resources.settings.network == "devnet":
        return await _devnet_faucet(body, call)

    async def work(s: Scope, caller: Principal) -> FaucetView:
        await s.ledger.faucet(caller.user_id, Qu(body.amount), call.idempotency_key or new_id().hex)
        return FaucetView(**dict(await _wallets(s, caller)))

    return await call.once(body, work, grant=Grant.MONEY)


async def _devnet_faucet(body: FaucetRequest, call: Call) -> Response:
    """The answer, with the payment's tick, is stored before anything is sent; from it the same bytes follow, which a repeat sends again."""
    qubic = call.web.resources.qubic
    key = call.idempotency_key or new_id().hex

    async def given(s: Scope, caller: Principal) -> tuple[UUID, str]:
        return caller.user_id, await s.treasury.deposit_address(caller.user_id)

    user, address = await dataclasses.replace(call, bucket=Bucket.DEFAULT).user(given, grant=Grant.MONEY)
    planned = await ask_chain(devnet_faucet.plan(qubic, address, body.amount, f"{user}/{key}"))

    async def work(s: Scope, caller: Principal) -> FaucetView:
        shown = await _shower(s)
        payment = FaucetPaymentView(
            id=entry_of(deposit_id(planned.tx_id)),
            tx_id=planned.tx_id,
            tick=planned.tick,
            address=address,
            explorer_url=shown.explorer.transaction(planned.tx_id),
            expected_wait_s=shown.outlook.wait_s(planned.tick),
        )
        return FaucetView(**dict(await _wallets(s, caller)), payment=payment)

    answer = await call.once(body, work, grant=Grant.MONEY)
    first = FaucetView.model_validate_json(bytes(answer.body)).payment
    if first is not None:
        sent = await ask_chain(devnet_faucet.send(qubic, dataclasses.replace(planned, tick=first.tick)))
        if not sent and "Idempotency-Replayed" not in answer.headers:
            raise devnet_faucet.NotGiven("the payment's tick passed before it was sent: nothing was given", next_step=devnet_faucet.AGAIN)
    return answer


_ON_CHAIN = (EntryType.DEPOSIT, EntryType.WITHDRAWAL)


@dataclasses.dataclass(frozen=True, slots=True)
class _Shower:
    """Makes rows, with links and expected waits."""

    explorer: Explorer
    outlook: Outlook

    def entry(self, entry: Entry, facts: ChainFacts | None) -> TransactionView:
        """A row of the history. Args: facts, the chain's side of it, if it has one."""
        view = TransactionView(
            id=entry.id,
            type=entry.type,
            status=entry.status if facts is None else facts.state.status,
            asset=Asset(entry.asset).name,
            amount=entry.amount,
            change=entry.change,
            balance=entry.balance_after,
            subject_id=entry.subject_id,
            job_id=entry.escrow_id,
            created_at=entry.created_at,
        )
        if facts is None:
            return view
        pending = entry.type is EntryType.WITHDRAWAL and facts.state not in (ChainState.DONE, ChainState.CANCELLED)
        known = pending and facts.state in (ChainState.QUEUED, ChainState.SIGNED)
        return view.model_copy(
            update={
                "tx_id": facts.tx_id,
                "tick": facts.tick,
                "explorer_url": facts.tx_id and self.explorer.transaction(facts.tx_id),
                "confirmations": facts.confirmations,
                "address": facts.address,
                "counterparty": facts.counterparty,
                "chain_state": facts.state,
                "detail": facts.reason,
                "expected_wait_s": self.outlook.wait_s(facts.tick if facts.in_flight else None) if known else None,
                "delayed": pending
                and (self.outlook.delayed or facts.state in (ChainState.APPROVAL, ChainState.HALTED, ChainState.UNKNOWN)),
                "cancellable": pending and not facts.in_flight,
            }
        )

    def incoming(self, found: Incoming) -> TransactionView:
        """A deposit that is in no wallet yet."""
        doubtful = found.state is ChainState.DOUBTFUL
        return TransactionView(
            id=found.entry_id,
            type=EntryType.DEPOSIT,
            status=found.state.status,
            asset=Asset.QUBIC.name,
            amount=found.amount,
            change=0,
            balance=None,
            subject_id=found.subject_id,
            job_id=None,
            created_at=found.seen_at,
            tx_id=found.tx_id,
            tick=found.tick,
            explorer_url=self.explorer.transaction(found.tx_id),
            confirmations=found.confirmations,
            address=found.address,
            counterparty=found.payer,
            chain_state=found.state,
            detail=found.reason,
            expected_wait_s=None if doubtful else self.outlook.wait_s(found.tick),
            delayed=doubtful or self.outlook.delayed,
        )


async def _shower(s: Scope) -> _Shower:
    return _Shower(Explorer(s.resources.settings.qubic_explorer_url.rstrip("/")), await s.treasury.outlook())


async def _one(s: Scope, shown: _Shower, caller: Principal, entry_id: UUID) -> TransactionView:
    entry = await s.ledger.entry(caller.user_id, entry_id)
    return shown.entry(entry, (await s.treasury.chain_facts([entry.subject_id])).get(entry.subject_id))


async def _wallets(s: Scope, caller: Principal) -> WalletsView:
    position = await outbox.position(s.connection)
    coming = await s.treasury.on_their_way(caller.user_id)
    found = await s.ledger.balances(caller.user_id)
    return WalletsView(
        wallets=[_wallet(one, coming if one.asset is Asset.QUBIC else Qu(0)) for one in found],
        network=s.resources.settings.network,
        position=position,
    )


def _wallet(found: Balance, incoming: Qu) -> WalletView:
    return WalletView(
        asset=found.asset.name,
        available=found.available,
        held=found.held,
        in_escrow=found.held_in_escrow,
        pending_earnings=found.pending_earnings,
        earned=found.earned,
        spent=found.spent,
        incoming=incoming,
    )


def _aware(at: dt.datetime | None) -> dt.datetime | None:
    return at.replace(tzinfo=dt.UTC) if at is not None and at.tzinfo is None else at

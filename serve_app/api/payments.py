"""The payment that a job waits for, and what came of it, as the job's owner sees it."""

from __future__ import annotations

import base64
import datetime as dt
import enum
from uuid import UUID

from qubix.chains.qubic.explorer import Explorer
from qubix.jobs.funding import Payment
from qubix.kernel.money import Asset
from qubix.treasury.arrivals import Arrival, ArrivalState
from qubix.treasury.sending import CONFIRMATIONS, LEAD
from serve_app.api.shapes import View


class PaymentState(enum.StrEnum):
    """`waiting` for the money; `paid`: the escrow is funded; `over`: the job ended unpaid, and what comes stays in the wallet."""

    WAITING = "waiting"
    PAID = "paid"
    OVER = "over"


class TransactionDraft(View):
    """For a wallet that can sign: `payload` is the memo in base64; aim at the tick `tick_offset` ahead of the head."""

    destination: str
    amount: int
    input_type: int
    payload: str
    tick_offset: int


class ArrivalView(View):
    """A payment that counts for the job, or that names it."""

    tx_id: str
    amount: int
    tick: int
    payer: str
    state: ArrivalState
    confirmations: int
    explorer_url: str
    seen_at: dt.datetime


class PaymentView(View):
    """What to pay, and how far it is.

    `amount` to `address`, with `memo` (`payload_hex`: the same as bytes) where the wallet can write one; without it the payment counts for
    the oldest job that waits. `received` is in the wallet, `missing` neither there nor on its way; `confirmations`, 0 to `confirmations_needed`, are of the
    whole amount: they never fall, and never run ahead of what is proved.
    `transaction` is what still lacks, ready to sign; null once nothing does. `expected_wait_s`: until all that is on its way is in the wallet,
    or a payment made now would be; null while nobody can say. `delayed`: the network or a proof takes longer than usual; nothing is lost.
    """

    job_id: UUID
    state: PaymentState
    asset: str
    address: str
    amount: int
    ceiling: int
    memo: str
    payload_hex: str
    transaction: TransactionDraft | None
    received: int
    missing: int
    confirmations: int
    confirmations_needed: int = CONFIRMATIONS
    expected_wait_s: int | None
    delayed: bool
    tx_ids: list[str]
    payments: list[ArrivalView]
    explorer_url: str
    asked_at: dt.datetime
    expires_at: dt.datetime | None
    paid_at: dt.datetime | None


def payment_view(found: Payment, explorer: Explorer, *, waiting: bool) -> PaymentView:
    """A payment request for its owner. Args: waiting, whether the job still waits for it."""
    request, shown, memo = found.request, found.request.shown, found.request.memo.encode()
    state = PaymentState.PAID if request.paid_at is not None else PaymentState.WAITING if waiting else PaymentState.OVER
    draft = TransactionDraft(
        destination=request.address, amount=shown.missing, input_type=0, payload=base64.b64encode(memo).decode(), tick_offset=LEAD
    )
    return PaymentView(
        job_id=request.job_id,
        state=state,
        asset=Asset.QUBIC.name,
        address=request.address,
        amount=request.amount,
        ceiling=request.ceiling,
        memo=request.memo,
        payload_hex=memo.hex(),
        transaction=draft if waiting and shown.missing else None,
        received=shown.received,
        missing=shown.missing,
        confirmations=shown.confirmations,
        expected_wait_s=found.expected_wait_s if waiting else None,
        delayed=found.delayed and waiting,
        tx_ids=list(shown.tx_ids),
        payments=[_arrival(arrival, explorer) for arrival in found.arrivals],
        explorer_url=explorer.address(request.address),
        asked_at=request.asked_at,
        expires_at=request.expires_at,
        paid_at=request.paid_at,
    )


def _arrival(arrival: Arrival, explorer: Explorer) -> ArrivalView:
    return ArrivalView(
        tx_id=arrival.tx_id,
        amount=arrival.amount,
        tick=arrival.tick,
        payer=arrival.payer,
        state=arrival.state,
        confirmations=arrival.proved,
        explorer_url=explorer.transaction(arrival.tx_id),
        seen_at=arrival.seen_at,
    )

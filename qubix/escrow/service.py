"""Escrows: money locked for a job, settled once, matured or judged. Orchestration only; the acts decide in the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from qubix.escrow.model import Earning, EarningsSummary, Escrow, Line, Outcome
from qubix.kernel.errors import Invalid, NotFound
from qubix.kernel.events import Event, EventType
from qubix.kernel.money import AMOUNT_MAX, Asset, Qu
from qubix.ledger.model import Code, EntryType, missing_funds, refuse
from qubix.ledger.service import LedgerService, wallet_event
from qubix.treasury.model import NotReconciled

if TYPE_CHECKING:
    from qubix.escrow.store import EscrowStore

BATCH_MAX = 200
"""How many earnings one loop step ends."""


class EscrowService:
    """Escrows in one transaction; one money act per transaction (two would lock accounts in two orders).

    Args: store and ledger, over the transaction's connection; tell, adds an event to its outbox; fee_bps, the platform's
        fee in basis points; window_s, the dispute window after settlement; decision_s, how long an arbiter has.
    """

    def __init__(
        self, store: EscrowStore, ledger: LedgerService, *, tell: Callable[[Event], None], fee_bps: int, window_s: float, decision_s: float
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._tell = tell
        self._fee_bps = fee_bps
        self._window_s = window_s
        self._decision_s = decision_s

    async def open_pending(self, escrow_id: UUID, user_id: UUID, asset: Asset = Asset.QUBIC) -> Escrow:
        """Make a PENDING escrow, to be funded later. A repeat changes nothing.

        Raises: NotFound without a wallet; OtherContent when the id is another payer's.
        """
        code = await self._store.open(escrow_id, user_id, asset)
        if code < 0:
            refuse(code, f"escrow {escrow_id}")
        return await self._read(escrow_id)

    async def open_and_fund(self, job_id: UUID, user_id: UUID, ceiling: Qu, *, asset: Asset = Asset.QUBIC) -> Escrow:
        """Lock `ceiling` units of the user's wallet for the job, in the transaction that makes the job.

        Returns: the LOCKED escrow, its id the job's. A repeat with the same content changes nothing.
        Raises: Unpaid with `missing`, NotReconciled after a restore (the transaction must then make nothing); Invalid unless 0 < ceiling.
        """
        await self.open_pending(job_id, user_id, asset)
        return await self._fund(job_id, user_id, 1, ceiling, asset)

    async def top_up(self, job_id: UUID, n: int, amount: Qu) -> Escrow:
        """Add `amount` to a LOCKED escrow: its step `n` (2, 3, …), done once. Raises: as `open_and_fund`, and WrongState."""
        escrow = await self._read(job_id)
        return await self._fund(job_id, escrow.payer, n, amount, escrow.asset)

    async def settle(self, job_id: UUID, outcome: Outcome, lines: Sequence[Line], *, window_s: float | None = None) -> Escrow:
        """End the job's escrow with these lines, in the transaction that makes the job final.

        Returns: the escrow: final, or still DISPUTED when an arbiter must rule first (then `settle_ruled` ends it).
        Raises: OtherContent when it was settled otherwise; Invalid when the lines exceed what was funded; WrongState when it
        was never funded.
        """
        window = self._window_s if window_s is None else window_s
        return await self._settle(job_id, outcome, lines, fee_bps=self._fee_bps, window_s=window)

    async def cancel_pending(self, job_id: UUID) -> Escrow:
        """Close an escrow that was never funded: REFUNDED, with nothing. Raises: WrongState for a funded one."""
        return await self._changed(job_id, await self._store.cancel_pending(job_id))

    async def dispute(self, escrow_id: UUID, user_id: UUID, evidence: str) -> Escrow:
        """The payer objects: a LOCKED escrow becomes DISPUTED, earnings in their window are frozen.

        Raises: NotFound unless the user is the payer; WrongState when it is too late; Invalid without evidence.
        """
        escrow = await self._changed(escrow_id, await self._store.dispute(escrow_id, user_id, evidence))
        for earning in await self._store.read_earnings(escrow_id):
            self._tell_earning(earning)
        return escrow

    async def rule(self, escrow_id: UUID, arbiter_id: UUID, to_payee: Qu | None, reason: str) -> Escrow:
        """An arbiter decides how much of what was metered the payees get (None: all of it); the controller carries it out.

        Raises: NotFound unless the user is an arbiter and no party; WrongState when nothing is disputed, or the
        job still runs (its payees are not known yet); Invalid for an amount outside the escrow, or no reason; OtherContent when it was ruled otherwise.
        """
        return await self._changed(escrow_id, await self._store.rule(escrow_id, arbiter_id, to_payee, reason))

    async def ruled_due(self, batch_max: int = BATCH_MAX) -> list[UUID]:
        """Disputed escrows whose job has ended and that were ruled on, or waited too long."""
        return [escrow_id for escrow_id, _ in await self._store.proposals_due(self._decision_s, batch_max)]

    async def settle_ruled(self, escrow_id: UUID) -> bool:
        """Settle one of `ruled_due`; one per transaction: a settlement locks its accounts by itself. Returns whether it was due still."""
        for _, proposal in await self._store.proposals_due(self._decision_s, 1, only=escrow_id):
            await self._settle(escrow_id, proposal.outcome, proposal.lines, fee_bps=proposal.fee_bps, window_s=0)
            return True
        return False

    async def frozen_due(self, batch_max: int = BATCH_MAX) -> list[UUID]:
        """Frozen earnings that were ruled on, or waited too long."""
        return await self._store.frozen_due(self._decision_s, batch_max)

    async def resolve(self, earning_id: UUID) -> bool:
        """End one of `frozen_due`; one per transaction. Returns whether it was due still."""
        if not await self._store.frozen_due(self._decision_s, 1, only=earning_id):
            return False
        code = await self._store.resolve(earning_id, self._decision_s)
        if code < 0:
            refuse(code, f"earning {earning_id}")
        for earning in await self._store.earnings_by_id([earning_id]):
            await self._tell_end(earning)
        return True

    async def mature_due(self, batch_max: int = BATCH_MAX) -> int:
        """Pay out earnings whose window is over, up to `batch_max` in one set. Returns how many were paid now."""
        due = await self._store.due(batch_max)
        if not due:
            return 0
        codes = await self._store.mature(due)
        paid = [earning for earning, code in zip(due, codes, strict=True) if code is Code.DONE]
        for earning in await self._store.earnings_by_id(paid):
            await self._tell_end(earning)
        return len(paid)

    async def get(self, escrow_id: UUID, user_id: UUID, *, oversees: bool = False) -> tuple[Escrow, tuple[Earning, ...]]:
        """An escrow and its earnings, for its payer, a payee, or (oversees) an operator or arbiter. A payee sees their own lines.

        Raises: NotFound for anybody else.
        """
        escrow, earnings = await self._read(escrow_id), await self._store.read_earnings(escrow_id)
        if oversees or escrow.payer == user_id:
            return escrow, earnings
        own = tuple(earning for earning in earnings if earning.payee == user_id)
        if not own:
            raise NotFound(f"escrow {escrow_id} does not exist", next_step="an escrow has its job's id: list your jobs")
        return escrow, own

    async def earnings(self, user_id: UUID) -> tuple[EarningsSummary, ...]:
        """The user's earnings per asset: total, today, week, month, pending, average hourly rate."""
        return await self._store.summary(user_id)

    async def _read(self, escrow_id: UUID) -> Escrow:
        escrow = await self._store.read(escrow_id)
        if escrow is None:
            raise NotFound(f"escrow {escrow_id} does not exist", next_step="an escrow has its job's id: list your jobs")
        return escrow

    async def _fund(self, escrow_id: UUID, user_id: UUID, n: int, amount: Qu, asset: Asset) -> Escrow:
        if not 0 < amount <= AMOUNT_MAX:
            raise Invalid("an escrow is funded with a positive amount", next_step="give a budget of at least 1 unit")
        code = await self._store.fund(escrow_id, n, amount)
        if code is Code.INSUFFICIENT:
            raise missing_funds(amount, await self._ledger.available(user_id, asset))
        if code is Code.NOT_DUE:
            raise NotReconciled(
                "no job is paid from a wallet now: this platform was restored from a backup, and what the chain paid out since is being looked up",
                next_step="try again once it is known; nothing was made, and nothing was taken",
            )
        escrow = await self._changed(escrow_id, code)
        if code is Code.DONE:
            self._tell(wallet_event(user_id, asset, EntryType.ESCROW_LOCK, -amount, escrow_id))
        return escrow

    async def _settle(self, escrow_id: UUID, outcome: Outcome, lines: Sequence[Line], *, fee_bps: int, window_s: float) -> Escrow:
        code = await self._store.settle(escrow_id, outcome, lines, fee_bps=fee_bps, window_s=window_s, decision_s=self._decision_s)
        escrow = await self._changed(escrow_id, code)
        if code is not Code.DONE:
            return escrow
        if escrow.refunded:
            self._tell(wallet_event(escrow.payer, escrow.asset, EntryType.REFUND, escrow.refunded, escrow_id))
        for earning in await self._store.read_earnings(escrow_id):
            self._tell_earning(earning)
        return escrow

    async def _changed(self, escrow_id: UUID, code: Code) -> Escrow:
        if code < 0:
            refuse(code, f"escrow {escrow_id}")
        escrow = await self._read(escrow_id)
        if code is Code.DONE:
            self._tell(
                Event(
                    EventType.ESCROW_UPDATE,
                    (f"escrow:{escrow_id}",),
                    escrow_id,
                    {
                        "state": escrow.state,
                        "funded": escrow.funded,
                        "paid": escrow.paid,
                        "refunded": escrow.refunded,
                        "asset": escrow.asset.name,
                    },
                )
            )
        return escrow

    def _tell_earning(self, earning: Earning) -> None:
        self._tell(
            Event(
                EventType.EARNINGS_UPDATE,
                (f"earnings:{earning.payee}",),
                earning.id,
                {
                    "escrow_id": str(earning.escrow_id),
                    "line": earning.line,
                    "state": earning.state,
                    "asset": earning.asset.name,
                    "gross": earning.gross,
                    "fee": earning.fee,
                    "to_payee": earning.to_payee,
                    "matures_at": earning.matures_at.isoformat(),
                },
            )
        )

    async def _tell_end(self, earning: Earning) -> None:
        self._tell_earning(earning)
        if earning.net:
            self._tell(wallet_event(earning.payee, earning.asset, EntryType.EARNING, earning.net, earning.escrow_id))
        if back := earning.gross - (earning.to_payee or 0):
            payer = (await self._read(earning.escrow_id)).payer
            self._tell(wallet_event(payer, earning.asset, EntryType.REFUND, back, earning.escrow_id))

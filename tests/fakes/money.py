"""The money acts as a pure model: the same acts, answers and balances as the database, in plain Python."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from qubix.escrow.model import ESCROW_WAYS, EarningState, EscrowState, Outcome, ruled_shares, settled_state
from qubix.kernel.money import Qu, fee
from qubix.ledger.model import Code

CHAIN, FEE = "chain", "fee"
Lines = Sequence[tuple[str, str, int]]
"""(line, payee, gross)"""


@dataclasses.dataclass
class ModelEarning:
    payee: str
    gross: int
    bps: int
    due: bool
    account: str
    state: EarningState = EarningState.PENDING
    to_payee: int | None = None


@dataclasses.dataclass
class ModelEscrow:
    payer: str
    account: str
    state: EscrowState = EscrowState.PENDING
    funds: dict[int, int] = dataclasses.field(default_factory=dict)
    paid: int = 0
    refunded: int = 0
    digest: object = None
    proposed: Lines = ()
    evidence: str | None = None
    ruled: tuple[str, int | None] | None = None
    earnings: dict[str, ModelEarning] = dataclasses.field(default_factory=dict)

    @property
    def funded(self) -> int:
        return sum(self.funds.values())


class Money:
    """Every account's balance is the sum of its journal entries; nothing else is kept."""

    def __init__(self) -> None:
        self.journal: list[tuple[str, str, str, int]] = []
        self.wallets: set[str] = set()
        self.arbiters: set[str] = set()
        self.faucets: dict[tuple[str, str], int] = {}
        self.escrows: dict[str, ModelEscrow] = {}

    def balance(self, account: str) -> int:
        return sum((amount if credit == account else 0) - (amount if debit == account else 0) for _, debit, credit, amount in self.journal)

    def balances(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for _, debit, credit, amount in self.journal:
            found[debit] -= amount
            found[credit] += amount
        return found

    def _move(self, act: str, debit: str, credit: str, amount: int) -> None:
        if amount:
            self.journal.append((act, debit, credit, amount))

    def faucet(self, user: str, n: str, amount: int) -> Code:
        if user not in self.wallets:
            return Code.NO_WALLET
        if not 0 < amount <= 10**15:
            return Code.OUT_OF_RANGE
        if (user, n) in self.faucets:
            return Code.DONE_ALREADY if self.faucets[user, n] == amount else Code.OTHER_CONTENT
        self.faucets[user, n] = amount
        self._move("faucet", CHAIN, user, amount)
        return Code.DONE

    def open_escrow(self, escrow: str, user: str) -> Code:
        if user not in self.wallets:
            return Code.NO_WALLET
        if escrow in self.escrows:
            return Code.DONE_ALREADY if self.escrows[escrow].payer == user else Code.OTHER_CONTENT
        self.escrows[escrow] = ModelEscrow(user, f"escrow {escrow}")
        return Code.DONE

    def fund(self, escrow: str, n: int, amount: int) -> Code:
        if (e := self.escrows.get(escrow)) is None:
            return Code.UNKNOWN
        if n < 1:
            return Code.OUT_OF_RANGE
        known = e.funds.get(n)
        repeat = None if known is None else Code.DONE_ALREADY if known == amount else Code.OTHER_CONTENT
        if e.state not in (EscrowState.PENDING, EscrowState.LOCKED) or (e.state is EscrowState.PENDING) != (n == 1):
            return Code.WRONG_STATE if repeat is None else repeat
        if repeat is not None:
            return repeat
        if amount <= 0:
            return Code.OUT_OF_RANGE
        if self.balance(e.payer) < amount:
            return Code.INSUFFICIENT
        e.funds[n], e.state = amount, EscrowState.LOCKED
        self._move("fund", e.payer, e.account, amount)
        return Code.DONE

    def cancel(self, escrow: str) -> Code:
        if (e := self.escrows.get(escrow)) is None:
            return Code.UNKNOWN
        if e.state is EscrowState.REFUNDED and e.funded == 0:
            return Code.DONE_ALREADY
        if e.state is not EscrowState.PENDING:
            return Code.WRONG_STATE
        e.state = EscrowState.REFUNDED
        return Code.DONE

    def settle(self, escrow: str, outcome: Outcome, lines: Lines, bps: int, *, due: bool, overdue: bool) -> Code:
        if (e := self.escrows.get(escrow)) is None:
            return Code.UNKNOWN
        if len({line for line, _, _ in lines}) != len(lines) or any(gross < 0 for _, _, gross in lines):
            return Code.OUT_OF_RANGE
        digest, total = (outcome, bps, frozenset(lines)), sum(gross for _, _, gross in lines)
        if e.digest is not None and e.digest != digest:
            return Code.OTHER_CONTENT
        if not ESCROW_WAYS[e.state]:
            return Code.WRONG_STATE if e.digest is None else Code.DONE_ALREADY
        if e.state is EscrowState.PENDING:
            return Code.WRONG_STATE
        if total > e.funded:
            return Code.OUT_OF_RANGE
        if any(payee not in self.wallets for _, payee, _ in lines):
            return Code.NO_WALLET
        ordered, paying = sorted(lines), total
        if e.state is EscrowState.DISPUTED:
            if e.ruled is None and not overdue:
                e.digest, e.proposed = digest, lines
                return Code.WAITING
            if e.ruled is not None and e.ruled[1] is not None:
                paying = min(total, e.ruled[1])
            due = True
        shares = ruled_shares(Qu(paying), [Qu(gross) for _, _, gross in ordered])
        for (line, payee, _), share in zip(ordered, shares, strict=True):
            if share:
                purse = f"earning {escrow} {line}"
                e.earnings[line] = ModelEarning(payee, share, bps, due, purse)
                self._move("pay", e.account, purse, share)
        self._move("rest", e.account, e.payer, e.funded - paying)
        e.paid, e.refunded, e.digest = paying, e.funded - paying, digest
        e.state = settled_state(outcome, Qu(paying), Qu(total))
        return Code.DONE

    def mature(self, escrow: str, line: str) -> Code:
        e = self.escrows.get(escrow)
        if e is None or (g := e.earnings.get(line)) is None:
            return Code.UNKNOWN
        if g.state is EarningState.PAID:
            return Code.DONE_ALREADY
        if g.state is not EarningState.PENDING:
            return Code.WRONG_STATE
        if not g.due:
            return Code.NOT_DUE
        self._end(e, g, g.gross)
        return Code.DONE

    def dispute(self, escrow: str, user: str, evidence: str) -> Code:
        e = self.escrows.get(escrow)
        if e is None or e.payer != user:
            return Code.UNKNOWN
        if not evidence.strip():
            return Code.OUT_OF_RANGE
        if e.evidence is not None:
            return Code.DONE_ALREADY if e.evidence == evidence else Code.OTHER_CONTENT
        if e.state is EscrowState.LOCKED:
            e.state = EscrowState.DISPUTED
        else:
            frozen = [g for g in e.earnings.values() if g.state is EarningState.PENDING and not g.due]
            if not frozen:
                return Code.WRONG_STATE
            for g in frozen:
                g.state = EarningState.FROZEN
        e.evidence = evidence
        return Code.DONE

    def rule(self, escrow: str, arbiter: str, to_payee: int | None) -> Code:
        if (e := self.escrows.get(escrow)) is None:
            return Code.UNKNOWN
        payees = {g.payee for g in e.earnings.values()} | {payee for _, payee, _ in e.proposed}
        if arbiter not in self.arbiters or arbiter == e.payer or arbiter in payees:
            return Code.NOT_ALLOWED
        if e.ruled is not None:
            return Code.DONE_ALREADY if e.ruled == (arbiter, to_payee) else Code.OTHER_CONTENT
        disputed = e.state is EscrowState.DISPUTED
        if not disputed and not any(g.state is EarningState.FROZEN for g in e.earnings.values()):
            return Code.WRONG_STATE
        if disputed and e.digest is None:
            return Code.WRONG_STATE
        if to_payee is not None and not 0 <= to_payee <= (e.funded if disputed else e.paid):
            return Code.OUT_OF_RANGE
        e.ruled = (arbiter, to_payee)
        return Code.DONE

    def resolve(self, escrow: str, line: str, *, overdue: bool) -> Code:
        e = self.escrows.get(escrow)
        if e is None or (g := e.earnings.get(line)) is None:
            return Code.UNKNOWN
        if g.state is not EarningState.FROZEN:
            was_frozen = e.evidence is not None and g.state is not EarningState.PENDING and not g.due
            return Code.DONE_ALREADY if was_frozen else Code.WRONG_STATE
        if e.ruled is None and not overdue:
            return Code.NOT_DUE
        names = sorted(e.earnings)
        part = g.gross
        if e.ruled is not None and e.ruled[1] is not None:
            part = ruled_shares(Qu(e.ruled[1]), [Qu(e.earnings[name].gross) for name in names])[names.index(line)]
        self._end(e, g, part)
        return Code.DONE

    def _end(self, e: ModelEscrow, g: ModelEarning, part: int) -> None:
        taken = fee(Qu(part), g.bps)
        self._move("fee", g.account, FEE, taken)
        self._move("net", g.account, g.payee, part - taken)
        self._move("back", g.account, e.payer, g.gross - part)
        g.to_payee = part
        g.state = EarningState.PAID if part == g.gross else EarningState.SPLIT if part else EarningState.REVERSED

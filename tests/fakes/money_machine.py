"""One Hypothesis machine over the money acts: alone it proves the model, with a ledger it proves that the two agree.

Every act may be sent once, twice (the reply was lost), or first in a transaction that crashes before its commit.
"""

from __future__ import annotations

from typing import Protocol

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qubix.escrow.model import ESCROW_WAYS, EarningState, EscrowState, Outcome
from qubix.ledger.model import Code
from tests.fakes.money import CHAIN, Lines, Money

PEOPLE = ("ann", "bob", "cem", "dora", "judge")
LINES = ("1", "2", "3")
escrows = st.sampled_from(("job-1", "job-2", "job-3"))
people = st.sampled_from(PEOPLE)
amounts = st.one_of(st.integers(-1, 12), st.integers(1, 1000), st.just(2**63 - 1))
line_lists = st.lists(st.tuples(st.sampled_from(LINES), people, st.one_of(st.integers(0, 5), st.integers(0, 400))), max_size=3)
whole_units = st.one_of(st.none(), st.integers(-1, 900))
fees = st.sampled_from((0, 1, 250, 3333, 10_000))
sendings = st.sampled_from(("once", "twice", "crash, then again"))


class Ledger(Protocol):
    """What the machine drives beside its model. `crash` runs the act in a transaction that never commits."""

    def act(self, name: str, *arguments: object, crash: bool = False) -> Code: ...

    def balances(self) -> dict[str, int]: ...

    def close(self) -> None: ...


class MoneyMachine(RuleBasedStateMachine):
    """Any order of acts, right or wrong, by anybody."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Money()
        self.ledger: Ledger | None = self.open_ledger()

    def open_ledger(self) -> Ledger | None:
        """The ledger to compare with; the model alone where there is none."""
        return None

    @initialize()
    def people_sign_up(self) -> None:
        self.model.wallets.update(PEOPLE)
        self.model.arbiters.add("judge")
        for person in PEOPLE[:3]:
            self._send("once", "faucet", person, "start", 1000)
        for escrow, payer in (("job-1", "ann"), ("job-2", "bob")):
            self._send("once", "open_escrow", escrow, payer)
            self._send("once", "fund", escrow, 1, 700)

    def _send(self, sending: str, name: str, *arguments: object) -> Code:
        if self.ledger is not None and sending == "crash, then again":
            self.ledger.act(name, *arguments, crash=True)
        code = self._once(name, *arguments)
        if sending == "twice":
            before = list(self.model.journal)
            again = self._once(name, *arguments)
            if code is Code.DONE:
                assert again is Code.DONE_ALREADY
                assert self.model.journal == before
        return code

    def _once(self, name: str, *arguments: object) -> Code:
        code: Code = getattr(self.model, name)(*arguments) if name not in ("settle", "resolve") else self._keyword(name, *arguments)
        if self.ledger is not None:
            found = self.ledger.act(name, *arguments)
            assert found is code, f"{name}{arguments}: the ledger answers {found!r}, the model {code!r}"
        return code

    def _keyword(self, name: str, *arguments: object) -> Code:
        if name == "settle":
            *plain, due, overdue = arguments
            return self.model.settle(*plain, due=bool(due), overdue=bool(overdue))  # type: ignore[arg-type]
        *plain, overdue = arguments
        return self.model.resolve(*plain, overdue=bool(overdue))  # type: ignore[arg-type]

    @rule(sending=sendings, user=people, n=st.sampled_from(("a", "b")), amount=amounts)
    def faucet(self, sending: str, user: str, n: str, amount: int) -> None:
        self._send(sending, "faucet", user, n, amount)

    @rule(sending=sendings, escrow=escrows, user=people)
    def open_escrow(self, sending: str, escrow: str, user: str) -> None:
        self._send(sending, "open_escrow", escrow, user)

    @rule(sending=sendings, escrow=escrows, n=st.integers(0, 3), amount=amounts)
    def fund(self, sending: str, escrow: str, n: int, amount: int) -> None:
        self._send(sending, "fund", escrow, n, amount)

    @rule(sending=sendings, escrow=escrows, user=people, amount=st.integers(1, 900))
    def open_and_fund(self, sending: str, escrow: str, user: str, amount: int) -> None:
        self._send(sending, "open_escrow", escrow, user)
        self._send(sending, "fund", escrow, 1, amount)

    @rule(sending=sendings, escrow=escrows)
    def cancel(self, sending: str, escrow: str) -> None:
        self._send(sending, "cancel", escrow)

    @rule(
        sending=sendings,
        escrow=escrows,
        outcome=st.sampled_from(Outcome),
        lines=line_lists,
        bps=fees,
        due=st.booleans(),
        overdue=st.booleans(),
    )
    def settle(self, sending: str, escrow: str, outcome: Outcome, lines: Lines, bps: int, due: bool, overdue: bool) -> None:
        self._send(sending, "settle", escrow, outcome, tuple(lines), bps, due, overdue)

    @rule(sending=sendings, escrow=escrows, user=people, evidence=st.sampled_from(("it is wrong", "other", " ")))
    def dispute(self, sending: str, escrow: str, user: str, evidence: str) -> None:
        self._send(sending, "dispute", escrow, user, evidence)

    @rule(sending=sendings, data=st.data())
    def a_job_ends(self, sending: str, data: st.DataObject) -> None:
        """A settlement that fits: the way money mostly goes."""
        live = [name for name, e in self.model.escrows.items() if e.state in (EscrowState.LOCKED, EscrowState.DISPUTED)]
        if not live:
            return
        escrow = data.draw(st.sampled_from(live))
        left, lines = self.model.escrows[escrow].funded, []
        for line in LINES[: data.draw(st.integers(0, 3))]:
            gross = data.draw(st.integers(0, left))
            left -= gross
            lines.append((line, data.draw(st.sampled_from(PEOPLE[2:4])), gross))
        due, overdue = data.draw(st.booleans()), data.draw(st.booleans())
        self._send(sending, "settle", escrow, data.draw(st.sampled_from(Outcome)), tuple(lines), data.draw(fees), due, overdue)

    @rule(sending=sendings, data=st.data())
    def an_earning_is_asked_for(self, sending: str, data: st.DataObject) -> None:
        """mature or resolve of an earning that exists, in whatever state."""
        earned = [(name, line) for name, e in self.model.escrows.items() for line in e.earnings]
        if earned:
            escrow, line = data.draw(st.sampled_from(earned))
            if data.draw(st.booleans()):
                self._send(sending, "mature", escrow, line)
            else:
                self._send(sending, "resolve", escrow, line, data.draw(st.booleans()))

    @rule(sending=sendings)
    def what_is_due_is_paid(self, sending: str) -> None:
        for name, e in self.model.escrows.items():
            for line, g in e.earnings.items():
                if g.due and g.state is EarningState.PENDING:
                    self._send(sending, "mature", name, line)

    @rule(sending=sendings, data=st.data())
    def the_judge_splits(self, sending: str, data: st.DataObject) -> None:
        """A ruling that fits, then what it frees."""
        for name, e in self.model.escrows.items():
            if e.evidence is not None and e.ruled is None:
                self._send(sending, "rule", name, "judge", data.draw(st.integers(0, e.paid or e.funded)))
                for line in e.earnings:
                    self._send(sending, "resolve", name, line, False)
                return

    @rule(sending=sendings, escrow=escrows)
    def the_payer_disputes(self, sending: str, escrow: str) -> None:
        if escrow in self.model.escrows:
            self._send(sending, "dispute", escrow, self.model.escrows[escrow].payer, "it is wrong")

    @rule(sending=sendings, escrow=escrows, arbiter=st.sampled_from(("judge", "judge", "ann")), to_payee=whole_units)
    def decide(self, sending: str, escrow: str, arbiter: str, to_payee: int | None) -> None:
        self._send(sending, "rule", escrow, arbiter, to_payee)

    @invariant()
    def money_is_neither_lost_nor_made(self) -> None:
        found = self.model.balances()
        assert sum(found.values()) == 0
        assert all(amount >= 0 for account, amount in found.items() if account != CHAIN)

    @invariant()
    def every_escrow_is_whole(self) -> None:
        balances = self.model.balances()
        for e in self.model.escrows.values():
            if ESCROW_WAYS[e.state]:
                assert balances[e.account] == e.funded
                assert e.paid == e.refunded == 0
            else:
                assert balances[e.account] == 0
                assert e.paid + e.refunded == e.funded
                assert e.paid == sum(g.gross for g in e.earnings.values())
            assert e.state is not EscrowState.REFUNDED or e.paid == 0
            for g in e.earnings.values():
                open_now = g.state in (EarningState.PENDING, EarningState.FROZEN)
                assert balances[g.account] == (g.gross if open_now else 0)

    @invariant()
    def the_ledger_agrees(self) -> None:
        if self.ledger is not None:
            mine = self.model.balances()
            assert self.ledger.balances() == {
                account: mine[account] for account in (*PEOPLE, *(e.account for e in self.model.escrows.values()))
            }

    def teardown(self) -> None:
        if self.ledger is not None:
            self.ledger.close()

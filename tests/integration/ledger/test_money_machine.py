"""The machine of tests/fakes/money_machine.py, with PostgreSQL beside the model."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID, uuid4, uuid5

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from qubix.kernel.ids import transfer_id
from qubix.ledger.model import Code
from qubix.postgres.embedded import EmbeddedServer
from tests.fakes.money_machine import PEOPLE, MoneyMachine
from tests.integration.ledger.desk import CONTROLLER, LONG_S, WEB, Desk, open_desk


class _Postgres:
    """The acts on PostgreSQL under the model's names: people and escrows of this example have ids of their own."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._example = uuid4()
        self._people = {name: desk.person(roles=("arbiter",) if name == "judge" else ()) for name in PEOPLE}
        self._escrows: set[str] = set()

    def _escrow(self, name: str) -> UUID:
        self._escrows.add(name)
        return uuid5(self._example, name)

    def _earning(self, escrow: str, line: str) -> UUID:
        return transfer_id(self._escrow(escrow), f"line/{line}")

    def act(self, name: str, *arguments: object, crash: bool = False) -> Code:
        found: Code = getattr(self, f"_{name}")(*arguments, crash)
        return found

    def _call(self, role: str, sql: str, *arguments: object, crash: bool) -> Code:
        return Code(self._desk.act(role, sql, *arguments, crash=crash))

    def _faucet(self, user: str, n: str, amount: int, crash: bool) -> Code:
        return self._call(WEB, "SELECT faucet($1, 1::smallint, $2, $3)", self._people[user], amount, n, crash=crash)

    def _open_escrow(self, escrow: str, user: str, crash: bool) -> Code:
        return self._call(WEB, "SELECT open_escrow($1, $2, 1::smallint)", self._escrow(escrow), self._people[user], crash=crash)

    def _fund(self, escrow: str, n: int, amount: int, crash: bool) -> Code:
        return self._call(CONTROLLER, "SELECT fund($1, $2, $3)", self._escrow(escrow), n, amount, crash=crash)

    def _cancel(self, escrow: str, crash: bool) -> Code:
        return self._call(WEB, "SELECT cancel_pending_escrow($1)", self._escrow(escrow), crash=crash)

    def _settle(
        self, escrow: str, outcome: str, lines: tuple[tuple[str, str, int], ...], bps: int, due: bool, overdue: bool, crash: bool
    ) -> Code:
        theirs = [(line, self._people[payee], gross) for line, payee, gross in lines]
        window_s, decision_s = 0.0 if due else LONG_S, 0.0 if overdue else LONG_S
        return self._desk.settle(self._escrow(escrow), outcome, theirs, bps=bps, window_s=window_s, decision_s=decision_s, crash=crash)

    def _mature(self, escrow: str, line: str, crash: bool) -> Code:
        return self._desk.mature([self._earning(escrow, line)], crash=crash)[0]

    def _dispute(self, escrow: str, user: str, evidence: str, crash: bool) -> Code:
        return self._call(WEB, "SELECT dispute($1, $2, $3)", self._escrow(escrow), self._people[user], evidence, crash=crash)

    def _rule(self, escrow: str, arbiter: str, to_payee: int | None, crash: bool) -> Code:
        return self._call(WEB, "SELECT rule($1, $2, $3, 'as I see it')", self._escrow(escrow), self._people[arbiter], to_payee, crash=crash)

    def _resolve(self, escrow: str, line: str, overdue: bool, crash: bool) -> Code:
        decision_s = 0.0 if overdue else LONG_S
        return self._call(CONTROLLER, "SELECT resolve($1, make_interval(secs => $2))", self._earning(escrow, line), decision_s, crash=crash)

    def balances(self) -> dict[str, int]:
        names = {user: name for name, user in self._people.items()}
        ids = {self._escrow(name): f"escrow {name}" for name in tuple(self._escrows)}
        wallets = self._desk.rows(
            "SELECT owner_id AS id, posted FROM accounts WHERE kind = 'wallet' AND asset = 1 AND owner_id = ANY($1)", list(names)
        )
        purses = self._desk.rows(
            "SELECT e.id, a.posted FROM escrows e JOIN accounts a ON a.id = e.account_id WHERE e.id = ANY($1)", list(ids)
        )
        return {names[row["id"]]: row["posted"] for row in wallets} | {ids[row["id"]]: row["posted"] for row in purses}

    def close(self) -> None:
        """Every example ends with the audit of the whole ledger."""
        assert self._desk.audit() == []


class _OnPostgres(MoneyMachine):
    desk: ClassVar[Desk]

    def open_ledger(self) -> _Postgres:
        return _Postgres(self.desk)


def test_p_a04_a08_b18_b19_b20_no_order_of_acts_repeats_or_crashes_loses_or_makes_money(postgres: EmbeddedServer) -> None:
    with open_desk(postgres) as desk:
        _OnPostgres.desk = desk
        run_state_machine_as_test(
            _OnPostgres,
            settings=settings(max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)),
        )

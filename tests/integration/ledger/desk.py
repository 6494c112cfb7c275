"""A money desk for property tests: synchronous calls of the acts, each by the role that may make it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from qubix.escrow.model import Outcome
from qubix.ledger.model import Code
from qubix.postgres.embedded import OWNER, EmbeddedServer
from tests.conftest import clone, drop

WEB, CONTROLLER, TREASURY, FABRIC, SIGNER = "qubix_web", "qubix_controller", "qubix_treasury", "qubix_fabric", "qubix_signer"
LONG_S: Final = 86_400.0


class Desk:
    """Connections of all roles to one database, autocommitting; a crash is a transaction that is rolled back."""

    def __init__(self, server: EmbeddedServer, name: str) -> None:
        self._runner = asyncio.Runner()
        self._connections: dict[str, asyncpg.Connection] = {
            role: self._runner.run(asyncpg.connect(server.url(role, name))) for role in (OWNER, WEB, CONTROLLER, TREASURY, FABRIC, SIGNER)
        }

    def close(self) -> None:
        for connection in self._connections.values():
            self._runner.run(connection.close())
        self._runner.close()

    def value(self, role: str, sql: str, *arguments: object) -> Any:
        """The first column of the first row, as `role`."""
        return self._runner.run(self._connections[role].fetchval(sql, *arguments))

    def rows(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        """All rows, as the owner."""
        found: list[asyncpg.Record] = self._runner.run(self._connections[OWNER].fetch(sql, *arguments))
        return found

    def act(self, role: str, sql: str, *arguments: object, crash: bool = False) -> Any:
        """One act; `crash` rolls it back before anybody sees it."""
        if not crash:
            return self.value(role, sql, *arguments)
        return self._runner.run(self._crash(role, sql, *arguments))

    async def _crash(self, role: str, sql: str, *arguments: object) -> Any:
        transaction = self._connections[role].transaction()
        await transaction.start()
        try:
            return await self._connections[role].fetchval(sql, *arguments)
        finally:
            await transaction.rollback()

    def person(self, money: int = 0, *, roles: Sequence[str] = ()) -> UUID:
        """A user with wallets."""
        user = uuid4()
        self.value(OWNER, "INSERT INTO users (id, email, roles) VALUES ($1, $2, $3)", user, f"{user.hex}@example.org", list(roles))
        self.value(WEB, "SELECT open_wallets($1)", user)
        if money:
            assert self.value(WEB, "SELECT faucet($1, 1::smallint, $2, 'first')", user, money) == 0
        return user

    def posted(self, user: UUID) -> int:
        """The balance of the user's QUBIC wallet."""
        return int(self.value(OWNER, "SELECT posted FROM accounts WHERE owner_id = $1 AND kind = 'wallet' AND asset = 1", user))

    def locked(self, payer: UUID, amount: int) -> UUID:
        """A LOCKED escrow with `amount` of the payer's money."""
        escrow = uuid4()
        assert self.value(WEB, "SELECT open_escrow($1, $2, 1::smallint)", escrow, payer) == 0
        assert self.value(WEB, "SELECT fund($1, 1, $2)", escrow, amount) == 0
        return escrow

    def settle(
        self,
        escrow: UUID,
        outcome: Outcome | str,
        lines: Sequence[tuple[str, UUID, int]],
        *,
        bps: int = 0,
        window_s: float = 0.0,
        decision_s: float = LONG_S,
        crash: bool = False,
    ) -> Code:
        """The job's end; each unit of gross counts as a second."""
        code = self.act(
            CONTROLLER,
            "SELECT settle($1, $2, $3, $4, $5, $6, $7, make_interval(secs => $8), make_interval(secs => $9))",
            escrow,
            str(outcome),
            [line for line, _, _ in lines],
            [payee for _, payee, _ in lines],
            [gross for _, _, gross in lines],
            [min(max(0, gross) * 1000, 10**12) for _, _, gross in lines],
            bps,
            window_s,
            decision_s,
            crash=crash,
        )
        return Code(code)

    def mature(self, earnings: Sequence[UUID], *, crash: bool = False) -> list[Code]:
        """Pay out."""
        return [Code(code) for code in self.act(CONTROLLER, "SELECT mature($1)", list(earnings), crash=crash)]

    def audit(self) -> list[tuple[str, int, str]]:
        """What the audit finds."""
        return [tuple(row) for row in self.rows("SELECT rule, n, example FROM audit() WHERE n > 0")]


@contextmanager
def open_desk(server: EmbeddedServer, *, network: str = "none") -> Iterator[Desk]:
    """A desk over a fresh database that was born on `network`."""
    name = f"t_{uuid4().hex[:12]}"
    asyncio.run(clone(server, name))
    desk = Desk(server, name)
    try:
        assert desk.value(OWNER, "SELECT found_ledger($1)", network) >= 0
        yield desk
    finally:
        desk.close()
        asyncio.run(drop(server, name))

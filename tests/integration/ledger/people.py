"""People with wallets, for tests: made by the owner's hand, so that what follows runs as the roles do."""

from __future__ import annotations

from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.ledger.store import LedgerStore


async def person(owner: AsyncConnection, *, money: int = 0, roles: tuple[str, ...] = ()) -> UUID:
    """A user with wallets and `money` units of QUBIC from the faucet. The ledger must be born on network none."""
    user = uuid4()
    await owner.execute(
        sa.text("INSERT INTO users (id, email, roles) VALUES (:id, :email, cast(:roles AS text[]))"),
        {"id": user, "email": f"{user.hex}@example.org", "roles": list(roles)},
    )
    await LedgerStore(owner).open_wallets(user)
    if money:
        assert await owner.scalar(sa.text("SELECT faucet(:u, 1::smallint, :m, 'first')"), {"u": user, "m": money}) == 0
    return user


async def born(owner: AsyncConnection, network: str = "none") -> None:
    """Found the ledger on `network`; a ledger that the template founded already must agree."""
    assert await LedgerStore(owner).found(network) >= 0


async def problems(owner: AsyncConnection) -> list[tuple[str, int, str]]:
    """What the audit finds."""
    return [(p.rule, p.count, p.example) for p in await LedgerStore(owner).audit()]


async def posted(owner: AsyncConnection, user: UUID) -> int:
    """The balance of the user's QUBIC wallet."""
    return int(
        await owner.scalar(sa.text("SELECT posted FROM accounts WHERE owner_id = :u AND kind = 'wallet' AND asset = 1"), {"u": user}) or 0
    )

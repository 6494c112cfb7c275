"""SQL of wallet logins: challenges, and the identities that log in to an account."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.identity.challenge import Challenge
from qubix.identity.tables import wallet_challenges, wallet_identities

# Used first, judged after: a refusal rolls it back. Of two requests with one nonce the second waits here, then finds it used.
_USE: Final = sa.text("""
UPDATE wallet_challenges SET used_at = clock_timestamp() WHERE nonce = :nonce AND used_at IS NULL
RETURNING identity, text, purpose, user_id, expires_at <= clock_timestamp() AS expired
""")
# The lock serialises all that is decided about one identity, whether it has a row yet or not.
_LOCK: Final = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('qubix wallet ' || cast(:identity AS text), 0))")
_ACCOUNT: Final = sa.text("""
SELECT w.user_id, u.disabled_at IS NOT NULL AS disabled FROM wallet_identities w JOIN users u ON u.id = w.user_id WHERE w.identity = :identity
""")
# Under the account's lock two removals cannot each take the other for the way in that stays.
_WAYS_IN: Final = sa.text("""
SELECT email IS NOT NULL AND password_hash IS NOT NULL AS password FROM users WHERE id = :user FOR NO KEY UPDATE
""")


class WalletStore:
    """Reads and writes challenges and linked identities in one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def now(self) -> dt.datetime:
        """The database's clock, by which a challenge expires."""
        at: dt.datetime = (await self._connection.execute(sa.text("SELECT clock_timestamp()"))).scalar_one()
        return at

    async def add_challenge(self, challenge: Challenge) -> None:
        """Keep a challenge until it is answered."""
        await self._connection.execute(
            wallet_challenges.insert().values(
                nonce=challenge.nonce,
                identity=challenge.identity,
                text=challenge.text,
                purpose=challenge.purpose.value,
                user_id=challenge.user_id,
                created_at=challenge.issued_at,
                expires_at=challenge.expires_at,
            )
        )

    async def use_challenge(self, nonce: str) -> sa.Row[Any] | None:
        """Use a challenge up: (identity, text, purpose, user_id, expired); None when there is none, or it was used."""
        return (await self._connection.execute(_USE, {"nonce": nonce})).one_or_none()

    async def lock_identity(self, identity: str) -> sa.Row[Any] | None:
        """Whose the identity is, until this transaction ends: (user_id, disabled), None for nobody's."""
        await self._connection.execute(_LOCK, {"identity": identity})
        return (await self._connection.execute(_ACCOUNT, {"identity": identity})).one_or_none()

    async def has_password(self, user_id: UUID) -> bool:
        """Whether the account can be logged in to by a password. Locks the account's ways in until this transaction ends."""
        return bool((await self._connection.execute(_WAYS_IN, {"user": user_id})).scalar_one())

    async def link(self, identity: str, user_id: UUID, scheme: str) -> None:
        """Let an identity log in to an account."""
        await self._connection.execute(wallet_identities.insert().values(identity=identity, user_id=user_id, scheme=scheme))

    async def unlink(self, identity: str, user_id: UUID) -> bool:
        """Take an identity from this account; False when the account has no such one."""
        statement = wallet_identities.delete().where(wallet_identities.c.identity == identity, wallet_identities.c.user_id == user_id)
        return (await self._connection.execute(statement)).rowcount == 1

    async def wallets(self, user_id: UUID) -> list[sa.Row[Any]]:
        """(identity, scheme, linked_at) of the account's wallets, oldest first."""
        statement = sa.text("SELECT identity, scheme, linked_at FROM wallet_identities WHERE user_id = :user ORDER BY linked_at, identity")
        return list((await self._connection.execute(statement, {"user": user_id})).all())

    async def sweep(self, batch_max: int) -> int:
        """Delete challenges that expired an hour ago, at most `batch_max`; until then a late signature is told why. Returns how many."""
        statement = sa.text(
            "DELETE FROM wallet_challenges WHERE nonce IN"
            " (SELECT nonce FROM wallet_challenges WHERE expires_at < now() - interval '1 hour' LIMIT :most)"
        )
        return (await self._connection.execute(statement, {"most": batch_max})).rowcount

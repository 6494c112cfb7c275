"""SQL of accounts: users, API keys, sessions, idempotency keys."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.identity import tables as tables
from qubix.postgres.metadata import declare_sql

declare_sql(__file__, "identity.sql", order=20)

# One probe of a unique index each, joined with the account; disabled accounts are nobody.
_BY_KEY: Final = sa.text("""
SELECT u.id, u.roles, k.scopes, 'key' AS via, k.id AS credential_id,
       k.last_used_at IS NULL OR k.last_used_at < now() - make_interval(secs => :step) AS touch
FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.key_hash = :hash AND u.disabled_at IS NULL
""")
_BY_SESSION: Final = sa.text("""
SELECT u.id, u.roles, NULL AS scopes, s.kind AS via, s.id AS credential_id, false AS touch
FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.token_hash = :hash AND s.expires_at > now() AND u.disabled_at IS NULL
""")
# No word of roles: the web role may not write them.
_ADD_USER: Final = sa.text("""
INSERT INTO users (id, email, name, password_hash) VALUES (:id, :email, :name, :hash)
ON CONFLICT (email) DO NOTHING RETURNING id, email, name, roles, created_at
""")
_PATCH: Final = sa.text("""
UPDATE users SET name = coalesce(:name, name), password_hash = coalesce(:hash, password_hash)
WHERE id = :id RETURNING id, email, name, roles, created_at
""")


class IdentityStore:
    """Reads and writes accounts in one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def _one(self, statement: sa.TextClause, **values: Any) -> sa.Row[Any] | None:
        return (await self._connection.execute(statement, values)).one_or_none()

    async def add_user(self, user_id: UUID, email: str | None, name: str, password_hash: str | None) -> sa.Row[Any] | None:
        """Insert an account without roles; None when the address is taken."""
        return await self._one(_ADD_USER, id=user_id, email=email, name=name, hash=password_hash)

    async def set_roles(self, user_id: UUID, roles: list[str]) -> sa.Row[Any] | None:
        """Give an account exactly these roles. The database lets nobody but its owner do this."""
        return await self._one(
            sa.text("UPDATE users SET roles = :roles WHERE id = :id RETURNING id, email, name, roles, created_at"), id=user_id, roles=roles
        )

    async def user(self, user_id: UUID) -> sa.Row[Any] | None:
        """The account, or None."""
        return await self._one(sa.text("SELECT id, email, name, roles, created_at FROM users WHERE id = :id"), id=user_id)

    async def credentials(self, email: str) -> sa.Row[Any] | None:
        """(id, password_hash) of an account that may log in."""
        return await self._one(sa.text("SELECT id, password_hash FROM users WHERE email = :email AND disabled_at IS NULL"), email=email)

    async def password_hash(self, user_id: UUID) -> str | None:
        """The stored hash, None where the account has no password."""
        found: str | None = await self._connection.scalar(sa.text("SELECT password_hash FROM users WHERE id = :id"), {"id": user_id})
        return found

    async def set_email(self, user_id: UUID, email: str) -> str:
        """Give an account its address: 'set', 'kept' where it has another one, 'taken' where somebody else has this one."""
        outcome: str = (
            await self._connection.execute(sa.text("SELECT set_email(:id, :email)"), {"id": user_id, "email": email})
        ).scalar_one()
        return outcome

    async def patch_user(self, user_id: UUID, name: str | None, password_hash: str | None) -> sa.Row[Any] | None:
        """Change what is not None."""
        return await self._one(_PATCH, id=user_id, name=name, hash=password_hash)

    async def operator_exists(self) -> bool:
        """Whether any account is an operator. Serialises with itself, so two first operators cannot be made."""
        await self._connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('qubix first operator'))"))
        return bool(await self._connection.scalar(sa.text("SELECT EXISTS (SELECT 1 FROM users WHERE roles @> ARRAY['operator'])")))

    async def by_token(self, token_hash: bytes, *, key: bool, touch_step_s: int) -> sa.Row[Any] | None:
        """Who holds this credential: (id, roles, scopes, via, credential_id, touch)."""
        if key:
            return await self._one(_BY_KEY, hash=token_hash, step=touch_step_s)
        return await self._one(_BY_SESSION, hash=token_hash)

    async def touch_key(self, key_id: UUID) -> None:
        """Note that a key was used."""
        await self._connection.execute(sa.text("UPDATE api_keys SET last_used_at = now() WHERE id = :id"), {"id": key_id})

    async def add_session(self, session_id: UUID, user_id: UUID, token_hash: bytes, kind: str, ttl_s: int) -> dt.datetime:
        """Open a session. Returns when it expires."""
        expires: dt.datetime | None = await self._connection.scalar(
            sa.text(
                "INSERT INTO sessions (id, user_id, token_hash, kind, expires_at)"
                " VALUES (:id, :user, :hash, :kind, now() + make_interval(secs => :ttl)) RETURNING expires_at"
            ),
            {"id": session_id, "user": user_id, "hash": token_hash, "kind": kind, "ttl": ttl_s},
        )
        assert expires is not None  # noqa: S101  (typing: an INSERT … RETURNING answers a row)
        return expires

    async def end_session(self, token_hash: bytes) -> int:
        """Close one session. Returns how many."""
        return (await self._connection.execute(sa.text("DELETE FROM sessions WHERE token_hash = :hash"), {"hash": token_hash})).rowcount

    async def end_sessions(self, user_id: UUID) -> int:
        """Close every session of an account. Returns how many."""
        return (await self._connection.execute(sa.text("DELETE FROM sessions WHERE user_id = :id"), {"id": user_id})).rowcount

    async def add_key(self, key_id: UUID, user_id: UUID, name: str, prefix: str, key_hash: bytes, scopes: list[str]) -> dt.datetime:
        """Insert an API key. Returns when."""
        row = await self._one(
            sa.text(
                "INSERT INTO api_keys (id, user_id, name, prefix, key_hash, scopes)"
                " VALUES (:id, :user, :name, :prefix, :hash, :scopes) RETURNING created_at"
            ),
            id=key_id,
            user=user_id,
            name=name,
            prefix=prefix,
            hash=key_hash,
            scopes=scopes,
        )
        assert row is not None  # noqa: S101  (typing: an INSERT … RETURNING answers a row)
        created: dt.datetime = row.created_at
        return created

    async def count_keys(self, user_id: UUID) -> int:
        """How many keys an account has."""
        return int(await self._connection.scalar(sa.text("SELECT count(*) FROM api_keys WHERE user_id = :id"), {"id": user_id}) or 0)

    async def keys(self, user_id: UUID) -> list[sa.Row[Any]]:
        """The keys of an account, oldest first."""
        statement = sa.text(
            "SELECT id, name, prefix, scopes, created_at, last_used_at FROM api_keys WHERE user_id = :id ORDER BY created_at, id"
        )
        return list((await self._connection.execute(statement, {"id": user_id})).all())

    async def remove_key(self, user_id: UUID, key_id: UUID) -> bool:
        """Revoke a key of this account; False when it has no such key."""
        statement = sa.text("DELETE FROM api_keys WHERE id = :id AND user_id = :user")
        return (await self._connection.execute(statement, {"id": key_id, "user": user_id})).rowcount == 1

    async def begin_request(self, user_id: UUID, key: str, request_hash: bytes) -> sa.Row[Any]:
        """Take an idempotency key: (outcome 'started' | 'replay' | 'mismatch' | 'in_progress', status, response)."""
        row = await self._one(
            sa.text("SELECT outcome, status, response FROM begin_request(:user, :key, :hash)"), user=user_id, key=key, hash=request_hash
        )
        assert row is not None  # noqa: S101  (typing: the function answers one row)
        return row

    async def finish_request(self, user_id: UUID, key: str, status: int, response: Any) -> None:
        """Store the answer under the key."""
        await self._connection.execute(
            sa.text(
                "UPDATE idempotency_keys SET status = :status, response = cast(:response AS jsonb) WHERE user_id = :user AND key = :key"
            ),
            {"status": status, "response": json.dumps(response, default=str), "user": user_id, "key": key},
        )

    async def sweep(self, retention_s: int, batch_max: int) -> int:
        """Delete expired sessions and old idempotency keys, at most `batch_max` of each. Returns how many rows."""
        gone = await self._connection.execute(
            sa.text("DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at < now() LIMIT :most)"), {"most": batch_max}
        )
        old = await self._connection.execute(
            sa.text(
                "DELETE FROM idempotency_keys WHERE (user_id, key) IN (SELECT user_id, key FROM idempotency_keys"
                " WHERE created_at < now() - make_interval(secs => :age) LIMIT :most)"
            ),
            {"age": retention_s, "most": batch_max},
        )
        return gone.rowcount + old.rowcount

"""Accounts: signing up, logging in, API keys, and answering a repeated request once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from qubix.identity import model
from qubix.identity.model import EmailTaken, Key, Principal, Role, Scope, Session, User, Via, WrongLogin
from qubix.identity.passwords import Passwords
from qubix.kernel.clock import Clock
from qubix.kernel.errors import Conflict, Invalid, NotFound, TooLarge, Unauthenticated
from qubix.kernel.ids import UserId, new_id

if TYPE_CHECKING:
    from qubix.identity.store import IdentityStore

SWEEP_BATCH_MAX: Final = 5000


class KeyReused(Conflict):
    """The Idempotency-Key came before, with another request."""

    code = "idempotency_key_reused"


class StillRunning(Conflict):
    """The first request with this Idempotency-Key has not ended yet."""

    code = "request_in_progress"


@dataclasses.dataclass(frozen=True, slots=True)
class Answered:
    """What the first request with this key answered."""

    status: int
    response: Any


def request_hash(method: str, path: str, body: bytes | dict[str, Any]) -> bytes:
    """What makes two requests the same: method, path and body (a mapping is hashed in one canonical form)."""
    text = body if isinstance(body, bytes) else json.dumps(body, sort_keys=True, separators=(",", ":"), default=str).encode()
    return hashlib.sha256(f"{method} {path}\n".encode() + text).digest()


class IdentityService:
    """Accounts in one transaction.

    Args: store; clock; passwords, one per process; open_wallets, called with a new account's id in the same transaction.
    """

    def __init__(
        self, store: IdentityStore, *, clock: Clock, passwords: Passwords, open_wallets: Callable[[UserId], Awaitable[object]]
    ) -> None:
        self._store = store
        self._clock = clock
        self._passwords = passwords
        self._open_wallets = open_wallets

    async def signup(self, email: str, password: str, name: str = "") -> User:
        """Make an account and its wallets.

        Raises: Invalid for a bad address, password or name; EmailTaken.
        """
        email, name = model.normal_email(email), model.check_name(name)
        model.check_password(password)
        return await self._add(email, await self._passwords.hash(password), name)

    async def first_operator(self, email: str, name: str = "Operator") -> tuple[User, Key] | None:
        """Make the first operator (who may also arbitrate) and a key with every scope; None where there is one already.

        The account has no password: it is used by its key, shown once. Only on a connection of the database's owner.
        """
        if await self._store.operator_exists():
            return None
        added = await self._add(model.normal_email(email), None, model.check_name(name))
        user = _user(await self._store.set_roles(added.id, sorted(role.value for role in Role)))
        return user, await self.add_key(user.id, "first operator", [scope.value for scope in Scope])

    async def add_without_address(self) -> User:
        """Make an account with its wallets that has neither address nor password: whoever makes it gives it a way in."""
        return await self._add(None, None, "")

    async def login(self, email: str, password: str, *, kind: Via = Via.BEARER) -> tuple[User, Session]:
        """Open a session for whoever knows the password. Unknown addresses take the same time.

        Raises: WrongLogin.
        """
        try:
            found = await self._store.credentials(model.normal_email(email))
        except Invalid:
            found = None
        good = await self._passwords.verify(password[: model.PASSWORD_LENGTH_MAX + 1], None if found is None else found.password_hash)
        if found is None or not good:
            raise WrongLogin("The address or the password is wrong.", next_step="Try again, or sign up.")
        user_id = UserId(found.id)
        return await self.me(user_id), await self.open_session(user_id, kind)

    async def open_session(self, user_id: UserId, kind: Via) -> Session:
        """Open a session for an account that has proved itself."""
        token = model.new_secret(model.SESSION_PREFIX)
        life_s = model.ttl_s(kind)
        expires_at = await self._store.add_session(new_id(), user_id, model.token_hash(token), kind.value, life_s)
        return Session(token, kind, expires_at, life_s)

    async def authenticate(self, token: str) -> Principal:
        """Who holds this session token or API key; one indexed read. Raises: Unauthenticated."""
        key = token.startswith(model.KEY_PREFIX)
        row = None
        if len(token) <= 200:
            row = await self._store.by_token(model.token_hash(token), key=key, touch_step_s=model.LAST_USED_STEP_S)
        if row is None:
            raise Unauthenticated(
                "This API key does not exist, or was revoked." if key else "The session has expired.",
                next_step="Log in again (qubix login --email …), and make a new key: qubix keys create." if key else "Log in again.",
            )
        if row.touch:
            await self._store.touch_key(row.credential_id)
        scopes = frozenset(Scope(name) for name in row.scopes) if key else model.ALL_SCOPES
        return Principal(UserId(row.id), frozenset(Role(name) for name in row.roles), scopes, Via(row.via))

    async def logout(self, token: str, *, everywhere: bool = False) -> int:
        """Close the session of `token`, or every session of its account. Returns how many; a repeat is harmless."""
        if everywhere:
            principal = await self.authenticate(token)
            return await self._store.end_sessions(principal.user_id)
        return await self._store.end_session(model.token_hash(token))

    async def me(self, user_id: UserId) -> User:
        """The account. Raises: NotFound."""
        return _user(await self._store.user(user_id))

    async def patch_me(
        self,
        user_id: UserId,
        *,
        name: str | None = None,
        email: str | None = None,
        password: str | None = None,
        current_password: str | None = None,
        within: frozenset[Scope] = model.ALL_SCOPES,
    ) -> User:
        """Change the name or the password, or set the address of an account that has none.

        Another password needs the current one; an account without any may set its first. Either closes every session.
        Args: within, the scopes of the credential that asks: a first password gives away no less than all of them.
        Raises: Invalid; EmailTaken; Conflict where there is another address; ScopeMissing; WrongLogin when the current password is wrong.
        """
        if email is not None:
            await self._set_email(user_id, model.normal_email(email))
        hashed = None
        if password is not None:
            model.check_password(password)
            await self._check_may_set_password(user_id, current_password, within)
            hashed = await self._passwords.hash(password)
            await self.end_sessions(user_id)
        return _user(await self._store.patch_user(user_id, None if name is None else model.check_name(name), hashed))

    async def end_sessions(self, user_id: UserId) -> int:
        """Close every session of an account; its API keys stay. Returns how many."""
        return await self._store.end_sessions(user_id)

    async def add_key(
        self, user_id: UserId, name: str, scopes: list[str] | None = None, *, within: frozenset[Scope] = model.ALL_SCOPES
    ) -> Key:
        """Make an API key; its secret is in this answer and nowhere else.

        Args: within, the scopes of the credential that asks: a key gives away no more than it has.
        Raises: Invalid for unknown scopes; ScopeMissing; Conflict when the account has KEYS_PER_USER_MAX already.
        """
        granted, name = model.parse_scopes(scopes), model.check_name(name) or "key"
        model.check_within(granted, within)
        if await self._store.count_keys(user_id) >= model.KEYS_PER_USER_MAX:
            raise Conflict(f"An account has at most {model.KEYS_PER_USER_MAX} API keys.", next_step="Revoke one that is no longer used.")
        secret, key_id = model.new_secret(model.KEY_PREFIX), new_id()
        prefix = secret[: len(model.KEY_PREFIX) + 6]
        created = await self._store.add_key(key_id, user_id, name, prefix, model.token_hash(secret), sorted(s.value for s in granted))
        return Key(key_id, name, prefix, granted, created, None, secret)

    async def keys(self, user_id: UserId) -> list[Key]:
        """The account's keys, oldest first, without their secrets."""
        rows = await self._store.keys(user_id)
        return [Key(r.id, r.name, r.prefix, frozenset(Scope(s) for s in r.scopes), r.created_at, r.last_used_at) for r in rows]

    async def remove_key(self, user_id: UserId, key_id: UUID) -> None:
        """Revoke a key at once. Raises: NotFound, also for somebody else's."""
        if not await self._store.remove_key(user_id, key_id):
            raise NotFound("There is no such API key.", next_step="List your keys: qubix keys.")

    async def begin_request(self, user_id: UserId, key: str, hashed: bytes) -> Answered | None:
        """Take an Idempotency-Key inside the transaction that does the work.

        A concurrent request with the same key waits for that transaction (at most 5 s).
        Args: key, from the header; hashed, from `request_hash`.
        Returns: None, go ahead and call `finish_request` in the same transaction; or what was answered before.
        Raises: KeyReused when the body differs; StillRunning; Invalid for a key that is empty or too long.
        """
        if not 1 <= len(key) <= model.IDEMPOTENCY_KEY_LENGTH_MAX or not key.isprintable():
            raise Invalid(f"An Idempotency-Key has 1 to {model.IDEMPOTENCY_KEY_LENGTH_MAX} printable characters.", next_step="Use a UUID.")
        row = await self._store.begin_request(user_id, key, hashed)
        if row.outcome == "replay":
            return Answered(row.status, row.response)
        if row.outcome == "mismatch":
            raise KeyReused("This Idempotency-Key came before, with another request.", next_step="Use a fresh key for a new request.")
        if row.outcome == "in_progress":
            raise StillRunning("The first request with this Idempotency-Key is still running.", next_step="Ask again in a second.")
        return None

    async def finish_request(self, user_id: UserId, key: str, status: int, response: Any) -> None:
        """Store the answer that a repeat will get. Raises: TooLarge past IDEMPOTENCY_RESPONSE_MAX_BYTES."""
        if len(json.dumps(response, default=str)) > model.IDEMPOTENCY_RESPONSE_MAX_BYTES:
            raise TooLarge("The answer is too large to be kept for a repeat.", next_step="Send the request without an Idempotency-Key.")
        await self._store.finish_request(user_id, key, status, response)

    async def sweep(self) -> int:
        """Forget expired sessions and idempotency keys past retention. Returns how many rows."""
        return await self._store.sweep(model.IDEMPOTENCY_RETENTION_S, SWEEP_BATCH_MAX)

    async def _set_email(self, user_id: UserId, email: str) -> None:
        outcome = await self._store.set_email(user_id, email)
        if outcome == "taken":
            raise _email_taken()
        if outcome == "kept":
            raise Conflict("The account has another address, and keeps it.", next_step="Use that one.", field="email")

    async def _check_may_set_password(self, user_id: UserId, current: str | None, within: frozenset[Scope]) -> None:
        known = await self._store.password_hash(user_id)
        if known is not None or current is not None:
            if not await self._passwords.verify(current or "", known):
                raise WrongLogin("The current password is wrong.", next_step="Give the current password to set another.")
            return
        model.check_within(model.ALL_SCOPES, within)
        if (await self.me(user_id)).email is None:
            raise Invalid("A password is of use only with an e-mail address.", next_step="Send both: email and password.", field="email")

    async def _add(self, email: str | None, password_hash: str | None, name: str) -> User:
        row = await self._store.add_user(new_id(), email, name, password_hash)
        if row is None:
            raise _email_taken()
        user = _user(row)
        await self._open_wallets(user.id)
        return user


def _email_taken() -> EmailTaken:
    return EmailTaken("There is an account with this address already.", next_step="Log in instead: qubix login --email …", field="email")


def _user(row: Any) -> User:
    if row is None:
        raise NotFound("There is no such account.", next_step="Sign up.")
    return User(UserId(row.id), row.email, row.name, frozenset(Role(name) for name in row.roles), row.created_at)

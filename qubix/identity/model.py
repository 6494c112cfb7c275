"""Who somebody is and what their credential may do: pure decisions about accounts, tokens and passwords."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import hashlib
import secrets
from typing import Final
from uuid import UUID

from email_validator import EmailNotValidError, validate_email

from qubix.kernel.errors import Conflict, Invalid, Unauthenticated
from qubix.kernel.ids import UserId

PASSWORD_LENGTH_MIN: Final = 10
PASSWORD_LENGTH_MAX: Final = 256
NAME_LENGTH_MAX: Final = 100
KEY_PREFIX: Final = "qk_"
SESSION_PREFIX: Final = "qs_"
KEYS_PER_USER_MAX: Final = 50
BEARER_TTL_S: Final = 15 * 60
BROWSER_TTL_S: Final = 14 * 24 * 3600
IDEMPOTENCY_RETENTION_S: Final = 48 * 3600
IDEMPOTENCY_KEY_LENGTH_MAX: Final = 200
IDEMPOTENCY_RESPONSE_MAX_BYTES: Final = 256 << 10
LAST_USED_STEP_S: Final = 300
"""`last_used_at` of a key moves at most this often, so a busy key costs no write per request."""


class Role(enum.StrEnum):
    """What an account may do beyond its own things."""

    OPERATOR = "operator"
    ARBITER = "arbiter"


class Scope(enum.StrEnum):
    """What a credential may do. A session has all; an API key has what was given to it."""

    READ = "read"
    JOBS = "jobs"
    PROVIDER = "provider"
    MONEY = "money"
    ACCOUNT = "account"


ALL_SCOPES: Final = frozenset(Scope)
KEY_SCOPES: Final = frozenset({Scope.READ, Scope.JOBS, Scope.PROVIDER, Scope.MONEY})
"""What a new API key has unless less, or more, is asked for: everything but the account itself (its keys, its profile)."""


class Via(enum.StrEnum):
    """How somebody proved who they are."""

    BROWSER = "browser"
    BEARER = "bearer"
    KEY = "key"


class EmailTaken(Conflict):
    """Somebody signed up with this address already."""

    code = "email_taken"


class WrongLogin(Unauthenticated):
    """Unknown address or wrong password; the two look the same from outside."""

    code = "wrong_login"


class ScopeMissing(Unauthenticated):
    """The credential is good, but not for this."""

    code = "scope_missing"


@dataclasses.dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request, and what their credential may do."""

    user_id: UserId
    roles: frozenset[Role]
    scopes: frozenset[Scope]
    via: Via

    def require(self, scope: Scope) -> None:
        """Refuse unless the credential has `scope`. Raises: ScopeMissing."""
        check_within(frozenset({scope}), self.scopes)

    def has(self, role: Role) -> bool:
        """Whether the account has `role`."""
        return role in self.roles


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    """An account. email: None for one made by a wallet's login, until it sets one."""

    id: UserId
    email: str | None
    name: str
    roles: frozenset[Role]
    created_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """A session that was just opened; the token is shown here and never again."""

    token: str
    kind: Via
    expires_at: dt.datetime
    expires_in_s: int


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """An API key as its owner sees it afterwards; `secret` only in the answer that made it."""

    id: UUID
    name: str
    prefix: str
    scopes: frozenset[Scope]
    created_at: dt.datetime
    last_used_at: dt.datetime | None
    secret: str | None = None


def normal_email(text: str) -> str:
    """The one form under which an address is stored: trimmed, whole in lower case, domain in its ASCII form.

    Raises: Invalid, saying what is wrong with it. No DNS is asked.
    """
    try:
        found = validate_email(text.strip(), check_deliverability=False, allow_smtputf8=False, test_environment=True)
    except EmailNotValidError as error:
        raise Invalid(f"This is not an e-mail address: {error}", next_step="Correct the address.", field="email") from None
    return (found.ascii_email or found.normalized).lower()


def check_password(password: str) -> None:
    """Refuse a password that is too short or too long to hash in bounded time. Raises: Invalid."""
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        raise Invalid(
            f"A password has {PASSWORD_LENGTH_MIN} to {PASSWORD_LENGTH_MAX} characters; this one has {len(password)}.",
            next_step="Choose a longer one; a short sentence is easy to remember."
            if len(password) < PASSWORD_LENGTH_MIN
            else "Choose a shorter one.",
            field="password",
        )


def check_name(name: str) -> str:
    """A display name, trimmed. Raises: Invalid when it is too long or has control characters."""
    name = name.strip()
    if len(name) > NAME_LENGTH_MAX or any(not character.isprintable() for character in name):
        raise Invalid(f"A name has at most {NAME_LENGTH_MAX} printable characters.", next_step="Shorten it.", field="name")
    return name


def parse_scopes(names: list[str] | None) -> frozenset[Scope]:
    """The scopes of a new key; None gives the usual ones. Raises: Invalid for an unknown name or an empty list."""
    if names is None:
        return KEY_SCOPES
    unknown = sorted(set(names) - {scope.value for scope in Scope})
    if unknown or not names:
        allowed = [scope.value for scope in Scope]
        raise Invalid(
            f"Unknown scopes: {', '.join(unknown)}." if unknown else "A key needs at least one scope.",
            next_step=f"Scopes are {', '.join(allowed)}.",
            field="scopes",
            allowed=allowed,
        )
    return frozenset(Scope(name) for name in names)


def check_within(wanted: frozenset[Scope], held: frozenset[Scope]) -> None:
    """Refuse what a credential with the scopes `held` may not do, or give away. Raises: ScopeMissing."""
    for scope in sorted(wanted - held):
        raise ScopeMissing(
            f"This API key may not do that: it lacks the scope {scope.value!r}.",
            next_step=f"Make a key with the scope {scope.value!r}, or log in.",
            scope=scope.value,
        )


def new_secret(prefix: str) -> str:
    """A fresh credential: `prefix` and 256 random bits."""
    return prefix + secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """What is stored of a credential. One round is enough: a token has 256 bits, nothing can be guessed."""
    return hashlib.sha256(token.encode()).digest()


def ttl_s(kind: Via) -> int:
    """How long a session of this kind lives, in seconds."""
    return BROWSER_TTL_S if kind is Via.BROWSER else BEARER_TTL_S

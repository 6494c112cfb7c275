"""What a Qubic wallet signs to log in: a text of ours, read by a person before they sign, good once and for five minutes.

The text says who asks, for which identity and what the signature will do, so that one that was asked for on another's behalf can be
told by reading it. It is printable ASCII in several lines and far longer than a digest: two of the wallets' three ways to sign tell a
text from a transaction by nothing else (qubix/chains/qubic/login.py).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import re
import secrets
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from qubix.chains.qubic import identity as qubic
from qubix.chains.qubic import signature
from qubix.chains.qubic.errors import InvalidIdentity
from qubix.chains.qubic.login import Scheme
from qubix.identity.model import User, WrongLogin
from qubix.kernel.errors import Conflict

TTL: Final = dt.timedelta(minutes=5)
NONCE_BYTES: Final = 16
WALLETS_PER_USER_MAX: Final = 20

_NONCE: Final = re.compile(rf"[0-9a-f]{{{2 * NONCE_BYTES}}}")
_ASK_AGAIN: Final = "Ask for a new one (POST /api/wallet/challenge, or qubix login --wallet) and sign that."


class Purpose(enum.StrEnum):
    """What a signature will do."""

    LOGIN = "login"
    LINK = "link"


class ChallengeUnknown(Conflict):
    """There is no such challenge, it was used already, or it is somebody else's; from outside they look the same."""

    code = "challenge_unknown"

    def __init__(self) -> None:
        super().__init__("This challenge does not exist, or was used already.", next_step=_ASK_AGAIN)


class ChallengeExpired(Conflict):
    """The signature came too late."""

    code = "challenge_expired"

    def __init__(self) -> None:
        super().__init__(f"This challenge has expired: a signature is waited for {TTL.seconds // 60} minutes.", next_step=_ASK_AGAIN)


class WrongSignature(WrongLogin):
    """Not a signature of our text by the challenge's identity, in the form of the named scheme."""

    code = "wrong_signature"

    def __init__(self, scheme: Scheme) -> None:
        super().__init__(
            f"The signature is not one of this challenge's text by its identity, as {scheme.value!r} wallets sign.",
            next_step="Sign exactly the text, with nothing before or after it, by the identity that it names;"
            f" and name the way your wallet signs: {', '.join(scheme.value for scheme in Scheme)}.",
        )


class AccountDisabled(WrongLogin):
    """The wallet's account was closed by the operator."""

    code = "account_disabled"

    def __init__(self) -> None:
        super().__init__("This wallet's account is disabled.", next_step="Write to the platform's operator.")


class WalletTaken(Conflict):
    """The identity logs in to another account."""

    code = "wallet_taken"

    def __init__(self) -> None:
        super().__init__(
            "This wallet logs in to another account already.",
            next_step="Log in with it and remove it there first (DELETE /api/wallet/identities/…), or use another wallet.",
        )


class LastWayIn(Conflict):
    """Without this wallet nobody could log in to the account any more."""

    code = "last_way_in"

    def __init__(self) -> None:
        super().__init__(
            "This wallet is the account's only way in.",
            next_step="Add another wallet, or an e-mail address and a password (PATCH /api/auth/me), then remove this one.",
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Challenge:
    """What is to be signed, by whom and what for. user_id: whose account the identity is to be added to; None for a login."""

    nonce: str
    identity: str
    purpose: Purpose
    user_id: UUID | None
    text: str
    issued_at: dt.datetime
    expires_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Wallet:
    """An identity that logs in to an account; scheme, the way in which it signed when it was added."""

    identity: str
    scheme: Scheme
    linked_at: dt.datetime


def issue(domain: str, identity: str, *, now: dt.datetime, account: User | None = None) -> Challenge:
    """A challenge for the identity: to log in, or to be added to `account`.

    Args: domain, from `domain_of`.
    Raises: InvalidIdentity, saying what is wrong with it.
    """
    check_identity(identity)
    issued = now.astimezone(dt.UTC).replace(microsecond=0)
    expires, nonce = issued + TTL, secrets.token_hex(NONCE_BYTES)
    purpose = Purpose.LOGIN if account is None else Purpose.LINK
    lines = [
        *_opening(domain, account),
        "Signing costs nothing and sends no transaction.",
        "",
        f"Domain: {domain}",
        f"Identity: {identity}",
        *([] if account is None else [f"Account: {_name_of(account)}"]),
        f"Nonce: {nonce}",
        f"Issued: {_written(issued)}",
        f"Expires: {_written(expires)}",
    ]
    return Challenge(nonce, identity, purpose, None if account is None else account.id, "\n".join(lines), issued, expires)


def check_identity(identity: str) -> None:
    """Refuse what no wallet can sign for. Raises: InvalidIdentity with the field and what to do."""
    try:
        public_key = qubic.decode(identity)
    except InvalidIdentity as error:
        raise InvalidIdentity(
            f"This is not a Qubic identity: {error.message}.", next_step="Copy it again from the wallet.", field="identity"
        ) from None
    if qubic.is_contract(public_key) or not signature.is_public_key(public_key):
        raise InvalidIdentity("No wallet holds this identity's key.", next_step="Give an identity of your own wallet.", field="identity")


def is_nonce(text: str) -> bool:
    """Whether a text may be a challenge's nonce."""
    return _NONCE.fullmatch(text) is not None


def domain_of(public_url: str) -> str:
    """What people know the platform by: host and port of its address, in ASCII, so that look-alike letters show."""
    return urlsplit(public_url).netloc.rpartition("@")[2].lower().encode("idna").decode("ascii")


def _opening(domain: str, account: User | None) -> list[str]:
    if account is None:
        return [
            f"{domain} asks you to log in with your Qubic wallet.",
            "",
            "Whoever sends this signature is logged in to your account there.",
        ]
    return [
        f"{domain} asks you to add your Qubic wallet to an account.",
        "",
        "From then on this wallet logs in to the account named below. Sign only if that account is yours.",
    ]


def _name_of(account: User) -> str:
    """The id, which nobody chose, and the address where there is one; never the name, by which one could pass for another."""
    return f"{account.id} ({account.email})" if account.email else str(account.id)


def _written(at: dt.datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")

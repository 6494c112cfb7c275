"""Logging in with a Qubic wallet: a challenge, its signature, and the account that the wallet's identity logs in to.

The chain is not asked: a login works while it is away.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any
from uuid import UUID

from qubix.chains.qubic import login
from qubix.chains.qubic.login import Scheme
from qubix.identity import challenge, model
from qubix.identity.challenge import (
    AccountDisabled,
    Challenge,
    ChallengeExpired,
    ChallengeUnknown,
    LastWayIn,
    Purpose,
    Wallet,
    WalletTaken,
    WrongSignature,
)
from qubix.identity.model import Principal, Session, User, Via
from qubix.identity.service import SWEEP_BATCH_MAX, IdentityService
from qubix.kernel.errors import Conflict, NotFound
from qubix.kernel.ids import UserId

if TYPE_CHECKING:
    from qubix.identity.wallet_store import WalletStore


@dataclasses.dataclass(frozen=True, slots=True)
class Connected:
    """A wallet that has proved itself. created: whether its account was made just now."""

    user: User
    session: Session
    identity: str
    purpose: Purpose
    created: bool


class WalletLogins:
    """Wallet logins in one transaction. Args: store; accounts; public_url, where people reach us: the texts name its host."""

    def __init__(self, store: WalletStore, accounts: IdentityService, *, public_url: str) -> None:
        self._store = store
        self._accounts = accounts
        self._domain = challenge.domain_of(public_url)

    async def login_challenge(self, identity: str) -> Challenge:
        """A text by whose signature the identity logs in. Raises: InvalidIdentity."""
        return await self._issue(identity, None)

    async def link_challenge(self, identity: str, caller: Principal) -> Challenge:
        """A text by whose signature the identity is added to the caller's account.

        Raises: InvalidIdentity; ScopeMissing, since a wallet may do all that its account may.
        """
        model.check_within(model.ALL_SCOPES, caller.scopes)
        return await self._issue(identity, await self._accounts.me(caller.user_id))

    async def connect(self, nonce: str, scheme: Scheme, signed: str, *, kind: Via, token: str | None = None) -> Connected:
        """Take the signature of a challenge, once: open a session, for an identity that nobody has in a new account.

        Whatever is refused leaves the challenge as it was, so that a slip of the hand may be corrected.
        Args: signed, as the scheme's wallets write it; kind, of the new session; token, who asks: only where a wallet is added it counts.
        Raises: ChallengeUnknown, also for one used or somebody else's; ChallengeExpired; WrongSignature; WalletTaken; AccountDisabled;
            Unauthenticated when a wallet is to be added and nobody is logged in; Conflict for too many wallets.
        """
        found = await self._store.use_challenge(nonce) if challenge.is_nonce(nonce) else None
        if found is None:
            raise ChallengeUnknown
        if found.user_id is not None:
            await self._check_same_account(found.user_id, token)
        if found.expired:
            raise ChallengeExpired
        if not await asyncio.to_thread(login.verify, scheme, found.identity, found.text, signed):
            raise WrongSignature(scheme)
        purpose = Purpose(found.purpose)
        user, created = await self._account_of(found.identity, scheme, found.user_id)
        return Connected(user, await self._accounts.open_session(user.id, kind), found.identity, purpose, created)

    async def wallets(self, user_id: UserId) -> list[Wallet]:
        """The wallets that log in to the account, oldest first."""
        return [Wallet(row.identity, Scheme(row.scheme), row.linked_at) for row in await self._store.wallets(user_id)]

    async def unlink(self, user_id: UserId, identity: str) -> None:
        """Let a wallet log in no more, and end every session of the account, as another password does.

        Raises: NotFound, also for somebody else's; LastWayIn.
        """
        password = await self._store.has_password(user_id)
        await self._store.lock_identity(identity)
        if not await self._store.unlink(identity, user_id):
            raise NotFound("No such wallet logs in to this account.", next_step="List them: GET /api/wallet/identities.")
        if not password and not await self._store.wallets(user_id):
            raise LastWayIn
        await self._accounts.end_sessions(user_id)

    async def sweep(self) -> int:
        """Forget challenges that expired long ago. Returns how many."""
        return await self._store.sweep(SWEEP_BATCH_MAX)

    async def _issue(self, identity: str, account: User | None) -> Challenge:
        made = challenge.issue(self._domain, identity, now=await self._store.now(), account=account)
        await self._store.add_challenge(made)
        return made

    async def _check_same_account(self, user_id: UUID, token: str | None) -> None:
        """Only who asked for the challenge may add the wallet: whoever signed it may have been tricked into another's account."""
        caller = await self._accounts.authenticate(token or "")
        if caller.user_id != user_id:
            raise ChallengeUnknown
        model.check_within(model.ALL_SCOPES, caller.scopes)

    async def _account_of(self, identity: str, scheme: Scheme, wanted: UUID | None) -> tuple[User, bool]:
        """The account that the identity logs in to from now on, and whether it was made for that."""
        known: Any = await self._store.lock_identity(identity)
        if known is not None:
            if wanted is not None and known.user_id != wanted:
                raise WalletTaken
            if known.disabled:
                raise AccountDisabled
            return await self._accounts.me(UserId(known.user_id)), False
        user = await self._accounts.add_without_address() if wanted is None else await self._accounts.me(UserId(wanted))
        if len(await self._store.wallets(user.id)) >= challenge.WALLETS_PER_USER_MAX:
            raise Conflict(
                f"At most {challenge.WALLETS_PER_USER_MAX} wallets log in to one account.", next_step="Remove one that is no longer used."
            )
        await self._store.link(identity, user.id, scheme.value)
        return user, wanted is None

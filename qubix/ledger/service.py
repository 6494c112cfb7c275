"""Wallets as their owners see them: balances, history, test money, and the audit of the whole ledger."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from qubix.kernel.errors import Invalid, NotFound
from qubix.kernel.events import Event, EventType
from qubix.kernel.money import Asset, Qu, written
from qubix.ledger.model import (
    FAUCET_AMOUNT_MAX,
    PAGE_LIMIT_MAX,
    Analytics,
    Balance,
    Code,
    Entry,
    EntryStatus,
    EntryType,
    Page,
    Problem,
    WrongNetwork,
    analyse,
    first_day,
    make_cursor,
    read_cursor,
    refuse,
)

if TYPE_CHECKING:
    from qubix.ledger.store import LedgerStore


def wallet_event(user: UUID, asset: Asset, reason: str, change: int, subject: UUID) -> Event:
    """Tell a wallet's owner that `change` units came (or went, negative), and why."""
    return Event(
        EventType.WALLET_UPDATE,
        (f"wallet:{user}",),
        user,
        {"asset": asset.name, "change": change, "reason": reason, "subject_id": str(subject)},
    )


class LedgerService:
    """The ledger in one transaction.

    Args: store, over the transaction's connection; tell, adds an event to its outbox.
    """

    def __init__(self, store: LedgerStore, *, tell: Callable[[Event], None]) -> None:
        self._store = store
        self._tell = tell

    async def found(self, network: str) -> None:
        """Write the network at the database's birth; a repeat changes nothing. Only the owner's role may.

        Raises: WrongNetwork when the ledger was born on another network.
        """
        if await self._store.found(network) is Code.OTHER_CONTENT:
            born = await self._store.network()
            raise WrongNetwork(
                f"this ledger was born on network {born}, not {network}", next_step="use another data folder for another network"
            )

    async def network(self) -> str | None:
        """The ledger's network: none, devnet or mainnet; None before its birth."""
        return await self._store.network()

    async def open_wallets(self, user: UUID) -> None:
        """Give the user one wallet per asset; call it at sign-up. A repeat changes nothing."""
        await self._store.open_wallets(user)

    async def balances(self, user: UUID) -> tuple[Balance, ...]:
        """The user's wallets, one per asset."""
        return await self._store.balances(user)

    async def available(self, user: UUID, asset: Asset = Asset.QUBIC) -> Qu:
        """What the wallet can spend now. Raises: NotFound where there is none."""
        found = await self._store.available(user, asset)
        if found is None:
            raise NotFound("there is no such wallet", next_step="sign up first; every account gets its wallets then")
        return found

    async def faucet(self, user: UUID, amount: Qu, n: str, *, asset: Asset = Asset.QUBIC) -> bool:
        """Give test money, once per `n` (an idempotency key). Returns whether it was given now.

        Raises: Invalid outside 1 … FAUCET_AMOUNT_MAX; WrongNetwork unless the network is none; OtherContent for the same
        `n` with another amount; NotFound without a wallet.
        """
        if not 0 < amount <= FAUCET_AMOUNT_MAX or not 0 < len(n) <= 200:
            raise Invalid(f"the faucet gives between 1 QU and {written(FAUCET_AMOUNT_MAX)}", next_step="ask for another amount")
        code = await self._store.faucet(user, asset, amount, n)
        if code < 0:
            refuse(code, "the faucet")
        if code is Code.DONE:
            self._tell(wallet_event(user, asset, EntryType.DEPOSIT, amount, user))
        return code is Code.DONE

    async def history(
        self,
        user: UUID,
        *,
        asset: Asset | None = None,
        types: Sequence[EntryType] | None = None,
        statuses: Sequence[EntryStatus] | None = None,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """The user's transactions, newest first.

        Args: since and until, aware, bound created_at (until is excluded); cursor, of the page before; limit, 1 … 100.
        Raises: Invalid for a limit or cursor outside of these.
        """
        if not 1 <= limit <= PAGE_LIMIT_MAX:
            raise Invalid(f"a page has 1 to {PAGE_LIMIT_MAX} items", next_step="give a limit in that range")
        found = await self._store.history(
            user,
            asset=asset,
            types=None if types is None else [entry.value for entry in types],
            statuses=None if statuses is None else [status.value for status in statuses],
            since=since,
            until=until,
            cursor=None if cursor is None else read_cursor(cursor),
            most=limit + 1,
        )
        items = tuple(found[:limit])
        more = len(found) > limit
        return Page(items, make_cursor(items[-1].created_at, items[-1].id) if more else None)

    async def entry(self, user: UUID, entry_id: UUID) -> Entry:
        """One transaction of the user's history. Raises: NotFound."""
        found = await self._store.history(user, asset=None, types=None, only=entry_id, since=None, until=None, cursor=None, most=1)
        if not found:
            raise NotFound("there is no such transaction", next_step="qubix wallet history lists yours")
        return found[0]

    async def analytics(self, user: UUID, days: int, now: dt.datetime, *, asset: Asset = Asset.QUBIC) -> Analytics:
        """What moved in the last `days` days (UTC), today included.

        Raises: Invalid outside 1 … ANALYTICS_DAYS_MAX.
        """
        first = first_day(days, now)
        found = await self._store.days(user, asset, dt.datetime.combine(first, dt.time(), dt.UTC))
        return analyse(first, days, found)

    async def audit(self) -> list[Problem]:
        """Check every rule of the ledger, escrows, earnings and chain rows included. Empty is health."""
        return await self._store.audit()

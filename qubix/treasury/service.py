"""Chain money for the web layer: a user's deposit address, what comes to it, and withdrawals, in one transaction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID

from qubix.chains.qubic.transaction import AMOUNT_MAX
from qubix.kernel.clock import Clock
from qubix.kernel.errors import Invalid, NotFound, Unavailable, Unpaid
from qubix.kernel.events import Event
from qubix.kernel.ids import new_id, transfer_id
from qubix.kernel.money import Asset, Qu, written
from qubix.ledger.model import Code, EntryType, WrongNetwork, WrongState, refuse
from qubix.ledger.service import LedgerService
from qubix.treasury.model import INCOMING_MAX, ChainFacts, ChainState, Incoming, NotReconciled, OurOwnAddress, Outlook, chain_event, said_of
from qubix.treasury.sending import payee

if TYPE_CHECKING:
    from qubix.treasury.reading import ChainReader
    from qubix.treasury.store import TreasuryStore

ADDRESS_RETRY_S: Final = 5
"""When to ask again for a deposit address that the signer has not made yet."""
_ON_THEIR_WAY: Final = (ChainState.SEEN, ChainState.WAITING, ChainState.DOUBTFUL)


class NoAddressYet(Unavailable):
    """Every deposit address that the signer has made is given."""

    code = "no_address_yet"


class SignedAlready(WrongState):
    """A payment is signed and may execute: it cannot be called off."""

    code = "signed_already"


class TreasuryService:
    """A user's dealings with the chain, as the web role may make them.

    Args: store, reader, over the transaction's connection; ledger, in the same transaction; clock; tell, adds an event to the outbox;
        wake, after the commit, whoever listens to a channel.
    """

    def __init__(
        self,
        store: TreasuryStore,
        reader: ChainReader,
        ledger: LedgerService,
        *,
        clock: Clock,
        tell: Callable[[Event], None],
        wake: Callable[[str], None],
    ) -> None:
        self._store = store
        self._reader = reader
        self._ledger = ledger
        self._clock = clock
        self._tell = tell
        self._wake = wake

    async def deposit_address(self, user: UUID) -> str:
        """The user's own address: what is paid to it enters their wallet. Always the same one.

        Raises: WrongNetwork on network none; NoAddressYet while the signer has made none that is free.
        """
        await self._need_chain("deposited")
        address = await self._store.give_address(user)
        if address is None:
            raise NoAddressYet(
                "no deposit address is free yet",
                next_step="try again in some seconds: the signer makes them",
                retry_after_s=ADDRESS_RETRY_S,
            )
        return address

    async def withdraw(self, user: UUID, address: str, amount: Qu, *, key: str | None = None) -> UUID:
        """Hold `amount` of the user's wallet for a payout to `address`; the signer takes it from there.

        Args: key, an idempotency key: the same one is the same withdrawal.
        Returns: the withdrawal's id. Raises: InvalidIdentity, NotPayable, OurOwnAddress for the address; Invalid for the amount;
            Unpaid with `missing`; NotReconciled after a restore; WrongNetwork on network none; OtherContent for the same key with another address or amount.
        """
        await self._need_chain("withdrawn")
        payee(address)
        if not 0 < amount <= AMOUNT_MAX:
            raise Invalid(f"a withdrawal is between 1 QU and {written(AMOUNT_MAX)}", next_step="give another amount", field="amount")
        hold = new_id() if key is None else transfer_id(user, f"withdraw/{key}")
        code = await self._store.withdraw(hold, user, Asset.QUBIC, amount, address)
        match code:
            case Code.NOT_DUE:
                raise NotReconciled(
                    "withdrawals stand still: this platform was restored from a backup, and what was paid since is being looked up",
                    next_step="try again once it is known",
                )
            case Code.NOT_ALLOWED:
                raise OurOwnAddress(
                    "this is an address of this platform: money does not go out to come in again",
                    next_step="give an identity of a wallet of your own",
                    field="address",
                )
            case Code.INSUFFICIENT:
                available = await self._ledger.available(user)
                raise Unpaid(
                    f"the wallet has {written(available)} available, and {written(amount)} are to be withdrawn",
                    next_step="withdraw less; what jobs hold in escrow, and earnings still pending, come later",
                    missing=amount - available,
                    available=available,
                    needed=amount,
                )
        if code < 0:
            refuse(code, "the withdrawal")
        if code is Code.DONE:
            self._tell(chain_event(user, EntryType.WITHDRAWAL, -amount, hold, said_of(None)))
            self._wake("payouts")  # the signer
        return hold

    async def cancel(self, user: UUID, hold: UUID) -> None:
        """Call a withdrawal off while no payment for it may execute; a repeat changes nothing.

        Raises: NotFound for another's; SignedAlready once a payment is signed; WrongState after its end; NotReconciled after a restore.
        """
        code = await self._store.cancel_withdrawal(hold, user)
        if code is Code.NOT_DUE:
            raise NotReconciled(
                "this platform was restored from a backup, and the chain may have paid this withdrawal since",
                next_step="try again once that is known",
            )
        if code is Code.UNKNOWN:
            raise NotFound("there is no such withdrawal", next_step="qubix wallet history --type withdrawal lists yours")
        if code is Code.WRONG_STATE:
            now = (await self._reader.facts([hold]))[hold]
            if now.state in (ChainState.DONE, ChainState.CANCELLED):
                raise WrongState("the withdrawal has ended", next_step="look at it in the history")
            raise SignedAlready("a payment is signed for it and may execute", next_step="wait for its end; it cannot be called back")
        if code is Code.DONE:
            entry = await self._ledger.entry(user, hold)
            self._tell(chain_event(user, EntryType.WITHDRAWAL, entry.amount, hold, said_of((await self._reader.facts([hold])).get(hold))))

    async def chain_facts(self, subjects: Collection[UUID]) -> dict[UUID, ChainFacts]:
        """The chain's side of history entries, by their subject; those without one are left out."""
        return await self._reader.facts(subjects)

    async def incoming(
        self,
        user: UUID,
        *,
        states: Sequence[ChainState] = _ON_THEIR_WAY,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        limit: int = INCOMING_MAX,
    ) -> list[Incoming]:
        """Payments to the user's address that are in no wallet yet, newest first, at most INCOMING_MAX."""
        found = [state for state in states if state in _ON_THEIR_WAY]
        return await self._reader.incoming(user, found, since=since, until=until, most=min(limit, INCOMING_MAX))

    async def on_their_way(self, user: UUID) -> Qu:
        """The sum of what comes in and is in no wallet yet."""
        return await self._reader.on_their_way(user)

    async def owns(self, user: UUID, address: str) -> bool:
        """Whether the address is the user's deposit address."""
        return await self._reader.owns(user, address)

    async def outlook(self) -> Outlook:
        """How the chain stands: from it follow the expected waits."""
        return await self._reader.outlook(self._clock.now())

    async def _need_chain(self, what: str) -> None:
        if await self._ledger.network() == "none":
            raise WrongNetwork(
                f"this platform runs without a chain: its money is test money, and nothing can be {what}",
                next_step="qubix wallet faucet gives test money; a platform on network devnet or mainnet has a chain",
            )

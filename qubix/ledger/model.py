"""Accounts, transfers and what the money acts answer: the words of the ledger, without a framework."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn
from uuid import UUID

from qubix.kernel.errors import Conflict, Invalid, NotFound, Unpaid
from qubix.kernel.money import Asset, Qu, written


class Code(enum.IntEnum):
    """What an act answers; the numbers are those of the SQL functions."""

    DONE = 0
    DONE_ALREADY = 1
    WAITING = 2
    OTHER_CONTENT = -1
    UNKNOWN = -2
    INSUFFICIENT = -3
    WRONG_STATE = -4
    OUT_OF_RANGE = -5
    NO_WALLET = -6
    WRONG_NETWORK = -7
    NOT_DUE = -8
    NOT_ALLOWED = -9


class OtherContent(Conflict):
    """The same step was done before, with other content."""

    code = "done_with_other_content"


class WrongState(Conflict):
    """The escrow, earning or hold is in a state that does not allow the act."""

    code = "wrong_state"


class WrongNetwork(Conflict):
    """The act does not exist on this ledger's network."""

    code = "wrong_network"


class NotDue(Conflict):
    """It is too early."""

    code = "not_due"


def missing_funds(amount: Qu, available: Qu) -> Unpaid:
    """The error for a wallet that holds `available` of the `amount` asked for; `extra['missing']` is the rest."""
    missing = amount - available
    return Unpaid(
        f"the wallet has {written(available)} available, and {written(amount)} are needed: {written(missing)} are missing",
        next_step=f"add at least {written(missing)} to the wallet (test funds: qubix wallet faucet {missing}), or lower the budget or the longest run",
        missing=missing,
        available=available,
        needed=amount,
    )


def refuse(code: Code, subject: str) -> NoReturn:
    """Raise the typed error for an act's refusal.

    Args: code, negative; subject, what the act was about, for the message. INSUFFICIENT is raised by `missing_funds`.
    """
    match code:
        case Code.OTHER_CONTENT:
            raise OtherContent(
                f"{subject}: this step was done before, with other content", next_step="look at what was done; do not repeat"
            )
        case Code.UNKNOWN | Code.NOT_ALLOWED:
            raise NotFound(f"{subject} does not exist")
        case Code.WRONG_STATE:
            raise WrongState(f"{subject}: its state does not allow this", next_step="read it again and decide anew")
        case Code.OUT_OF_RANGE:
            raise Invalid(
                f"{subject}: the amount is outside what is possible",
                next_step="give a positive amount within the funds; a ruling, 0 up to what was metered",
            )
        case Code.NO_WALLET:
            raise NotFound(f"{subject}: there is no such wallet", next_step="sign up first; every account gets its wallets then")
        case Code.WRONG_NETWORK:
            raise WrongNetwork(f"{subject}: not possible on this ledger's network", next_step="test funds exist only on network none")
        case Code.NOT_DUE:
            raise NotDue(f"{subject}: it is too early", next_step="wait until it is due")
        case Code.INSUFFICIENT:
            raise Unpaid(f"{subject}: the money is not there", next_step="add funds to the wallet")
        case _:
            raise AssertionError(f"{code!r} is no refusal")


@dataclasses.dataclass(frozen=True, slots=True)
class Balance:
    """One wallet.

    available can be spent now; held waits in withdrawals; held_in_escrow is locked for this user's jobs; pending_earnings
    waits for the dispute window; earned and spent are totals over all time (spent: what escrows paid out, refunds apart).
    """

    asset: Asset
    available: Qu
    held: Qu
    held_in_escrow: Qu
    pending_earnings: Qu
    earned: Qu
    spent: Qu


class EntryType(enum.StrEnum):
    """The closed list of what a transaction in the history is."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    ESCROW_LOCK = "escrow_lock"
    RELEASE = "release"
    REFUND = "refund"
    EARNING = "earning"
    FEE = "fee"


class EntryStatus(enum.StrEnum):
    """The closed list of a transaction's statuses."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One line of a user's history.

    change is what it did to the wallet's balance: negative for what left it, 0 where it only tells what became of money
    that had left before (a release, a fee, an earning still pending). amount is always positive. escrow_id is the escrow it
    belongs to, None for money that came from or went outside.
    """

    id: UUID
    type: EntryType
    status: EntryStatus
    asset: Asset
    amount: Qu
    change: int
    subject_id: UUID
    escrow_id: UUID | None
    balance_after: Qu | None
    created_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Some history, newest first, and the cursor of what follows (None at the end)."""

    items: tuple[Entry, ...]
    next_cursor: str | None


_NOTHING: Final = Qu(0)


@dataclasses.dataclass(frozen=True, slots=True)
class Moved:
    """What moved in some time, summed as the history's types say. spent is what escrows paid out; refunded came back from them."""

    deposited: Qu = _NOTHING
    withdrawn: Qu = _NOTHING
    locked: Qu = _NOTHING
    spent: Qu = _NOTHING
    refunded: Qu = _NOTHING
    earned: Qu = _NOTHING
    fees: Qu = _NOTHING
    transactions: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Analytics:
    """The last days, UTC, the oldest first, days without any movement too; and their sum."""

    days: tuple[tuple[dt.date, Moved], ...]
    total: Moved


ANALYTICS_DAYS_MAX: Final = 366
_MOVED: Final = {
    EntryType.DEPOSIT: "deposited",
    EntryType.WITHDRAWAL: "withdrawn",
    EntryType.ESCROW_LOCK: "locked",
    EntryType.RELEASE: "spent",
    EntryType.REFUND: "refunded",
    EntryType.EARNING: "earned",
    EntryType.FEE: "fees",
}


def first_day(days: int, now: dt.datetime) -> dt.date:
    """The first of the last `days` days, today the last of them. Raises: Invalid outside 1 … ANALYTICS_DAYS_MAX."""
    if not 1 <= days <= ANALYTICS_DAYS_MAX:
        raise Invalid(f"analytics cover 1 to {ANALYTICS_DAYS_MAX} days", next_step="give a number of days in that range")
    return now.astimezone(dt.UTC).date() - dt.timedelta(days=days - 1)


def analyse(first: dt.date, days: int, found: Sequence[tuple[dt.date, EntryType, Qu, int]]) -> Analytics:
    """Sums by day and in all. Args: found, day, type, sum and count; days outside are left out."""
    sums: dict[dt.date, dict[str, int]] = {first + dt.timedelta(days=n): {} for n in range(days)}
    for day, kind, amount, count in found:
        if day in sums:
            name = _MOVED[kind]
            sums[day][name] = sums[day].get(name, 0) + amount
            sums[day]["transactions"] = sums[day].get("transactions", 0) + count
    total: dict[str, int] = {}
    for day_sums in sums.values():
        for name, figure in day_sums.items():
            total[name] = total.get(name, 0) + figure
    return Analytics(tuple((day, _moved(day_sums)) for day, day_sums in sums.items()), _moved(total))


def _moved(sums: Mapping[str, int]) -> Moved:
    count = sums.get("transactions", 0)
    return Moved(transactions=count, **{name: Qu(amount) for name, amount in sums.items() if name != "transactions"})


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One finding of the audit: which rule is broken, by how many rows, and the first of them."""

    rule: str
    count: int
    example: str


PAGE_LIMIT_MAX: Final = 100
FAUCET_AMOUNT_MAX: Final = Qu(10**15)
"""The most test money that one faucet act gives."""


def make_cursor(created_at: dt.datetime, entry_id: UUID) -> str:
    """An opaque-looking cursor: where the next page starts."""
    micros = (created_at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    return f"{micros}.{entry_id.hex}"


def read_cursor(cursor: str) -> tuple[dt.datetime, UUID]:
    """The place that `make_cursor` wrote. Raises: Invalid for anything else."""
    try:
        micros, entry = cursor.split(".")
        moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=int(micros))
        return moment, UUID(hex=entry)
    except (ValueError, OverflowError) as error:
        raise Invalid("the cursor is not one of ours", next_step="start again without a cursor") from error

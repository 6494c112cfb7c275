"""SQL of jobs that wait for a payment on the chain, over one transaction's connection."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.jobs.model import Job
from qubix.jobs.payment import Request, Shown
from qubix.jobs.store import read_job
from qubix.kernel.money import Asset, Qu

_REQUESTS: Final = """
SELECT r.*, j.owner_id, j.quote_id, j.ceiling, j.wait_until, j.state, j.cancel_requested_at
FROM payment_requests r JOIN jobs j ON j.id = r.job_id
"""
_WAITING_OF: Final = sa.text(f"{_REQUESTS} WHERE j.owner_id = ANY(:owners) AND j.state = 'AWAITING_FUNDS' ORDER BY j.id").bindparams(
    sa.bindparam("owners", type_=pg.ARRAY(pg.UUID(as_uuid=True)))
)
# Accounts with waiting jobs, a page of them: each is decided as a whole.
_OWNERS: Final = sa.text("""
SELECT DISTINCT owner_id FROM jobs WHERE state = 'AWAITING_FUNDS' AND (cast(:after AS uuid) IS NULL OR owner_id > :after)
ORDER BY owner_id LIMIT :most
""")
_AVAILABLE: Final = sa.text("""
SELECT owner_id, posted - held AS available FROM accounts WHERE kind = 'wallet' AND asset = :asset AND owner_id = ANY(:owners)
""").bindparams(sa.bindparam("owners", type_=pg.ARRAY(pg.UUID(as_uuid=True))))
# What funded an address's other jobs is theirs; only transactions since the oldest of the waiting requests matter.
_TAKEN: Final = sa.text("""
SELECT unnest(tx_ids) AS tx_id FROM payment_requests WHERE address = ANY(:addresses) AND paid_at >= :since
""").bindparams(sa.bindparam("addresses", type_=pg.ARRAY(sa.Text)), sa.bindparam("since", type_=sa.DateTime(timezone=True)))
_AWAIT: Final = sa.text("""
UPDATE jobs SET wait_until = clock_timestamp() + make_interval(secs => :ttl_s) WHERE id = :id AND state = 'AWAITING_FUNDS' RETURNING *
""")
_EXTEND: Final = sa.text("""
UPDATE jobs SET wait_until = greatest(wait_until, clock_timestamp() + make_interval(secs => :ttl_s)) WHERE id = :id
""")


@dataclasses.dataclass(frozen=True, slots=True)
class Desk:
    """What the waiting jobs of some accounts are decided by, as read in one moment. Args: available, by wallet; taken, see `decide`."""

    requests: tuple[Request, ...]
    available: dict[UUID, Qu]
    taken: frozenset[str]
    now: dt.datetime


class FundingStore:
    """Payment requests over one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, job_id: UUID, address: str, amount: Qu) -> None:
        """Ask for a payment."""
        await self._connection.execute(
            sa.text("INSERT INTO payment_requests (job_id, address, amount, missing) VALUES (:job, :address, :amount, :amount)"),
            {"job": job_id, "address": address, "amount": amount},
        )

    async def wait(self, job_id: UUID, *, ttl_s: float) -> Job:
        """The job waits for its payment from now on, as long as its quote lives. Returns: the job."""
        return read_job((await self._connection.execute(_AWAIT, {"id": job_id, "ttl_s": ttl_s})).one())

    async def get(self, job_id: UUID, owner_id: UUID) -> Request | None:
        """The request of the owner's job; None where none was made."""
        row = (
            await self._connection.execute(
                sa.text(f"{_REQUESTS} WHERE r.job_id = :job AND j.owner_id = :owner"), {"job": job_id, "owner": owner_id}
            )
        ).one_or_none()
        return None if row is None else _request(row)

    async def promised(self, owner_id: UUID) -> tuple[int, int]:
        """How many jobs of the account wait for a payment, and the sum of their ceilings."""
        row = (
            await self._connection.execute(
                sa.text(
                    "SELECT count(*) AS n, coalesce(sum(ceiling), 0) AS sum FROM jobs WHERE owner_id = :o AND state = 'AWAITING_FUNDS'"
                ),
                {"o": owner_id},
            )
        ).one()
        return int(row.n), int(row.sum)

    async def owners(self, *, after: UUID | None, most: int) -> list[UUID]:
        """Accounts with waiting jobs, in the order of their ids, behind `after`."""
        return [row.owner_id for row in await self._connection.execute(_OWNERS, {"after": after, "most": most})]

    async def desk(self, owners: Sequence[UUID]) -> Desk:
        """The waiting jobs of these accounts, with what they are decided by."""
        now = await self._connection.scalar(sa.text("SELECT clock_timestamp()"))
        requests = tuple(_request(row) for row in await self._connection.execute(_WAITING_OF, {"owners": list(owners)}))
        wallets = await self._connection.execute(_AVAILABLE, {"owners": list(owners), "asset": Asset.QUBIC.value})
        available = {row.owner_id: Qu(row.available) for row in wallets}
        addresses = sorted({request.address for request in requests})
        since = min((request.asked_at for request in requests), default=now)
        taken = await self._connection.execute(_TAKEN, {"addresses": addresses, "since": since})
        return Desk(requests, available, frozenset(row.tx_id for row in taken), now)

    async def lock(self, job_id: UUID) -> UUID | None:
        """Lock a waiting job's row. Returns: its owner; None when it waits no more, or somebody else has it."""
        found: UUID | None = await self._connection.scalar(
            sa.text("SELECT owner_id FROM jobs WHERE id = :id AND state = 'AWAITING_FUNDS' FOR UPDATE SKIP LOCKED"), {"id": job_id}
        )
        return found

    async def show(self, job_id: UUID, shown: Shown, *, extended: bool, paid: bool) -> None:
        """Write down what is shown from now on."""
        await self._connection.execute(
            sa.text("""UPDATE payment_requests SET received = :received, missing = :missing, confirmations = :confirmations, tx_ids = :tx_ids,
                           extended = extended OR :extended, paid_at = CASE WHEN :paid THEN clock_timestamp() END
                       WHERE job_id = :job""").bindparams(sa.bindparam("tx_ids", type_=pg.ARRAY(sa.Text))),
            {
                "job": job_id,
                "received": shown.received,
                "missing": shown.missing,
                "confirmations": shown.confirmations,
                "tx_ids": list(shown.tx_ids),
                "extended": extended,
                "paid": paid,
            },
        )

    async def extend(self, job_id: UUID, *, ttl_s: float) -> None:
        """Let the job wait until `ttl_s` from now, never shorter than it did."""
        await self._connection.execute(_EXTEND, {"id": job_id, "ttl_s": ttl_s})


def _request(row: Any) -> Request:
    return Request(
        job_id=row.job_id,
        owner_id=row.owner_id,
        quote_id=row.quote_id,
        address=row.address,
        ceiling=Qu(row.ceiling),
        amount=Qu(row.amount),
        asked_at=row.asked_at,
        expires_at=None if row.paid_at is not None else row.wait_until,
        extended=row.extended,
        shown=Shown(Qu(row.received), Qu(row.missing), row.confirmations, tuple(row.tx_ids)),
        paid_at=row.paid_at,
        cancelling=row.cancel_requested_at is not None,
    )

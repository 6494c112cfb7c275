"""What a person sees of the chain's money, and the few things that only a person decides: approvals, ceilings, ending a halt or a doubt.

For commands on the treasury's own machine, over the role that may do it: the signer's for approvals and ceilings, the treasury's for halts
and for payments that nothing proved.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.kernel.errors import Conflict, NotFound
from qubix.kernel.money import written
from qubix.ledger.model import Code
from qubix.postgres.call import Caller
from qubix.treasury.recovering import Lost, Owed

LISTED_MAX: Final = 100
"""Rows of one kind in a status."""

# Why a hold waits: the first of these that is so; "{}" stands for the ceiling.
_WAITING: Final = """
SELECT h.id AS hold_id, h.amount, h.address, h.created_at AS since,
       CASE WHEN h.halted THEN 'payouts are halted'
            WHEN h.approved THEN 'approved, goes next'
            WHEN h.amount > m.payment_max THEN 'needs an approval: above {} for a payment'
            WHEN h.user_day + h.amount > m.user_day_max THEN 'needs an approval: above {} for a user and day'
            WHEN h.wallet_day + h.amount > m.wallet_day_max THEN 'needs an approval: above {} for the wallet and day'
            ELSE 'goes next' END AS reason,
       CASE WHEN h.amount > m.payment_max THEN m.payment_max
            WHEN h.user_day + h.amount > m.user_day_max THEN m.user_day_max
            ELSE m.wallet_day_max END AS ceiling
FROM payable_holds h CROSS JOIN signer_limits m ORDER BY h.created_at, h.id LIMIT :most
"""
_PAYMENTS: Final = """
SELECT p.id AS payment_id, p.kind, p.state, p.reason, p.tx_id, p.tick, p.amount, p.fee, p.source, p.destination, p.signed_at, p.broadcasts,
       (SELECT count(*) FROM payment_holds l WHERE l.payment_id = p.id) AS holds
FROM payments p WHERE p.state IN ('SIGNED','UNKNOWN') ORDER BY p.state DESC, p.signed_at LIMIT :most
"""
_DOUBTFUL: Final = """
SELECT tx_id, place, address, amount, tick, payer, state, reason, seen_at AS since FROM incoming
WHERE state IN ('DOUBTFUL','WAITING') ORDER BY state, tick, tx_id, place LIMIT :most
"""
_ADDRESSES: Final = """
SELECT a.identity AS address, a.purpose, a.user_id, a.given_at, coalesce(r.recorded, 0)::bigint AS recorded
FROM chain_addresses a LEFT JOIN (SELECT address, sum(amount) AS recorded FROM chain_rows WHERE asset = 1 GROUP BY address) r ON r.address = a.identity
WHERE a.purpose <> 'user' OR a.user_id IS NOT NULL ORDER BY a.purpose = 'user', coalesce(r.recorded, 0) DESC, a.purpose, a.given_at LIMIT :most
"""
# What R1 and R2 found ends by itself, and not with what a person explains.
_RESUME: Final = """
WITH found AS (
  SELECT h.subject, jsonb_object_agg(e.key, e.value) AS figures, string_agg(e.key, ', ' ORDER BY e.key) AS rule
  FROM payout_halts h CROSS JOIN jsonb_each(h.figures) e WHERE h.subject = :s AND h.needs_person AND e.key IN ('R1','R2') GROUP BY h.subject),
kept AS (
  UPDATE payout_halts h SET needs_person = false, figures = f.figures, rule = f.rule FROM found f WHERE h.subject = f.subject RETURNING h.subject),
ended AS (DELETE FROM payout_halts WHERE subject = :s AND needs_person AND NOT EXISTS (SELECT 1 FROM found))
SELECT subject FROM kept
"""

# What the chain shows from our addresses, and no payment here is for: after a restore, what the backup did not know. That an archive says of one that
# no money moved is no proof; of those that the backup knew, R1 has said since whether it was so.
_STRANGERS: Final = """
SELECT s.tx_id, s.source, s.destination, s.amount, s.tick, s.input_type, s.payload, a.purpose AS source_purpose,
       EXISTS (SELECT 1 FROM chain_addresses d WHERE d.identity = s.destination AND d.purpose = 'hot') AS to_hot,
       v.paid, coalesce(v.reason, 'nobody has asked yet what became of it') AS doubt
FROM strangers s JOIN chain_addresses a ON a.identity = s.source LEFT JOIN lost_verdicts v ON v.tx_id = s.tx_id
WHERE v.paid IS NOT FALSE AND (s.money_flew IS NOT FALSE OR s.found_at > coalesce(
    (SELECT (h.figures->'restored'->0->>'taken_at')::timestamptz FROM payout_halts h WHERE h.subject = '*'), '-infinity'))
  AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.tx_id = s.tx_id AND p.ended_at IS NOT NULL)
  AND NOT EXISTS (SELECT 1 FROM chain_rows r WHERE r.kind = 'cost' AND r.tx_id = s.tx_id) ORDER BY s.tick, s.tx_id LIMIT :most
"""
# Withdrawals that nothing was signed for, or only what is being recovered: of that some may be captured already, where the rest could not be booked yet.
_OWED: Final = """
SELECT h.id, h.amount, h.address FROM holds h WHERE h.asset = 1 AND (
    h.state = 'OPEN' AND NOT EXISTS (SELECT 1 FROM payment_holds l WHERE l.hold_id = h.id AND l.live)
    OR EXISTS (SELECT 1 FROM payment_holds l JOIN payments p ON p.id = l.payment_id JOIN strangers s ON s.tx_id = p.tx_id
               WHERE l.hold_id = h.id AND l.live AND p.ended_at IS NULL))
ORDER BY h.created_at, h.id
"""

# Whether R1 has not judged the paying address yet as it is after all that the time before the restore may have left.
_UNCOMPARED: Final = """
SELECT EXISTS (SELECT 1 FROM chain_addresses WHERE purpose = 'hot')
   AND NOT EXISTS (SELECT 1 FROM payout_halts WHERE subject = '*' AND figures->'restored'->0 ? 'compared')
"""

Row = dict[str, Any]


def explained(row: Row) -> Row:
    """A hold that waits, its ceiling written into the reason."""
    return {name: value for name, value in row.items() if name != "ceiling"} | {"reason": row["reason"].format(written(row["ceiling"]))}


class Oversight:
    """Over one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._caller = Caller(connection)

    async def status(self) -> Row:
        """How everything stands, at most LISTED_MAX rows of each kind."""
        chain = await self._rows("SELECT cursor, head, processed, tick_s, epoch, epoch_advanced_at, advanced_at FROM chain_state")
        sums = "SELECT kind, posted FROM accounts WHERE kind IN ('house','suspense') AND owner_id IS NULL AND asset = 1"
        posted = {row["kind"]: row["posted"] for row in await self._rows(sums)}
        free = "SELECT count(*) AS n FROM chain_addresses WHERE purpose = 'user' AND user_id IS NULL AND retired_at IS NULL"
        own = await self._rows("SELECT purpose, identity FROM chain_addresses WHERE purpose <> 'user'")
        return {
            "network": await self._connection.scalar(sa.text("SELECT network FROM ledger_network")),
            "chain": chain[0] if chain else None,
            "halts": await self._rows("SELECT subject, rule, figures, needs_person, since FROM payout_halts ORDER BY since"),
            "waiting": [explained(row) for row in await self._rows(_WAITING, most=LISTED_MAX)],
            "payments": await self._rows(_PAYMENTS, most=LISTED_MAX),
            "incoming": await self._rows(_DOUBTFUL, most=LISTED_MAX),
            "suspense": posted.get("suspense", 0),
            "house": posted.get("house", 0),
            "addresses": {row["purpose"]: row["identity"] for row in own},
            "free_addresses": (await self._rows(free))[0]["n"],
        }

    async def addresses(self, *, most: int) -> list[Row]:
        """The platform's own addresses, then users', the richest first, with what is recorded there."""
        return await self._rows(_ADDRESSES, most=most)

    async def hold(self, hold_id: UUID) -> Row:
        """A withdrawal. Raises: NotFound."""
        sql = """SELECT h.id AS hold_id, h.amount, h.address, h.state, h.created_at AS since, a.approved_by,
                        EXISTS (SELECT 1 FROM payment_holds l WHERE l.hold_id = h.id AND l.live) AS signed
                 FROM holds h LEFT JOIN payout_approvals a ON a.hold_id = h.id WHERE h.id = :id"""
        found = await self._rows(sql, id=hold_id)
        if not found:
            raise NotFound(f"there is no withdrawal {hold_id}", next_step="qubix treasury status lists those that wait")
        return found[0]

    async def approve(self, hold_id: UUID, by: str) -> bool:
        """Let the signer sign for a hold past its ceilings. Returns whether it was not approved before."""
        sql = "INSERT INTO payout_approvals (hold_id, approved_by) VALUES (:id, :by) ON CONFLICT DO NOTHING RETURNING true"
        return bool(await self._connection.scalar(sa.text(sql), {"id": hold_id, "by": by[:200]}))

    async def halt(self, subject: str) -> Row:
        """Why payouts stop. Raises: NotFound."""
        found = await self._rows("SELECT subject, rule, figures, needs_person, since FROM payout_halts WHERE subject = :s", s=subject)
        if not found:
            raise NotFound(f"no payouts are halted by {subject!r}", next_step="qubix treasury status lists the halts; * is the one for all")
        return found[0]

    async def resume(self, subject: str) -> bool:
        """End what a person has to end of a halt. Returns whether payouts go on: figures that do not agree still stop them.

        Raises: NotFound; Conflict for a halt that ends by itself.
        """
        halt = await self.halt(subject)
        if not halt["needs_person"]:
            raise Conflict(
                "this halt ends by itself, as soon as the figures agree again",
                next_step="find the missing or surplus money by the figures: qubix treasury status",
            )
        if "restored" in halt["figures"]:
            await self._must_be_reconciled()
        return await self._connection.scalar(sa.text(_RESUME), {"s": subject}) is None

    async def _must_be_reconciled(self) -> None:
        """Raises: Conflict until the chain was read past the restore, and all that it shows is explained."""
        cursor, until = await self.recovered_to()
        if until is None or cursor < until:
            raise Conflict(
                f"the chain is not read past the restore yet: booked to tick {cursor}, it must be {until or 'known how far'}",
                next_step="let the treasury run; qubix treasury recover shows how far it is",
            )
        if strangers := await self.strangers():
            raise Conflict(
                f"{len(strangers)} payments on the chain are not in these books: withdrawals that they paid would be paid again",
                next_step="qubix treasury recover",
            )
        if await self._connection.scalar(sa.text(_UNCOMPARED)):
            raise Conflict(
                "the paying address has not been compared with the books since the restore",
                next_step="let the treasury run; qubix treasury status shows a payment that is not settled, and that it waits for",
            )

    async def recovered_to(self) -> tuple[int, int | None]:
        """Up to which tick the chain is booked, and up to which it must be after the restore (None: the treasury has not looked since).

        Raises: NotFound where no restore halts payouts.
        """
        sql = """SELECT coalesce((SELECT cursor FROM chain_state), 0) AS cursor, (figures->'restored'->0->>'until')::bigint AS until FROM payout_halts
                 WHERE subject = '*' AND figures ? 'restored'"""
        found = await self._rows(sql)
        if not found:
            raise NotFound("no restore halts payouts: there is nothing to recover", next_step="qubix treasury status lists the halts")
        return found[0]["cursor"], found[0]["until"]

    async def strangers(self, *, most: int = LISTED_MAX) -> list[Lost]:
        """What the chain shows from our addresses, and no payment here is for, the oldest first."""
        rows = await self._rows(_STRANGERS, most=most)
        return [
            Lost(
                row["tx_id"],
                row["source"],
                row["destination"],
                row["amount"],
                row["tick"],
                row["input_type"],
                bytes(row["payload"]),
                from_hot=row["source_purpose"] == "hot",
                to_hot=row["to_hot"],
                is_proved=row["paid"] is True,
                doubt="" if row["paid"] else row["doubt"],
            )
            for row in rows
        ]

    async def unpaid(self, tx_id: str, proof: str) -> bool:
        """Say that what the chain shows has paid nothing, where nothing has proved the opposite. Returns whether it stands so now."""
        sql = """INSERT INTO lost_verdicts (tx_id, paid, raised, reason) VALUES (:tx_id, false, false, :proof)
                 ON CONFLICT (tx_id) DO UPDATE SET paid = false, reason = :proof, judged_at = clock_timestamp() WHERE lost_verdicts.paid IS NULL RETURNING true"""
        return bool(await self._connection.scalar(sa.text(sql), {"tx_id": tx_id, "proof": proof[:1000]}))

    async def owed(self) -> list[Owed]:
        """Withdrawals that are open, the oldest first."""
        return [Owed(row["id"], row["amount"], row["address"]) for row in await self._rows(_OWED)]

    async def user_by_email(self, email: str) -> UUID:
        """Raises: NotFound."""
        found: UUID | None = await self._connection.scalar(sa.text("SELECT id FROM users WHERE email = lower(:email)"), {"email": email})
        if found is None:
            raise NotFound(
                f"there is no user {email}",
                next_step="take the e-mail of an account: the old machine's logs or the user tell who asked for this withdrawal; else --house",
            )
        return found

    async def recover_hold(self, hold_id: UUID, user: UUID, amount: int, address: str) -> Code:
        """The act: a withdrawal that was asked for after the backup, again."""
        return Code(await self._caller.value("SELECT recover_hold($1, $2, $3, $4)", hold_id, user, amount, address))

    async def recover_payment(self, payment_id: UUID, tx_id: str, fee: int, holds: Sequence[UUID]) -> Code:
        """The act: write a lost payment down, undecided, so that it can be ended as paid."""
        return Code(await self._caller.value("SELECT recover_payment($1, $2, $3, $4)", payment_id, tx_id, fee, list(holds)))

    async def recover_cost(self, tx_id: str, proof: str) -> Code:
        """The act: a lost payment that the platform itself bears."""
        return Code(await self._caller.value("SELECT recover_cost($1, $2)", tx_id, proof))

    async def surplus(self, address: str) -> Row:
        """What one of our addresses has more than is recorded, by the figures of R1 that stop payouts now.

        Raises: NotFound for an address whose figures agree, or were not judged yet; Conflict where money is missing, or what is recorded
            has changed since the figures were judged (a transaction was credited, or this very surplus was booked).
        """
        sql = """SELECT a.identity AS address, a.purpose, a.user_id, (s.figures->'R1'->a.identity->>'balance')::bigint AS balance,
                        (s.figures->'R1'->a.identity->>'recorded')::bigint AS recorded, (s.figures->'R1'->a.identity->>'tick')::bigint AS tick,
                        (SELECT coalesce(sum(r.amount), 0)::bigint FROM chain_rows r
                         WHERE r.address = a.identity AND r.tick <= (s.figures->'R1'->a.identity->>'tick')::bigint) AS recorded_now
                 FROM chain_addresses a JOIN payout_halts s ON s.figures->'R1' ? a.identity WHERE a.identity = :address LIMIT 1"""
        found = await self._rows(sql, address=address)
        if not found:
            raise NotFound(f"no figures of {address} stop payouts", next_step="qubix treasury status shows those that do")
        if found[0]["balance"] <= found[0]["recorded"]:
            raise Conflict("that address has less than is recorded: there is nothing to book", next_step="find out where its money went")
        if found[0].pop("recorded_now") != found[0]["recorded"]:
            raise Conflict(
                "what is recorded there has changed since these figures were judged",
                next_step="wait until they are judged again: qubix treasury status",
            )
        return found[0]

    async def payment(self, named: str) -> Row:
        """A payment by its id, or its transaction's. Raises: NotFound."""
        sql = """SELECT p.id AS payment_id, p.kind, p.state, p.reason, p.tx_id, p.tick, p.amount, p.fee, p.source, p.destination, p.signed_at,
                        array(SELECT l.hold_id FROM payment_holds l WHERE l.payment_id = p.id ORDER BY l.place) AS holds
                 FROM payments p WHERE p.id::text = :named OR p.tx_id = :named"""
        found = await self._rows(sql, named=named)
        if not found:
            raise NotFound(f"there is no payment {named}", next_step="qubix treasury status lists those that are not settled")
        return found[0]

    async def owner_of(self, hold_id: UUID) -> tuple[UUID, int]:
        """Whose withdrawal it is, and of how much."""
        sql = "SELECT w.owner_id, h.amount FROM holds h JOIN accounts w ON w.id = h.account_id WHERE h.id = :id"
        row = (await self._connection.execute(sa.text(sql), {"id": hold_id})).one()
        return row.owner_id, row.amount

    async def end_payment(self, payment_id: UUID, *, paid: bool, proof: str) -> Code:
        """The end of a payment, after its holds and its fee if it paid."""
        return Code(await self._caller.value("SELECT payment_ended($1, $2, $3)", payment_id, paid, proof))

    async def _rows(self, sql: str, **values: Any) -> list[Row]:
        rows = (await self._connection.execute(sa.text(sql), values)).mappings()
        return [{name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in row.items()} for row in rows]

"""What the treasury process reads and writes beside the acts of money; every method is one statement."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.chains.qubic.answers import ArchivedTransaction
from qubix.kernel.money import Asset, Qu
from qubix.treasury import tables as _tables  # noqa: F401  (declares them)
from qubix.treasury.receiving import Payment

WAITED_FOR_S: Final = 900
"""So long after an address was given, somebody is likely to pay to it and to look."""

_TEXTS: Final = pg.ARRAY(sa.Text)
_NUMBERS: Final = pg.ARRAY(sa.BigInteger)

# What is credited stays so; a count of confirmations never falls; a row that says nothing new is not touched, so nobody is told. Fields that
# do not make the id they are shown under are written down where nothing is known of it, and never change what is, nor stay when the true ones come.
_NOTE: Final = sa.text("""
INSERT INTO incoming AS i (tx_id, place, address, amount, tick, payer, sender, memo, state, confirmations, reason, raw)
SELECT n.tx_id, n.place, n.address, n.amount, n.tick, n.payer, n.sender, decode(n.memo, 'hex'), n.state, n.confirmations, n.reason, n.raw::jsonb
FROM unnest(:tx_ids, :places, :addresses, :amounts, :ticks, :payers, :senders, :memos, :states, :confirmations, :reasons, :raws)
  AS n (tx_id, place, address, amount, tick, payer, sender, memo, state, confirmations, reason, raw)
ON CONFLICT (tx_id, place) DO UPDATE SET state = excluded.state, confirmations = greatest(i.confirmations, excluded.confirmations),
  reason = excluded.reason, raw = excluded.raw, changed_at = clock_timestamp(), address = excluded.address, amount = excluded.amount,
  tick = excluded.tick, payer = excluded.payer, sender = excluded.sender, memo = excluded.memo
WHERE i.state <> 'CREDITED' AND :genuine AND (i.state, i.confirmations, i.reason, i.tick)
  IS DISTINCT FROM (excluded.state, greatest(i.confirmations, excluded.confirmations), excluded.reason, excluded.tick)
RETURNING tx_id, place, address, amount, tick, state, confirmations, (SELECT user_id FROM chain_addresses a WHERE a.identity = i.address) AS user_id
""").bindparams(
    *(sa.bindparam(name, type_=_TEXTS) for name in ("tx_ids", "addresses", "payers", "senders", "memos", "states", "reasons", "raws")),
    sa.bindparam("genuine", type_=sa.Boolean),
    sa.bindparam("places", type_=pg.ARRAY(sa.Integer)),
    sa.bindparam("amounts", type_=_NUMBERS),
    sa.bindparam("ticks", type_=_NUMBERS),
    sa.bindparam("confirmations", type_=pg.ARRAY(sa.SmallInteger)),
)
_GONE: Final = sa.text("""
UPDATE incoming i SET state = 'GONE', reason = :reason, changed_at = clock_timestamp()
WHERE i.state IN ('SEEN','WAITING','DOUBTFUL') AND CASE WHEN cast(:tick AS bigint) IS NULL
  THEN (i.tx_id, i.place) IN (SELECT * FROM unnest(:tx_ids, :places)) ELSE i.state = 'SEEN' AND i.tick <= :tick END
RETURNING tx_id, place, address, amount, tick, state, confirmations, (SELECT user_id FROM chain_addresses a WHERE a.identity = i.address) AS user_id
""").bindparams(
    sa.bindparam("tx_ids", type_=_TEXTS), sa.bindparam("places", type_=pg.ARRAY(sa.Integer)), sa.bindparam("tick", type_=sa.BigInteger)
)
# One more tick archived past a payment that was seen flown is one more confirmation; the last one needs the second proof.
_COUNT: Final = sa.text("""
UPDATE incoming i SET confirmations = least(:processed - i.tick, cast(:most AS bigint)), changed_at = clock_timestamp()
WHERE i.state = 'SEEN' AND i.raw->>'moneyFlew' = 'true' AND least(:processed - i.tick, cast(:most AS bigint)) > i.confirmations
RETURNING tx_id, place, address, amount, tick, state, confirmations, (SELECT user_id FROM chain_addresses a WHERE a.identity = i.address) AS user_id
""").bindparams(sa.bindparam("processed", type_=sa.BigInteger))
_PAYMENTS: Final = sa.text("""
SELECT p.id, p.kind, p.source, p.destination, p.amount, p.fee, p.tick, p.input_type, p.payload, p.encoded, p.tx_id, p.before_transfers, p.before_amount,
       p.state, p.reason, p.broadcasts, extract(epoch FROM clock_timestamp() - p.broadcast_at)::float AS since_broadcast_s, p.raw IS NOT NULL AS shown,
       (SELECT coalesce(json_agg(json_build_array(h.id, h.amount, h.address, w.owner_id) ORDER BY l.place), '[]')::text FROM payment_holds l
        JOIN holds h ON h.id = l.hold_id JOIN accounts w ON w.id = h.account_id WHERE l.payment_id = p.id) AS holds
FROM payments p WHERE p.state IN ('SIGNED','UNKNOWN') ORDER BY p.kind = 'sweep', p.signed_at LIMIT :most
""")
# What is recorded of each address up to the tick at which its balance was asked, and whether something there is not decided yet.
_FIGURES: Final = sa.text("""
SELECT b.address, b.balance, b.tick, (SELECT coalesce(sum(r.amount), 0) FROM chain_rows r WHERE r.address = b.address AND r.tick <= b.tick)::bigint AS recorded,
       a.purpose,
       EXISTS (SELECT 1 FROM payments p WHERE p.state IN ('SIGNED','UNKNOWN') AND p.tick <= b.tick AND b.address IN (p.source, p.destination))
       OR EXISTS (SELECT 1 FROM incoming i WHERE i.address = b.address AND i.state = 'WAITING' AND i.tick <= b.tick) AS undecided
FROM unnest(:addresses, :balances, :ticks) AS b (address, balance, tick) JOIN chain_addresses a ON a.identity = b.address
""").bindparams(sa.bindparam("addresses", type_=_TEXTS), sa.bindparam("balances", type_=_NUMBERS), sa.bindparam("ticks", type_=_NUMBERS))
_HALT: Final = sa.text("""
INSERT INTO payout_halts (subject, rule, figures, needs_person) VALUES (:subject, :rule, cast(:figures AS jsonb), :needs_person)
ON CONFLICT (subject) DO UPDATE SET rule = excluded.rule, figures = excluded.figures, needs_person = excluded.needs_person
""")


@dataclass(frozen=True, slots=True)
class ChainState:
    """The treasury's one row: how far it has come, and what it last saw of the chain."""

    cursor: int
    peeked: int
    head: int
    processed: int
    tick_s: float
    epoch: int
    epoch_advanced_at: dt.datetime | None
    advanced_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Noted:
    """What is written down of a payment to us."""

    payment: Payment
    state: str
    confirmations: int
    reason: str
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """A payment to us whose state changed. Args: user_id, whose address it is; None for nobody's."""

    tx_id: str
    place: int
    address: str
    amount: Qu
    tick: int
    state: str
    confirmations: int
    user_id: UUID | None


@dataclass(frozen=True, slots=True)
class Open:
    """A payment to us that is neither credited nor gone."""

    tx_id: str
    place: int
    tick: int
    state: str


@dataclass(frozen=True, slots=True)
class PaidHold:
    """One withdrawal in a payment."""

    id: UUID
    amount: Qu
    address: str
    user_id: UUID


@dataclass(frozen=True, slots=True)
class SignedPayment:
    """A signed payment that is not decided. Args: shown, whether the archive's words are stored; holds, in their places, none of a sweep."""

    id: UUID
    kind: str
    source: str
    destination: str
    amount: Qu
    fee: Qu
    tick: int
    input_type: int
    payload: bytes
    encoded: bytes
    tx_id: str
    before_transfers: int
    before_amount: int
    state: str
    reason: str
    broadcasts: int
    since_broadcast_s: float | None
    shown: bool
    holds: tuple[PaidHold, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """R1 for one address: what the chain says at `tick`, and what is recorded up to it."""

    address: str
    purpose: str
    balance: int
    recorded: int
    tick: int
    undecided: bool


@dataclass(frozen=True, slots=True)
class Halt:
    """Why payouts stop: all of them (subject *), or those of one deposit address's user."""

    subject: str
    rule: str
    figures: dict[str, Any]
    needs_person: bool
    since: dt.datetime


class WatchStore:
    """The treasury's own rows over one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def network(self) -> str | None:
        """The ledger's network."""
        found: str | None = await self._connection.scalar(sa.text("SELECT network FROM ledger_network"))
        return found

    # -- where the chain is --

    async def state(self) -> ChainState | None:
        """How far the treasury has come; None before its first look."""
        row = (await self._connection.execute(sa.text("SELECT * FROM chain_state"))).one_or_none()
        return None if row is None else _state(row)

    async def begin(self, cursor: int) -> None:
        """Make the row, once."""
        await self._connection.execute(
            sa.text("INSERT INTO chain_state (cursor, peeked) VALUES (:cursor, :cursor) ON CONFLICT DO NOTHING"), {"cursor": cursor}
        )

    async def look(self, seen: ChainState) -> ChainState:
        """Write what was seen of the chain, cursor and peeked apart. The head and the archive never go back. Returns the row."""
        rows = await self._connection.execute(
            sa.text("""UPDATE chain_state SET head = greatest(head, :head), processed = greatest(processed, :processed), tick_s = :tick_s, epoch = :epoch,
                       epoch_advanced_at = :epoch_advanced_at, advanced_at = :advanced_at RETURNING *"""),
            {
                "head": seen.head,
                "processed": seen.processed,
                "tick_s": seen.tick_s,
                "epoch": seen.epoch,
                "epoch_advanced_at": seen.epoch_advanced_at,
                "advanced_at": seen.advanced_at,
            },
        )
        return _state(rows.one())

    async def await_restored(self, until: int) -> None:
        """After a restore, say once up to which tick the chain may show payments that the backup did not know."""
        await self._connection.execute(
            sa.text("""UPDATE payout_halts SET figures = jsonb_set(figures, '{restored,0,until}', to_jsonb(cast(:until AS bigint)))
                       WHERE subject = '*' AND figures ? 'restored' AND NOT figures->'restored'->0 ? 'until'"""),
            {"until": until},
        )

    async def move_cursor(self, before: int, after: int) -> bool:
        """Say that all ticks up to `after` are in the ledger. Returns whether the cursor stood at `before`."""
        moved = await self._connection.execute(
            sa.text("UPDATE chain_state SET cursor = :after, peeked = greatest(peeked, :after) WHERE cursor = :before"),
            {"before": before, "after": after},
        )
        return moved.rowcount == 1

    async def peeked(self, tick: int) -> None:
        """Say that ticks up to this one were looked at ahead of the cursor."""
        await self._connection.execute(sa.text("UPDATE chain_state SET peeked = greatest(peeked, cursor, :tick)"), {"tick": tick})

    async def first_address_s(self) -> float | None:
        """How many seconds ago our first address was made; None without any."""
        found = await self._connection.scalar(
            sa.text("SELECT extract(epoch FROM clock_timestamp() - min(made_at))::float FROM chain_addresses")
        )
        return None if found is None else float(found)

    async def addresses(self, since: dt.datetime | None) -> list[tuple[str, str, dt.datetime]]:
        """Our addresses made at `since` or later: identity, purpose, when."""
        rows = await self._connection.execute(
            sa.text(
                "SELECT identity, purpose, made_at FROM chain_addresses WHERE cast(:since AS timestamptz) IS NULL OR made_at >= :since"
            ).bindparams(sa.bindparam("since", type_=sa.DateTime(timezone=True))),
            {"since": since},
        )
        return [(row.identity, row.purpose, row.made_at) for row in rows]

    async def is_waited_for(self) -> bool:
        """Whether somebody is likely to watch a payment come."""
        found = await self._connection.scalar(
            sa.text("""SELECT EXISTS (SELECT 1 FROM incoming WHERE state IN ('SEEN','WAITING'))
                       OR EXISTS (SELECT 1 FROM chain_addresses WHERE given_at > clock_timestamp() - make_interval(secs => :age))"""),
            {"age": WAITED_FOR_S},
        )
        return bool(found)

    # -- what comes in --

    async def credited(self, addresses: Collection[str]) -> dict[str, int]:
        """What was ever recorded as come in at each address."""
        if not addresses:
            return {}
        rows = await self._connection.execute(
            sa.text(
                "SELECT address, sum(amount)::bigint AS amount FROM chain_rows WHERE address = ANY(:addresses) AND amount > 0 GROUP BY address"
            ).bindparams(sa.bindparam("addresses", type_=_TEXTS)),
            {"addresses": list(addresses)},
        )
        return {row.address: row.amount for row in rows}

    async def signed_by_us(self, tx_ids: Collection[str]) -> set[str]:
        """Which of these transactions the signer has signed, or a person has booked."""
        if not tx_ids:
            return set()
        rows = await self._connection.execute(
            sa.text("""SELECT tx_id FROM payments WHERE tx_id = ANY(:ids)
                       UNION SELECT tx_id FROM chain_rows WHERE kind = 'cost' AND tx_id = ANY(:ids)""").bindparams(
                sa.bindparam("ids", type_=_TEXTS)
            ),
            {"ids": list(tx_ids)},
        )
        return set(rows.scalars())

    async def stranger(self, one: ArchivedTransaction) -> None:
        """Write down a transaction of our address that no payment here is for; what does not make its own id is not."""
        if not one.is_genuine():
            return
        await self._connection.execute(
            sa.text("""INSERT INTO strangers (tx_id, source, destination, amount, tick, input_type, payload, encoded, money_flew)
                       VALUES (:tx_id, :source, :destination, :amount, :tick, :input_type, :payload, :encoded, :money_flew) ON CONFLICT DO NOTHING"""),
            {
                "tx_id": one.id,
                "source": one.source,
                "destination": one.destination,
                "amount": one.amount,
                "tick": one.tick,
                "input_type": one.input_type,
                "payload": one.payload,
                "encoded": one.rebuilt().to_bytes(),
                "money_flew": one.money_flew,
            },
        )

    async def note(self, noted: Sequence[Noted]) -> list[Change]:
        """Write payments to us down. Returns those of which something changed."""
        return await self._note(noted, genuine=True) + await self._note(noted, genuine=False)

    async def _note(self, all_noted: Sequence[Noted], *, genuine: bool) -> list[Change]:
        noted = list({one.payment.key: one for one in all_noted if one.payment.genuine is genuine}.values())
        if not noted:
            return []
        values = {
            "genuine": genuine,
            "tx_ids": [one.payment.tx_id for one in noted],
            "places": [one.payment.place for one in noted],
            "addresses": [one.payment.address for one in noted],
            "amounts": [one.payment.amount for one in noted],
            "ticks": [one.payment.tick for one in noted],
            "payers": [one.payment.payer for one in noted],
            "senders": [one.payment.sender for one in noted],
            "memos": [one.payment.memo.hex() for one in noted],
            "states": [one.state for one in noted],
            "confirmations": [one.confirmations for one in noted],
            "reasons": [one.reason[:1000] for one in noted],
            "raws": [json.dumps(one.raw) for one in noted],
        }
        return [_change(row) for row in await self._connection.execute(_NOTE, values)]

    async def gone(self, keys: Sequence[tuple[str, int]], reason: str) -> list[Change]:
        """These payments never moved money; what no row knows stays unknown."""
        if not keys:
            return []
        values = {"tx_ids": [tx_id for tx_id, _ in keys], "places": [place for _, place in keys], "tick": None, "reason": reason}
        return [_change(row) for row in await self._connection.execute(_GONE, values)]

    async def vanished(self, tick: int, reason: str) -> list[Change]:
        """What was seen early up to this tick, and is not there now that the tick is final."""
        return [_change(row) for row in await self._connection.execute(_GONE, {"tx_ids": [], "places": [], "tick": tick, "reason": reason})]

    async def count_confirmations(self, processed: int, most: int) -> list[Change]:
        """Raise the confirmations of what was seen early to what the archive's last tick proves, at most `most`."""
        return [_change(row) for row in await self._connection.execute(_COUNT, {"processed": processed, "most": most})]

    async def open_incoming(self, cursor: int, most: int) -> list[Open]:
        """What waits for its proof, and then what waits for a person; of very many some, by chance, so that none of them hides another."""
        rows = await self._connection.execute(
            sa.text("""SELECT tx_id, place, tick, state FROM incoming WHERE state IN ('WAITING','DOUBTFUL') AND tick <= :cursor
                       ORDER BY state DESC, random() LIMIT :most"""),
            {"cursor": cursor, "most": most},
        )
        return [Open(row.tx_id, row.place, row.tick, row.state) for row in rows]

    # -- what goes out --

    async def payments(self, most: int) -> list[SignedPayment]:
        """Signed payments that are not decided: payouts, for which somebody waits, before sweeps, and the oldest first."""
        return [_payment(row) for row in await self._connection.execute(_PAYMENTS, {"most": most})]

    async def broadcast(self, payment: UUID, reason: str | None) -> None:
        """One more broadcast of the same bytes. Args: reason, what an endpoint said against it."""
        await self._connection.execute(
            sa.text("""UPDATE payments SET broadcasts = broadcasts + 1, broadcast_at = clock_timestamp(),
                       reason = CASE WHEN state = 'SIGNED' THEN coalesce(cast(:reason AS text), reason) ELSE reason END
                       WHERE id = :id AND ended_at IS NULL"""),
            {"id": payment, "reason": reason},
        )

    async def shown(self, payment: UUID, raw: Mapping[str, Any]) -> None:
        """Keep what the archive shows of a payment."""
        await self._connection.execute(
            sa.text("UPDATE payments SET raw = cast(:raw AS jsonb) WHERE id = :id AND ended_at IS NULL"),
            {"id": payment, "raw": json.dumps(raw)},
        )

    async def payment_unknown(self, payment: UUID, reason: str) -> int:
        """The act: neither paid nor dead by what is known."""
        return int(await self._connection.scalar(sa.text("SELECT payment_unknown(:id, :reason)"), {"id": payment, "reason": reason}) or 0)

    async def payment_ended(self, payment: UUID, *, paid: bool, proof: str) -> int:
        """The act: the end of a payment. Returns its code, as in ledger/acts.sql."""
        return int(
            await self._connection.scalar(
                sa.text("SELECT payment_ended(:id, :paid, :proof)"), {"id": payment, "paid": paid, "proof": proof}
            )
            or 0
        )

    # -- whether all of it agrees --

    async def in_doubt(self, most: int) -> list[str]:
        """Addresses whose figures did not agree when they were last judged; of very many some, by chance."""
        rows = await self._connection.execute(
            sa.text("""SELECT identity FROM chain_addresses WHERE identity IN (SELECT jsonb_object_keys(figures->'R1') FROM payout_halts
                       WHERE jsonb_typeof(figures->'R1') = 'object') ORDER BY random() LIMIT :most"""),
            {"most": most},
        )
        return list(rows.scalars())

    async def to_reconcile(self, after: str, most: int) -> tuple[list[str], list[str]]:
        """Our paying address and the house's; and the next round of deposit addresses after `after` that were given or hold money."""
        ours = await self._connection.execute(sa.text("SELECT identity FROM chain_addresses WHERE purpose <> 'user'"))
        users = await self._connection.execute(
            sa.text("""SELECT identity FROM chain_addresses a WHERE purpose = 'user' AND identity > :after
                       AND (user_id IS NOT NULL OR EXISTS (SELECT 1 FROM chain_rows r WHERE r.address = a.identity)) ORDER BY identity LIMIT :most"""),
            {"after": after, "most": most},
        )
        return list(ours.scalars()), list(users.scalars())

    async def figures(self, balances: Sequence[tuple[str, int, int]]) -> list[Figures]:
        """What is recorded of addresses. Args: balances, address, balance, and the tick after which it was that."""
        if not balances:
            return []
        addresses, amounts, ticks = zip(*balances, strict=True)
        rows = await self._connection.execute(_FIGURES, {"addresses": list(addresses), "balances": list(amounts), "ticks": list(ticks)})
        return [Figures(row.address, row.purpose, row.balance, row.recorded, row.tick, row.undecided) for row in rows]

    async def chain_total(self) -> tuple[int, int]:
        """R2: the sum of the recorded chain rows, and what the chain account says that we hold."""
        row = (
            await self._connection.execute(
                sa.text("""SELECT (SELECT coalesce(sum(amount), 0) FROM chain_rows WHERE asset = :asset)::bigint AS recorded,
                           -(SELECT posted FROM accounts WHERE kind = 'chain' AND asset = :asset AND owner_id IS NULL)::bigint AS posted"""),
                {"asset": Asset.QUBIC.value},
            )
        ).one()
        return row.recorded, row.posted

    async def halts(self) -> list[Halt]:
        """Why payouts stop, locked until the transaction's end."""
        rows = await self._connection.execute(sa.text("SELECT * FROM payout_halts ORDER BY since, subject FOR UPDATE"))
        return [Halt(row.subject, row.rule, dict(row.figures), row.needs_person, row.since) for row in rows]

    async def halt(self, subject: str, rule: str, figures: Mapping[str, Any], *, needs_person: bool) -> None:
        """Stop payouts, or say anew why they are stopped."""
        values = {"subject": subject, "rule": rule, "figures": json.dumps(figures), "needs_person": needs_person}
        await self._connection.execute(_HALT, values)

    async def resume(self, subject: str) -> None:
        """Let payouts go on."""
        await self._connection.execute(sa.text("DELETE FROM payout_halts WHERE subject = :subject"), {"subject": subject})


def _state(row: Any) -> ChainState:
    return ChainState(row.cursor, row.peeked, row.head, row.processed, row.tick_s, row.epoch, row.epoch_advanced_at, row.advanced_at)


def _change(row: Any) -> Change:
    return Change(row.tx_id, row.place, row.address, Qu(row.amount), row.tick, row.state, row.confirmations, row.user_id)


def _payment(row: Any) -> SignedPayment:
    holds = tuple(PaidHold(UUID(hold), Qu(amount), address, UUID(user)) for hold, amount, address, user in json.loads(row.holds))
    return SignedPayment(
        row.id,
        row.kind,
        row.source,
        row.destination,
        Qu(row.amount),
        Qu(row.fee),
        row.tick,
        row.input_type,
        bytes(row.payload),
        bytes(row.encoded),
        row.tx_id,
        row.before_transfers,
        row.before_amount,
        row.state,
        row.reason,
        row.broadcasts,
        row.since_broadcast_s,
        row.shown,
        holds,
    )

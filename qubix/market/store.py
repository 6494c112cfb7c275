"""SQL of offers and quotes over one transaction's connection. The page of a search is in qubix.market.search."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.kernel.ids import NodeId, OfferId, ProviderId
from qubix.kernel.money import Qu
from qubix.market import tables
from qubix.market.model import Offer, Status

__all__ = ["MarketStore", "tables"]

_UUIDS: Final = pg.ARRAY(pg.UUID(as_uuid=True))
OFFERS_MAX: Final = 10_000
"""How many offers a quote or a group-by looks at."""

# Offers as they are at this moment: what time alone changes is judged here, not taken from the row; nor is what this transaction has
# leased or released (market.sql, offers_note_devices).
_OFFERS: Final = """
SELECT o.id, o.node_id, o.provider_id, o.provider, o.model, o.gpus, live.gpus_free, o.vram_bytes, o.price_per_hour, o.region, o.cpu_model, o.cpu_cores,
    o.ram_bytes, o.tflops, o.reliability, o.attempts, o.verified, o.detected_by,
    CASE WHEN o.status <> 'available' THEN o.status WHEN o.fresh_until <= now() THEN 'stale' WHEN live.gpus_free = 0 THEN 'busy' ELSE 'available' END AS status
FROM offers o, LATERAL (SELECT
    CASE WHEN o.recount_at <= now() OR o.node_id = ANY ((SELECT nullif(current_setting('qubix.offers_due', true), '')::uuid[])::uuid[])
      THEN (SELECT l.gpus_free FROM offer_live(o.node_id, o.model) AS l) ELSE o.gpus_free END AS gpus_free) live
"""
_QUOTE: Final = sa.text("""
INSERT INTO quotes (id, user_id, offer_id, gpus, device_ids, price_per_hour, rate_max, ceiling, duration_max_s, expires_at)
VALUES (:id, :user, :offer, :gpus, :devices, :price, :rate, :ceiling, :duration, clock_timestamp() + make_interval(secs => :ttl)) RETURNING expires_at
""").bindparams(sa.bindparam("devices", type_=pg.ARRAY(sa.BigInteger)))
_QUOTE_COLUMNS: Final = """q.id, q.user_id, q.offer_id, o.node_id, o.model, q.gpus, q.device_ids, q.price_per_hour, q.rate_max, q.ceiling, q.duration_max_s,
q.expires_at, CASE WHEN q.state = 'open' AND q.expires_at <= clock_timestamp() THEN 'expired' ELSE q.state END AS state,
q.expires_at > clock_timestamp() AS in_time"""


class MarketStore:
    """Reads and writes offers and quotes."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def _rows(self, statement: str | sa.TextClause, **values: Any) -> list[sa.Row[Any]]:
        clause = sa.text(statement) if isinstance(statement, str) else statement
        return list((await self._connection.execute(clause, values)).all())

    async def _one(self, statement: str | sa.TextClause, **values: Any) -> sa.Row[Any] | None:
        rows = await self._rows(statement, **values)
        return rows[0] if rows else None

    # -- listing --

    async def unlisted_models(self, node_id: UUID) -> list[str]:
        """GPU models that a node has and does not offer yet."""
        rows = await self._rows(
            """SELECT DISTINCT d.model FROM devices d WHERE d.node_id = :id AND d.gone_at IS NULL
               AND NOT EXISTS (SELECT FROM offers o WHERE o.node_id = d.node_id AND o.model = d.model) ORDER BY d.model""",
            id=node_id,
        )
        return [row.model for row in rows]

    async def usual_price(self, node_id: UUID) -> int:
        """The price of the node's first offer, 0 where it has none."""
        row = await self._one("SELECT price_per_hour FROM offers WHERE node_id = :id ORDER BY id LIMIT 1", id=node_id)
        return 0 if row is None else int(row.price_per_hour)

    async def add_offer(self, offer_id: UUID, node_id: UUID, model: str, price: int, tflops: float) -> None:
        """Insert an offer; one that exists stays as it is."""
        await self._connection.execute(
            sa.text("""INSERT INTO offers (id, node_id, model, price_per_hour, tflops) VALUES (:id, :node, :model, :price, :tflops)
                       ON CONFLICT (node_id, model) DO NOTHING"""),
            {"id": offer_id, "node": node_id, "model": model, "price": price, "tflops": tflops},
        )

    async def refresh(self, node_ids: Sequence[UUID]) -> None:
        """Bring the offers of these nodes up to date; news of what changed goes to the outbox."""
        statement = sa.text("SELECT refresh_offers(:ids)").bindparams(sa.bindparam("ids", type_=_UUIDS))
        await self._connection.execute(statement, {"ids": list(node_ids)})

    async def refresh_due(self, batch_max: int) -> int:
        """Bring up to date what time alone changed. Returns how many nodes and offers."""
        return int(await self._connection.scalar(sa.text("SELECT refresh_due_offers(:most)"), {"most": batch_max}) or 0)

    async def set_price(self, owner_id: UUID, node_id: UUID, price: int, model: str | None) -> int:
        """Change the price of an owner's offers on a node. Returns how many; 0 for anybody else's node."""
        result = await self._connection.execute(
            sa.text("""UPDATE offers o SET price_per_hour = :price FROM nodes n JOIN providers p ON p.id = n.provider_id
                       WHERE o.node_id = n.id AND n.id = :node AND p.owner_id = :owner AND (cast(:model AS text) IS NULL OR o.model = :model)"""),
            {"price": price, "node": node_id, "owner": owner_id, "model": model},
        )
        if result.rowcount:
            await self.refresh([node_id])
        return result.rowcount

    # -- reading --

    async def offers(self, ids: Sequence[UUID] | None = None, *, node_id: UUID | None = None) -> list[Offer]:
        """Offers as they are now, in the order in which they were made: these, those of a node, or all that have not left."""
        if ids is not None:
            statement = sa.text(f"{_OFFERS} WHERE o.id = ANY(:ids) ORDER BY o.id").bindparams(sa.bindparam("ids", type_=_UUIDS))
            return [_offer(row) for row in await self._rows(statement, ids=list(ids))]
        if node_id is not None:
            return [_offer(row) for row in await self._rows(f"{_OFFERS} WHERE o.node_id = :node ORDER BY o.id", node=node_id)]
        return [_offer(row) for row in await self._rows(f"{_OFFERS} WHERE o.status <> 'left' ORDER BY o.id LIMIT :most", most=OFFERS_MAX)]

    async def samples(self, node_id: UUID, model: str) -> list[sa.Row[Any]]:
        """The devices behind an offer with their latest samples."""
        return await self._rows(
            """SELECT id, uuid, vram_bytes, overheating, sample, sampled_at FROM devices
               WHERE node_id = :node AND model = :model AND gone_at IS NULL ORDER BY id""",
            node=node_id,
            model=model,
        )

    # -- quotes --

    async def lock_user(self, user_id: UUID) -> None:
        """Serialise a user's quotes."""
        await self._connection.execute(
            sa.text("SELECT pg_advisory_xact_lock(hashtextextended('quote' || :user, 0))"), {"user": str(user_id)}
        )

    async def expire_open(self, user_id: UUID) -> list[UUID]:
        """End the user's open quotes. Returns their ids; their leases are the caller's to release."""
        rows = await self._rows("UPDATE quotes SET state = 'expired' WHERE user_id = :user AND state = 'open' RETURNING id", user=user_id)
        return [row.id for row in rows]

    async def add_quote(
        self, quote_id: UUID, user_id: UUID, offer: Offer, devices: Sequence[int], *, rate: int, ceiling: int, duration_s: int, ttl_s: int
    ) -> dt.datetime:
        """Insert an open quote. Returns when it expires."""
        row = await self._one(
            _QUOTE,
            id=quote_id,
            user=user_id,
            offer=offer.id,
            gpus=len(devices),
            devices=list(devices),
            price=offer.price_per_hour,
            rate=rate,
            ceiling=ceiling,
            duration=duration_s,
            ttl=ttl_s,
        )
        assert row is not None  # noqa: S101  (typing: an INSERT … RETURNING answers a row)
        expires: dt.datetime = row.expires_at
        return expires

    async def quote(self, quote_id: UUID, user_id: UUID | None, *, lock: bool = False) -> sa.Row[Any] | None:
        """A quote (of this user); one whose time is over reads as expired."""
        return await self._one(
            f"""SELECT {_QUOTE_COLUMNS} FROM quotes q JOIN offers o ON o.id = q.offer_id
                WHERE q.id = :id AND (cast(:user AS uuid) IS NULL OR q.user_id = :user) {"FOR UPDATE OF q" if lock else ""}""",  # noqa: S608
            id=quote_id,
            user=user_id,
        )

    async def set_quote_state(self, quote_id: UUID, state: str) -> None:
        """Move a quote on."""
        await self._connection.execute(sa.text("UPDATE quotes SET state = :state WHERE id = :id"), {"state": state, "id": quote_id})

    async def extend_quote(self, quote_id: UUID, ttl_s: float) -> None:
        """Let a quote run out `ttl_s` from now, never earlier than it did."""
        await self._connection.execute(
            sa.text("UPDATE quotes SET expires_at = greatest(expires_at, clock_timestamp() + make_interval(secs => :ttl)) WHERE id = :id"),
            {"id": quote_id, "ttl": ttl_s},
        )

    async def sweep_quotes(self, batch_max: int) -> int:
        """Open quotes whose time is over become expired, and quotes that no job used are forgotten after a day."""
        late = await self._connection.execute(
            sa.text("""UPDATE quotes SET state = 'expired' WHERE id IN (SELECT id FROM quotes WHERE state = 'open' AND expires_at < clock_timestamp()
                       ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED)"""),
            {"most": batch_max},
        )
        await self._connection.execute(
            sa.text("""DELETE FROM quotes WHERE id IN (SELECT id FROM quotes WHERE state = 'expired' AND expires_at < now() - interval '1 day'
                       LIMIT :most)"""),
            {"most": batch_max},
        )
        return late.rowcount


def _offer(row: Any) -> Offer:
    return Offer(
        id=OfferId(row.id),
        node_id=NodeId(row.node_id),
        provider_id=ProviderId(row.provider_id),
        provider=row.provider,
        model=row.model,
        gpus=row.gpus,
        gpus_free=row.gpus_free,
        vram_bytes=row.vram_bytes,
        price_per_hour=Qu(row.price_per_hour),
        region=row.region,
        cpu_model=row.cpu_model,
        cpu_cores=row.cpu_cores,
        ram_bytes=row.ram_bytes,
        tflops=row.tflops,
        reliability=row.reliability,
        attempts=row.attempts,
        verified=row.verified,
        detected_by=row.detected_by,
        status=Status(row.status),
    )

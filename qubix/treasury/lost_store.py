"""What the treasury process keeps of payments that a restored backup does not know."""

from __future__ import annotations

from itertools import groupby
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.treasury.proving import NEVER_SENT, Chain, Judged, Link
from qubix.treasury.sending import Counters

LINKS_MAX: Final = 10_000
"""Lost payments that are read at once: of a busy paying address, those of some days."""

# Once the chain is read past the restore: everything sent from an address of which something is not proved, and the last payment before it.
_CHAINS: Final = sa.text("""
SELECT s.tx_id, s.source, s.destination, s.amount, s.tick, s.input_type, s.payload, k.booked OR coalesce(v.raised, s.money_flew, false) AS raised,
       coalesce(v.paid, nullif(k.booked, false)) AS paid,
       b.tick AS base_tick, b.transfers, b.sent, coalesce(u.id::text, '') AS undecided
FROM strangers s LEFT JOIN lost_verdicts v ON v.tx_id = s.tx_id
CROSS JOIN LATERAL (SELECT EXISTS (SELECT 1 FROM payments p WHERE p.tx_id = s.tx_id AND p.state = 'PAID')
                        OR EXISTS (SELECT 1 FROM chain_rows r WHERE r.kind = 'cost' AND r.tx_id = s.tx_id) AS booked) k
LEFT JOIN LATERAL (
  SELECT p.tick, p.before_transfers + (p.state = 'PAID')::int AS transfers, p.before_amount + CASE WHEN p.state = 'PAID' THEN p.amount ELSE 0 END AS sent
  FROM payments p WHERE p.source = s.source AND p.ended_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM strangers o WHERE o.tx_id = p.tx_id)
  ORDER BY p.tick DESC LIMIT 1) b ON true
LEFT JOIN payments u ON u.source = s.source AND u.state IN ('SIGNED','UNKNOWN') AND NOT EXISTS (SELECT 1 FROM strangers o WHERE o.tx_id = u.tx_id)
WHERE EXISTS (SELECT 1 FROM payout_halts h CROSS JOIN chain_state c WHERE h.subject = '*' AND c.cursor >= (h.figures->'restored'->0->>'until')::bigint)
  AND s.source IN (SELECT o.source FROM strangers o LEFT JOIN lost_verdicts w ON w.tx_id = o.tx_id WHERE w.paid IS NULL)
ORDER BY s.source, s.tick, s.tx_id LIMIT :most
""")
_JUDGED: Final = sa.text("""
INSERT INTO lost_verdicts (tx_id, paid, raised, reason) VALUES (:tx_id, :paid, :raised, :reason)
ON CONFLICT (tx_id) DO UPDATE SET paid = excluded.paid, raised = excluded.raised, reason = excluded.reason, judged_at = clock_timestamp()
WHERE lost_verdicts.paid IS NULL
""")
# The first balance of the paying address from after all that may still come of the time before the restore.
_COMPARED: Final = sa.text("""
UPDATE payout_halts SET figures = jsonb_set(figures, '{restored,0,compared}', to_jsonb(cast(:tick AS bigint)))
WHERE subject = '*' AND (figures->'restored'->0->>'until')::bigint <= :tick AND NOT figures->'restored'->0 ? 'compared'
""")


class LostStore:
    """Over one transaction's connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def chains(self) -> list[Chain]:
        """What was sent from each address that sent something which is not proved; empty unless a restore is being recovered from."""
        rows = (await self._connection.execute(_CHAINS, {"most": LINKS_MAX})).all()
        chains = []
        for _, same in groupby(rows, key=lambda row: row.source):
            of_one = list(same)
            first = of_one[0]
            base = NEVER_SENT if first.base_tick is None else Counters(first.transfers, first.sent)
            links = tuple(
                Link(
                    row.tx_id,
                    row.source,
                    row.destination,
                    row.amount,
                    row.tick,
                    row.input_type,
                    bytes(row.payload),
                    raised=row.raised,
                    paid=row.paid,
                )
                for row in of_one
            )
            chains.append(Chain(base, first.base_tick or 0, first.undecided, links))
        return chains

    async def judged(self, one: Judged) -> None:
        """Write a verdict down; one that was proved stays."""
        values = {"tx_id": one.tx_id, "paid": one.paid, "raised": one.raised, "reason": one.reason[:1000]}
        await self._connection.execute(_JUDGED, values)

    async def compared(self, tick: int) -> None:
        """Say that the paying address was compared with the books as it was after `tick`: once, after a restore."""
        await self._connection.execute(_COMPARED, {"tick": tick})

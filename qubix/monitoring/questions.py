"""The questions behind the platform's gauges. Each touches rows that are open now, by an index, or tables as small as the fleet.

What has ended is counted by the events that told it (`store.NEWS`), never by looking through what has ended.
"""

from __future__ import annotations

from typing import Final

from qubix.estimates.catalogue import GPUS
from qubix.monitoring.model import Figure, Question
from qubix.providers.model import OFFLINE_AFTER_S, STALE_AFTER_S

JOBS: Final = Question(
    """
SELECT s.state, count(j.state) AS n FROM unnest(ARRAY['AWAITING_FUNDS','PENDING','ASSIGNED','RUNNING']) AS s (state)
LEFT JOIN (SELECT state FROM jobs WHERE state = 'PENDING' UNION ALL SELECT state FROM jobs WHERE state IN ('ASSIGNED','RUNNING')
           UNION ALL SELECT state FROM jobs WHERE state = 'AWAITING_FUNDS') j ON j.state = s.state GROUP BY s.state
""",
    {"n": Figure("qubix_jobs", "Jobs that have not ended, by state.")},
    labels=("state",),
)
QUEUE: Final = Question(
    """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(pending_at)), 0) AS oldest_s, count(*) FILTER (WHERE unplaceable IS NOT NULL) AS unplaceable
FROM jobs WHERE state = 'PENDING'
""",
    {
        "oldest_s": Figure("qubix_queue_oldest_seconds", "How long the oldest PENDING job has waited; 0 where none waits."),
        "unplaceable": Figure("qubix_queue_unplaceable", "PENDING jobs for which nothing on offer fits now."),
    },
)
# Every open escrow belongs to a job that has not ended, or is disputed: so no index of open escrows is needed.
ESCROWS: Final = Question(
    """
SELECT s.state, a.code AS asset, count(e.state) AS n, coalesce(sum(e.funded), 0) AS units
FROM unnest(ARRAY['PENDING','LOCKED','DISPUTED']) AS s (state) CROSS JOIN assets a LEFT JOIN (
    SELECT e.state, e.asset, e.funded FROM escrows e JOIN (
        SELECT id FROM jobs WHERE state = 'PENDING' UNION ALL SELECT id FROM jobs WHERE state IN ('ASSIGNED','RUNNING')
        UNION ALL SELECT id FROM jobs WHERE state = 'AWAITING_FUNDS') j ON j.id = e.id WHERE e.state <> 'DISPUTED'
    UNION ALL SELECT state, asset, funded FROM escrows WHERE disputed_at IS NOT NULL AND state = 'DISPUTED') e ON e.state = s.state AND e.asset = a.id
GROUP BY s.state, a.code
""",
    {
        "n": Figure("qubix_escrows", "Open escrows, by state."),
        "units": Figure("qubix_escrow_units", "What open escrows hold, in the asset's smallest unit."),
    },
    labels=("state", "asset"),
)
EARNINGS: Final = Question(
    """
SELECT s.state, a.code AS asset, count(g.state) AS n, coalesce(sum(g.gross), 0) AS units
FROM unnest(ARRAY['PENDING','FROZEN']) AS s (state) CROSS JOIN assets a LEFT JOIN (
    SELECT state, asset, gross FROM earnings WHERE state = 'PENDING' UNION ALL SELECT state, asset, gross FROM earnings WHERE state = 'FROZEN'
) g ON g.state = s.state AND g.asset = a.id GROUP BY s.state, a.code
""",
    {
        "n": Figure("qubix_earnings", "Earnings that are not paid out yet, by state."),
        "units": Figure("qubix_earnings_units", "Pending earnings, in the asset's smallest unit."),
    },
    labels=("state", "asset"),
)
MATURING: Final = Question(
    "SELECT greatest(0, coalesce(extract(epoch FROM clock_timestamp() - min(matures_at)), 0)) AS overdue_s FROM earnings WHERE state = 'PENDING'",
    {"overdue_s": Figure("qubix_earnings_overdue_seconds", "How long the oldest earning has been due and not paid out.")},
)
LEDGER: Final = Question(
    "SELECT a.kind AS account, s.code AS asset, a.posted AS units FROM accounts a JOIN assets s ON s.id = a.asset WHERE a.owner_id IS NULL",
    {"units": Figure("qubix_ledger_units", "Balances of the platform's own accounts, in the asset's smallest unit.")},
    labels=("account", "asset"),
)
ATTEMPTS: Final = Question(
    """
SELECT s.state, count(a.state) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(a.renewed_at)), 0) AS silent_s
FROM unnest(ARRAY['CREATED','ACCEPTED','RUNNING']) AS s (state)
LEFT JOIN (SELECT state, renewed_at FROM attempts WHERE state IN ('CREATED', 'ACCEPTED', 'RUNNING')) a ON a.state = s.state GROUP BY s.state
""",
    {
        "n": Figure("qubix_attempts", "Attempts that have not ended, by state."),
        "silent_s": Figure("qubix_attempt_silence_seconds", "The longest that a live attempt has not been heard of."),
    },
    labels=("state",),
)
UNSETTLED: Final = Question(
    """
SELECT count(*) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(reported_at)), 0) AS oldest_s
FROM attempts WHERE state IN ('CREATED', 'ACCEPTED', 'RUNNING') AND reported_at IS NOT NULL
""",
    {
        "n": Figure("qubix_unsettled_attempts", "Attempts whose end is reported and not settled."),
        "oldest_s": Figure("qubix_unsettled_oldest_seconds", "How long the oldest of them has waited."),
    },
)
LEASES: Final = Question(
    """
SELECT p.purpose, count(l.purpose) AS n FROM unnest(ARRAY['quote','job','reservation','cluster']) AS p (purpose)
LEFT JOIN device_leases l ON l.purpose = p.purpose AND l.during @> clock_timestamp() GROUP BY p.purpose
""",
    {"n": Figure("qubix_leases", "Device leases that run now, by purpose.")},
    labels=("purpose",),
)
QUARANTINES: Final = Question(
    "SELECT count(*) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(since)), 0) AS oldest_s FROM device_quarantines",
    {
        "n": Figure("qubix_quarantines", "Devices that wait for their node's word that nothing runs on them."),
        "oldest_s": Figure("qubix_quarantine_oldest_seconds", "How long the oldest of them has waited."),
    },
)
NODES: Final = Question(
    """
SELECT p.presence, count(n.presence) AS n FROM unnest(ARRAY['online','stale','offline']) AS p (presence) LEFT JOIN (
    SELECT CASE WHEN last_status_at IS NULL OR last_status_at < clock_timestamp() - make_interval(secs => :offline_s) THEN 'offline'
                WHEN last_status_at < clock_timestamp() - make_interval(secs => :stale_s) OR metrics_at IS NULL
                     OR metrics_at < clock_timestamp() - make_interval(secs => :stale_s) THEN 'stale' ELSE 'online' END AS presence
    FROM nodes WHERE state <> 'left') n ON n.presence = p.presence GROUP BY p.presence
""",
    {"n": Figure("qubix_nodes", "Nodes that have not left, by what the age of their last status and metrics says.")},
    labels=("presence",),
    given={"offline_s": float(OFFLINE_AFTER_S), "stale_s": float(STALE_AFTER_S)},
)
BEATS: Final = Question(
    """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(last_status_at)), 0) AS status_s,
       coalesce(extract(epoch FROM clock_timestamp() - min(metrics_at)), 0) AS metrics_s
FROM nodes WHERE state = 'online' AND last_status_at >= clock_timestamp() - make_interval(secs => :offline_s)
""",
    {
        "status_s": Figure("qubix_heartbeat_oldest_seconds", "Age of the oldest last status among nodes that are not offline."),
        "metrics_s": Figure("qubix_node_metrics_oldest_seconds", "Age of the oldest last measurement among nodes that are not offline."),
    },
    given={"offline_s": float(OFFLINE_AFTER_S)},
)
# A provider may declare any name: what the catalogue does not know is counted together.
_KNOWN: Final = "CASE WHEN d.model = ANY(cast(:models AS text[])) THEN d.model ELSE 'other' END"
_FRESH: Final = "d.sampled_at > clock_timestamp() - make_interval(secs => :stale_s)"
_DEVICE: Final = {"models": sorted(GPUS), "stale_s": float(STALE_AFTER_S)}
DEVICES: Final = Question(
    f"""
SELECT {_KNOWN} AS model, u.use, count(*) AS n FROM devices d JOIN nodes n ON n.id = d.node_id
LEFT JOIN device_leases l ON l.device_id = d.id AND l.during @> clock_timestamp() LEFT JOIN device_quarantines q ON q.device_id = d.id
CROSS JOIN LATERAL (SELECT CASE WHEN l.purpose IS NOT NULL THEN l.purpose WHEN q.device_id IS NOT NULL THEN 'quarantined'
    WHEN d.usable AND n.state = 'online' AND NOT n.paused AND NOT n.draining THEN 'free' ELSE 'withheld' END AS use) u
WHERE d.gone_at IS NULL AND n.state IN ('online','offline') GROUP BY 1, 2
""",  # noqa: S608  (constants)
    {"n": Figure("qubix_devices", "Devices by catalogue model and use; withheld: hot, or of a node that is offline, paused or draining.")},
    labels=("model", "use"),
    given={"models": _DEVICE["models"]},
)
SAMPLES: Final = Question(
    f"""
SELECT {_KNOWN} AS model, avg((d.sample->>'utilisation_pct')::float8) / 100 AS utilisation, max((d.sample->>'temperature_c')::float8) AS hottest_c,
       sum((d.sample->>'power_w')::float8) AS power_w, sum((d.sample->>'memory_used_bytes')::float8) AS used_bytes, sum(d.vram_bytes) AS memory_bytes
FROM devices d WHERE d.gone_at IS NULL AND {_FRESH} GROUP BY 1
""",  # noqa: S608  (constants)
    {
        "utilisation": Figure("qubix_device_utilisation_ratio", "Mean utilisation of the devices measured within the last minute, 0 to 1."),
        "hottest_c": Figure("qubix_device_temperature_celsius", "The hottest of them."),
        "power_w": Figure("qubix_device_power_watts", "What they draw together."),
        "used_bytes": Figure("qubix_device_memory_used_bytes", "Device memory in use."),
        "memory_bytes": Figure("qubix_device_memory_bytes", "Device memory that they have."),
    },
    labels=("model",),
    given=_DEVICE,
)
MARKET: Final = Question(
    "SELECT (SELECT count(*) FROM offers WHERE listed) AS offers, (SELECT count(*) FROM quotes WHERE state = 'open') AS quotes",
    {"offers": Figure("qubix_offers_listed", "Offers on the market."), "quotes": Figure("qubix_quotes_open", "Quotes that hold devices.")},
)
OUTBOX: Final = Question(
    "SELECT count(*) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0) AS oldest_s FROM events WHERE position IS NULL",
    {
        "n": Figure("qubix_outbox_unpublished", "Events that are committed and have no position yet."),
        "oldest_s": Figure("qubix_outbox_oldest_seconds", "Age of the oldest of them."),
    },
)
LEADERS: Final = Question(
    "SELECT name AS leader, extract(epoch FROM clock_timestamp() - beat_at) AS beat_s, epoch FROM leaders",
    {
        "beat_s": Figure("qubix_leader_beat_age_seconds", "Age of the last beat of the process that leads."),
        "epoch": Figure("qubix_leader_epoch", "Raised by one at each change of the leader."),
    },
    labels=("leader",),
)
SWEEPER: Final = Question(
    "SELECT extract(epoch FROM clock_timestamp() - at) AS beat_s FROM sweeper_beats WHERE name = 'sweeper'",
    {"beat_s": Figure("qubix_sweeper_beat_age_seconds", "Age of the sweeper's last beat: leases are judged by it.")},
)
CHAIN: Final = Question(
    """
SELECT head, head - cursor AS behind, head - processed AS archive_behind, extract(epoch FROM clock_timestamp() - advanced_at) AS advanced_s,
       (SELECT count(*) FROM chain_addresses WHERE purpose = 'user' AND user_id IS NULL) AS free
FROM chain_state
""",
    {
        "head": Figure("qubix_chain_head_tick", "The network's latest tick that the treasury has seen."),
        "behind": Figure("qubix_chain_behind_ticks", "Ticks whose deposits are not in the ledger yet."),
        "archive_behind": Figure("qubix_chain_archive_behind_ticks", "Ticks that the archive has not processed yet."),
        "advanced_s": Figure("qubix_chain_advanced_age_seconds", "How long ago the archive was last seen to advance."),
        "free": Figure("qubix_chain_addresses_free", "Deposit addresses that the signer has made and nobody has yet."),
    },
)
HALTS: Final = Question(
    """
SELECT s.scope, count(h.subject) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(h.since)), 0) AS oldest_s
FROM unnest(ARRAY['all','user']) AS s (scope) LEFT JOIN payout_halts h ON (h.subject = '*') = (s.scope = 'all') GROUP BY s.scope
""",
    {
        "n": Figure("qubix_payout_halts", "Reasons why payouts stop: of all, or of single users."),
        "oldest_s": Figure("qubix_payout_halt_oldest_seconds", "How long the oldest of them has stood."),
    },
    labels=("scope",),
)
PAYMENTS: Final = Question(
    """
SELECT k.kind, s.state, count(p.state) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(p.signed_at)), 0) AS oldest_s
FROM unnest(ARRAY['payout','sweep']) AS k (kind) CROSS JOIN unnest(ARRAY['SIGNED','UNKNOWN']) AS s (state)
LEFT JOIN (SELECT kind, state, signed_at FROM payments WHERE state IN ('SIGNED','UNKNOWN')) p ON p.kind = k.kind AND p.state = s.state
GROUP BY k.kind, s.state
""",
    {
        "n": Figure("qubix_payments_open", "Signed payments of which neither the execution nor the end is proved."),
        "oldest_s": Figure("qubix_payment_oldest_seconds", "Age of the oldest of them."),
    },
    labels=("kind", "state"),
)
WITHDRAWALS: Final = Question(
    """
SELECT s.stage, count(h.amount) AS n, coalesce(sum(h.amount), 0) AS units, coalesce(extract(epoch FROM clock_timestamp() - min(h.created_at)), 0) AS oldest_s
FROM unnest(ARRAY['waiting','signed']) AS s (stage) LEFT JOIN (
    SELECT h.amount, h.created_at, EXISTS (SELECT FROM payment_holds l WHERE l.hold_id = h.id AND l.live) AS signed FROM holds h
    WHERE h.state = 'OPEN' AND h.asset = 1) h ON h.signed = (s.stage = 'signed') GROUP BY s.stage
""",
    {
        "n": Figure("qubix_withdrawals_open", "Withdrawals of QUBIC that wait for the signer, or for the proof of their payment."),
        "units": Figure("qubix_withdrawals_open_units", "What they hold."),
        "oldest_s": Figure("qubix_withdrawal_oldest_seconds", "Age of the oldest of them."),
    },
    labels=("stage",),
)
DEPOSITS: Final = Question(
    """
SELECT s.state, count(i.state) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(i.seen_at)), 0) AS oldest_s
FROM unnest(ARRAY['SEEN','WAITING','DOUBTFUL']) AS s (state)
LEFT JOIN (SELECT state, seen_at FROM incoming WHERE state IN ('SEEN','WAITING','DOUBTFUL')) i ON i.state = s.state GROUP BY s.state
""",
    {
        "n": Figure("qubix_deposits_open", "Payments to us that are in no wallet yet; DOUBTFUL ones wait for a person."),
        "oldest_s": Figure("qubix_deposit_oldest_seconds", "Age of the oldest of them."),
    },
    labels=("state",),
)
DATABASE: Final = Question(
    """
SELECT pg_database_size(current_database()) AS bytes, numbackends AS connections, current_setting('max_connections')::integer AS most
FROM pg_stat_database WHERE datname = current_database()
""",
    {
        "bytes": Figure("qubix_database_bytes", "The database's size on its disk."),
        "connections": Figure("qubix_database_connections", "Connections to the database, of all processes."),
        "most": Figure("qubix_database_connections_limit", "The most that the server takes."),
    },
)
NETWORK: Final = Question(
    "SELECT network, 1 AS one FROM ledger_network",
    {"one": Figure("qubix_network_info", "The network that the ledger was born on.")},
    labels=("network",),
)
QUESTIONS: Final = (
    *(JOBS, QUEUE, ATTEMPTS, UNSETTLED, LEASES, QUARANTINES),
    *(ESCROWS, EARNINGS, MATURING, LEDGER),
    *(NODES, BEATS, DEVICES, SAMPLES, MARKET),
    *(OUTBOX, LEADERS, SWEEPER, DATABASE, NETWORK),
    *(CHAIN, HALTS, PAYMENTS, WITHDRAWALS, DEPOSITS),
)

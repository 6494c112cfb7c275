"""The Grafana dashboards as code: `python -m cluster_configs.grafana.build` writes dashboards/*.json anew; a test keeps them equal.

Each dashboard is rows of panels, each panel a title, its unit and the expressions that it draws. A test scrapes a running platform and sees that every
expression names a metric, and labels, that are there.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "dashboards"
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
"""By a variable of the dashboard: Ray's own dashboards choose theirs in the same way."""
_WIDTH: Final = 24
_HEIGHT: Final = 8


@dataclasses.dataclass(frozen=True)
class Panel:
    """One graph, or one figure. Args: queries, legend → expression; unit, Grafana's name of it; stat, the latest value alone, red from `red`."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    stat: bool = False
    red: float | None = None
    stacked: bool = False


@dataclasses.dataclass(frozen=True)
class Dashboard:
    """Args: rows, by their title."""

    uid: str
    title: str
    rows: dict[str, list[Panel]]


def _p95(histogram: str, window: str = "15m", *, by: str = "", quantile: float = 0.95) -> str:
    return f"histogram_quantile({quantile}, sum by (le{by}) (rate({histogram}_bucket[{window}])))"


PLATFORM: Final = Dashboard(
    "qubix-platform",
    "Qubix: jobs and machines",
    {
        "Now": [
            Panel("running", {"jobs": 'sum(qubix_jobs{state="RUNNING"})'}, stat=True),
            Panel("waiting", {"jobs": 'sum(qubix_jobs{state="PENDING"})'}, stat=True),
            Panel("oldest in the queue", {"age": "max(qubix_queue_oldest_seconds)"}, "s", stat=True, red=300),
            Panel("nodes online", {"nodes": 'sum(qubix_nodes{presence="online"})'}, stat=True),
            Panel("GPUs free", {"devices": 'sum(qubix_devices{use="free"}) or vector(0)'}, stat=True),
            Panel("recovery, p95 of an hour", {"p95": _p95("qubix_recovery_seconds", "1h")}, "s", stat=True, red=35),
        ],
        "Jobs": [
            Panel("jobs by state", {"{{state}}": "sum by (state) (qubix_jobs)"}, stacked=True),
            Panel("jobs ended per hour", {"{{state}}: {{reason}}": "sum by (state, reason) (rate(qubix_jobs_ended_total[15m])) * 3600"}),
            Panel("from funded to running", {"p95": _p95("qubix_job_wait_seconds"), "oldest waiting": "max(qubix_queue_oldest_seconds)"}, "s"),
            Panel("jobs that nothing on offer fits", {"jobs": "max(qubix_queue_unplaceable)"}),
        ],
        "Attempts": [
            Panel("attempts ended per hour, by fault", {"{{state}}: {{fault}}": "sum by (state, fault) (rate(qubix_attempts_ended_total[15m])) * 3600"}),
            Panel("from lost to running again", {"p95": _p95("qubix_recovery_seconds", "1h"), "p50": _p95("qubix_recovery_seconds", "1h", quantile=0.5)}, "s"),
            Panel("from the report of an end to its settlement", {"p95": _p95("qubix_settlement_seconds"), "oldest": "max(qubix_unsettled_oldest_seconds)"}, "s"),
            Panel("longest silence of a live attempt", {"{{state}}": "max by (state) (qubix_attempt_silence_seconds)"}, "s"),
        ],
        "Machines": [
            Panel("nodes by presence", {"{{presence}}": "sum by (presence) (qubix_nodes)"}, stacked=True),
            Panel("oldest heartbeat and measurement of a node that is not offline", {"status": "max(qubix_heartbeat_oldest_seconds)", "metrics": "max(qubix_node_metrics_oldest_seconds)"}, "s"),
            Panel("GPUs by use", {"{{use}}": "sum by (use) (qubix_devices)"}, stacked=True),
            Panel("utilisation by model", {"{{model}}": "max by (model) (qubix_device_utilisation_ratio)"}, "percentunit"),
            Panel("hottest by model", {"{{model}}": "max by (model) (qubix_device_temperature_celsius)"}, "celsius"),
            Panel("power by model", {"{{model}}": "sum by (model) (qubix_device_power_watts)"}, "watt"),
            Panel("device leases", {"{{purpose}}": "sum by (purpose) (qubix_leases)", "quarantined": "max(qubix_quarantines)"}),
            Panel("market", {"offers": "max(qubix_offers_listed)", "open quotes": "max(qubix_quotes_open)"}),
        ],
    },
)  # fmt: skip
MONEY: Final = Dashboard(
    "qubix-money",
    "Qubix: money",
    {
        "Now": [
            Panel("rows that break a rule", {"rows": "sum(qubix_audit_findings)"}, stat=True, red=1),
            Panel("since the last audit", {"age": "max(qubix_audit_age_seconds)"}, "s", stat=True, red=1800),
            Panel("reasons why all payouts stop", {"halts": 'max(qubix_payout_halts{scope="all"})'}, stat=True, red=1),
            Panel("payments of unknown end", {"payments": 'sum(qubix_payments_open{state="UNKNOWN"})'}, stat=True, red=1),
            Panel("ticks behind the chain", {"ticks": "max(qubix_chain_behind_ticks)"}, stat=True, red=60),
            Panel("withdrawals open", {"withdrawals": "sum(qubix_withdrawals_open)"}, stat=True),
        ],
        "Escrow and earnings": [
            Panel("in escrow", {"{{asset}} {{state}}": "sum by (asset, state) (qubix_escrow_units)"}, stacked=True),
            Panel("escrows", {"{{asset}} {{state}}": "sum by (asset, state) (qubix_escrows)"}),
            Panel("earnings not paid out yet", {"{{asset}} {{state}}": "sum by (asset, state) (qubix_earnings_units)"}, stacked=True),
            Panel("oldest earning that is due", {"overdue": "max(qubix_earnings_overdue_seconds)"}, "s"),
            Panel("the platform's accounts", {"{{asset}} {{account}}": "sum by (asset, account) (qubix_ledger_units)"}),
            Panel("broken rules", {"{{rule}}": "max by (rule) (qubix_audit_findings) > 0"}),
        ],
        "Chain": [
            Panel("ticks behind", {"ledger": "max(qubix_chain_behind_ticks)", "archive": "max(qubix_chain_archive_behind_ticks)"}),
            Panel("since the archive advanced", {"age": "max(qubix_chain_advanced_age_seconds)"}, "s"),
            Panel("deposits not in a wallet yet", {"{{state}}": "sum by (state) (qubix_deposits_open)"}),
            Panel("oldest deposit, withdrawal, payment", {"deposit {{state}}": "max by (state) (qubix_deposit_oldest_seconds)", "withdrawal {{stage}}": "max by (stage) (qubix_withdrawal_oldest_seconds)", "payment": "max(qubix_payment_oldest_seconds)"}, "s"),
            Panel("withdrawals", {"{{stage}}": "sum by (stage) (qubix_withdrawals_open_units)"}),
            Panel("deposit addresses in store", {"free": "max(qubix_chain_addresses_free)"}),
        ],
    },
)  # fmt: skip
PROCESSES: Final = Dashboard(
    "qubix-processes",
    "Qubix: processes",
    {
        "Now": [
            Panel("processes up", {"{{process}}": 'sum by (process) (up{job="qubix"})'}, stat=True),
            Panel("age of the platform's figures", {"age": "min(qubix_snapshot_age_seconds)"}, "s", stat=True, red=120),
            Panel("age of the leaders' beats", {"{{leader}}": "max by (leader) (qubix_leader_beat_age_seconds)"}, "s", stat=True, red=30),
            Panel("events without a position", {"oldest": "max(qubix_outbox_oldest_seconds)"}, "s", stat=True, red=30),
        ],
        "Web": [
            Panel("requests per second, by status", {"{{status}}": "sum by (status) (rate(qubix_http_requests_total[5m]))"}, "reqps", stacked=True),
            Panel("time to answer, p95, slowest routes", {"{{route}}": f"topk(10, {_p95('qubix_http_request_seconds', '5m', by=', route')})"}, "s"),
            Panel("open WebSockets", {"{{kind}}": "sum by (kind) (qubix_websockets)"}),
            Panel("agents' frames per second", {"{{t}}": "sum by (t) (rate(qubix_agent_frames_total[5m]))"}),
            Panel("bytes received", {"{{route}}": "sum by (route) (rate(qubix_http_request_bytes_total[5m]))"}, "Bps"),
            Panel("requests under way, breaker", {"under way": "sum(qubix_http_requests_in_flight)", "breaker open": "max(qubix_breaker_open)"}),
        ],
        "Loops": [
            Panel("steps that failed, per minute", {"{{process}} {{loop}}": "sum by (process, loop) (rate(qubix_loop_failures_total[5m])) * 60 > 0"}),
            Panel("time of a step, p95", {"{{process}} {{loop}}": f"topk(10, {_p95('qubix_loop_seconds', '5m', by=', process, loop')})"}, "s"),
            Panel("events published per second", {"{{type}}": "sum by (type) (rate(qubix_events_published_total[5m]))"}),
            Panel("the snapshot and the audit take", {"snapshot": "max(qubix_snapshot_seconds)", "audit": "max(qubix_audit_seconds)"}, "s"),
        ],
        "Database and machine": [
            Panel("pools: connections in use", {"{{process}}": 'max by (process) (qubix_database_pool_connections{state="in_use"})'}),
            Panel("connections to the server", {"open": "max(qubix_database_connections)", "limit": "max(qubix_database_connections_limit)"}),
            Panel("size of the database", {"bytes": "max(qubix_database_bytes)"}, "bytes"),
            Panel("disk of the data folder", {"free": "min(qubix_disk_free_bytes)", "size": "min(qubix_disk_bytes)"}, "bytes"),
            Panel("memory", {"{{process}}": 'sum by (process) (process_resident_memory_bytes{job="qubix"})'}, "bytes"),
            Panel("CPU", {"{{process}}": 'sum by (process) (rate(process_cpu_seconds_total{job="qubix"}[5m]))'}),
            Panel("open files", {"{{process}}": 'max by (process) (process_open_fds{job="qubix"})'}),
        ],
        "Ray": [
            Panel("machines in the cluster", {"nodes": "max(ray_cluster_active_nodes)"}),
            Panel("CPU of the machines", {"{{instance}}": "max by (instance) (ray_node_cpu_utilization)"}, "percent"),
            Panel("memory of the machines", {"{{instance}}": "max by (instance) (ray_node_mem_used)"}, "bytes"),
            Panel("requests at the replicas", {"under way": "sum(ray_serve_replica_processing_queries)"}),
        ],
    },
)  # fmt: skip
DASHBOARDS: Final = (PLATFORM, MONEY, PROCESSES)


def document(dashboard: Dashboard) -> str:
    """The JSON that Grafana's provisioning reads."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row, members in dashboard.rows.items():
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": row, "collapsed": False, "panels": [], "gridPos": _place(0, top, _WIDTH, 1)}
        )
        top += 1
        width, height = (_WIDTH // len(members), _HEIGHT // 2) if members[0].stat else (_WIDTH // 2, _HEIGHT)
        for number, panel in enumerate(members):
            line, column = divmod(number, _WIDTH // width)
            panels.append(_panel(panel, len(panels) + 1, _place(column * width, top + line * height, width, height)))
        top += -(-len(members) // (_WIDTH // width)) * height
    variable = {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {"text": "Prometheus", "value": "Prometheus"}}
    made = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["qubix"],
        "timezone": "utc",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [variable]},
        "panels": panels,
    }
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _place(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red is not None:
        steps.append({"color": "red", "value": panel.red})
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if not panel.stat:
        stacking = {"stacking": {"mode": "normal"}, "fillOpacity": 20} if panel.stacked else {}
        defaults |= {"min": 0 if panel.unit != "short" else None, "custom": {"lineWidth": 1, "showPoints": "never", **stacking}}
    targets = [
        {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend, "datasource": DATASOURCE}
        for place, (legend, expression) in enumerate(panel.queries.items())
    ]
    return {
        "id": number,
        "type": "stat" if panel.stat else "timeseries",
        "title": panel.title,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }


def main() -> None:
    """Write every dashboard."""
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.uid}.json").write_text(document(dashboard))


if __name__ == "__main__":
    main()

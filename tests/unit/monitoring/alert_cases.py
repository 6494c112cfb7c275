"""For each alert rule, series under which it fires and series under which it does not: an hour, a value a minute, in promtool's notation."""

from __future__ import annotations

from typing import Final

_BUCKETS: Final = ("25", "35", "60", "+Inf")


def buckets(name: str, *values: str) -> dict[str, str]:
    """The buckets of a histogram."""
    return {f'{name}_bucket{{le="{le}"}}': value for le, value in zip(_BUCKETS, values, strict=True)}


def requests(good: str, bad: str) -> dict[str, str]:
    """Requests answered well and badly."""
    return {'qubix_http_requests_total{status="200"}': good, 'qubix_http_requests_total{status="503"}': bad}


def ended(succeeded: str, lost: str) -> dict[str, str]:
    """Attempts that ended."""
    return {'qubix_attempts_ended_total{state="SUCCEEDED"}': succeeded, 'qubix_attempts_ended_total{state="LOST"}': lost}


def used(part: str, whole: str, used: str, well: str, of: str) -> tuple[dict[str, str], dict[str, str]]:
    """A part of a whole, too large, and not."""
    return {part: used, whole: of}, {part: well, whole: of}


def one(series: str, sick: str, well: str) -> tuple[dict[str, str], dict[str, str]]:
    """A rule over one series."""
    return {series: sick}, {series: well}


def up(process: str) -> tuple[dict[str, str], dict[str, str]]:
    """A process that stops answering."""
    return one(f'up{{job="qubix", process="{process}", instance="a:1"}}', "1x30 0x30", "1x60")


CASES: Final[dict[str, tuple[dict[str, str], dict[str, str]]]] = {
    "LedgerAuditFinding": one('qubix_audit_findings{rule="r"}', "0x30 2x30", "0x60"),
    "LedgerNotAudited": one("qubix_audit_age_seconds", "0+60x60", "600x60"),
    "PayoutsHalted": one('qubix_payout_halts{scope="all"}', "0x50 1x10", "0x60"),
    "UserPayoutsHalted": one('qubix_payout_halts{scope="user"}', "0x30 3x30", "0x55 3x5"),
    "PaymentUnknown": one('qubix_payments_open{kind="payout", state="UNKNOWN"}', "0x50 1x10", "0x58 1x2"),
    "WithdrawalsWait": one('qubix_withdrawal_oldest_seconds{stage="waiting"}', "0+60x60", "300x60"),
    "DepositDoubtful": one('qubix_deposits_open{state="DOUBTFUL"}', "0x50 1x10", "0x60"),
    "DepositsNotCredited": one('qubix_deposit_oldest_seconds{state="WAITING"}', "0+60x60", "60x60"),
    "ChainBehind": one("qubix_chain_behind_ticks", "6+10x60", "6x60"),
    "ChainStandsStill": one("qubix_chain_advanced_age_seconds", "0+60x60", "5x60"),
    "NoDepositAddresses": one("qubix_chain_addresses_free", "20x30 4x30", "20x60"),
    "EarningsOverdue": one("qubix_earnings_overdue_seconds", "0+60x60", "1x60"),
    "SettlementLate": one("qubix_unsettled_oldest_seconds", "0+60x60", "6x60"),
    "ControllerAway": up("controller"),
    "WebAway": up("web"),
    "ProcessAway": up("signer"),
    "RayAway": one('up{job="ray", instance="a:1"}', "1x30 0x30", "1x60"),
    "FiguresOld": one("qubix_snapshot_age_seconds", "0+60x60", "15x60"),
    "LeaderSilent": one('qubix_leader_beat_age_seconds{leader="treasury"}', "1x30 40x30", "1x60"),
    "LeaderChanges": one('qubix_leader_epoch{leader="controller"}', "1x40 2x2 3x2 4x2 5x10", "1x40 2x20"),
    "LoopStalled": one('qubix_loop_success_timestamp_seconds{process="treasury", loop="pay"}', "0+60x30 1800x30", "0+60x60"),
    "LoopFails": one('qubix_loop_failures_total{process="controller", loop="step"}', "0x30 0+3x30", "0x55 3x5"),
    "SweeperSilent": one("qubix_sweeper_beat_age_seconds", "1x30 30x30", "1x60"),
    "OutboxBehind": one("qubix_outbox_oldest_seconds", "0x30 0+60x30", "1x60"),
    "QueueOld": one("qubix_queue_oldest_seconds", "0+60x60", "20x60"),
    "JobsStartSlowly": (
        buckets("qubix_job_wait_seconds", "0x60", "0x60", "0x60", "0+1x60") | {'qubix_job_wait_seconds_bucket{le="300"}': "0+1x60"},
        buckets("qubix_job_wait_seconds", *["0+1x60"] * 4),
    ),
    "RecoverySlow": (buckets("qubix_recovery_seconds", "0x60", "0x60", *["0+1x60"] * 2), buckets("qubix_recovery_seconds", "0x60", *["0+1x60"] * 3)),
    "AttemptsLost": (ended("0+1x60", "0+1x60"), ended("0+20x60", "0+1x60")),
    "PlatformFaults": one('qubix_attempts_ended_total{fault="platform", reason="input_failed"}', "0+1x60", "0x55 1x5"),
    "QuarantineStuck": one("qubix_quarantine_oldest_seconds", "0+60x60", "30x60"),
    "NodesOffline": one('qubix_nodes{presence="online"}', "10x50 7x10", "10x50 9x10"),
    "MeasurementsOld": one("qubix_node_metrics_oldest_seconds", "5x30 70x30", "30x60"),
    "DeviceHot": one('qubix_device_temperature_celsius{model="RTX_4090"}', "60x30 95x30", "85x60"),
    "ErrorRate": (requests("0+100x60", "0+10x60"), requests("0+100x60", "0+1x60")),
    "AnswersSlow": (
        {'qubix_http_request_seconds_bucket{route="/api/jobs", le="2.5"}': "0x60"}
        | {f'qubix_http_request_seconds_bucket{{route="/api/jobs", le="{le}"}}': "0+9x60" for le in ("10", "+Inf")},
        {f'qubix_http_request_seconds_bucket{{route="/api/jobs", le="{le}"}}': "0+9x60" for le in ("0.5", "+Inf")}
        | {'qubix_http_request_seconds_bucket{route="/api/uploads", le="0.5"}': "0x60"}
        | {f'qubix_http_request_seconds_bucket{{route="/api/uploads", le="{le}"}}': "0+90x60" for le in ("10", "+Inf")},
    ),
    "BreakerOpen": one("qubix_breaker_open", "0x50 1x10", "0x60"),
    "PoolUsedUp": used('qubix_database_pool_connections{process="web", instance="a", state="in_use"}', 'qubix_database_pool_limit{process="web", instance="a"}', "20x60", "3x60", "20x60"),
    "DiskFilling": used("qubix_disk_free_bytes", "qubix_disk_bytes", "5x60", "50x60", "100x60"),
    "ConnectionsUsedUp": used("qubix_database_connections", "qubix_database_connections_limit", "190x60", "20x60", "200x60"),
    "FilesUsedUp": used('process_open_fds{job="qubix", process="web", instance="a"}', 'process_max_fds{job="qubix", process="web", instance="a"}', "900x60", "90x60", "1024x60"),
}  # fmt: skip

"""What Prometheus is shown of the platform is what its database holds, and asking costs the database little."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.agent.protocol import Exit
from qubix.bootstrap import Resources, scope
from qubix.monitoring.questions import QUESTIONS
from qubix.monitoring.store import _NEWS, MonitoringStore
from tests.fakes.deposits import addresses, chain, seen
from tests.fakes.voices import age, voice
from tests.integration.monitoring.conftest import World


async def test_jobs_money_and_devices_are_told_as_they_stand(world: World) -> None:
    await world.job(budget=500)
    waits = await world.job(budget=300)
    await world.owner.execute(sa.text("UPDATE jobs SET pending_at = pending_at - interval '40 seconds' WHERE id = :id"), {"id": waits.id})
    await world.measured()
    shown = {state: world.value("qubix_jobs", state=state) for state in ("AWAITING_FUNDS", "PENDING", "ASSIGNED", "RUNNING")}
    assert shown == {"AWAITING_FUNDS": 0, "PENDING": 1, "ASSIGNED": 1, "RUNNING": 0}
    assert 40 <= world.value("qubix_queue_oldest_seconds") < 60
    assert world.value("qubix_queue_unplaceable") == 1
    assert world.value("qubix_escrows", state="LOCKED", asset="QUBIC") == 2
    assert world.value("qubix_escrow_units", state="LOCKED", asset="QUBIC") == 800
    assert world.value("qubix_escrow_units", state="LOCKED", asset="USDC") == 0
    assert world.value("qubix_ledger_units", account="chain", asset="QUBIC") == -1_000_000
    assert world.value("qubix_devices", model="RTX_4090", use="job") == 1
    assert world.value("qubix_leases", purpose="job") == 1
    assert world.value("qubix_nodes", presence="online") == 1
    assert world.value("qubix_device_temperature_celsius", model="RTX_4090") == 50
    assert world.value("qubix_network_info", network="none") == 1
    async with scope(world.resources) as s:
        await s.jobs.cancel(world.user, waits.id)
    await world.control.step()
    await world.measured()
    assert world.value("qubix_jobs_ended_total", state="CANCELLED", reason="cancelled") == 1
    assert world.value("qubix_queue_oldest_seconds") == 0


async def test_a_finished_job_counts_its_end_its_wait_and_its_settlement_once(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    await age(world.owner, 5)
    await world.node.finished(attempt)
    await world.measured()
    assert world.value("qubix_unsettled_attempts") == 1
    await world.control.step()
    for _ in range(2):
        await world.measured()
        assert world.value("qubix_attempts_ended_total", state="SUCCEEDED", fault="none", reason="succeeded") == 1
        assert world.value("qubix_jobs_ended_total", state="COMPLETED", reason="succeeded") == 1
        assert world.value("qubix_job_wait_seconds_count") == 1
        assert world.value("qubix_settlement_seconds_count") == 1
        assert world.value("qubix_recovery_seconds_count") == 0
    assert world.value("qubix_earnings", state="PENDING", asset="QUBIC") == 1
    assert world.value("qubix_unsettled_attempts") == 0
    assert world.value("qubix_events_published_total", type="JOB_COMPLETED") == 1


async def test_a_recovery_is_measured_from_the_last_sign_of_life_to_the_successor_running(world: World) -> None:
    await world.job()
    (attempt,) = await world.node.desired()
    await world.node.start(attempt)
    other = await voice(world.resources)
    await age(world.owner, 25)
    await world.control.sweep()
    await world.control.step()
    (again,) = await other.desired()
    await other.start(again)
    await world.measured()
    assert world.value("qubix_attempts_ended_total", state="LOST", fault="provider", reason="lease_expired") == 1
    assert world.value("qubix_recovery_seconds_count") == 1
    assert 25 <= world.value("qubix_recovery_seconds_sum") < 45
    assert world.value("qubix_job_wait_seconds_count") == 2
    await other.finished(again, Exit.EXITED, exit_code=7)
    await world.control.step()
    await world.measured()
    assert world.value("qubix_attempts_ended_total", state="FAILED", fault="consumer", reason="exit_code") == 1
    assert world.value("qubix_recovery_seconds_count") == 1


async def test_a_device_of_a_name_that_nobody_knows_is_counted_as_other(world: World) -> None:
    await voice(world.resources, model="Annas_own_GPU")
    await world.measured()
    assert world.value("qubix_devices", model="other", use="free") == 1
    assert world.value("qubix_device_temperature_celsius", model="other") == 50


async def test_a_silent_node_turns_stale_and_then_offline(world: World) -> None:
    for seconds, presence in ((70, "stale"), (30, "offline")):
        await age(world.owner, seconds, nodes=True)
        await world.measured()
        assert world.value("qubix_nodes", presence=presence) == 1
        assert world.value("qubix_nodes", presence="online") == 0


async def test_the_chain_is_told_with_what_stops_payouts_and_what_waits(world: World) -> None:
    await addresses(world.owner, 2)
    await chain(world.owner, processed=1000, head=1010)
    await world.owner.execute(sa.text("INSERT INTO payout_halts (subject, rule, figures) VALUES ('*', 'R1', '{}')"))
    address = await world.owner.scalar(sa.text("SELECT identity FROM chain_addresses LIMIT 1"))
    await seen(world.owner, str(address), 50)
    await world.measured()
    assert world.value("qubix_chain_head_tick") == 1010
    assert world.value("qubix_chain_behind_ticks") == 13
    assert world.value("qubix_chain_archive_behind_ticks") == 10
    assert world.value("qubix_chain_addresses_free") == 2
    assert (world.value("qubix_payout_halts", scope="all"), world.value("qubix_payout_halts", scope="user")) == (1, 0)
    assert world.value("qubix_deposits_open", state="SEEN") == 1
    assert world.value("qubix_payments_open", kind="payout", state="UNKNOWN") == 0


async def test_an_audit_finding_is_shown_by_its_rule(world: World) -> None:
    await world.control.monitoring.audit()
    assert world.value("qubix_audit_findings", rule="a balance is the sum of its entries") == 0
    await world.owner.execute(sa.text("SET session_replication_role = replica"))
    await world.owner.execute(sa.text("UPDATE accounts SET posted = posted + 1 WHERE kind = 'wallet' AND posted > 0"))
    await world.owner.execute(sa.text("SET session_replication_role = DEFAULT"))
    await world.control.monitoring.audit()
    assert world.value("qubix_audit_findings", rule="a balance is the sum of its entries") == 1
    assert world.value("qubix_audit_age_seconds") < 60


async def test_events_that_are_not_published_yet_show_as_lag(world: World) -> None:
    await world.job()
    await world.owner.execute(sa.text("UPDATE events SET created_at = created_at - interval '30 seconds' WHERE position IS NULL"))
    await world.control.monitoring.measure()
    assert world.value("qubix_outbox_unpublished") > 0
    assert world.value("qubix_outbox_oldest_seconds") >= 30
    await world.measured()
    assert world.value("qubix_outbox_unpublished") == 0


_GROWING = {
    "jobs",
    "attempts",
    "escrows",
    "earnings",
    "events",
    "transfers",
    "holds",
    "payments",
    "payment_holds",
    "incoming",
    "chain_addresses",
}
"""Tables that keep what has ended."""
_OPEN = {
    *("jobs_pending_idx", "jobs_live_idx", "jobs_awaiting_idx", "attempts_one_live_key", "attempts_node_live_idx"),
    *("escrows_disputed_idx", "earnings_due_idx", "earnings_frozen_idx", "events_unpublished_idx", "holds_open_idx"),
    *("payments_source_key", "incoming_open_idx", "chain_addresses_free_idx"),
}
"""Indexes of what is open, or was disputed once."""


def scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Relation Name" in node or node["Node Type"] == "Bitmap Index Scan":
        yield node
    for below in node.get("Plans", []):
        yield from scans(below)


async def plan(owner: AsyncConnection, sql: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scans of a statement, planned as if every table were large."""
    found = await owner.scalar(sa.text(f"EXPLAIN (FORMAT JSON) {sql}"), dict(given))
    return list(scans((json.loads(found) if isinstance(found, str) else found)[0]["Plan"]))


async def test_no_figure_looks_through_what_has_ended(owner: AsyncConnection) -> None:
    await owner.execute(sa.text("SET enable_seqscan = off"))
    for question in QUESTIONS:
        for node in await plan(owner, question.sql, question.given):
            by_index = "Index Cond" in node or node.get("Index Name") in _OPEN or node["Node Type"] == "Bitmap Heap Scan"
            assert by_index or node.get("Relation Name") not in _GROWING, (question.figures, node)


async def test_events_are_read_by_their_position(owner: AsyncConnection) -> None:
    await owner.execute(sa.text("SET enable_seqscan = off"))
    for node in await plan(owner, _NEWS.text, {"after": 0, "most": 10}):
        assert "Index Cond" in node or node["Node Type"] == "Bitmap Heap Scan", node


async def test_reading_figures_can_write_nothing(controller_resources: Resources) -> None:
    async with scope(controller_resources) as s:
        await MonitoringStore(s.connection).read_only()
        with pytest.raises(sa.exc.DBAPIError, match="read-only"):
            await s.connection.execute(sa.text("UPDATE nodes SET paused = true"))
        await s.connection.rollback()

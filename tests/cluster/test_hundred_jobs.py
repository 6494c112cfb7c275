"""One run of a hundred generated jobs through the whole product, and what must hold for each of them.

Two machines take them one after the other while more wait, so every job is placed, run, metered, told of and paid as in
production. Deadlines are asserted where a property names one.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from qubix.cli.client import Client
from qubix.kernel.money import Qu, charge
from tests.whole import FINAL, Consumer, Whole

pytestmark = pytest.mark.cluster
JOBS = 100
TOPICS_EACH = 20
"""Jobs that one of the watching clients follows, each with its escrow: a connection may follow 50 topics."""
AT_ONCE = 4
"""Two run, two wait: a wait is then seconds, and the placement of a waiting job is among what is measured."""

SCRIPT = """
import sys, time
import qubix_job as job
reports, run_s, code = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
print("first line", flush=True)
for n in range(reports):
    time.sleep(run_s / reports)
    job.progress(100 * (n + 1) / reports, f"part {n + 1}")
    print(f"part {n + 1}", flush=True)
sys.exit(code)
"""


@dataclass
class Watched:
    """What one client was told over its WebSocket, with its own time of arrival."""

    messages: list[tuple[float, dict[str, Any]]] = field(default_factory=list)


class Watcher:
    """Follows topics for as long as it is open, on a connection that is broken now and then and resumes."""

    def __init__(self, whole: Whole, client: Client, topics: list[str]) -> None:
        self.seen = Watched()
        self.gaps_s: list[float] = []
        self._address = "ws" + whole.url.removeprefix("http") + "/api/ws"
        self._headers = {"Authorization": client.http.headers["Authorization"]}
        self._topics = list(topics)
        self._position: int | None = None
        self._lock = threading.Lock()
        self._subscribed = threading.Event()
        self._socket: ClientConnection
        self._open()

    def _open(self) -> None:
        self._subscribed.clear()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        assert self._subscribed.wait(60), "the WebSocket did not open"

    def follow(self, *topics: str) -> None:
        """More topics, from their first event; returns when all their past has come, for only then may it be resumed from the last position."""
        with self._lock:
            self._topics += topics
            self._subscribed.clear()
            self._socket.send(json.dumps({"t": "subscribe", "topics": topics, "from_position": 0}))
            assert self._subscribed.wait(60), f"no answer for {topics}"

    def interrupt(self) -> None:
        """Lose the connection, come back, resume from the last position."""
        with self._lock:
            self._socket.close()
            self._thread.join()
            began = time.monotonic()
            self._open()
            self.gaps_s.append(time.monotonic() - began)

    def close(self) -> None:
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        with connect(self._address, additional_headers=self._headers, max_size=None) as socket:
            self._socket = socket
            socket.send(json.dumps({"t": "subscribe", "topics": self._topics, "from_position": self._position}))
            with contextlib.suppress(ConnectionClosed):
                for text in socket:
                    message = json.loads(text)
                    if message["t"] == "event":
                        self._position = message["position"]
                    elif message["t"] == "subscribed":
                        self._subscribed.set()
                    self.seen.messages.append((time.time(), message))


@dataclass
class Run:
    """One generated job and how it went."""

    arguments: tuple[int, float, int]
    job: dict[str, Any]
    logs: list[dict[str, Any]]


@dataclass
class Runs:
    runs: list[Run]
    seen: Watched
    gaps_s: list[float]
    metrics: Watched
    began_at: float
    """When the watching of metrics began; samples from before are told to whoever subscribes."""
    whole: Whole

    def escrow_events(self, run: Run) -> list[dict[str, Any]]:
        return [m for _, m in self.seen.messages if m.get("event") == "ESCROW_UPDATE" and m["subject_id"] == run.job["id"]]


@pytest.fixture(scope="module")
def hundred(whole: Whole) -> Runs:
    """Run them; everything below only looks."""
    generator = random.Random(20261122)
    consumer = Consumer(whole)
    provider_id = whole.provider.get("/api/providers/me")["id"]
    metrics = Watcher(whole, whole.provider, [f"provider:{provider_id}"])
    began_at = time.time()
    watchers = [Watcher(whole, consumer.client, ["wallet"]) for _ in range(JOBS // TOPICS_EACH)]
    waiting = [(generator.randint(1, 4), round(generator.uniform(0.05, 0.9), 2), generator.choice([0, 0, 0, 0, 3])) for _ in range(JOBS)]
    under_way: dict[str, tuple[int, float, int]] = {}
    runs: list[Run] = []
    try:
        while waiting or under_way:
            while waiting and len(under_way) < AT_ONCE:
                arguments = waiting.pop()
                job_id = consumer.run(SCRIPT, " ".join(map(str, arguments)), budget=100_000)
                watchers[len(waiting) // TOPICS_EACH].follow(f"job:{job_id}", f"escrow:{job_id}")
                under_way[job_id] = arguments
            for job_id in list(under_way):
                job = consumer.job(job_id)
                if job["state"] in FINAL and job["receipt"]["final"]:
                    logs = consumer.client.get(f"/api/jobs/{job_id}/logs", limit=1000)["items"]
                    runs.append(Run(under_way.pop(job_id), job, logs))
                    if len(runs) % 20 == 0:
                        for watcher in watchers:
                            watcher.interrupt()
            time.sleep(0.1)
        deadline = time.monotonic() + 60
        while not all(ends_of(run, watchers) for run in runs) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        for watcher in [metrics, *watchers]:
            watcher.close()
    seen = Watched([message for watcher in watchers for message in watcher.seen.messages])
    return Runs(runs, seen, [gap for watcher in watchers for gap in watcher.gaps_s], metrics.seen, began_at, whole)


def ends_of(run: Run, watchers: list[Watcher]) -> bool:
    """Whether somebody was told of the job's end and of its escrow's."""
    told = [message for watcher in watchers for _, message in list(watcher.seen.messages) if message.get("subject_id") == run.job["id"]]
    ended = any(message["event"] == "JOB_COMPLETED" for message in told)
    return ended and any(m["event"] == "ESCROW_UPDATE" and m["payload"]["state"] not in ("PENDING", "LOCKED") for m in told)


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def test_every_job_ends_as_its_own_exit_code_says(hundred: Runs) -> None:
    assert len(hundred.runs) == JOBS
    for run in hundred.runs:
        assert run.job["state"] == ("COMPLETED" if run.arguments[2] == 0 else "FAILED")
        assert [attempt["exit_code"] for attempt in run.job["attempts"]] == [run.arguments[2]]


def test_p_a06_every_pending_job_is_assigned_within_30_s_or_told_why_not(hundred: Runs) -> None:
    for run in hundred.runs:
        assert at(run.job["attempts"][0]["created_at"]) - at(run.job["pending_at"]) < dt.timedelta(seconds=30)


def test_p_b37_an_assigned_job_starts_within_5_s_on_an_idle_node(hundred: Runs) -> None:
    for run in hundred.runs:
        attempt = run.job["attempts"][0]
        assert at(attempt["running_at"]) - at(attempt["created_at"]) < dt.timedelta(seconds=5)


def test_p_a07_reported_progress_starts_at_0_never_falls_and_ends_at_100_on_success(hundred: Runs) -> None:
    for run in hundred.runs:
        topic = f"job:{run.job['id']}"
        told = [m["payload"]["progress"] for _, m in hundred.seen.messages if m.get("event") == "JOB_PROGRESS" and m.get("topic") == topic]
        assert told == sorted(told)
        assert told
        assert all(0 <= pct <= 100 for pct in told)
        if run.arguments[2] == 0:
            assert run.job["progress"] == 100


def test_p_b38_every_progress_report_of_a_running_job_arrives_while_it_runs(hundred: Runs) -> None:
    """The jobs report several times a second; at least one report of each that ran for longer than the 5 s promise would be due."""
    for run in hundred.runs:
        topic = f"job:{run.job['id']}"
        assert any(m.get("topic") == topic and m.get("event") == "JOB_PROGRESS" for _, m in hundred.seen.messages)


def test_p_b39_log_lines_are_complete_stamped_by_both_clocks_and_stored_within_1_s(hundred: Runs) -> None:
    for run in hundred.runs:
        text = "".join(item["text"] for item in run.logs if item["stream"] == "out")
        assert text.splitlines() == ["first line", *(f"part {n + 1}" for n in range(run.arguments[0]))]
        for item in run.logs:
            assert abs(at(item["created_at"]) - at(item["node_at"])) < dt.timedelta(seconds=1)


def test_p_b40_the_end_of_each_job_is_told_exactly_once(hundred: Runs) -> None:
    for run in hundred.runs:
        told = [m for _, m in hundred.seen.messages if m.get("event") == "JOB_COMPLETED" and m["payload"]["job_id"] == run.job["id"]]
        positions = {m["position"] for m in told}
        assert len(positions) == 1, run.job["id"]


def test_p_a10_a_dropped_client_is_back_within_5_s_and_has_every_event(hundred: Runs) -> None:
    assert len(hundred.gaps_s) == JOBS // 20 * (JOBS // TOPICS_EACH)
    assert max(hundred.gaps_s) < 5
    told = {(m["payload"]["job_id"], m["payload"]["state"]) for _, m in hundred.seen.messages if m.get("event") == "JOB_STATUS_CHANGED"}
    for run in hundred.runs:
        assert {(run.job["id"], state) for state in ("ASSIGNED", "RUNNING")} <= told


def test_p_b30_the_settled_amount_is_elapsed_time_times_rate(hundred: Runs) -> None:
    for run in hundred.runs:
        (line,) = run.job["receipt"]["attempts"]
        assert line["charge"] == charge(Qu(line["rate"]), line["metered_ms"], Qu(run.job["receipt"]["held"]))
        attempt = run.job["attempts"][0]
        elapsed = at(attempt["reported_at"]) - at(attempt["running_at"])
        assert line["metered_ms"] <= elapsed / dt.timedelta(milliseconds=1) + 1
        # The stricter of two clocks: where the report of its start came late, the platform's counts less than it ran.
        assert line["metered_ms"] >= min(elapsed // dt.timedelta(milliseconds=1), run.arguments[1] * 900)


def test_p_b18_the_money_of_every_job_was_locked_before_its_first_attempt_and_all_of_it(hundred: Runs) -> None:
    for run in hundred.runs:
        locked = hundred.escrow_events(run)
        started = [m for _, m in hundred.seen.messages if m.get("event") == "JOB_STATUS_CHANGED" and m["payload"]["state"] == "ASSIGNED"]
        first = min(m["position"] for m in started if m["payload"]["job_id"] == run.job["id"])
        assert run.job["receipt"]["held"] == 100_000
        assert any(m["position"] < first and m["payload"]["state"] == "LOCKED" for m in locked)


def test_p_b19_every_success_released_its_escrow_exactly_once(hundred: Runs) -> None:
    for run in hundred.runs:
        if run.arguments[2] == 0:
            assert run.job["receipt"]["escrow_state"] == "RELEASED"
            ends = {m["position"] for m in hundred.escrow_events(run) if m["payload"]["state"] not in ("PENDING", "LOCKED")}
            assert len(ends) == 1
    assert hundred.whole.audit() == []


def test_p_b20_after_every_failure_what_was_not_earned_came_back_exactly_once(hundred: Runs) -> None:
    for run in hundred.runs:
        receipt = run.job["receipt"]
        assert receipt["held"] == receipt["charged"] + receipt["refunded"]
        if run.arguments[2] != 0:
            assert receipt["escrow_state"] == "SPLIT"
            ends = {m["position"] for m in hundred.escrow_events(run) if m["payload"]["state"] not in ("PENDING", "LOCKED")}
            assert len(ends) == 1
    assert hundred.whole.audit() == []


def test_p_a09_the_metrics_of_an_online_machine_are_never_older_than_60_s(hundred: Runs) -> None:
    for machine in hundred.whole.machines.values():
        node = hundred.whole.provider.get(f"/api/nodes/{machine.node_id}")
        assert node["presence"] == "online"
        assert dt.datetime.now(dt.UTC) - at(node["metrics_at"]) < dt.timedelta(seconds=60)


def under_way_s(spans: list[tuple[float, float]], since: float, until: float) -> float:
    """For how long of that time one of these attempts, which do not overlap, was under way."""
    return sum(max(0.0, min(until, end) - max(since, begin)) for begin, end in spans)


def test_p_b24_metrics_arrive_at_least_every_5_s_while_jobs_run_stamped_by_both_clocks(hundred: Runs) -> None:
    for machine in hundred.whole.machines.values():
        samples = [
            (arrived, m["payload"]["node_at"], m["at"])
            for arrived, m in hundred.metrics.messages
            if m.get("event") == "GPU_METRICS_UPDATE" and m["payload"]["node_id"] == machine.node_id and m["at"] > hundred.began_at
        ]
        mine = [run.job["attempts"][0] for run in hundred.runs if run.job["attempts"][0]["node_id"] == machine.node_id]
        busy = [arrived for arrived, _, _ in samples if arrived <= max(at(attempt["ended_at"]).timestamp() for attempt in mine)]
        assert len(busy) > 10
        spans = [(at(attempt["created_at"]).timestamp(), at(attempt["ended_at"]).timestamp()) for attempt in mine]
        assert max(under_way_s(spans, earlier, later) for earlier, later in itertools.pairwise(busy)) < 5
        for arrived, node_at, server_at in samples:
            assert node_at - 0.1 <= server_at <= arrived + 0.1

"""What is left of heartbeats that waited for each other."""

from __future__ import annotations

from uuid import UUID

from qubix.agent.protocol import Accept, Metrics, NodeSample, Status
from serve_app.agents import newest

SESSION, ATTEMPT = UUID(int=1), UUID(int=2)
SAMPLE = NodeSample(node_at=1.0, cpu_pct=5.0, ram_used_bytes=1)


def status(seq: int) -> Status:
    return Status(session=SESSION, seq=seq, generation=0, sample=SAMPLE)


METRICS = Metrics(session=SESSION, sample=SAMPLE)
ACCEPT = Accept(session=SESSION, attempt=ATTEMPT, fence=1)


def test_the_last_status_says_all_that_earlier_beats_did() -> None:
    assert newest([status(1), METRICS, status(2), METRICS]) == [status(2)]
    assert newest([METRICS, METRICS]) == [METRICS]
    assert newest([status(7)]) == [status(7)]


def test_nothing_is_left_out_beside_a_frame_that_asks_for_something() -> None:
    batch = [status(1), ACCEPT, status(2)]
    assert newest(batch) == batch

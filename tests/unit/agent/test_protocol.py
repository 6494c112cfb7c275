"""What a frame may say at all, before any database is asked."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from qubix.agent.protocol import Status, parse_up

ID = str(UUID(int=1))


def beat(at: float = 1.8e9, device: dict[str, Any] | None = None, sample: dict[str, Any] | None = None, **members: Any) -> str:
    devices = [
        {"uuid": "GPU-1", "utilisation_pct": 3.5, "memory_used_bytes": 1 << 40, "temperature_c": -3, "power_w": 300, **(device or {})}
    ]
    measured = {"node_at": at, "cpu_pct": 100.0, "ram_used_bytes": 1 << 40, "devices": devices, **(sample or {})}
    return json.dumps({"t": "status", "session": ID, "seq": 1, "generation": 1, "sample": measured, **members})


def test_an_ordinary_beat_is_read() -> None:
    assert isinstance(parse_up(beat()), Status)
    assert isinstance(parse_up(beat(generation=-1)), Status), "as an agent says that has no desired state yet"
    assert isinstance(parse_up(beat(alive=[{"id": ID, "fence": 3}])), Status)


@pytest.mark.parametrize(
    "text",
    [
        beat(seq=1 << 63),
        beat(generation=1 << 63),
        beat(alive=[{"id": ID, "fence": 1 << 63}]),
        beat(at=1e300),
        beat(sample={"cpu_pct": 1e300}),
        beat(sample={"ram_used_bytes": 1 << 63}),
        beat(device={"uuid": "GPU\0"}),
        beat(device={"temperature_c": 1e300}),
        beat(device={"power_w": -1e300}),
        beat(device={"utilisation_pct": 4e38}),
        beat(device={"memory_used_bytes": 1 << 63}),
        beat(device={"uuid": "x"}).replace('"x"', '"\\ud800"'),
    ],
)
def test_a_beat_that_no_column_holds_is_refused_before_it_meets_those_of_other_nodes(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_up(text)

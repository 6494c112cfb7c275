"""A stop that comes while an attempt still waits for its node's actor."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from qubix.agent.runner import RunnerDied, RunRequest
from qubix.fabric import ray_runner
from qubix.fabric.ray_runner import RayRunner
from qubix.sandbox.spec import Program, SandboxSpec


async def test_an_attempt_that_is_stopped_while_it_waits_never_starts_though_its_mark_could_not_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runner, waits, ready = RayRunner("a node"), asyncio.Event(), asyncio.Event()

    async def hosted() -> Any:
        waits.set()
        await ready.wait()
        return None  # asked for an attempt, it would raise

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(runner, "_hosted", hosted)
    monkeypatch.setattr(ray_runner, "stop_sandbox", full)
    spec = SandboxSpec(uuid4(), tmp_path, tmp_path, Program(tmp_path, "main.py", tmp_path), limit_ms=1000)

    async def run() -> list[object]:
        return [event async for event in runner.start(RunRequest(spec))]

    running = asyncio.ensure_future(run())
    await waits.wait()
    stopping = asyncio.ensure_future(runner.stop(spec.attempt))
    while not runner._running[spec.attempt].stopping:  # noqa: ASYNC110
        await asyncio.sleep(0)
    ready.set()
    assert await running == [RunnerDied("stopped before it started", gone=True)]
    await stopping

"""A node whose disk is full, or whose devices come and go: what it takes, what it offers, and what it says of an attempt."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qubix.agent import client, spool
from qubix.agent.devices import NvmlDevices
from qubix.agent.protocol import (
    Decline,
    Exit,
    Finished,
    Status,
)
from qubix.agent.runner import RunnerEvent, RunRequest
from tests.fakes.nvml import Card, RecordedNvml
from tests.fakes.platform import desired_attempt
from tests.integration.agent.conftest import GPU, World


def disk_full(monkeypatch: pytest.MonkeyPatch, *, set_aside: bool) -> None:
    """From now on a journal takes its first line and nothing more, unless what it set aside is given up."""
    real = spool._append

    def append(fd: int, data: memoryview) -> int:
        folder = Path(os.readlink(f"/proc/self/fd/{fd}")).parent
        if os.fstat(fd).st_size and ((folder / "aside").exists() or not set_aside):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(spool, "_append", append)


async def test_a_full_disk_ends_an_attempt_as_the_nodes_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_full(monkeypatch, set_aside=True)
    world.containment.full = True
    await world.online()
    await world.platform.want(desired_attempt("sleep", GPU))
    await world.platform.until(lambda: world.platform.of(Finished))
    ended = world.platform.of(Finished)[0]
    assert (ended.exit, "No space left" in ended.detail) == (Exit.SANDBOX_FAILED, True)
    assert not world.runner.busy()
    assert world.containment.buried == [ended.attempt]
    await world.idle()
    assert list(world.home.work.iterdir()) == []


async def test_an_attempt_whose_end_cannot_be_written_is_over_and_its_lease_runs_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_full(monkeypatch, set_aside=False)
    await world.online()
    await world.platform.want(desired_attempt("sleep", GPU))
    await world.platform.until(lambda: world.runner.started)
    await world.platform.want()
    await world.idle()
    assert not world.runner.busy()
    assert world.platform.of(Finished) == []


async def test_a_node_whose_disk_is_nearly_full_declines(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "DISK_FREE_MIN_BYTES", 1 << 62)
    await world.online()
    await world.platform.want(desired_attempt("hello", GPU))
    await world.platform.until(lambda: world.platform.of(Decline))
    assert world.platform.of(Decline)[0].reason.startswith("disk_full: ")


async def test_a_device_that_fell_off_the_bus_is_declined_and_what_ran_on_it_failed_by_the_node(world: World) -> None:
    nvml = RecordedNvml(Card("GPU-aaa", "NVIDIA GeForce RTX 4090", 24 << 30, used=0))
    world.devices = NvmlDevices(nvml)
    world.runner.script = lambda request: "fail"
    play = world.runner._play

    async def failing(request: RunRequest) -> AsyncIterator[RunnerEvent]:
        nvml.cards[0].on_the_bus = False
        async for event in play(request):
            yield event

    world.runner._play = failing  # type: ignore[method-assign]
    await world.online()
    await world.platform.want(desired_attempt("fail", "GPU-aaa"))
    await world.platform.until(lambda: world.platform.of(Finished))
    ended = world.platform.of(Finished)[0]
    assert (ended.exit, ended.detail) == (Exit.SANDBOX_FAILED, "the device GPU-aaa failed while the job ran")
    await world.platform.want(desired_attempt("hello", "GPU-aaa"))
    await world.platform.until(lambda: world.platform.of(Decline))
    assert world.platform.of(Decline)[0].reason.startswith("device_lost: ")


async def test_a_device_that_fell_off_the_bus_is_offered_no_more_until_it_answers_again(world: World) -> None:
    nvml = RecordedNvml(
        Card("GPU-aaa", "NVIDIA GeForce RTX 4090", 24 << 30, used=0), Card("GPU-bbb", "NVIDIA GeForce RTX 4090", 24 << 30, used=0)
    )
    world.devices = NvmlDevices(nvml)
    await world.online()
    await world.platform.want(desired_attempt("sleep", "GPU-bbb"))
    await world.platform.until(lambda: world.runner.started)

    def shown() -> list[str]:
        return [device.uuid for device in world.platform.hellos[-1].facts.devices]

    nvml.cards[0].on_the_bus = False
    await world.platform.until(lambda: shown() == ["GPU-bbb"])
    nvml.cards[0].on_the_bus = True
    await world.platform.until(lambda: shown() == ["GPU-aaa", "GPU-bbb"])
    assert world.runner.busy()  # what runs on another device runs on


async def test_a_device_that_answers_now_and_then_disturbs_nothing_else(world: World) -> None:
    cards = [Card(f"GPU-{name}", "NVIDIA GeForce RTX 4090", 24 << 30, used=0) for name in ("aaa", "bbb")]
    world.devices = NvmlDevices(RecordedNvml(*cards))
    asked = 0

    def unsteady(uuid: str) -> bool:
        nonlocal asked
        asked += uuid == "GPU-aaa"
        return uuid == "GPU-aaa" and asked % 3 != 0

    world.devices.lost = unsteady  # type: ignore[method-assign]
    await world.online()
    await world.platform.want(desired_attempt("sleep", "GPU-bbb"))
    await world.platform.until(lambda: world.runner.started)
    before = asked
    await world.platform.until(lambda: asked > before + 20)
    assert len(world.platform.hellos) == 1
    assert world.platform.of(Status)[-1].alive

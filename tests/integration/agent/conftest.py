"""A node with its agent, and a platform that it talks to."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from qubix.agent.client import AgentClient, ClientSettings
from qubix.agent.devices import DeclaredDevices, DeviceSource
from qubix.agent.home import AgentConfig, Home
from qubix.agent.protocol import (
    Status,
)
from qubix.sandbox.spec import Program
from tests.fakes.platform import FakePlatform, FakeTransfer
from tests.fakes.runner import FakeRunner, fake_program

GPU = DeclaredDevices(["RTX_4090:24GB:2"], "w1").devices()[0].uuid


@dataclass
class FakeContainment:
    """A sandbox that works, or says why not."""

    answer: dict[str, str] = field(default_factory=lambda: {"ok": "yes", "limits": "rlimits"})
    cleaned: int = 0
    buried: list[UUID] = field(default_factory=list)
    full: bool = False

    def probe(self) -> dict[str, str]:
        return self.answer

    def clean(self) -> None:
        self.cleaned += 1

    def bury(self, attempt: UUID, gone: bool) -> None:
        self.buried.append(attempt)
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def locate(self, kind: str) -> Program:
        return fake_program(kind)


class World:
    """One node and its platform."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.node = uuid4()
        self.platform = FakePlatform(self.node, self.home.public_key_hex())
        self.runner, self.transfer, self.containment = FakeRunner(2), FakeTransfer(), FakeContainment()
        self.settings = ClientSettings(fence_after_s=60.0, death_grace_s=0.05, resend_s=0.5, metrics_s=0.05, device_hold_s=0.2)
        self.devices: DeviceSource = DeclaredDevices(["RTX_4090:24GB:2"], "w1")
        self._agent: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the agent."""
        config = AgentConfig(server_url=f"http://127.0.0.1:{self.platform.port}", node_id=self.node, provider_id=uuid4(), worker_id="w1")
        client = AgentClient(
            self.home,
            config,
            runner=self.runner,
            devices=self.devices,
            containment=self.containment,
            transfer=self.transfer,
            settings=self.settings,
        )
        self._agent = asyncio.ensure_future(client.run())

    async def stop(self) -> None:
        """End the agent as a crash would: nothing is said, everything in memory is gone."""
        if self._agent is not None:
            self._agent.cancel()
            await asyncio.gather(self._agent, return_exceptions=True)
            self._agent = None

    async def idle(self) -> None:
        """Wait for a status, from now on, of a node on which nothing lives."""
        known = len(self.platform.of(Status))
        await self.platform.until(lambda: any(s.alive == () for s in self.platform.of(Status)[known:]))

    async def online(self) -> None:
        """Start, and wait for the session."""
        self.start()
        await self.platform.until(lambda: self.platform.of(Status))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    async with made.platform.serving():
        yield made
        await made.stop()

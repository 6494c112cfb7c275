"""Simulated machines: each speaks the agent protocol on a socket of its own, as an idle agent does; no Ray, no GPU.

    python -m benchmarks._machines PORT FOLDER BEAT_S SECONDS

Says `ready` when all are connected and have beaten twice, then beats for SECONDS, then says what it measured in one JSON line.
A process of its own, so that its processor time is not the server's.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks._sockets import Socket, upgrade
from qubix.agent.protocol import Challenge, Desired, Hello, Refused, Status, Welcome, hello_bytes, parse_down
from qubix.kernel.open_files import raise_limit
from tests.fakes.nodes import facts, gpu, sample

PING_S = 5.0
"""As qubix/agent/client.py."""
GREETING_MAX = 16
LAST_ANSWERS_S = 5.0
LOOK_S = 0.05


@dataclass(frozen=True)
class Identity:
    """What makes a machine a registered one."""

    node: UUID = field(default_factory=uuid4)
    device: str = field(default_factory=lambda: f"GPU-{uuid4()}")
    private_key: bytes = field(default_factory=lambda: Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def public_key(self) -> bytes:
        """What the web layer stores of it."""
        return Ed25519PrivateKey.from_private_bytes(self.private_key).public_key().public_bytes_raw()


def save(identities: list[Identity], folder: Path) -> None:
    """For the process that plays them."""
    rows = [[str(one.node), one.device, one.private_key.hex()] for one in identities]
    (folder / "machines.json").write_text(json.dumps(rows))


class Machine:
    """One machine with one GPU."""

    def __init__(self, identity: Identity, times_s: list[float], refused: list[str]) -> None:
        self._identity = identity
        self._times_s = times_s
        self._refused = refused
        self._session: UUID | None = None
        self._generation = 0
        self._sent: float | None = None
        self.seq = self.answered = self.held_up = 0
        self.measured = False
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, port: int) -> None:
        """Open a session. Raises: ConnectionError."""
        request = upgrade(f"127.0.0.1:{port}", "/agent/v1/session")
        self._socket = Socket(request, self._hear, self._closed)  # known before its first frame comes
        await asyncio.get_running_loop().create_connection(lambda: self._socket, "127.0.0.1", port)
        await self._socket.open
        await self.welcomed

    def beat(self) -> None:
        """Send a status with a fresh measurement; one whose turn comes while the last is unanswered counts as held up, and is left out."""
        assert self._session is not None
        if self._sent is not None:
            self.held_up += 1
            return
        self.seq += 1
        status = Status(session=self._session, seq=self.seq, generation=self._generation, sample=sample([self._identity.device]))
        text = status.model_dump_json().encode()
        self._sent = time.perf_counter()
        self._socket.send(text)

    def ping(self) -> None:
        self._socket.ping()

    def _hear(self, text: bytes) -> None:
        frame = parse_down(text)
        if isinstance(frame, Desired):
            self._generation = frame.generation
            if self._sent is not None:
                if self.measured:
                    self._times_s.append(time.perf_counter() - self._sent)
                self._sent = None
                self.answered = self.seq
        elif isinstance(frame, Challenge):
            key = Ed25519PrivateKey.from_private_bytes(self._identity.private_key)
            signature = key.sign(hello_bytes(frame.nonce, self._identity.node)).hex()
            self._socket.send(
                Hello(node=self._identity.node, signature=signature, facts=facts([gpu(self._identity.device)])).model_dump_json().encode()
            )
        elif isinstance(frame, Welcome):
            self._session = frame.session
            if not self.welcomed.done():
                self.welcomed.set_result(None)
        elif isinstance(frame, Refused):
            self._refused.append(f"{frame.code}: {frame.message}")

    def _closed(self, code: int) -> None:
        self._refused.append(f"closed: {code}")
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionError(f"closed: {code}"))


async def play(port: int, folder: Path, beat_s: float, seconds: float) -> dict[str, object]:
    """Run them all. Returns: the times of an answer, sorted; per node the last beat that was answered; what went wrong."""
    times_s: list[float] = []
    refused: list[str] = []
    machines = [
        Machine(Identity(UUID(node), device, bytes.fromhex(key)), times_s, refused)
        for node, device, key in json.loads((folder / "machines.json").read_text())
    ]
    greeting = asyncio.Semaphore(GREETING_MAX)
    beating: list[asyncio.Task[None]] = []

    async def begin(machine: Machine) -> None:
        async with greeting:
            await machine.connect(port)
        beating.append(asyncio.create_task(_every(beat_s, machine.beat)))
        beating.append(asyncio.create_task(_every(PING_S, machine.ping)))

    begun = time.perf_counter()
    await asyncio.gather(*(begin(machine) for machine in machines))
    connect_s = time.perf_counter() - begun
    await asyncio.sleep(2 * beat_s)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for machine in machines:
        machine.measured = True
    first, held_up = sum(machine.seq for machine in machines), sum(machine.held_up for machine in machines)
    await asyncio.sleep(seconds)
    for task in beating:
        task.cancel()
    sent = sum(machine.seq for machine in machines) - first
    for _ in range(int(LAST_ANSWERS_S / LOOK_S)):
        if all(machine.answered == machine.seq for machine in machines):
            break
        await asyncio.sleep(LOOK_S)
    answered = {str(machine._identity.node): machine.answered for machine in machines}
    return {
        "times_s": sorted(times_s),
        "sent": sent,
        "answered": answered,
        "unanswered": sum(machine.seq - machine.answered for machine in machines),
        "held_up": sum(machine.held_up for machine in machines) - held_up,
        "refused": refused[:5],
        "connect_s": connect_s,
    }


async def _every(pause_s: float, act: object) -> None:
    assert callable(act)
    await asyncio.sleep(random.uniform(0, pause_s))
    while True:
        act()
        await asyncio.sleep(pause_s)


def main() -> None:
    """Entry point."""
    raise_limit()
    found = uvloop.run(play(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

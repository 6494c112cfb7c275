"""The agent's home folder: its key, what it is called, its spool, its device locks. Private to its owner (0700).

key.pem        Ed25519 private key, made here, never leaves
agent.json     server URL, node id, worker id, declared devices
agent.lock     held by the one agent of this home
spool/         durable frames until they are acknowledged
work/          one folder per running attempt
locks/         one file per device, locked while a process of an attempt may still use it
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict

from qubix.agent.protocol import hello_bytes
from qubix.kernel.errors import Conflict, NotFound


class AgentRunsAlready(Conflict):
    """Another agent holds this home, or this machine's GPUs."""

    code = "agent_runs_already"


class NotJoined(NotFound):
    """The home has no agent.json: the machine has not joined."""

    code = "not_joined"


class AgentConfig(BaseModel):
    """What the agent must know to open a session (agent.json)."""

    model_config = ConfigDict(frozen=True)

    server_url: str
    """Base URL of the web layer, `http://host:port`."""
    node_id: UUID
    provider_id: UUID
    worker_id: str
    declared_gpus: tuple[str, ...] = ()
    """Device declarations, `RTX_4090:24GB:1`; empty: NVML is asked."""
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceLock:
    """The lock of one device; the sandbox is given its descriptor, so it is held as long as one of its processes lives."""

    uuid: str
    fd: int

    def close(self) -> None:
        """Give up this holder's descriptor; the lock is free when the last inheritor is gone as well."""
        os.close(self.fd)


class Home:
    """The folder itself."""

    def __init__(self, folder: Path) -> None:
        """Args: folder, made with mode 0700 if it is missing."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        for below in (self.spool, self.work, self.locks, self.sandboxes):
            below.mkdir(mode=0o700, exist_ok=True)

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def sandboxes(self) -> Path:
        return self.folder / "sandbox"

    @property
    def locks(self) -> Path:
        return self.folder / "locks"

    # -- identity -----------------------------------------------------------------------------------------------------

    def key(self) -> Ed25519PrivateKey:
        """The node's key; made at the first call."""
        path = self.folder / "key.pem"
        if path.exists():
            loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
            if not isinstance(loaded, Ed25519PrivateKey):
                raise Conflict(f"{path} holds no Ed25519 key.", next_step="Move it away and join again.")
            return loaded
        made = Ed25519PrivateKey.generate()
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        _write_private(path, made.private_bytes(encoding, form, serialization.NoEncryption()))
        return made

    def public_key_hex(self) -> str:
        """The public half, as the join request carries it."""
        return self.key().public_key().public_bytes_raw().hex()

    def sign_hello(self, nonce: str, node: UUID) -> str:
        """Sign a challenge; hexadecimal."""
        return self.key().sign(hello_bytes(nonce, node)).hex()

    def read_config(self) -> AgentConfig:
        """Raises: NotJoined."""
        path = self.folder / "agent.json"
        try:
            return AgentConfig.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise NotJoined(f"{self.folder} has not joined a marketplace.", next_step="qubix provider join") from None

    def write_config(self, config: AgentConfig) -> None:
        """Store agent.json atomically."""
        _write_private(self.folder / "agent.json", json.dumps(config.model_dump(mode="json"), indent=1).encode())

    # -- one agent ----------------------------------------------------------------------------------------------------

    def claim(self, *, machine_gpus: bool) -> AgentLock:
        """Become this home's only agent, and with `machine_gpus` (real GPUs) the machine's only one. Raises: AgentRunsAlready."""
        return AgentLock(self.folder / "agent.lock", machine_gpus=machine_gpus)

    # -- devices ------------------------------------------------------------------------------------------------------

    def lock_path(self, uuid: str) -> Path:
        """The lock file of one device; its name is a hash, for a uuid comes from a driver or a declaration."""
        return self.locks / (hashlib.sha256(uuid.encode()).hexdigest()[:32] + ".lock")

    def device_free(self, uuid: str) -> bool:
        """Whether no process of any attempt holds the device."""
        try:
            lock_devices([(uuid, self.lock_path(uuid))])[0].close()
        except BlockingIOError:
            return False
        return True

    # -- work ---------------------------------------------------------------------------------------------------------

    def work_folder(self, attempt: UUID) -> Path:
        """A fresh folder for an attempt's inputs."""
        folder = self.work / str(attempt)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        return folder

    def clear_work(self) -> None:
        """Remove what killed attempts left (janitor, before hello)."""
        for left in self.work.iterdir():
            shutil.rmtree(left, ignore_errors=True)


class AgentLock:
    """Held while the agent lives; the kernel frees it with the process."""

    def __init__(self, path: Path, *, machine_gpus: bool) -> None:
        self._file = path.open("ab")
        self._machine: socket.socket | None = None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if machine_gpus:
                # An abstract name needs no file and belongs to the machine: two homes cannot both sell its GPUs.
                self._machine = socket.socket(socket.AF_UNIX)
                self._machine.bind("\0qubix-agent-gpus")
        except OSError:
            self.close()
            raise AgentRunsAlready(f"An agent already runs for {path.parent}.", next_step="Stop it first: qubix provider status") from None

    def close(self) -> None:
        """Let another agent take over."""
        self._file.close()
        if self._machine is not None:
            self._machine.close()


def lock_devices(devices: Sequence[tuple[str, Path]]) -> list[DeviceLock]:
    """Lock all of `devices` (uuid, lock file) or none. Raises: BlockingIOError if one is held."""
    held: list[DeviceLock] = []
    try:
        for uuid, path in sorted(devices):
            fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held.append(DeviceLock(uuid, fd))
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        for lock in held:
            lock.close()
        raise
    return held


def _write_private(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".new")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)

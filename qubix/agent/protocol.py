"""The agent protocol, version 1: the frames between a node agent and the web layer.

One WebSocket, `/agent/v1/session`, JSON text frames, each an object with a member `t`. Desired state goes down, observed
state comes up; each may be lost, repeated or late, and the database alone judges (architecture, 4b). Bytes travel beside
it over HTTP, authorised by the session's token:

    PUT /agent/v1/attempts/{attempt}/{fence}/blobs/{sha256}          a checkpoint's or artefact's bytes, before its frame
    GET /agent/v1/attempts/{attempt}/{fence}/inputs/{name}           an input file
    GET /agent/v1/attempts/{attempt}/{fence}/checkpoint              the checkpoint that the attempt resumes from

Sequence: `challenge` → `hello` (signed) → `welcome` and `desired`; then per attempt `accept` → `grant` | `stop`,
`running`, any number of `log`, `progress`, `checkpoint`, `artefact`, and `finished` → `ack` | `missing` | `stop`.
Durable frames carry a content key, are spooled on the node until `ack`, and a resend is harmless.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

PROTOCOL_VERSION: Final = 1
FRAME_SIZE_MAX_BYTES: Final = 1 << 20
LOG_CHUNK_MAX_BYTES: Final = 64 << 10
RENEWAL_S: Final = 5.0
"""How often a status renews the leases of running attempts."""
LEASE_TTL_S: Final = 20.0
"""After this long without a renewal an attempt may be declared LOST."""
HEARTBEAT_S: Final = 30.0
"""How often an idle agent sends its status."""


# What a heartbeat may say at all. Many nodes' beats are stored by one statement: a number that no column holds would make it fail for all of them.
Whole = Annotated[int, Field(ge=0, lt=1 << 63)]
Reading = Annotated[float, Field(ge=-1e9, le=1e9)]
NodeTime = Annotated[float, Field(ge=0, lt=1e11)]


class Frame(BaseModel):
    """Base of all frames: closed to unknown members, immutable. JSON has no NaN, and a browser reads none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Device(Frame):
    """One GPU as its node reports it."""

    uuid: str = Field(min_length=1, max_length=100)
    model: str = Field(pattern=r"^[A-Za-z0-9_\-]{1,60}$")
    vram_bytes: int = Field(gt=0, lt=1 << 44)
    detected_by: Literal["nvml", "declared"]


class DeviceSample(Frame):
    """One measurement of one device; None where the source cannot tell."""

    uuid: str = Field(max_length=100, pattern=r"^[^\x00]*$")
    utilisation_pct: Reading | None = None
    memory_used_bytes: Whole | None = None
    temperature_c: Reading | None = None
    power_w: Reading | None = None


class NodeSample(Frame):
    """One measurement of a node, stamped by the node's clock (Unix seconds)."""

    node_at: NodeTime
    cpu_pct: Reading
    ram_used_bytes: Whole
    devices: tuple[DeviceSample, ...] = Field((), max_length=64)


class NodeFacts(Frame):
    """What a node says of itself at join and hello."""

    qubix_version: str
    ray_version: str
    python_version: str
    hostname: str = Field(max_length=255)
    cpu_model: str = Field(max_length=200)
    cpu_cores: int = Field(gt=0)
    ram_bytes: int = Field(gt=0)
    disk_bytes: int = Field(ge=0)
    sandbox: dict[str, str]
    """`{"ok": "yes"|"no", "reason": …, "limits": "cgroup2"|"cgroup1"|"rlimits"}`: the probe's answer."""
    devices: tuple[Device, ...] = Field(max_length=64)


class JoinRequest(Frame):
    """Body of POST /agent/v1/join: spends a join token, registers the node's public key. Idempotent by worker id."""

    token: str
    worker_id: str = Field(pattern=r"^[A-Za-z0-9_.\-]{1,100}$")
    public_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Ed25519, hexadecimal."""
    name: str = Field(min_length=1, max_length=100)
    region: str = Field(pattern=r"^[a-z0-9\-]{1,40}$")
    price_per_hour: int = Field(gt=0)
    """Whole units per GPU-hour; becomes the price of the node's offers unless they exist already."""
    facts: NodeFacts


class JoinAnswer(Frame):
    """Answer to a join."""

    provider_id: UUID
    node_id: UUID
    created: bool


# -- down -------------------------------------------------------------------------------------------------------------


class Challenge(Frame):
    """First frame of a connection: sign it to say hello."""

    t: Literal["challenge"] = "challenge"
    protocol: int = PROTOCOL_VERSION
    nonce: str


class Welcome(Frame):
    """The session is open; any earlier session of the node is over."""

    t: Literal["welcome"] = "welcome"
    session: UUID
    token: str
    heartbeat_s: float = HEARTBEAT_S
    renewal_s: float = RENEWAL_S
    lease_ttl_s: float = LEASE_TTL_S


class Limits(Frame):
    """What an attempt may use on its node."""

    memory_bytes: int = 2 << 30
    pids_max: int = 256
    cpus: float = 1.0
    disk_bytes: int = 2 << 30
    shm_bytes: int = 64 << 20
    tmp_bytes: int = 256 << 20
    log_bytes_max: int = 16 << 20


class InputFile(Frame):
    """An input that the agent fetches before the start; it appears read-only as /job/<name>."""

    name: str = Field(max_length=200)
    sha256: str
    size: int


class Restore(Frame):
    """The checkpoint that an attempt resumes from; it appears read-only as /job/.restore."""

    number: int
    sha256: str
    size: int


class AttemptSpec(Frame):
    """What to run: a job of the installed library, or the consumer's script."""

    kind: str
    params: dict[str, str] = {}
    gpus: int = 1
    vram_bytes: int = 0
    inputs: tuple[InputFile, ...] = ()
    restore: Restore | None = None
    limits: Limits = Limits()
    progress_from: float = 0.0
    """The job's highest progress so far, 0 to 100."""


class DesiredAttempt(Frame):
    """One line of the desired state."""

    id: UUID
    fence: int
    spec: AttemptSpec
    devices: tuple[str, ...]
    limit_ms: int


class Desired(Frame):
    """The whole desired state of the node. What it does not list, the agent kills. Older generations are ignored."""

    t: Literal["desired"] = "desired"
    session: UUID
    generation: int
    attempts: tuple[DesiredAttempt, ...]


class Grant(Frame):
    """Answer to `accept`: start now. Good only if it came within `lease_ttl_s` of the accept by the agent's monotonic clock."""

    t: Literal["grant"] = "grant"
    attempt: UUID
    fence: int
    limit_ms: int


class Stop(Frame):
    """The attempt is over for the platform: kill it, forget it, send nothing more of it."""

    t: Literal["stop"] = "stop"
    attempt: UUID
    fence: int
    reason: str


class Ack(Frame):
    """A durable frame is committed; drop it from the spool."""

    t: Literal["ack"] = "ack"
    key: str


class Missing(Frame):
    """`finished` was refused for now: these keys have not arrived yet; send them, then `finished` again."""

    t: Literal["missing"] = "missing"
    attempt: UUID
    keys: tuple[str, ...]


class Refused(Frame):
    """The connection is over, with the reason; the agent logs it and backs off."""

    t: Literal["refused"] = "refused"
    code: str
    message: str
    next_step: str = ""


# -- up ---------------------------------------------------------------------------------------------------------------


class Hello(Frame):
    """Opens a session. The signature is over `hello_bytes(nonce, node)` with the node's Ed25519 key."""

    t: Literal["hello"] = "hello"
    protocol: int = PROTOCOL_VERSION
    node: UUID
    signature: str
    facts: NodeFacts
    alive: tuple[UUID, ...] = ()


class AliveAttempt(Frame):
    """An attempt that the node still holds a process or a device lock for, or whose results are still on their way."""

    id: UUID
    fence: Whole


class Status(Frame):
    """Observed state and heartbeat: every `renewal_s` while something runs or the generation moved, else every `heartbeat_s`."""

    t: Literal["status"] = "status"
    session: UUID
    seq: Whole
    generation: int = Field(ge=-1, lt=1 << 63)
    """The newest desired state that was seen; -1 before the first."""
    alive: tuple[AliveAttempt, ...] = ()
    sample: NodeSample | None = None


class Accept(Frame):
    """The agent is able to start this attempt and waits for the grant."""

    t: Literal["accept"] = "accept"
    session: UUID
    attempt: UUID
    fence: int


class Decline(Frame):
    """The agent cannot start it (no sandbox, foreign use of VRAM, a device lock is held): not counted as a try."""

    t: Literal["decline"] = "decline"
    session: UUID
    attempt: UUID
    fence: int
    reason: str


class Metrics(Frame):
    """Volatile: a sample between heartbeats, 1 s to 5 s apart while a job runs."""

    t: Literal["metrics"] = "metrics"
    session: UUID
    sample: NodeSample


class Progress(Frame):
    """Volatile: the attempt's progress, 0 to 100, and its current operation."""

    t: Literal["progress"] = "progress"
    session: UUID
    attempt: UUID
    fence: int
    pct: float = Field(ge=0, le=100)
    operation: str = Field(default="", max_length=200)
    node_at: float


class Durable(Frame):
    """Base of the durable frames."""

    session: UUID
    attempt: UUID
    fence: int

    @property
    def key(self) -> str:
        """The content key that `ack` and `missing` name."""
        raise NotImplementedError


class Running(Durable):
    """The sandbox is up; metering starts when this commits."""

    t: Literal["running"] = "running"

    @property
    def key(self) -> str:
        return f"{self.attempt}/running"


class Stream(enum.StrEnum):
    """Where a log line came from; `agent` is the platform's own voice."""

    OUT = "out"
    ERR = "err"
    AGENT = "agent"


class Log(Durable):
    """A piece of a log stream. `offset` counts UTF-8 bytes of that stream from its start."""

    t: Literal["log"] = "log"
    stream: Stream
    offset: int = Field(ge=0)
    text: str = Field(max_length=LOG_CHUNK_MAX_BYTES)
    node_at: float

    @property
    def key(self) -> str:
        return f"{self.attempt}/log/{self.stream}/{self.offset}"


class Checkpoint(Durable):
    """A checkpoint whose bytes are stored already. Numbers grow by one from 1, over the attempt."""

    t: Literal["checkpoint"] = "checkpoint"
    number: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    pct: float = Field(ge=0, le=100)
    ran_ms: int = Field(ge=0)

    @property
    def key(self) -> str:
        return f"{self.attempt}/checkpoint/{self.number}"


class Artefact(Durable):
    """An output file whose bytes are stored already."""

    t: Literal["artefact"] = "artefact"
    name: str = Field(min_length=1, max_length=200)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)

    @property
    def key(self) -> str:
        return f"{self.attempt}/artefact/{self.name}"


class Exit(enum.StrEnum):
    """Why the sandbox ended, as the agent saw it; the platform decides whose fault it was."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    KILLED = "killed"
    TIME_LIMIT = "time_limit"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_FLOOD = "output_flood"
    DISK_LIMIT = "disk_limit"
    STOPPED = "stopped"
    SANDBOX_FAILED = "sandbox_failed"
    INPUT_FAILED = "input_failed"


class Finished(Durable):
    """The end of the attempt, and the manifest of all that was sent before it."""

    t: Literal["finished"] = "finished"
    exit: Exit
    exit_code: int | None = None
    signal: int | None = None
    detail: str = Field(default="", max_length=2000)
    agent_ms: int = Field(ge=0)
    """The agent's monotonic time of the sandbox."""
    log_ends: dict[str, int] = {}
    """Per stream, the offset behind its last byte."""
    checkpoints: tuple[int, ...] = ()
    artefacts: tuple[str, ...] = ()
    restore_failed: bool = False

    @property
    def key(self) -> str:
        return f"{self.attempt}/finished"


Down = Challenge | Welcome | Desired | Grant | Stop | Ack | Missing | Refused
Up = Hello | Status | Accept | Decline | Metrics | Progress | Running | Log | Checkpoint | Artefact | Finished


def hello_bytes(nonce: str, node: UUID) -> bytes:
    """What an agent signs to open a session: bound to the purpose, the challenge and the node."""
    return f"qubix agent hello v1\n{nonce}\n{node}".encode()


_DOWN: Final = TypeAdapter[Down](Annotated[Down, Field(discriminator="t")])
_UP: Final = TypeAdapter[Up](Annotated[Up, Field(discriminator="t")])


def parse_down(text: str | bytes) -> Down:
    """Read a frame from the web layer. Raises: pydantic.ValidationError."""
    return _DOWN.validate_json(text)


def parse_up(text: str | bytes) -> Up:
    """Read a frame from an agent. Raises: pydantic.ValidationError."""
    return _UP.validate_json(text)

"""Provider machines for tests: joined, online and measured through the real services, without an agent."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Sequence
from uuid import UUID, uuid4

from qubix import __version__
from qubix.agent.protocol import Device, DeviceSample, JoinRequest, NodeFacts, NodeSample
from qubix.bootstrap import RAY_VERSION, Resources, scope
from qubix.kernel.ids import UserId

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Joined:
    """A node that joined, with what is needed to speak for it."""

    owner_id: UserId
    provider_id: UUID
    node_id: UUID
    worker_id: str
    device_uuids: tuple[str, ...]


def gpu(uuid: str, model: str = "RTX_4090", gib: int = 24, source: str = "declared") -> Device:
    """One reported GPU."""
    return Device(uuid=uuid, model=model, vram_bytes=gib * GIB, detected_by=source)


def facts(devices: Sequence[Device], **changes: object) -> NodeFacts:
    """What a node says of itself."""
    said: dict[str, object] = {
        "qubix_version": __version__,
        "ray_version": RAY_VERSION,
        "python_version": "3.11.7",
        "hostname": "box",
        "cpu_model": "EPYC 7402",
        "cpu_cores": 8,
        "ram_bytes": 32 * GIB,
        "disk_bytes": 100 * GIB,
        "sandbox": {"ok": "yes"},
        "devices": tuple(devices),
    }
    return NodeFacts.model_validate({**said, **changes})


def request(
    token: str, devices: Sequence[Device], *, worker_id: str = "", region: str = "eu", price: int = 1000, **changes: object
) -> JoinRequest:
    """A join request with a fresh key."""
    return JoinRequest(
        token=token,
        worker_id=worker_id or f"w-{uuid4().hex[:12]}",
        public_key=secrets.token_hex(32),
        name="box",
        region=region,
        price_per_hour=price,
        facts=facts(devices, **changes),
    )


def sample(uuids: Sequence[str], *, temperature_c: float | None = 50.0) -> NodeSample:
    """One measurement of these devices."""
    devices = tuple(
        DeviceSample(uuid=uuid, utilisation_pct=10, memory_used_bytes=GIB, temperature_c=temperature_c, power_w=100) for uuid in uuids
    )
    return NodeSample(node_at=time.time(), cpu_pct=5, ram_used_bytes=GIB, devices=devices)


async def person(resources: Resources, email: str = "") -> UserId:
    """An account without a password (hashing one costs 50 ms)."""
    async with scope(resources) as s:
        made = await s.identity._add(email or f"{uuid4().hex}@example.com", None, "")
        return made.id


async def join(
    resources: Resources,
    *,
    owner_id: UserId | None = None,
    model: str = "RTX_4090",
    gpus: int = 1,
    gib: int = 24,
    region: str = "eu",
    price: int = 1000,
    name: str = "provider",
    online: bool = True,
    **changes: object,
) -> Joined:
    """Join one node with `gpus` devices; online and just measured unless told otherwise."""
    owner = owner_id or await person(resources)
    uuids = tuple(f"GPU-{uuid4()}" for _ in range(gpus))
    devices = [gpu(uuid, model, gib) for uuid in uuids]
    async with scope(resources) as s:
        token = (await s.providers.join_token(owner, name)).token
        asked = request(token, devices, region=region, price=price, **changes)  # type: ignore[arg-type]
        made = await s.providers.join(asked)
        if online:
            await s.providers.hello(made.node_id, asked.facts)
            await s.providers.record_sample(made.node_id, sample(uuids))
    return Joined(owner, made.provider_id, made.node_id, asked.worker_id, uuids)

"""Providers: letting nodes in, what their owners may change, heartbeats and measurements."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

from qubix.agent.protocol import JoinRequest, NodeFacts, NodeSample
from qubix.kernel.clock import Clock
from qubix.kernel.errors import Invalid, Limited, NotFound
from qubix.kernel.events import Event, EventType
from qubix.kernel.ids import NodeId, ProviderId, UserId, new_id
from qubix.providers import model
from qubix.providers.model import Device, Heat, Joined, JoinToken, Node, NodeState, Presence, Provider, Reputation, Window

if TYPE_CHECKING:
    from qubix.providers.store import ProvidersStore

TOKEN_PREFIX: Final = "qj_"  # noqa: S105  (a prefix, not a secret)
SWEEP_BATCH_MAX: Final = 200
TOKENS_BATCH_MAX: Final = 5000
PARTITION_DAYS_AHEAD: Final = 3
HISTORY_MAX: Final = 2000


class Outbox(Protocol):
    """Where events go (qubix.postgres.outbox.Outbox)."""

    def add(self, event: Event) -> None: ...


class Listings(Protocol):
    """Keeps the offers of a node (qubix.market.listings.Listings); called in the same transaction."""

    async def list_node(self, node_id: UUID, price_per_hour: int) -> None: ...


@dataclasses.dataclass(slots=True)
class Measured:
    """What a node's sample told. Args: devices, the UUIDs of those that are there; heat, the worst; moved, whether that changed what the node should run."""

    devices: set[str] = dataclasses.field(default_factory=set)
    heat: Heat = Heat.NORMAL
    moved: bool = False

    def add(self, uuid: str, heat: Heat, *, present: bool, moved: bool) -> None:
        """One device of the sample."""
        if present:
            self.devices.add(uuid)
        self.heat = max(self.heat, heat, key=list(Heat).index)
        self.moved |= moved


class ProvidersService:
    """Providers, nodes and devices in one transaction.

    Args: store; clock; outbox; wake(channel, payload); listings, where a node's offers are kept;
        qubix_version and ray_version, the server's, which a joining node must have; qubix_before, the release whose nodes may stay (docs/faults.md, P14).
    """

    def __init__(
        self,
        store: ProvidersStore,
        *,
        clock: Clock,
        outbox: Outbox,
        wake: Callable[[str, str], None],
        listings: Listings,
        qubix_version: str,
        ray_version: str,
        qubix_before: str | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._outbox = outbox
        self._wake = wake
        self._listings = listings
        self._qubix_version = qubix_version
        self._ray_version = ray_version
        self._qubix_before = qubix_before

    # -- becoming a provider --

    async def ensure_provider(self, user_id: UserId, name: str | None) -> ProviderId:
        """The user's provider, made at the first call; one without a name gets one that tells it from others. Idempotent."""
        made = new_id()
        name = (name or "").strip()[:100] or f"provider-{made.hex[-6:]}"
        return ProviderId((await self._store.ensure_provider(made, user_id, name)).id)

    async def join_token(self, user_id: UserId, name: str | None = None) -> JoinToken:
        """A token that lets one node in, once, within 30 minutes; makes the user a provider where needed.

        Raises: Limited past JOIN_TOKENS_OPEN_MAX open tokens.
        """
        provider_id = await self.ensure_provider(user_id, name)
        if await self._store.open_tokens(provider_id) >= model.JOIN_TOKENS_OPEN_MAX:
            raise Limited("Too many join tokens wait to be used.", next_step="Use them, or wait until they expire.", retry_after_s=60)
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        expires_at = await self._store.add_token(new_id(), provider_id, _hash(token), model.JOIN_TOKEN_TTL_S)
        return JoinToken(token, expires_at, self._qubix_version, self._ray_version, platform.python_version())

    async def join(self, request: JoinRequest) -> Joined:
        """Let a node in. Idempotent by worker id: a repeat yields the same provider and node.

        Raises: VersionMismatch; TokenRefused; WorkerTaken for another owner's worker id; Invalid for repeated device ids.
        """
        facts = request.facts
        model.check_versions(facts.qubix_version, facts.ray_version, server_qubix=self._qubix_version, server_ray=self._ray_version)
        _check_devices(facts)
        key = bytes.fromhex(request.public_key)
        token = await self._store.lock_token(_hash(request.token))
        if token is None:
            raise model.TokenRefused("This join token does not exist.", next_step="Make a new one: qubix provider join.")
        same = token.used_at is not None and token.worker_id == request.worker_id and bytes(token.public_key) == key
        # Whoever took the node off the market meant it: its old token does not bring it back.
        repeat = same and token.state != NodeState.LEFT
        if not repeat and token.used_at is not None:
            raise model.TokenRefused("This join token was used already.", next_step="Make a new one: qubix provider join.")
        if not repeat and token.expired:
            raise model.TokenRefused("This join token has expired: it lives 30 minutes.", next_step="Make a new one.")
        provider_id = ProviderId(token.provider_id)
        node_id = await self._store.add_node(provider_id, request.worker_id, key, request.name, request.region)
        created = node_id is not None
        if node_id is None:
            known = await self._store.lock_worker(request.worker_id)
            if known is None or known.provider_id != provider_id:
                raise model.WorkerTaken(
                    f"The worker id {request.worker_id!r} belongs to another owner.", next_step="Choose another worker id on this node."
                )
            if token.by_label and bytes(known.public_key) != key:
                raise model.TokenRefused(
                    "This node exists with another key, and labels alone do not replace it.",
                    next_step="Join it with a token of its owner: qubix provider join.",
                )
            node_id = known.id
            await self._store.rejoin(node_id, key, request.name)
        if not repeat:
            await self._store.spend_token(token.id, node_id)
        await self._store.set_facts(node_id, facts)
        await self._listings.list_node(node_id, request.price_per_hour)
        self._tell(
            EventType.PROVIDER_REGISTERED if created else EventType.PROVIDER_STATUS_CHANGED,
            node_id,
            provider_id,
            {"name": request.name, "state": NodeState.REGISTERING.value, "devices": [device.model for device in facts.devices]},
        )
        return Joined(provider_id, NodeId(node_id), created)

    # -- what the owner may do --

    async def update_node(
        self,
        user_id: UserId,
        node_id: UUID,
        *,
        paused: bool | None = None,
        region: str | None = None,
        availability: Sequence[dict[str, int]] | None = None,
    ) -> Node:
        """Pause or resume, move to a region, set availability windows. Running jobs are not touched.

        Raises: NotFound for somebody else's node; Invalid.
        """
        row = await self._owned(user_id, node_id)
        changes: dict[str, Any] = {}
        if paused is not None:
            changes["paused"] = paused
        if region is not None:
            changes["region"] = model.check_region(region)
        if availability is not None:
            windows = model.check_windows(availability)
            if len({(w.weekday, w.opens) for w in windows}) < len(windows):
                raise Invalid("Two availability windows open at the same time.", next_step="Join them.", field="availability")
            await self._store.set_windows(node_id, [(w.weekday, w.opens, w.closes) for w in windows])
            await self._listings.list_node(node_id, 0)
        if changes:
            await self._store.set_node(node_id, **changes)
        self._tell_row(row, paused=row.paused if paused is None else paused)
        return await self.node(node_id)

    async def drain(self, user_id: UserId, node_id: UUID, *, draining: bool = True) -> Node:
        """No new leases; what runs goes on. `draining=False` takes it back. Raises: NotFound."""
        row = await self._owned(user_id, node_id)
        await self._store.set_node(node_id, draining=draining)
        self._tell_row(row, draining=draining)
        self._wake("jobs", "")
        return await self.node(node_id)

    async def leave(self, user_id: UserId, node_id: UUID) -> None:
        """Take a node off the market for good; its history and earnings stay, and the same worker id may join again.

        Raises: NotFound; NodeBusy while devices are leased.
        """
        row = await self._owned(user_id, node_id)
        if row.state == NodeState.LEFT:
            return
        leased = await self._store.active_leases(node_id)
        if leased:
            raise model.NodeBusy(
                f"{leased} device(s) of this node are leased.",
                next_step="Drain it first (qubix provider drain) and leave when its jobs have ended.",
                leased=leased,
            )
        await self._store.set_node(
            node_id, state=NodeState.LEFT.value, draining=True, session=None, session_token_hash=None, socket_open=False
        )
        self._tell_row(row, state=NodeState.LEFT.value)

    async def mine(self, user_id: UserId) -> Provider:
        """The user's provider with its nodes. Raises: NotFound where the user is none."""
        row = await self._store.provider_of(user_id)
        if row is None:
            raise NotFound("You are not a provider yet.", next_step="Share a GPU: qubix provider join.")
        return await self._provider(row)

    async def provider(self, provider_id: UUID) -> Provider:
        """One provider with its nodes, for anybody. Raises: NotFound."""
        row = await self._store.provider(provider_id)
        if row is None:
            raise NotFound("There is no such provider.", next_step="List them: GET /api/gpus/providers.")
        return await self._provider(row)

    async def owner_of(self, provider_id: UUID) -> UserId:
        """Who owns a provider (the earning's payee). Raises: NotFound."""
        row = await self._store.provider(provider_id)
        if row is None:
            raise NotFound("There is no such provider.", next_step="List them: GET /api/gpus/providers.")
        return UserId(row.owner_id)

    async def node(self, node_id: UUID) -> Node:
        """One node with its devices and their latest samples. Raises: NotFound."""
        row = await self._store.node(node_id)
        if row is None:
            raise NotFound("There is no such node.", next_step="List your nodes: qubix provider status.")
        return (await self._nodes([row]))[0]

    async def own_node(self, user_id: UserId, node_id: UUID) -> Node:
        """The user's node. Raises: NotFound, also for somebody else's."""
        await self._owned(user_id, node_id)
        return await self.node(node_id)

    async def reputation(self, provider_id: UUID) -> Reputation:
        """A provider's reputation, counted again from its attempts."""
        return Reputation(*await self._store.recount_reputation(provider_id))

    # -- heartbeats and measurements --

    async def hello(self, node_id: UUID, facts: NodeFacts) -> None:
        """A session was opened: the node is online with these facts. Call it in the transaction that opens the session.

        Raises: VersionMismatch when the node was upgraded before the server, or is older than the release before; Invalid.
        """
        model.check_versions(
            facts.qubix_version,
            facts.ray_version,
            server_qubix=self._qubix_version,
            server_ray=self._ray_version,
            qubix_before=self._qubix_before,
        )
        _check_devices(facts)
        row = await self._store.node(node_id)
        if row is None or row.state == NodeState.LEFT:
            raise NotFound("This node is not registered.", next_step="Join again: qubix provider join.")
        await self._store.set_facts(node_id, facts)
        await self._store.set_online(node_id)
        await self._listings.list_node(node_id, 0)
        if row.state != NodeState.ONLINE:
            self._tell_row(row, state=NodeState.ONLINE.value)
        self._wake("jobs", "")

    async def record_sample(self, node_id: UUID, sample: NodeSample) -> Heat:
        """Store a node's measurement; its metrics are fresh from now on. Returns: the worst heat among the devices of the sample."""
        await self._store.note_measured(node_id)
        return (await self.record_samples({node_id: sample}))[node_id].heat

    async def record_samples(self, samples: Mapping[UUID, NodeSample]) -> dict[UUID, Measured]:
        """Store what nodes measured; whoever calls notes on their rows that their metrics are fresh.

        Overheating devices get no new work; from OVER_LIMIT on their attempts are no longer desired there (they checkpoint and
        move); a critical one drains its node.
        """
        found = {node_id: Measured() for node_id in samples}
        for row in await self._store.add_samples(samples):
            before = Heat(row.heat)
            now = model.heat(row.temperature_c, before=before)
            moved = (now in model.MOVING) is not (before in model.MOVING)
            if now is not before:
                await self._store.set_heat(row.id, now.value, overheating=now is not Heat.NORMAL)
            if moved:
                await self._store.bump_generation(row.node_id)
                self._wake("nodes", str(row.node_id))
            if now is Heat.CRITICAL:
                await self._store.set_node(row.node_id, draining=True)
            found[row.node_id].add(row.uuid, now, present=row.present, moved=moved)
        return found

    async def mark_offline(self) -> list[NodeId]:
        """Nodes that missed three heartbeats become offline, and their watchers are told. One sweep step."""
        rows = await self._store.mark_offline(model.OFFLINE_AFTER_S, SWEEP_BATCH_MAX)
        for row in rows:
            self._tell_row(row, state=NodeState.OFFLINE.value)
        return [NodeId(row.id) for row in rows]

    async def history(self, device_id: int, *, seconds: int = 3600) -> list[dict[str, Any]]:
        """Samples of a device, newest first, at most HISTORY_MAX."""
        rows = await self._store.history(device_id, seconds, HISTORY_MAX)
        return [dict(row._mapping) for row in rows]

    async def keep_house(self) -> None:
        """Make the coming days' metrics partitions, drop those past retention, forget old tokens. Daily, or at start."""
        await self._store.partitions(PARTITION_DAYS_AHEAD, model.METRICS_RETENTION_DAYS)
        await self._store.forget_tokens(TOKENS_BATCH_MAX)

    # -- inside --

    async def _owned(self, user_id: UserId, node_id: UUID) -> Any:
        row = await self._store.owned_node(user_id, node_id)
        if row is None:
            raise NotFound("You have no such node.", next_step="List your nodes: qubix provider status.")
        return row

    async def _provider(self, row: Any) -> Provider:
        nodes = await self._nodes(await self._store.nodes(row.id))
        reputation = Reputation(row.attempts_ended, row.attempts_faulted)
        return Provider(ProviderId(row.id), UserId(row.owner_id), row.name, reputation, row.created_at, tuple(nodes))

    async def _nodes(self, rows: Sequence[Any]) -> list[Node]:
        ids = [row.id for row in rows]
        devices: dict[UUID, list[Device]] = {}
        for d in await self._store.devices(ids) if ids else []:
            device = Device(d.id, d.uuid, d.model, d.vram_bytes, d.detected_by, d.verified, d.overheating, d.sample, d.sampled_at)
            devices.setdefault(d.node_id, []).append(device)
        windows: dict[UUID, list[Window]] = {}
        for w in await self._store.windows(ids) if ids else []:
            windows.setdefault(w.node_id, []).append(Window(w.weekday, w.opens, w.closes))
        return [_node(row, tuple(devices.get(row.id, ())), tuple(windows.get(row.id, ()))) for row in rows]

    def _tell_row(self, row: Any, **news: Any) -> None:
        self._tell(EventType.PROVIDER_STATUS_CHANGED, row.id, row.provider_id, {"name": row.name, **news})

    def _tell(self, kind: EventType, node_id: UUID, provider_id: UUID, payload: dict[str, Any]) -> None:
        body = {"node_id": str(node_id), "provider_id": str(provider_id), **payload}
        self._outbox.add(Event(kind, model.node_subject(node_id, provider_id), node_id, body))


def _node(row: Any, devices: tuple[Device, ...], windows: tuple[Window, ...]) -> Node:
    seen = Presence.OFFLINE
    if row.state == NodeState.ONLINE:
        seen = model.presence(row.status_age_s, metrics_age_s=row.metrics_age_s)
    return Node(
        id=NodeId(row.id),
        provider_id=ProviderId(row.provider_id),
        worker_id=row.worker_id,
        name=row.name,
        region=row.region,
        state=NodeState(row.state),
        presence=seen,
        paused=row.paused,
        draining=row.draining,
        qubix_version=row.qubix_version,
        ray_version=row.ray_version,
        cpu_model=row.cpu_model,
        cpu_cores=row.cpu_cores,
        ram_bytes=row.ram_bytes,
        disk_bytes=row.disk_bytes,
        sandbox=dict(row.sandbox),
        last_status_at=row.last_status_at,
        metrics_at=row.metrics_at,
        availability=windows,
        devices=devices,
    )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _check_devices(facts: NodeFacts) -> None:
    if len({device.uuid for device in facts.devices}) < len(facts.devices):
        raise Invalid("Two devices of the node have the same uuid.", next_step="Give each declared device its own.", field="devices")

"""Capacity: who may use which device now. All or none, for one node at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from qubix.capacity.model import DeviceUse, Purpose


class Store(Protocol):
    """What the service needs kept (qubix.capacity.store.CapacityStore)."""

    def all_or_none(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]: ...
    async def queue(self, node_id: UUID, model: str) -> None: ...
    async def take(
        self, purpose: Purpose, holder_id: UUID, *, node_id: UUID, model: str, vram_bytes: int, gpus: int, ttl_s: float
    ) -> list[int]: ...
    async def take_these(self, purpose: Purpose, holder_id: UUID, device_ids: Sequence[int], *, ttl_s: float) -> list[int]: ...
    async def drop(self, holder_id: UUID, device_ids: Sequence[int] | None = None) -> list[int]: ...
    async def extend(self, holder_id: UUID, *, ttl_s: float) -> int: ...
    async def drop_expired(self, *, most: int) -> list[UUID]: ...
    async def uses(self, node_ids: Sequence[UUID] | None) -> list[DeviceUse]: ...
    async def held(self, holder_id: UUID) -> list[int]: ...
    async def quarantine(self, attempt_id: UUID) -> int: ...
    async def release_quarantines(self, statuses: Sequence[tuple[UUID, int, Sequence[UUID]]]) -> int: ...


class CapacityService:
    """Leases of devices: to quotes, to attempts, to the job that waits longest."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def lease_for_quote(
        self, quote_id: UUID, *, node_id: UUID, model: str, gpus: int, ttl_s: float, vram_bytes: int = 0
    ) -> tuple[int, ...] | None:
        """Lease `gpus` free devices of `model` on one node to a quote for `ttl_s` seconds.

        Returns: the device ids, or None when fewer are free; then nothing is leased.
        """
        async with self._store.all_or_none() as give_up:
            if gpus > 1:
                await self._store.queue(node_id, model)
            taken = await self._store.take(
                Purpose.QUOTE, quote_id, node_id=node_id, model=model, vram_bytes=vram_bytes, gpus=gpus, ttl_s=ttl_s
            )
            if len(taken) < gpus:
                await give_up()
                return None
        return tuple(taken)

    async def lease_to_attempt(self, attempt_id: UUID, device_ids: Sequence[int], *, ttl_s: float, instead_of: Sequence[UUID] = ()) -> bool:
        """Lease these devices to an attempt for `ttl_s` seconds.

        Args: instead_of, holders (the job's quote, its own reservation) whose leases end with this, all of them.
        Returns: False when any device is taken or in quarantine; the earlier holders' leases are then gone too, so
        the caller rolls back.
        """
        for holder in instead_of:
            await self._store.drop(holder)
        taken = await self._store.take_these(Purpose.JOB, attempt_id, device_ids, ttl_s=ttl_s)
        if len(taken) < len(device_ids):
            await self._store.drop(attempt_id, taken)
        return len(taken) == len(device_ids)

    async def reserve(self, job_id: UUID, device_ids: Sequence[int], *, ttl_s: float) -> tuple[int, ...]:
        """Keep free devices for the oldest job that cannot be placed; what it reserved before and is not named is freed.

        Returns: the devices that it now holds of those named (some may have been taken a moment ago).
        """
        held = set(await self._store.held(job_id))
        gone = held - set(device_ids)
        if gone:
            await self._store.drop(job_id, sorted(gone))
        await self._store.extend(job_id, ttl_s=ttl_s)
        fresh = await self._store.take_these(Purpose.RESERVATION, job_id, sorted(set(device_ids) - held), ttl_s=ttl_s)
        return tuple(sorted((held - gone) | set(fresh)))

    async def release(self, holder_id: UUID) -> tuple[int, ...]:
        """End all leases of a quote, an attempt or a reservation. Returns the devices that it freed; a repeat frees none."""
        return tuple(await self._store.drop(holder_id))

    async def extend(self, holder_id: UUID, *, ttl_s: float) -> bool:
        """Let the holder's leases end `ttl_s` from now. Returns False when they are over already."""
        return await self._store.extend(holder_id, ttl_s=ttl_s) > 0

    async def quarantine(self, attempt_id: UUID) -> int:
        """Put the attempt's devices in quarantine; call it before the release and before the node's new generation."""
        return await self._store.quarantine(attempt_id)

    async def release_quarantines(self, statuses: Sequence[tuple[UUID, int, Sequence[UUID]]]) -> int:
        """What statuses clear: devices whose attempt they omit, at a generation newer than the quarantine.

        Args: statuses, (node, the generation that it has seen, its attempts alive). Returns: how many were ended.
        """
        return await self._store.release_quarantines(statuses)

    async def uses(self, node_ids: Sequence[UUID] | None = None) -> list[DeviceUse]:
        """Every device (of these nodes), with what holds it at this moment."""
        return await self._store.uses(node_ids)

    async def free(self, node_id: UUID, *, model: str) -> list[DeviceUse]:
        """The devices of one node and model that nobody holds."""
        return [use for use in await self._store.uses([node_id]) if use.model == model and use.usable_by()]

    async def expire(self, *, most: int = 200) -> list[UUID]:
        """Remove leases whose time is over. Returns the nodes on which a device became free."""
        return await self._store.drop_expired(most=most)

"""The controller: one process that compares what should run with what runs. `python -m qubix.controller`

It holds no Ray handle and no state: everything is read from the database, every step is one transaction that begins by
proving leadership, and it may be killed at any moment. Its loops: jobs (place, conclude, sweep, fund), money (mature, rulings),
the outbox publisher, housekeeping, and what Prometheus is shown of the platform.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import asyncpg
import sqlalchemy as sa

from qubix import observability
from qubix.bootstrap import Resources, Scope, open_resources, scope
from qubix.exporter import Loops, exported, make_registry
from qubix.jobs.blobs import FOLDERS, UNREFERENCED_KEEP_S
from qubix.kernel.errors import QubixError
from qubix.kernel.failpoints import reach
from qubix.monitoring.collector import PlatformCollector
from qubix.monitoring.model import AUDIT_S, SNAPSHOT_S, pause_s
from qubix.monitoring.service import MonitoringService
from qubix.monitoring.store import MonitoringStore
from qubix.postgres import leader, outbox
from qubix.postgres.leader import NotLeader
from qubix.postgres.leading import AWAY, FAILURE_PAUSE_S, side_by_side, until_told
from qubix.postgres.measures import PoolCollector
from qubix.scheduling.placing import Assignment, Plan, PlanStale, batches
from qubix.settings import Settings

NAME: Final = "controller"
ROUNDS_MAX: Final = 5
"""Within one step: what ends frees devices, what is placed anew may end; then the loop breathes."""
MONEY_S: Final = 1.0
HOUSE_S: Final = 600.0
PART_MAX_S: Final = 120.0
"""How long one part of a loop may keep the others waiting."""
BATCH_MAX: Final = 200
ASSIGNED_TOGETHER_MAX: Final = 25
"""So many assignments of one node are one transaction: its row's lock is asked for once, and nobody waits long for it."""
FOLDERS_AT_ONCE: Final = 16
"""Of the blob store's folders, so many are looked through each HOUSE_S: all of them in under three hours."""
ADOPTED_MAX: Final = 1000

log = observability.logger("controller")


class Controller:
    """The loops over one process's resources. Args: holder, who this is, for the leader row."""

    def __init__(self, resources: Resources, *, holder: str = "") -> None:
        self._resources = resources
        self._holder = holder or f"{socket.gethostname()}/{os.getpid()}"
        self._epoch = 0
        self._folder = 0
        self._after: UUID | None = None
        self.registry = make_registry()
        self.registry.register(PoolCollector(resources.engine))
        self._loops = Loops(self.registry)
        collector = PlatformCollector(self.registry, resources.clock, resources.settings.data_dir)
        self.monitoring = MonitoringService(self._monitored, collector, resources.clock)

    async def lead(self) -> int:
        """Become the leader. Returns the epoch."""
        async with scope(self._resources) as s:
            self._epoch = await leader.take(s.connection, NAME, self._holder)
        log.info("leading", epoch=self._epoch)
        return self._epoch

    async def run(self) -> None:
        """Lead and work until cancelled, or until another leads. Raises: NotLeader."""
        while True:
            try:
                await self.lead()
                break
            except AWAY as error:
                log.warning("the database is away", error=str(error)[:300])
                await asyncio.sleep(FAILURE_PAUSE_S)
        loops = [
            self._woken("jobs", self.step, idle_s=self._resources.settings.sweep_interval_s),
            self._woken("outbox", self.publish, idle_s=1.0),
            self._every(MONEY_S, self.money),
            self._every(MONEY_S, self.market),
            self._every(HOUSE_S, self.keep_house),
            self._paced(SNAPSHOT_S, self.monitoring.measure),
            self._paced(AUDIT_S, self.monitoring.audit),
        ]
        await side_by_side(loops)

    # -- jobs --

    async def step(self) -> None:
        """Place what waits, conclude what was reported, sweep what is overdue, fund what was paid; again while something changed."""
        for _ in range(ROUNDS_MAX):
            await self.place()
            changed = await self.conclude() + await self.sweep() + await self.fund()
            if not changed:
                return

    async def fund(self) -> int:
        """Fund the jobs whose payment is in the wallet, tell the others what has come. Returns how many were funded."""
        async with self._scope() as s:
            due, self._after = await s.funding.due(after=self._after)
        funded = 0
        for job_id in due:
            funded += await self._end(job_id, "funded", lambda s, one: s.funding.look(one))
        return funded

    async def conclude(self) -> int:
        """End the attempts that reported their end. Returns how many ended."""
        ended = 0
        async with self._scope() as s:
            reported = await s.ends.reported()
        for attempt_id in reported:
            ended += await self._end(attempt_id, "concluded", lambda s, one: s.ends.conclude(one))
        return ended

    async def place(self) -> int:
        """Assign what can be; tell the rest why not. Returns how many were assigned."""
        plan = Plan()
        alone = False
        assigned = 0
        try:
            async with self._scope() as s:
                plan = await s.placing.plan()
                alone = len(plan.assignments) == 1
                if alone:  # the usual case: no second transaction stands between a funded job and its node
                    attempt_id = await s.placing.assign(plan.assignments[0])
        except (PlanStale, sa.exc.DBAPIError) as error:
            if not alone:
                raise
            self._warn_refused(plan.assignments[0], error)
        else:
            assigned = int(alone)
        if assigned:
            reach("controller.assigned")
            self._tell_assigned(plan.assignments[0], attempt_id)
        if not alone:
            for batch in batches(plan.assignments, most=ASSIGNED_TOGETHER_MAX):
                assigned += await self._assign(batch)
        if plan.refusals:
            async with self._scope() as s:
                await s.placing.refuse(plan.refusals)
        return assigned

    async def _assign(self, batch: Sequence[Assignment]) -> int:
        """One node's assignments in one transaction; where one of them fails, each in its own, so that it does not stop the others.

        Returns: how many were written.
        """
        try:
            async with self._scope() as s:
                attempt_ids = [await s.placing.assign(assignment) for assignment in batch]
        except (PlanStale, sa.exc.DBAPIError) as error:
            if len(batch) > 1:
                return sum([await self._assign([assignment]) for assignment in batch])
            self._warn_refused(batch[0], error)
            return 0
        reach("controller.assigned")
        for assignment, attempt_id in zip(batch, attempt_ids, strict=True):
            self._tell_assigned(assignment, attempt_id)
        return len(batch)

    def _warn_refused(self, assignment: Assignment, error: PlanStale | sa.exc.DBAPIError) -> None:
        if isinstance(error, PlanStale):
            log.info("plan stale", job=str(assignment.job_id), reason=error.message)
        else:
            log.warning("assignment refused", job=str(assignment.job_id), error=str(error.orig)[:300])

    def _tell_assigned(self, assignment: Assignment, attempt_id: UUID) -> None:
        node = assignment.choice.candidate
        log.info("assigned", job=str(assignment.job_id), attempt=str(attempt_id), node=str(node.node_id), rate=assignment.choice.rate)

    async def sweep(self) -> int:
        """Beat, then end what is overdue: attempts, and jobs that wait no longer. Returns how many ended."""
        async with self._scope() as s:
            paused_s = await s.ends.beat()
        if paused_s:
            log.warning("the sweeper was away, or the clock was set; every lease follows", seconds=round(paused_s, 1))
        async with self._scope() as s:
            overdue = await s.ends.overdue()
            idle = await s.ends.idle()
        ended = 0
        for attempt_id in overdue:
            ended += await self._end(attempt_id, "swept", lambda s, one: s.ends.sweep(one))
        for job_id in idle:
            ended += await self._end(job_id, "given up", lambda s, one: s.ends.end_idle(one))
        return ended

    async def _end(self, subject_id: UUID, what: str, act: Callable[[Scope, UUID], Awaitable[bool]]) -> bool:
        """One end in one transaction; one that fails does not stop the others."""
        try:
            async with self._scope() as s:
                ended = await act(s, subject_id)
        except NotLeader:
            raise
        except (QubixError, sa.exc.DBAPIError, asyncpg.PostgresError) as error:  # the last: acts of money go straight to the driver
            log.error("an end failed and is tried again", subject=str(subject_id), error=str(error)[:500])
            return False
        if ended:
            reach("controller.ended")
            log.info(what, subject=str(subject_id))
        return ended

    # -- the rest --

    async def money(self) -> None:
        """Pay out what has matured, carry out what was ruled; one act per transaction."""
        await self._parts(self._mature, self._settle_ruled, self._resolve)

    async def _mature(self) -> None:
        for _ in range(ROUNDS_MAX):
            async with self._scope() as s:
                if not await s.escrow.mature_due():
                    return
            reach("controller.matured")

    async def _settle_ruled(self) -> None:
        async with self._scope() as s:
            ruled = await s.escrow.ruled_due()
        for escrow_id in ruled:
            await self._end(escrow_id, "settled as ruled", lambda s, one: s.escrow.settle_ruled(one))

    async def _resolve(self) -> None:
        async with self._scope() as s:
            frozen = await s.escrow.frozen_due()
        for earning_id in frozen:
            await self._end(earning_id, "resolved", lambda s, one: s.escrow.resolve(one))

    async def market(self) -> None:
        """What passes with time: leases and quotes that run out, nodes that fall silent, offers that grow stale."""
        await self._parts(self._beat, self._expire_leases, self._sweep_quotes, self._mark_offline, self._refresh_offers)

    async def _beat(self) -> None:
        async with self._scope() as s:
            await leader.beat(s.connection, NAME, self._epoch)

    async def _expire_leases(self) -> None:
        async with self._scope() as s:
            if await s.capacity.expire():
                s.wake("jobs")

    async def _sweep_quotes(self) -> None:
        async with self._scope() as s:
            await s.market.sweep()

    async def _mark_offline(self) -> None:
        async with self._scope() as s:
            for node_id in await s.providers.mark_offline():
                log.info("offline", node=str(node_id))

    async def _refresh_offers(self) -> None:
        async with self._scope() as s:
            await s.market.refresh_due()

    async def publish(self) -> None:
        """Number committed events and wake their readers."""
        while True:
            async with scope(self._resources) as s:
                published = await outbox.publish(s.connection)
                if published:
                    s.wake("events")
            if published:
                reach("controller.published")
            if published < outbox.PUBLISH_BATCH_MAX:
                return

    async def keep_house(self) -> None:
        """Partitions ahead, old events and sessions gone, bytes that nothing refers to removed."""
        parts = (
            self._keep_partitions,
            self._forget_sessions,
            self._forget_events,
            self.adopt_blobs,
            self.collect_blobs,
            self._sweep_incoming,
        )
        await self._parts(*parts)

    async def _keep_partitions(self) -> None:
        async with self._scope() as s:
            await s.providers.keep_house()

    async def _forget_sessions(self) -> None:
        async with self._scope() as s:
            await s.identity.sweep()
            await s.wallet_logins.sweep()

    async def _forget_events(self) -> None:
        async with self._scope() as s:
            await outbox.forget(s.connection)

    async def _sweep_incoming(self) -> None:
        await asyncio.to_thread(self._resources.blobs.sweep_incoming)

    async def adopt_blobs(self) -> int:
        """Find old files that no row knows, in some of the store's folders at a time; they are collected a day later. Returns how many."""
        adopted = 0
        for _ in range(FOLDERS_AT_ONCE):
            found = await asyncio.to_thread(self._resources.blobs.old, self._folder)
            self._folder = (self._folder + 1) % FOLDERS
            async with self._scope() as s:
                adopted += await s.blob_rows.adopt_blobs(found, most=ADOPTED_MAX)
        return adopted

    async def collect_blobs(self) -> int:
        """Remove bytes that nothing has referred to for a day. The files go under their rows' locks. Returns how many."""
        async with self._scope() as s:
            stale = await s.blob_rows.lock_stale_blobs(keep_s=UNREFERENCED_KEEP_S, most=BATCH_MAX)
            gone = [sha256 for sha256 in stale if await asyncio.to_thread(self._resources.blobs.discard, sha256)]
            reach("controller.discarded")
            await s.blob_rows.forget_blobs(gone)
        return len(gone)

    @asynccontextmanager
    async def _scope(self) -> AsyncIterator[Scope]:
        async with scope(self._resources, leads=(NAME, self._epoch)) as s:
            yield s

    @asynccontextmanager
    async def _monitored(self) -> AsyncIterator[MonitoringStore]:
        """Without the leader's lock: a slow question must not keep the next leader waiting."""
        async with scope(self._resources) as s:
            yield MonitoringStore(s.connection)

    async def _woken(self, channel: str, act: Callable[[], Awaitable[None]], *, idle_s: float) -> None:
        """Run `act` at each wake, and every `idle_s` without one."""
        async with self._resources.listen(channel, idle_s=idle_s) as listener:
            await self._tried(act)
            async for _ in listener:
                await self._tried(act)

    async def _parts(self, *parts: Callable[[], Awaitable[object]]) -> None:
        """Run each part. One that fails, or takes longer than PART_MAX_S, is told and tried again next time; the others still run."""
        for part in parts:
            try:
                with self._loops.step(part.__name__.lstrip("_")):
                    async with asyncio.timeout(PART_MAX_S):
                        await part()
            except NotLeader:
                raise
            except Exception as error:
                log.error("part failed; tried again", part=part.__name__, error=f"{type(error).__name__}: {error}"[:500])

    async def _every(self, wait_s: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._tried(act)
            await asyncio.sleep(wait_s)

    async def _paced(self, least_s: float, act: Callable[[], Awaitable[None]]) -> None:
        """Run `act` every `least_s`, and more rarely where it takes long."""
        while True:
            began = time.monotonic()
            await self._tried(act)
            await asyncio.sleep(pause_s(time.monotonic() - began, least_s))

    async def _tried(self, act: Callable[[], Awaitable[None]]) -> None:
        """Run a step; trouble of the database, or of one row, delays it and never ends the loop."""
        try:
            with self._loops.step(act.__name__.lstrip("_")):
                await act()
        except NotLeader:
            raise
        except AWAY as error:
            log.warning("step failed; tried again", step=act.__name__, error=str(error)[:500])
            await asyncio.sleep(FAILURE_PAUSE_S)
        except QubixError as error:
            log.error("step refused; tried again", step=act.__name__, code=error.code, error=error.message)
            await asyncio.sleep(FAILURE_PAUSE_S)


async def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code: 0 stopped, 3 another leads."""
    resources = open_resources(settings)
    controller = Controller(resources)
    with exported(settings, controller.registry, NAME):
        return await until_told(controller.run(), resources.close, log=log)


def main() -> int:
    """Entry point."""
    settings = Settings()
    observability.configure(level=settings.log_level)
    return asyncio.run(serve(settings))


if __name__ == "__main__":
    raise SystemExit(main())

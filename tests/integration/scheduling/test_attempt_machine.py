"""A state machine over jobs, attempts and escrows on the real database: frames in any order, repeated, late, of stale
sessions; nodes that die; a controller that is killed in the middle of its transactions and tries again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, TypeVar
from uuid import UUID, uuid4

import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.agent.protocol import DesiredAttempt, Exit
from qubix.bootstrap import Resources, open_resources, scope
from qubix.controller import NAME, Controller
from qubix.jobs.model import Job, WrongStep
from qubix.kernel.errors import Unauthenticated
from qubix.kernel.ids import UserId
from qubix.postgres.embedded import EmbeddedServer
from qubix.postgres.engine import make_engine
from qubix.scheduling.frames import StaleAttempt
from qubix.scheduling.placing import PlanStale
from qubix.scheduling.sessions import SessionOver
from qubix.settings import Settings
from tests.conftest import clone, drop
from tests.fakes.voices import Voice, age, consumer, controller, problems, submit, voice

T = TypeVar("T")
EXAMPLES = int(os.environ.get("QUBIX_MACHINE_EXAMPLES", "30"))

# Per job: everything that must hold at every moment, as rows that say what does not.
BROKEN = sa.text("""
SELECT 'two live attempts' AS what, job_id::text FROM attempts WHERE state IN ('CREATED', 'ACCEPTED', 'RUNNING') GROUP BY job_id HAVING count(*) > 1
UNION ALL SELECT 'a live attempt without a locked escrow', a.job_id::text FROM attempts a LEFT JOIN escrows e ON e.id = a.job_id
  WHERE a.state IN ('CREATED', 'ACCEPTED', 'RUNNING') AND e.state IS DISTINCT FROM 'LOCKED'
UNION ALL SELECT 'the job and its attempts disagree', j.id::text FROM jobs j WHERE (j.state IN ('ASSIGNED', 'RUNNING')) <> EXISTS (
  SELECT FROM attempts a WHERE a.job_id = j.id AND a.state IN ('CREATED', 'ACCEPTED', 'RUNNING'))
UNION ALL SELECT 'the fence is not the number of attempts', j.id::text FROM jobs j
  WHERE j.fence <> (SELECT count(*) FROM attempts a WHERE a.job_id = j.id) OR j.fence <> (SELECT coalesce(max(a.fence), 0) FROM attempts a WHERE a.job_id = j.id)
UNION ALL SELECT 'fences do not grow', a.id::text FROM attempts a JOIN attempts b ON b.job_id = a.job_id AND b.number > a.number AND b.fence <= a.fence
UNION ALL SELECT 'an escrow ended without its job, or a job without its escrow', j.id::text FROM jobs j JOIN escrows e ON e.id = j.id
  WHERE (j.state IN ('COMPLETED', 'FAILED', 'CANCELLED')) <> (e.state IN ('RELEASED', 'REFUNDED', 'SPLIT'))
UNION ALL SELECT 'paid is not what was charged', j.id::text FROM jobs j JOIN escrows e ON e.id = j.id
  WHERE e.state IN ('RELEASED', 'REFUNDED', 'SPLIT') AND e.paid <> (SELECT coalesce(sum(a.charge), 0) FROM attempts a WHERE a.job_id = j.id)
UNION ALL SELECT 'a success that is not paid as a success', j.id::text FROM jobs j JOIN escrows e ON e.id = j.id
  WHERE (j.state = 'COMPLETED') <> EXISTS (SELECT FROM attempts a WHERE a.job_id = j.id AND a.state = 'SUCCEEDED')
UNION ALL SELECT 'a lease of an attempt that is over', l.id::text FROM device_leases l JOIN attempts a ON a.id = l.holder_id
  WHERE a.state NOT IN ('CREATED', 'ACCEPTED', 'RUNNING')
UNION ALL SELECT 'a live attempt without its devices', a.id::text FROM attempts a WHERE a.state IN ('CREATED', 'ACCEPTED', 'RUNNING')
  AND (SELECT count(*) FROM device_leases l WHERE l.holder_id = a.id) <> cardinality(a.device_uuids)
UNION ALL SELECT 'the end was not told exactly once', j.id::text FROM jobs j
  WHERE (j.state IN ('COMPLETED', 'FAILED', 'CANCELLED'))::int <> (SELECT count(*) FROM events v WHERE v.subject_id = j.id AND v.type = 'JOB_COMPLETED')
UNION ALL SELECT 'more tries than allowed', j.id::text FROM jobs j
  WHERE (SELECT count(*) FROM attempts a WHERE a.job_id = j.id AND a.counted) > j.attempts_max
""")


class Killed(Exception):
    """The controller was killed here."""


@dataclasses.dataclass
class Bench:
    """What all examples share: one database, one loop, one consumer."""

    run: Callable[[Coroutine[Any, Any, Any]], Any]
    web: Resources
    control: Controller
    owner: AsyncConnection
    user: UserId


class AttemptMachine(RuleBasedStateMachine):
    """Two nodes, up to three jobs, and everything that may happen to them."""

    bench: ClassVar[Bench]

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Voice] = []
        self.stale: list[Voice] = []
        self.jobs: list[Job] = []
        self.known: list[tuple[int, DesiredAttempt]] = []
        self.seen: dict[UUID, tuple[str, int, float]] = {}

    def do(self, work: Awaitable[T]) -> T:
        async def whole() -> T:
            return await work

        return self.bench.run(whole())  # type: ignore[no-any-return]

    def speak(self, work: Awaitable[object]) -> None:
        """Say something that may be refused: a refusal is an answer, a crash is not."""
        with contextlib.suppress(SessionOver, StaleAttempt, WrongStep, Unauthenticated):
            self.do(work)

    def look(self) -> None:
        """Learn of attempts as an agent does: by its desired document."""
        for index, node in enumerate(self.nodes):
            for attempt in self.do(node.desired()):
                if all(attempt.id != one.id for _, one in self.known):
                    self.known.append((index, attempt))

    def voice_of(self, index: int, *, old: bool) -> Voice:
        mine = [voice for voice in self.stale if voice.node_id == self.nodes[index].node_id]
        return mine[-1] if old and mine else self.nodes[index]

    @initialize()
    def two_nodes(self) -> None:
        self.nodes = [self.do(voice(self.bench.web)) for _ in range(2)]

    @precondition(lambda self: len(self.jobs) < 3)
    @rule(retry_own=st.booleans())
    def submit(self, retry_own: bool) -> None:
        self.jobs.append(self.do(submit(self.bench.web, self.bench.user, retry_own_failures=retry_own)))
        self.do(self.bench.control.step())
        self.look()

    @rule()
    def step(self) -> None:
        self.do(self.bench.control.step())
        self.look()

    @rule(which=st.sampled_from(["conclude", "sweep", "idle", "assign"]))
    def the_controller_is_killed_in_its_transaction(self, which: str) -> None:
        before = self.picture()

        async def killed() -> None:
            control = self.bench.control
            leads = (NAME, control._epoch)
            async with scope(control._resources, leads=leads) as s:
                if which == "conclude":
                    for attempt_id in (await s.ends.reported())[:1]:
                        await s.ends.conclude(attempt_id)
                elif which == "sweep":
                    for attempt_id in (await s.ends.overdue())[:1]:
                        await s.ends.sweep(attempt_id)
                elif which == "idle":
                    for job_id in (await s.ends.idle())[:1]:
                        await s.ends.end_idle(job_id)
                else:
                    for assignment in (await s.placing.plan()).assignments[:1]:
                        await s.placing.assign(assignment)
                raise Killed

        with contextlib.suppress(Killed, PlanStale):
            self.do(killed())
        assert self.picture() == before

    @precondition(lambda self: self.known)
    @rule(data=st.data(), old=st.booleans())
    def start(self, data: st.DataObject, old: bool) -> None:
        index, attempt = data.draw(st.sampled_from(self.known))
        speaker = self.voice_of(index, old=old)
        self.speak(speaker.accept(attempt))
        self.speak(speaker.running(attempt))

    @precondition(lambda self: self.known)
    @rule(data=st.data(), what=st.sampled_from(["accept", "decline", "progress", "log", "checkpoint", "alive"]), old=st.booleans())
    def say(self, data: st.DataObject, what: str, old: bool) -> None:
        index, attempt = data.draw(st.sampled_from(self.known))
        speaker = self.voice_of(index, old=old)
        match what:
            case "accept":
                self.speak(speaker.accept(attempt))
            case "decline":
                self.speak(speaker.decline(attempt))
            case "progress":
                self.speak(speaker.progress(attempt, data.draw(st.floats(0, 100))))
            case "log":
                self.speak(speaker.log(attempt, "x", offset=data.draw(st.integers(0, 3))))
            case "checkpoint":
                self.speak(speaker.checkpoint(attempt, data.draw(st.integers(1, 3)), ran_ms=data.draw(st.integers(0, 20_000))))
            case _:
                self.speak(speaker.status(attempt))

    @precondition(lambda self: self.known)
    @rule(
        data=st.data(),
        exit=st.sampled_from(Exit),
        code=st.sampled_from([0, 0, 1]),
        signal=st.sampled_from([9, 11]),
        restore_failed=st.booleans(),
        old=st.booleans(),
    )
    def finish(self, data: st.DataObject, exit: Exit, code: int, signal: int, restore_failed: bool, old: bool) -> None:
        index, attempt = data.draw(st.sampled_from(self.known))
        members = {"exit_code": code if exit is Exit.EXITED else None, "signal": signal if exit in (Exit.SIGNALLED, Exit.KILLED) else None}
        self.speak(self.voice_of(index, old=old).finished(attempt, exit, restore_failed=restore_failed, **members))

    @rule(index=st.integers(0, 1))
    def hello_again(self, index: int) -> None:
        self.stale.append(dataclasses.replace(self.nodes[index]))
        self.do(self.nodes[index].hello())

    @rule(index=st.integers(0, 1))
    def heartbeat_of_an_empty_node(self, index: int) -> None:
        self.speak(self.nodes[index].status())

    @rule(index=st.integers(0, 1))
    def node_dies(self, index: int) -> None:
        died = sa.text("UPDATE nodes SET dead_at = clock_timestamp() WHERE id = :id")
        self.do(self.bench.owner.execute(died, {"id": self.nodes[index].node_id}))
        self.do(self.nodes[index].disconnect())

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0, 21.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(age(self.bench.owner, seconds))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))

        async def asked() -> None:
            async with scope(self.bench.web) as s:
                await s.jobs.cancel(self.bench.user, job.id)

        self.speak(asked())

    @invariant()
    def nothing_is_broken(self) -> None:
        async def rows() -> list[tuple[str, str]]:
            return [(row[0], row[1]) for row in await self.bench.owner.execute(BROKEN)]

        assert self.do(rows()) == []

    @invariant()
    def fences_and_progress_only_grow_and_an_end_is_an_end(self) -> None:
        for job_id, (state, fence, progress) in self.picture().items():
            if job_id in self.seen:
                before, old_fence, old_progress = self.seen[job_id]
                assert fence >= old_fence
                assert progress >= old_progress
                assert before == state or before not in ("COMPLETED", "FAILED", "CANCELLED")
            self.seen[job_id] = (state, fence, progress)

    def picture(self) -> dict[UUID, tuple[str, int, float]]:
        async def rows() -> dict[UUID, tuple[str, int, float]]:
            found = await self.bench.owner.execute(
                sa.text("SELECT id, state, fence, progress FROM jobs WHERE id = ANY(:ids)").bindparams(
                    sa.bindparam("ids", type_=sa.ARRAY(sa.Uuid))
                ),
                {"ids": [job.id for job in self.jobs]},
            )
            return {row.id: (row.state, row.fence, row.progress) for row in found}

        return self.do(rows())

    def teardown(self) -> None:
        """However it stood: once nobody answers any more, every job ends and every escrow is closed."""
        if not self.nodes:
            return
        for _ in range(8):
            self.do(age(self.bench.owner, 700))
            self.do(self.bench.control.step())
        assert {state for state, _, _ in self.picture().values()} <= {"COMPLETED", "FAILED", "CANCELLED"}
        self.nothing_is_broken()
        assert self.do(problems(self.bench.owner)) == []
        self.do(self.bench.owner.execute(sa.text("UPDATE nodes SET state = 'left', session = NULL, socket_open = false")))
        self.do(self.bench.owner.execute(sa.text("DELETE FROM device_quarantines")))


def test_p_b16_p_a08_attempts_and_escrows_hold_under_any_order_of_events(postgres: EmbeddedServer, tmp_path: Any) -> None:
    name = f"t_{uuid4().hex[:12]}"
    with asyncio.Runner() as runner:
        runner.run(clone(postgres, name))
        plain = Settings(data_dir=tmp_path)
        engine = make_engine(postgres.url(database=name), pool_size=1)

        async def arrange() -> Bench:
            owner = await (await engine.connect()).execution_options(isolation_level="AUTOCOMMIT")
            web = open_resources(plain, url=postgres.url("qubix_web", name), pool_size=3)
            control = open_resources(plain, url=postgres.url("qubix_controller", name), pool_size=3)
            return Bench(runner.run, web, await controller(control), owner, await consumer(web, owner, money=10**12))

        bench = AttemptMachine.bench = runner.run(arrange())
        try:
            run_state_machine_as_test(
                AttemptMachine,
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=25,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    phases=[Phase.generate],  # shrinking on a real server takes minutes; the failing sequence is printed as it was
                    database=None,
                ),
            )
        finally:

            async def clear() -> None:
                await bench.web.close()
                await bench.control._resources.close()
                await bench.owner.close()
                await engine.dispose()
                await drop(postgres, name)

            runner.run(clear())

"""The agent: one WebSocket to the web layer, dialled out, for ever; attempts that outlive it; a spool that forgets nothing.

The socket's frames go into the pure `NodeState`; what it answers is done here. A broken connection is dialled again after
at most `RETRY_S_MAX`; attempts run on meanwhile, their reports wait on disk.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import random
import shutil
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import websockets
from websockets.asyncio.client import ClientConnection, connect

from qubix.agent import state as act
from qubix.agent.attempts import AttemptRun, AttemptTools, finished_frame
from qubix.agent.containment import Containment
from qubix.agent.devices import FOREIGN_VRAM_MAX_BYTES, DeviceSource, NodeMeter, read_facts
from qubix.agent.home import AgentConfig, Home
from qubix.agent.link import Link
from qubix.agent.protocol import (
    FRAME_SIZE_MAX_BYTES,
    PROTOCOL_VERSION,
    Accept,
    Ack,
    Challenge,
    Decline,
    Desired,
    DesiredAttempt,
    Device,
    Down,
    Exit,
    Grant,
    Hello,
    Metrics,
    Missing,
    Progress,
    Refused,
    Status,
    Stop,
    Welcome,
    parse_down,
)
from qubix.agent.runner import Runner
from qubix.agent.spool import Spool
from qubix.agent.transfer import HttpTransfer, Transfer
from qubix.kernel.errors import QubixError
from qubix.kernel.failpoints import reach

RETRY_S_MIN, RETRY_S_MAX = 0.1, 4.0
TICK_S = 0.1
METRICS_S = 2.0
DEVICE_LOOKS = 3
"""So often, one look after the other, devices have to be found lost or back before it is said: a driver may be slow to answer once."""
DEVICE_HOLD_S, DEVICE_HOLD_S_MAX = 60.0, 3600.0
"""Between two such words, twice as long after each: a session that is ended costs the beats and uploads that were under way."""
RESEND_S = 10.0
SYNC_S = 0.2
HANDSHAKE_S = 10.0
DISK_FREE_MIN_BYTES = 64 << 20
"""With less on its disk, a node takes no attempt."""

log = logging.getLogger(__name__)


class SessionRefused(Exception):
    """The web layer ended the connection with a reason."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What tests shorten."""

    fence_after_s: float = act.FENCE_AFTER_S
    death_grace_s: float = 3.0
    resend_s: float = RESEND_S
    metrics_s: float = METRICS_S
    device_hold_s: float = DEVICE_HOLD_S


class AgentClient:
    """A node's agent."""

    def __init__(
        self,
        home: Home,
        config: AgentConfig,
        *,
        runner: Runner,
        devices: DeviceSource,
        containment: Containment,
        transfer: Transfer | None = None,
        settings: ClientSettings = ClientSettings(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: home, claimed by the caller; config, its agent.json; transfer, HTTP to the server unless a test gives another."""
        self._home, self._config, self._settings = home, config, settings
        self._devices, self._containment, self._monotonic = devices, containment, monotonic
        self._transfer = transfer or HttpTransfer(config.server_url)
        self._runner = runner
        self._meter = NodeMeter(devices)
        self._spool = Spool(home.spool)
        self._state = act.NodeState(now=monotonic(), fence_after_s=settings.fence_after_s)
        self._runs: dict[act.Key, AttemptRun] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sandbox: dict[str, str] = {"ok": "no", "reason": "not probed yet"}
        self._shown = devices.devices()
        """Those that answered when last looked at: what hello says."""
        self._driver = ThreadPoolExecutor(1, "driver")
        self._link: Link | None = None
        self._tools = AttemptTools(
            home,
            runner,
            self._spool,
            self._transfer,
            devices,
            containment.locate,
            containment.bury,
            self._wake,
            self._emit,
            monotonic,
            settings.death_grace_s,
        )

    @property
    def online(self) -> bool:
        """Whether a session is open."""
        return self._state.session is not None

    async def run(self) -> None:
        """Clean up after an earlier life, then serve until cancelled."""
        await asyncio.to_thread(self._containment.clean)
        self._home.clear_work()
        self._sandbox = await asyncio.to_thread(self._containment.probe)
        self._bury_orphans()
        self._spawn(self._runner.warm())
        loops = (self._tick_forever(), self._measure_forever(), self._sync_forever(), self._watch_devices_forever())
        background = [self._spawn(loop) for loop in loops]
        try:
            await self._connect_forever()
        finally:
            for task in [*background, *self._tasks]:
                task.cancel()
            await asyncio.gather(*background, *self._tasks, return_exceptions=True)
            self._spool.sync()
            self._spool.close()
            if isinstance(self._transfer, HttpTransfer):
                await self._transfer.close()

    def _bury_orphans(self) -> None:
        """Attempts of an earlier life: their processes are dead, their devices free; say so, and never start them again."""
        for journal in self._spool:
            self._state.remember(journal.attempt, journal.fence)
            if not journal.finished:
                journal.append(
                    finished_frame(
                        journal, Exit.SANDBOX_FAILED, detail="the agent was restarted while this ran", agent_ms=journal.manifest.ran_ms
                    )
                )

    # -- the connection -----------------------------------------------------------------------------------------------

    async def _connect_forever(self) -> None:
        pause_s = RETRY_S_MIN
        url = self._config.server_url.rstrip("/").replace("http", "ws", 1) + "/agent/v1/session"
        while True:
            try:
                async with connect(
                    url, max_size=FRAME_SIZE_MAX_BYTES, compression=None, open_timeout=5, ping_interval=5, ping_timeout=10
                ) as socket:
                    await self._open(socket)
                    pause_s = RETRY_S_MIN
                    await self._serve(socket)
            except (OSError, TimeoutError, websockets.WebSocketException, SessionRefused, ValueError) as error:
                log.warning("session: %s: %s", type(error).__name__, error)
                if isinstance(error, SessionRefused):
                    pause_s = RETRY_S_MAX
            finally:
                self._link = None
                self._perform(self._state.closed())
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 jitter, so that nodes do not come back all at once
            pause_s = min(pause_s * 2, RETRY_S_MAX)

    async def _open(self, socket: ClientConnection) -> None:
        """challenge → hello → welcome. Raises: SessionRefused."""
        async with asyncio.timeout(HANDSHAKE_S):
            challenge = parse_down(await socket.recv())
            if not isinstance(challenge, Challenge) or challenge.protocol != PROTOCOL_VERSION:
                raise SessionRefused(_why(challenge, "a challenge of protocol 1"))
            facts = await asyncio.to_thread(read_facts, self._shown, self._sandbox, self._home.folder)
            hello = Hello(
                node=self._config.node_id,
                signature=self._home.sign_hello(challenge.nonce, self._config.node_id),
                facts=facts,
                alive=tuple(a.id for a in self._state.alive()),
            )
            await socket.send(hello.model_dump_json())
            welcome = parse_down(await socket.recv())
        if not isinstance(welcome, Welcome):
            raise SessionRefused(_why(welcome, "a welcome"))
        if isinstance(self._transfer, HttpTransfer):
            self._transfer.token = welcome.token
        self._state.renewal_s, self._state.heartbeat_s, self._state.lease_ttl_s = (
            welcome.renewal_s,
            welcome.heartbeat_s,
            welcome.lease_ttl_s,
        )
        for journal in self._spool:
            journal.all_due()
        self._link = Link(socket, welcome.session, self._spool, self._transfer, self._settings.resend_s, self._monotonic, self._over)
        self._perform(self._state.opened(welcome.session, self._monotonic()))
        log.info("session %s open", welcome.session)

    async def _serve(self, socket: ClientConnection) -> None:
        link = self._link
        assert link is not None  # noqa: S101 set by _open
        sending = asyncio.ensure_future(link.send_forever())
        try:
            async for text in socket:
                self._receive(parse_down(text), link)
                if sending.done():
                    sending.result()
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, websockets.WebSocketException, OSError):
                await sending
            await link.close()

    def _receive(self, frame: Down, link: Link) -> None:
        now = self._monotonic()
        if isinstance(frame, Desired):
            self._perform(self._state.desired(frame, now))
        elif isinstance(frame, Grant):
            self._perform(self._state.grant(frame, now))
        elif isinstance(frame, Stop):
            self._perform(self._state.stop(frame, now))
        elif isinstance(frame, Ack):
            self._state.heard(now)
            link.acknowledged(frame.key)
        elif isinstance(frame, Missing):
            self._state.heard(now)
            link.missing(frame.attempt, frame.keys)
        elif isinstance(frame, Refused):
            raise SessionRefused(_why(frame, ""))

    def _over(self, attempt: UUID, fence: int) -> None:
        """The bytes' endpoint said of an attempt what a `stop` frame says."""
        self._perform(self._state.stop(Stop(attempt=attempt, fence=fence, reason="fenced off"), self._monotonic()))

    # -- what the state asks for --------------------------------------------------------------------------------------

    def _perform(self, actions: list[act.Action]) -> None:
        for action in actions:
            if isinstance(action, act.Check):
                self._spawn(self._check(action.attempt))
            elif isinstance(action, act.SendAccept):
                if self._link is not None:
                    self._link.say(Accept(session=self._link.session, attempt=action.attempt, fence=action.fence))
            elif isinstance(action, act.SendDecline):
                log.info("attempt %s declined: %s", action.attempt, action.reason)
                if self._link is not None:
                    self._link.say(Decline(session=self._link.session, attempt=action.attempt, fence=action.fence, reason=action.reason))
            elif isinstance(action, act.Start):
                reach("agent.granted")
                self._spawn(self._run_attempt(action.attempt, action.limit_ms))
            elif isinstance(action, act.Kill):
                if (run := self._runs.get((action.attempt, action.fence))) is not None:
                    self._spawn(run.stop(action.reason))
            elif isinstance(action, act.Forget):
                self._forget(action)
            else:
                self._spawn(self._send_status(action))

    async def _check(self, attempt: DesiredAttempt) -> None:
        refusal = await asyncio.to_thread(self._refusal, attempt)
        self._perform(self._state.checked(attempt.id, attempt.fence, refusal, self._monotonic()))

    def _refusal(self, attempt: DesiredAttempt) -> str | None:
        """Why this attempt cannot start here now; None: it can."""
        if self._sandbox.get("ok") != "yes":
            return f"no_sandbox: {self._sandbox.get('reason', '')}"
        if (free := shutil.disk_usage(self._home.folder).free) < DISK_FREE_MIN_BYTES:
            return f"disk_full: {free >> 20} MiB are left on the disk of the agent's home"
        known = {d.uuid for d in self._devices.devices()}
        for uuid in attempt.devices:
            if uuid not in known:
                return f"unknown_device: {uuid}"
            if self._devices.lost(uuid):
                return f"device_lost: the driver does not reach {uuid} any more"
            if not self._home.device_free(uuid):
                return f"device_held: {uuid}"
            foreign = self._devices.foreign_bytes(uuid)
            if foreign is not None and foreign > FOREIGN_VRAM_MAX_BYTES:
                return f"foreign_vram: {foreign} bytes of {uuid} are in use by others"
        try:
            self._containment.locate(attempt.spec.kind)
        except QubixError as error:
            return f"unknown_kind: {error.message}"
        return None

    async def _run_attempt(self, attempt: DesiredAttempt, limit_ms: int) -> None:
        key = (attempt.id, attempt.fence)
        run = self._runs[key] = AttemptRun(self._tools, attempt, limit_ms)
        try:
            if self._state.phase(*key) is act.Phase.STOPPING:
                await run.stop("stopped before its start")
            await run.run()
        except Exception:
            log.exception("attempt %s", attempt.id)
        finally:
            del self._runs[key]
        self._perform(self._state.ended(attempt.id, attempt.fence, self._monotonic()))
        await self._runner.warm()

    def _forget(self, action: act.Forget) -> None:
        if (run := self._runs.get((action.attempt, action.fence))) is not None:
            run.silence()
        journal = self._spool.get(action.attempt)
        if journal is not None and journal.fence == action.fence:
            if self._link is not None:
                self._link.forget(journal)
            self._spool.forget(action.attempt)

    async def _send_status(self, action: act.SendStatus) -> None:
        sample = await asyncio.to_thread(self._meter.sample, time.time())
        if self._link is not None and self._link.session == action.session:
            self._link.say(Status(session=action.session, seq=action.seq, generation=action.generation, alive=action.alive, sample=sample))

    def _emit(self, frame: Progress) -> None:
        if self._link is not None:
            self._link.say(frame.model_copy(update={"session": self._link.session}))

    def _wake(self) -> None:
        if self._link is not None:
            self._link.wake.set()

    # -- in the background --------------------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        while True:
            self._state.reporting(frozenset((j.attempt, j.fence) for j in self._spool if j.finished and not j.stuck))
            self._perform(self._state.tick(self._monotonic()))
            if self._link is not None:
                self._link.resend_overdue()
            await asyncio.sleep(TICK_S)

    async def _measure_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.metrics_s)
            if self._link is not None and self._runs:
                sample = await asyncio.to_thread(self._meter.sample, time.time())
                if (link := self._link) is not None:
                    link.say(Metrics(session=link.session, sample=sample))

    def _present(self) -> tuple[Device, ...]:
        return tuple(device for device in self._devices.devices() if not self._devices.lost(device.uuid))

    async def _watch_devices_forever(self) -> None:
        """End the session when a device has fallen off the bus or is back: the next one says which are here."""
        looks, hold_s = collections.deque([self._shown], DEVICE_LOOKS), self._settings.device_hold_s
        while True:
            await asyncio.sleep(self._settings.metrics_s)
            # On a thread of its own: a driver that never answers may keep that one, and no other.
            looks.append(await asyncio.get_running_loop().run_in_executor(self._driver, self._present))
            if len(looks) == DEVICE_LOOKS and set(looks) == {looks[-1]} and looks[-1] != self._shown:
                self._shown = looks[-1]
                log.warning("devices that answer: %s", ", ".join(device.uuid for device in self._shown) or "none")
                if self._link is not None:
                    await self._link.hang_up()
                await asyncio.sleep(hold_s)
                hold_s = min(hold_s * 2, DEVICE_HOLD_S_MAX)

    async def _sync_forever(self) -> None:
        while True:
            await asyncio.sleep(SYNC_S)
            await asyncio.to_thread(self._spool.sync)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("agent task failed", exc_info=error)


def _why(frame: Down, expected: str) -> str:
    if isinstance(frame, Refused):
        return f"{frame.code}: {frame.message} {frame.next_step}".strip()
    return f"{frame.t} instead of {expected}"

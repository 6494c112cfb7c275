"""A steady stream of work: consumers who run jobs of every kind, one who is paid out, one who only listens."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import threading
import time
from typing import Any, Final
from uuid import uuid4

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from qubix.cli.client import Client
from qubix.cli.demo_chain import Network, Purse
from tests.faults.sweep.record import AcknowledgedJob, AcknowledgedWithdrawal, Record
from tests.whole import FINAL, STEPS

PATIENCE_S: Final = 600.0
"""A client repeats for so long what was not answered, and waits for so long for a job's end."""
PAUSE_S: Final = 0.4
BUDGET: Final = 20_000
FUNDS: Final = 4_000_000
FAILS: Final = "import sys, time\nprint('step 1', flush=True)\ntime.sleep(0.6)\nsys.exit(3)\n"
NOT_NOW: Final = frozenset({429, 500, 502, 503, 504})


class Refused(AssertionError):
    """An answer that no fault explains."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(f"{status} {code}: {text}")
        self.status, self.code = status, code


class Patient:
    """A user's client: it repeats a request, under the same key, until it is answered. Args: url; key, the API key."""

    def __init__(self, url: str, key: str) -> None:
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=8.0)

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """The answer. Raises: Refused; TimeoutError after PATIENCE_S."""
        headers = {"Idempotency-Key": request.pop("key", uuid4().hex)}
        deadline = time.monotonic() + PATIENCE_S
        last = ""
        while time.monotonic() < deadline:
            try:
                answer = self.http.request(method, path, headers=headers, **request)
            except httpx.TransportError as error:
                last = type(error).__name__
            else:
                if answer.is_success:
                    return answer.json() if answer.headers.get("content-type", "").startswith("application/json") else answer.content
                if answer.status_code not in NOT_NOW:
                    raise Refused(answer.status_code, _code(answer), answer.text[:300])
                last = f"{answer.status_code} {answer.text[:200]}"
            time.sleep(PAUSE_S)
        raise TimeoutError(f"{method} {path} was not answered in {PATIENCE_S:.0f} s: {last}")


def _code(answer: httpx.Response) -> str:
    with contextlib.suppress(ValueError):
        return str(answer.json().get("code", ""))
    return ""


class Worker(threading.Thread):
    """Does something over and over until it is told to rest. Args: record; chance, its own generator."""

    def __init__(self, name: str, url: str, client: Client, record: Record, chance: random.Random) -> None:
        super().__init__(name=name, daemon=True)
        self.record, self.chance = record, chance
        self.client = Patient(url, str(client.http.headers["Authorization"]).removeprefix("Bearer "))
        self.user = str(self.client.ask("GET", "/api/auth/me")["id"])
        record.consumers.append(self.user)
        self._resting = threading.Event()
        self._resting.set()
        self._idle = threading.Event()
        self._idle.set()
        self._over = threading.Event()

    def rest(self) -> None:
        """Begin nothing new; returns when what it does now is done."""
        self._resting.set()
        self._idle.wait()

    def go(self) -> None:
        """Work on."""
        self._idle.clear()
        self._resting.clear()

    def end(self) -> None:
        """For good."""
        self._over.set()
        self._resting.set()
        if self.is_alive():
            self.join(PATIENCE_S * 2)
        self.client.http.close()

    def run(self) -> None:
        """Until `end`."""
        while not self._over.is_set():
            if self._resting.is_set():
                self._idle.set()
                time.sleep(0.05)
                continue
            self._idle.clear()
            try:
                self.work()
            except Exception as error:
                self.record.find(f"{self.name}: {type(error).__name__}: {error}")
                self._resting.set()
        self._idle.set()

    def work(self) -> None:
        """One piece."""
        raise NotImplementedError

    def available(self) -> int:
        """What the wallet can spend."""
        return int(self.client.ask("GET", "/api/wallets/balance")["wallets"][0]["available"])

    def draw(self, amount: int) -> None:
        """Get test money, as a real payment of the devnet's faucet, and wait for it."""
        wanted = self.available() + amount
        key = uuid4().hex
        deadline = time.monotonic() + PATIENCE_S
        while self.available() < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{amount} from the faucet never came")
            try:
                self.client.ask("POST", "/api/wallets/faucet", json={"amount": amount}, key=key)
            except Refused as refused:
                if refused.code != "faucet_refused":
                    raise
                key = uuid4().hex
            for _ in range(100):
                if self.available() >= wanted:
                    return
                time.sleep(0.3)


class Consumer(Worker):
    """Runs one job after the other. Args: kinds, of which it chooses; network, for jobs that are paid on the chain."""

    def __init__(
        self, name: str, url: str, client: Client, record: Record, chance: random.Random, kinds: tuple[str, ...], network: Network
    ):
        super().__init__(name, url, client, record, chance)
        self._kinds, self._network = kinds, network
        self._purse = Purse()

    def work(self) -> None:
        kind = self.chance.choice(self._kinds)
        steps, script, body = self._wanted(kind)
        upload = self.client.ask("POST", "/api/uploads", params={"filename": f"{uuid4().hex}.py"}, content=script.encode())
        body |= {"kind": "script", "inputs": [{"name": "main.py", "upload_id": upload["id"]}], "wait_s": 3600, "price_max": 10**7}
        made = self.client.ask("POST", "/api/jobs/create", json={"duration_max_s": 120, **body}, key=uuid4().hex)
        job = AcknowledgedJob(made["job"]["id"], self.user, kind)
        self.record.add(job)
        if made["payment"] is not None:
            self._pay(job)
        self._follow(job)
        if job.last["state"] == "COMPLETED":
            self._look_at_results(job, steps)

    def _wanted(self, kind: str) -> tuple[int, str, dict[str, Any]]:
        if kind == "failing":
            return 0, FAILS, {"budget": BUDGET}
        steps, pause_s = {"short": (3, 0.2), "long": (30, 0.4), "cancelled": (80, 0.4), "multi": (12, 0.3), "chain": (4, 0.3)}[kind]
        body: dict[str, Any] = {"budget": BUDGET, "params": {"arguments": f"{steps} {pause_s}"}}
        if kind == "multi":
            body["needs"] = {"gpus": 2}
        if kind == "chain":
            body |= {"pay": "chain", "budget": self.available() + BUDGET}
        return steps, STEPS, body

    def _pay(self, job: AcknowledgedJob) -> None:
        """Pay what is asked, again if it did not get there; what is paid too much is in the wallet."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            asked = self.client.ask("GET", f"/api/jobs/{job.id}/payment")
            if asked["state"] != "waiting":
                return
            if asked["missing"] > 0:
                with contextlib.suppress(Exception):  # the network may be away: the next look tells
                    self._send(asked["address"], int(asked["missing"]), asked["memo"].encode())
            time.sleep(12.0 if asked["missing"] else 0.5)
        raise TimeoutError(f"job {job.id} was paid and is not funded")

    def _send(self, address: str, amount: int, memo: bytes) -> None:
        if self._network.balance(self._purse.identity) < amount:
            from qubix.cli.demo_chain import FAUCET

            self._network.pay(FAUCET, self._purse.identity, max(amount, FUNDS))
            self._network.await_balance(self._purse.identity, amount)
        self._network.pay(self._purse, address, amount, memo)

    def _follow(self, job: AcknowledgedJob) -> None:
        deadline = time.monotonic() + PATIENCE_S
        asked = False
        while time.monotonic() < deadline:
            seen = self.client.ask("GET", f"/api/jobs/{job.id}")
            if seen["progress"] < job.progress:
                self.record.find(f"the progress of job {job.id} fell from {job.progress} to {seen['progress']}")
            job.last, job.progress = seen, max(job.progress, seen["progress"])
            if job.kind == "cancelled" and not asked and seen["progress"] > 3:
                self.client.ask("POST", f"/api/jobs/{job.id}/cancel", json={})
                asked = True
            if seen["state"] in FINAL and seen["receipt"]["final"]:
                job.ended = True
                return
            time.sleep(PAUSE_S)
        raise TimeoutError(f"job {job.id} ({job.kind}) is {job.last['state']} after {PATIENCE_S:.0f} s: {json.dumps(job.last)[:2500]}")

    def _look_at_results(self, job: AcknowledgedJob, steps: int) -> None:
        """Its owner has its file and its lines."""
        bytes_found = self.client.ask("GET", f"/api/jobs/{job.id}/artefacts/result.txt")
        found = bytes_found if isinstance(bytes_found, bytes) else str(bytes_found).encode()
        if hashlib.sha256(found).digest() != hashlib.sha256(str(steps).encode()).digest():
            self.record.find(f"job {job.id} has the result {found[:100]!r}, not {steps}")
        last = job.last["attempts"][-1]["id"]
        items = self.client.ask("GET", f"/api/jobs/{job.id}/logs", params={"limit": 1000, "stream": "out"})["items"]
        lines = "".join(item["text"] for item in items if item["attempt_id"] == last).splitlines()
        first = int(lines[0].removeprefix("begins at ")) if lines else -1
        if lines[1:] != [f"step {n}" for n in range(first, steps + 1)]:
            self.record.find(f"job {job.id} printed {lines}")


class Withdrawer(Worker):
    """Asks for small payments to identities that nobody paid before."""

    def work(self) -> None:
        if self.available() < 10_000:
            self.draw(FUNDS)
        one = AcknowledgedWithdrawal(self.user, Purse().identity, self.chance.randint(1, 900))
        self.client.ask("POST", "/api/wallets/withdraw", json={"address": one.destination, "amount": one.amount}, key=uuid4().hex)
        self.record.add(one)
        time.sleep(self.chance.uniform(1.0, 4.0))


class Listener(threading.Thread):
    """Follows the provider's topics over a connection that breaks, resumes from its last position, and keeps what it was told."""

    def __init__(self, url: str, client: Client, topics: list[str]) -> None:
        super().__init__(name="listener", daemon=True)
        self._url, self._topics = f"ws{url.removeprefix('http')}/api/ws", topics
        self._headers = {"Authorization": client.http.headers["Authorization"]}
        self._over = threading.Event()
        self.told: dict[int, str] = {}
        self.repeats = 0
        self._position = 0

    def run(self) -> None:
        """Until `end`."""
        while not self._over.is_set():
            with contextlib.suppress(OSError, TimeoutError, WebSocketException):
                self._listen()
            time.sleep(0.2)

    def _listen(self) -> None:
        seen: set[int] = set()
        with connect(self._url, additional_headers=self._headers, open_timeout=5, ping_interval=5, ping_timeout=5, max_size=None) as socket:
            socket.send(json.dumps({"t": "subscribe", "topics": self._topics, "from_position": self._position}))
            while not self._over.is_set():
                with contextlib.suppress(TimeoutError):
                    self._take(json.loads(socket.recv(timeout=1.0)), seen)

    def _take(self, message: dict[str, Any], seen: set[int]) -> None:
        if message["t"] != "event":
            return
        position = int(message["position"])
        self.repeats += position in seen
        seen.add(position)
        self.told[position] = message["event"]
        self._position = max(self._position, position)

    def end(self) -> None:
        """For good."""
        self._over.set()
        self.join(30)

"""A devnet in a process of its own, on a free port of the loopback."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from qubix.chains.qubic import identity, keys
from qubix.chains.qubic.transaction import Transaction

START_S = 30.0


class Person:
    """Somebody with a key; the same number is the same person."""

    def __init__(self, number: int) -> None:
        letters = "".join(chr(ord("a") + int(digit)) for digit in f"{number:055d}")
        self.subseed = keys.subseed_from_seed(letters)
        self.key = keys.public_key_from_subseed(self.subseed)
        self.identity = identity.encode(self.key)

    def pays(self, payee: bytes, amount: int, tick: int, **more: Any) -> Transaction:
        return Transaction(self.key, payee, amount, tick, **more).signed_by(self.subseed)


class Devnet:
    """The process and a client of it. Args: folder; tick_s, 0: only by `step`."""

    def __init__(self, folder: Path, tick_s: float = 0, *more: str) -> None:
        command = [sys.executable, "-m", "qubix.chains.qubic.devnet", "--data-dir", str(folder), "--port", "0", "--tick-s", str(tick_s)]
        self.process = subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.started: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.url = self.started["url"]
        token = Path(self.started["admin_token_file"]).read_text().strip()
        self.http = httpx.Client(base_url=self.url, timeout=10, trust_env=False)
        self.admin = httpx.Client(base_url=self.url + "/admin", timeout=30, trust_env=False, headers={"Authorization": f"Bearer {token}"})

    def live(self, path: str) -> Any:
        return self.http.get(f"/live/v1/{path}").raise_for_status().json()

    def query(self, name: str, **body: Any) -> Any:
        return self.http.post(f"/query/v1/{name}", json=body).raise_for_status().json()

    def order(self, path: str, **body: Any) -> Any:
        """One of the admin's calls."""
        return self.admin.post(path, json=body).raise_for_status().json()

    @property
    def tick(self) -> int:
        return int(self.live("tick-info")["tickInfo"]["tick"])

    def step(self, ticks: int = 1) -> None:
        self.order("/step", ticks=ticks)

    def fund(self, person: Person, amount: int) -> None:
        self.order("/faucet", identity=person.identity, amount=amount)
        self.step(3)

    def send(self, signed: Transaction | bytes, door: str = "", **options: Any) -> httpx.Response:
        encoded = signed if isinstance(signed, bytes) else signed.to_bytes()
        document = {"encodedTransaction": base64.b64encode(encoded).decode()}
        return self.http.post(f"{door}/live/v1/broadcast-transaction", json=document, **options)

    def balance(self, person: Person) -> dict[str, Any]:
        found: dict[str, Any] = self.live(f"balances/{person.identity}")["balance"]
        return found

    def kill(self) -> None:
        """As a power cut of the process: SIGKILL."""
        self.process.kill()
        self._gone()

    def stop(self) -> int:
        """As a supervisor does: SIGTERM. Returns: the exit code."""
        self.process.terminate()
        return self._gone()

    def _gone(self) -> int:
        code = self.process.wait(15)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.http.close()
        self.admin.close()
        return code

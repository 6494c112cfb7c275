"""The whole stack goes down, or is killed, and comes up again on the same data."""

from __future__ import annotations

import contextlib
import random
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from qubix.cli import runfile
from qubix.cli.client import Client
from qubix.cli.processes import alive
from tests.whole import STEPS, Consumer, Whole, whole_platform

pytestmark = pytest.mark.cluster


def everything(client: Client) -> dict[str, Any]:
    """All that a user can read of what is theirs, but for what the controller goes on deciding: why a job waits, and until when."""

    def read(path: str, **query: Any) -> Any:
        answer = client.get(path, **query)
        return {name: value for name, value in answer.items() if name != "position"}

    jobs = read("/api/jobs", limit=100)["items"]
    return {
        "me": read("/api/auth/me"),
        "keys": sorted((key["id"], key["name"], key["created_at"]) for key in read("/api/auth/keys")["items"]),
        "uploads": read("/api/uploads", limit=100)["items"],
        "wallets": read("/api/wallets/balance"),
        "transactions": read("/api/wallets/transactions", limit=100)["items"],
        "jobs": [{name: value for name, value in job.items() if name not in ("unplaceable", "wait_until")} for job in jobs],
        "timelines": [read(f"/api/jobs/{job['id']}/timeline") for job in jobs],
        "escrows": [read(f"/api/escrows/{job['id']}") for job in jobs],
    }


def write_a_hundred_items(consumer: Consumer) -> None:
    generator = random.Random(5)
    for n in range(50):
        content = generator.randbytes(generator.randint(1, 20_000))
        consumer.client.http.post("/api/uploads", params={"filename": f"{n}.bin.py"}, content=content).raise_for_status()
    for n in range(30):
        consumer.client.post("/api/auth/keys", {"name": f"key {n} {generator.getrandbits(32)}"})
    for _ in range(10):
        consumer.client.post("/api/wallets/faucet", {"amount": generator.randint(1, 10**9)})
    for _ in range(10):
        consumer.run(STEPS, "1 1", budget=generator.randint(10_000, 10**6), price_max=10**6, wait_s=3600)


def kill(whole: Whole, *, spare: tuple[str, ...]) -> runfile.RunFile:
    """The supervisor and every process of the platform at once, as a power cut would. Args: spare, by the beginnings of their names,
    which stay behind. Returns: what ran."""
    run = whole.run()
    assert run.supervisor is not None
    supervisor = psutil.Process(run.supervisor.pid)
    spared = [process.pid for name, process in run.processes.items() if name.startswith(spare)]
    for pid in list(spared):
        with contextlib.suppress(psutil.NoSuchProcess):
            spared += [below.pid for below in psutil.Process(pid).children(recursive=True)]
    tree = [process for process in (supervisor, *supervisor.children(recursive=True)) if process.pid not in spared]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
    _, left = psutil.wait_procs(tree, timeout=60)
    assert left == []
    return run


def test_p_a05_what_was_written_reads_the_same_after_a_restart_of_the_whole_stack() -> None:
    with whole_platform(machines=False) as whole:
        consumer = Consumer(whole)
        write_a_hundred_items(consumer)
        key = str(consumer.client.http.headers["Authorization"]).removeprefix("Bearer ")
        before = everything(consumer.client)
        assert sum(len(before[kind]) for kind in ("keys", "uploads", "transactions", "jobs")) > 100
        ran = whole.run()
        whole.down()
        assert [name for name, process in ran.processes.items() if alive(process)] == []
        assert not Path(ran.runtime_dir).exists()
        del whole.settings["network"]
        assert whole.up() is None  # the operator's key is told once
        assert "treasury" not in whole.run().processes  # a ledger stays with the network that it was born on
        with Client(whole.url, key) as client:
            assert everything(client) == before
        for spare in ("ray/", "postgres", "controller"), ():
            crashed = kill(whole, spare=spare)
            assert alive(crashed.processes["postgres"]) == ("postgres" in spare)
            assert whole.up() is None
            assert [name for name, process in crashed.processes.items() if alive(process)] == []
            assert not Path(crashed.runtime_dir).exists()
            with Client(whole.url, key) as client:
                assert everything(client) == before
        assert whole.audit() == []

"""Money in and out of the whole platform over its own devnet, whose processes are killed on the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import httpx
import pytest

from qubix.cli import runfile
from qubix.cli.client import Client
from qubix.cli.demo_chain import FAUCET, Network, Purse, books_agree
from tests.planted import lines_and_environments, logs_of, secrets_of, told
from tests.whole import Whole, whole_platform

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def platform() -> Iterator[Whole]:
    with whole_platform(machines=False, network="devnet", devnet_tick_s="0.1") as whole:
        yield whole


def network_of(platform: Whole) -> Network:
    run = runfile.read(platform.data_dir)
    assert run is not None
    return Network(run.urls["qubic"])


def until(look: Callable[[], Any], timeout_s: float = 60) -> Any:
    """What `look` finds, once it is something."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found


def available(client: Client) -> int:
    return int(client.get("/api/wallets/balance")["wallets"][0]["available"])


def kill(platform: Whole, name: str) -> None:
    """SIGKILL to one of the platform's processes; it is back when this returns."""
    before = platform.pid_of(name)
    os.kill(before, signal.SIGKILL)

    def back() -> bool:
        run = runfile.read(platform.data_dir)
        return run is not None and name in run.processes and run.processes[name].pid != before

    until(back)


def stand_still(platform: Whole) -> None:
    """No tick of the devnet, until its process is another one."""
    run = runfile.read(platform.data_dir)
    assert run is not None
    token = (platform.data_dir / "devnet" / "admin-token").read_text().strip()
    order = {"headers": {"Authorization": f"Bearer {token}"}, "json": {"kind": "halt"}}
    httpx.post(run.urls["qubic"] + "/admin/faults", timeout=30, **order).raise_for_status()  # type: ignore[arg-type]


def transaction(client: Client, which: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = client.get(f"/api/wallets/transactions/{which}")
    return found


def agree(platform: Whole) -> None:
    same, figures = books_agree(network_of(platform), platform.data_dir / "secrets" / "qubix_treasury.url")
    assert same, figures
    assert platform.audit() == []


def test_a_withdrawal_is_paid_once_though_everything_that_pays_it_is_killed_on_the_way(platform: Whole) -> None:
    ann, purse = platform.account(), Purse()
    network = network_of(platform)
    ann.post("/api/wallets/faucet", {"amount": 5_000_000})
    until(lambda: available(ann) == 5_000_000)
    stand_still(platform)  # until the devnet is killed: nothing is paid before
    asked = ann.post("/api/wallets/withdraw", {"address": purse.identity, "amount": 3_000_000}, key=uuid4().hex)
    killed = []
    for name in ("signer", "treasury", "devnet", "postgres"):
        kill(platform, name)
        killed.append(transaction(ann, asked["id"])["status"])
    until(lambda: transaction(ann, asked["id"])["status"] == "completed", timeout_s=120)
    assert killed[0] == "pending"
    assert network.await_balance(purse.identity, 1) == 3_000_000
    assert available(ann) == 2_000_000
    agree(platform)


def test_what_comes_in_while_nobody_looks_is_found_when_the_platform_is_up_again(platform: Whole) -> None:
    bob, purse = platform.account(), Purse()
    address = until(lambda: bob.post("/api/wallets/deposit", {})["address"])
    network = network_of(platform)
    network.pay(FAUCET, purse.identity, 700)
    network.await_balance(purse.identity, 700)
    os.kill(platform.pid_of("treasury"), signal.SIGSTOP)
    try:
        network.pay(purse, address, 500)
        network.await_balance(address, 500)
    finally:
        os.kill(platform.pid_of("treasury"), signal.SIGCONT)
    until(lambda: available(bob) == 500)
    agree(platform)


def test_no_process_and_no_log_tells_the_signers_key_or_any_other_secret(platform: Whole) -> None:
    secrets = secrets_of(platform)
    assert {"signer.key", "qubix_signer.url", "qubix_treasury.url", "admin-token"} <= set(secrets)
    processes = [(repr(line[:80]), line + environment) for line, environment in lines_and_environments(platform)]
    assert told(secrets, [*processes, *logs_of(platform)]) == []

"""The demo's four jobs, each with what must have happened."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from rich.rule import Rule

from qubix.cli import runfile
from qubix.cli.client import Client
from qubix.cli.demo_chain import Network, Purse
from qubix.cli.follow import FINAL
from qubix.cli.jobs import log_lines
from qubix.cli.output import Output, plain
from qubix.cli.plan import show_plan
from qubix.cli.processes import Running, alive, descendants
from qubix.cli.run import quote_id, read_request, stream, submit
from qubix.cli.telling import why_waiting
from qubix.kernel.errors import Unavailable

ACCURACY_MIN: Final = 0.95
EPOCHS: Final = 4
LIGHT: Final = {"passes": "2"}
"""Half of what `qubix run mnist` does in an epoch: enough for the accuracy, and the demo is for who wants to see it soon."""
TREE_GONE_S: Final = 5.0
RUNNING_TIMEOUT_S: Final = 60.0
_HERE: Final = Path(__file__).parent


@dataclass
class Expectations:
    """What had to happen, and what did. Args: out, told each one as it is judged; began_at, monotonic seconds."""

    out: Output
    began_at: float
    failed: list[str] = field(default_factory=list)

    def begin(self, title: str) -> None:
        """Open a part of the demo."""
        self.out.show("", Rule(f"[bold]{title}[/bold] [dim]{time.monotonic() - self.began_at:.0f} s[/dim]", align="left"))

    def check(self, what: str, truth: bool, found: object = "") -> None:
        """Judge one expectation."""
        detail = f" [dim]({found})[/dim]" if found != "" else ""
        self.out.show(f"  {'[green]✔[/green]' if truth else '[red]✘[/red]'} {what}{detail}")
        if not truth:
            self.failed.append(f"{what}: {found}" if found != "" else what)


@dataclass(frozen=True)
class Stage:
    """Where the jobs run.

    Args: out; client, the consumer's; expectations; node_homes, by node id; ports, on which the platform listens on 127.0.0.1;
        price_max, per GPU-hour, which lets a lost job go on at a dearer node.
    """

    out: Output
    client: Client
    expectations: Expectations
    node_homes: Mapping[str, Path]
    ports: tuple[int, ...]
    price_max: int

    def submit(self, target: str, name: str, *, pay: str = "wallet", **params: str) -> str:
        """Plan, show the plan, fund (or ask for the payment, where it is to be paid on chain). Returns: the job's id."""
        request = read_request(target, params, {})
        request.body["price_max"] = self.price_max
        plan = self.client.post("/api/quotes", request.body)
        show_plan(self.out, plan)
        return str(submit(self.client, request, name=name, quote_id=quote_id(plan), pay=pay)["id"])

    def node(self, node_id: str) -> runfile.RunFile:
        """The run file of a node. Raises: Unavailable when it is gone."""
        run = runfile.read(self.node_homes[node_id])
        if run is None:
            raise Unavailable(f"the node {node_id} has ended")
        return run

    def artefacts(self, job_id: str) -> list[Mapping[str, Any]]:
        """A job's results."""
        items: list[Mapping[str, Any]] = self.client.get(f"/api/jobs/{job_id}/artefacts")["items"]
        return items


@dataclass(frozen=True)
class Paid:
    """The payment on chain for a job."""

    tx_id: str
    amount: int
    explorer_url: str


def train_paid_on_chain(stage: Stage, network: Network, purse: Purse, *, then: Callable[[], None]) -> tuple[Mapping[str, Any], Paid]:
    """Job 1: paid from a wallet outside the platform, a training that runs through.

    Args: then, called once the job is funded. Returns: the job at its end, and its payment.
    """
    job_id = stage.submit("mnist", "train", pay="chain", epochs=str(EPOCHS), **LIGHT)
    asked = stage.client.get(f"/api/jobs/{job_id}/payment")
    stage.out.show(f"to pay: {asked['amount']} QU to {asked['address']}, memo {plain(asked['memo'])}")
    tx_id = network.pay(purse, asked["address"], asked["amount"], asked["memo"].encode())
    counts = _follow_payment(stage, job_id)
    expect = stage.expectations
    expect.check("the confirmations rose to 3/3 and never fell", counts == sorted(counts) and counts[-1] == 3, counts)
    then()
    job = stream(stage.out, stage.client, job_id)
    link = next((shown["explorer_url"] for shown in _deposits(stage) if shown["tx_id"] == tx_id), "")
    expect.check("the receipt names the payment", job["receipt"]["tx_ids"] == [tx_id], tx_id)
    expect.check("its page shows it", bool(link) and tx_id in httpx.get(link, timeout=10).text, link)
    expect.check("the training is COMPLETED", job["state"] == "COMPLETED", job["reason"] or job["state"])
    expect.check(f"its test accuracy is at least {ACCURACY_MIN}", *_accuracy(stage, job_id))
    numbers = _checkpoints(stage, job_id)
    expect.check("each epoch left a checkpoint", numbers == set(range(1, EPOCHS + 1)), sorted(numbers))
    _balanced(expect, job)
    return job, Paid(tx_id, asked["amount"], link)


def _follow_payment(stage: Stage, job_id: str) -> list[int]:
    """Watch the count of confirmations until the job is funded. Returns: the counts as they were shown, without repeats."""
    counts: list[int] = []
    deadline = time.monotonic() + RUNNING_TIMEOUT_S
    while time.monotonic() < deadline:
        job = stage.client.get(f"/api/jobs/{job_id}")
        shown = stage.client.get(f"/api/jobs/{job_id}/payment")
        if not counts or shown["confirmations"] != counts[-1]:
            counts.append(shown["confirmations"])
            stage.out.show(f"  {counts[-1]}/3 [dim]{plain(job['state'])}[/dim]")
        if job["state"] != "AWAITING_FUNDS":
            return counts
        time.sleep(0.1)
    raise Unavailable(f"job {job_id} is not funded after {RUNNING_TIMEOUT_S:.0f} s", next_step="read the log of the treasury")


def _deposits(stage: Stage) -> list[Mapping[str, Any]]:
    items: list[Mapping[str, Any]] = stage.client.get("/api/wallets/transactions", type="deposit")["items"]
    return items


def lose_a_node(stage: Stage) -> Mapping[str, Any]:
    """Job 2: its node dies after the second epoch. Returns: the job at its end."""
    # Longer than job 1: a fast processor must not be done before the node dies.
    job_id = stage.submit("mnist", "train, node lost", epochs=str(EPOCHS + 2), **LIGHT)
    killed: list[str] = []

    def changed(job: Mapping[str, Any]) -> None:
        if not killed and job["attempts"] and max(_checkpoints(stage, job_id), default=0) >= 2:
            node_id = job["attempts"][0]["node_id"]
            stage.out.show("[bold red]the node's raylet is killed now (SIGKILL)[/bold red]")
            kill_raylet(stage.node(node_id))
            killed.append(node_id)

    job = stream(stage.out, stage.client, job_id, on_change=changed)
    expect = stage.expectations
    attempts = job["attempts"]
    states = [attempt["state"] for attempt in attempts]
    expect.check("the job is COMPLETED all the same", job["state"] == "COMPLETED", job["reason"] or job["state"])
    expect.check("its attempts are LOST, then SUCCEEDED", states == ["LOST", "SUCCEEDED"], states)
    if len(attempts) == 2:
        expect.check("they ran on different nodes", attempts[0]["node_id"] != attempts[1]["node_id"], attempts[1]["node_name"])
        resumed = attempts[1]["resumed_from"]
        expect.check("the second resumed from the first one's checkpoint", (resumed or 0) >= 2, f"checkpoint {resumed}")
        expect.check("the first earns what its checkpoint preserved", (attempts[0]["charge"] or 0) > 0, attempts[0]["charge"])
    expect.check(f"its test accuracy is at least {ACCURACY_MIN}", *_accuracy(stage, job_id))
    _balanced(expect, job)
    return job


def misbehave(stage: Stage) -> Mapping[str, Any]:
    """Job 3: a script that means harm. Returns: the job at its end."""
    job_id = stage.submit(str(_HERE / "misbehaving.py"), "misbehave", arguments=" ".join(map(str, stage.ports)))
    job = stream(stage.out, stage.client, job_id)
    expect = stage.expectations
    tried = _observations(stage.client, job_id)
    expect.check("it tried all that it meant to", len(tried) == 2 + len(stage.ports), len(tried))
    for observation in tried:
        expect.check(f"contained: {observation['tried']}", bool(observation["contained"]), observation["found"])
    expect.check("it is FAILED", job["state"] == "FAILED", job["reason"])
    faults = [attempt["fault"] for attempt in job["attempts"]]
    expect.check("at its own fault, without another try", faults == ["consumer"], faults)
    _metered_part_paid(expect, job)
    return job


def cancel(stage: Stage) -> Mapping[str, Any]:
    """Job 4: cancelled while it runs. Returns: the job at its end."""
    job_id = stage.submit(str(_HERE / "endless.py"), "cancel")
    job = _await(stage, job_id, lambda job: job["state"] == "RUNNING" and bool(log_lines(stage.client, job_id)))
    tree = job_tree(stage.node(job["attempts"][-1]["node_id"]))
    stage.out.show(f"{len(tree)} processes run in and around its sandbox; cancelling")
    began = time.monotonic()
    stage.client.post(f"/api/jobs/{job_id}/cancel")
    gone_s = _time_until_gone(tree, began)
    job = _await(stage, job_id, lambda job: job["state"] in FINAL)
    expect = stage.expectations
    expect.check("there was a process tree", len(tree) >= 4, len(tree))
    expect.check(
        f"it is gone within {TREE_GONE_S:.0f} s",
        gone_s is not None and gone_s < TREE_GONE_S,
        f"{gone_s:.1f} s" if gone_s else "still there",
    )
    expect.check("the job is CANCELLED", job["state"] == "CANCELLED", job["reason"] or job["state"])
    _metered_part_paid(expect, job)
    return job


def kill_raylet(node: runfile.RunFile) -> None:
    """SIGKILL to a node's raylet, as if its machine had lost power. Raises: Unavailable without one."""
    for name, process in node.processes.items():
        if name.startswith("raylet/") and alive(process):
            os.kill(process.pid, signal.SIGKILL)
            return
    raise Unavailable("the node has no raylet")


def job_tree(node: runfile.RunFile) -> list[Running]:
    """The sandboxes that run below a node, with everything in them."""
    if node.supervisor is None:
        return []
    sandboxes = [process for process in descendants(node.supervisor.pid) if _comm(process.pid) == "bwrap"]
    below = [inner for sandbox in sandboxes for inner in descendants(sandbox.pid)]
    return list({process.pid: process for process in [*sandboxes, *below]}.values())


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _time_until_gone(tree: list[Running], began: float) -> float | None:
    while time.monotonic() - began < TREE_GONE_S * 2:
        if not any(alive(process) for process in tree):
            return time.monotonic() - began
        time.sleep(0.05)
    return None


def _await(stage: Stage, job_id: str, done: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    deadline = time.monotonic() + RUNNING_TIMEOUT_S
    while time.monotonic() < deadline:
        job: Mapping[str, Any] = stage.client.get(f"/api/jobs/{job_id}")
        if done(job):
            return job
        time.sleep(0.1)
    why = why_waiting(job["unplaceable"]) if job["unplaceable"] else job["reason"]
    raise Unavailable(f"job {job_id} is {job['state']} after {RUNNING_TIMEOUT_S:.0f} s", next_step=why or "")


def _accuracy(stage: Stage, job_id: str) -> tuple[bool, str]:
    names = {item["name"] for item in stage.artefacts(job_id)}
    if not any(name.endswith("metrics.json") for name in names):
        return False, f"no metrics among {sorted(names)}"
    with stage.client.download(f"/api/jobs/{job_id}/artefacts/metrics.json") as chunks:
        metrics = json.loads(b"".join(chunks))
    return metrics["accuracy"] >= ACCURACY_MIN, f"{metrics['accuracy']:.4f}"


def _checkpoints(stage: Stage, job_id: str) -> set[int]:
    entries = stage.client.get(f"/api/jobs/{job_id}/timeline")["items"]
    return {int(entry["detail"].split()[1]) for entry in entries if entry["what"] == "checkpoint"}


def _observations(client: Client, job_id: str) -> list[dict[str, Any]]:
    text = "".join(line["text"] for line in log_lines(client, job_id) if line["stream"] == "out")
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"tried"')]


def _metered_part_paid(expect: Expectations, job: Mapping[str, Any]) -> None:
    receipt = job["receipt"]
    expect.check("the metered part is paid", 0 < receipt["charged"] < receipt["held"], receipt["charged"])
    _balanced(expect, job)


def _balanced(expect: Expectations, job: Mapping[str, Any]) -> None:
    receipt = job["receipt"]
    balanced = receipt["final"] and receipt["held"] == receipt["charged"] + receipt["refunded"]
    expect.check("the rest is refunded", bool(balanced), receipt["refunded"])

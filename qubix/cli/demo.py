"""`qubix demo`: the whole product once, on real parts, with every promise checked."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from qubix.cli import config, demo_jobs, runfile, up
from qubix.cli.account import sign_up
from qubix.cli.checks import Verdict, sandbox
from qubix.cli.client import Client
from qubix.cli.demo_chain import FAUCET, Network, Purse, books_agree
from qubix.cli.demo_jobs import Expectations, Stage
from qubix.cli.jobs import attempts_table, receipt_table
from qubix.cli.output import ExitCode, Output, amount, plain, table
from qubix.cli.processes import end
from qubix.cli.provider import earnings_table
from qubix.cli.supervise import start_and_wait
from qubix.kernel.errors import QubixError, Unavailable

TEST_FUNDS: Final = 5_000_000
PURSE_FUNDS: Final = 2_000_000
"""What the consumer has in a wallet of their own, outside the platform."""
DISPUTE_WINDOW_S: Final = 5
TICK_S: Final = 0.25
EARNINGS_TIMEOUT_S: Final = 30.0
ARRIVES_TIMEOUT_S: Final = 60.0
_OPEN: Final = frozenset({"PENDING", "LOCKED", "DISPUTED"})


@dataclass(frozen=True)
class DemoNode:
    """One of the two machines: name, declared GPU, price per GPU-hour."""

    name: str
    gpu: str
    price: int


NODES: Final = (DemoNode("atlas", "RTX_4090:24GB", 1_800_000), DemoNode("borea", "RTX_3090:24GB", 1_200_000))


def register(app: typer.Typer) -> None:
    """Add this noun's commands."""
    app.command(rich_help_panel="This machine")(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the platform and the nodes running.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line at the end.")] = False,
) -> None:
    """Show it all: a platform and its devnet, two nodes, four jobs (one is paid on chain, one loses its node, one means harm, one is
    cancelled), the money and the way out of it. Exit 0 if all held."""
    out = Output(as_json)
    began = time.monotonic()
    expectations = Expectations(out, began)
    result: dict[str, Any] = {"ok": False, "seconds": 0.0, "jobs": [], "ledger_problems": None, "escrows_open": None, "chain": None}
    expectations.begin("the platform comes up")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside, it tidies up all the same
    folder = Path(tempfile.mkdtemp(prefix="qubix-demo-"))
    logs_wanted = True
    try:
        _see_that_jobs_can_run()
        with _platform(out, folder, keep=keep) as (run, operator_key):
            _play(out, folder, run, operator_key, expectations, result)
        logs_wanted = bool(expectations.failed)
    except KeyboardInterrupt:
        logs_wanted = False
        raise
    except (QubixError, httpx.HTTPError, TimeoutError) as error:
        expectations.check("nothing broke on the way", False, getattr(error, "message", None) or repr(error))
        if next_step := getattr(error, "next_step", ""):
            out.show(f"  [dim]{next_step}[/dim]")
    finally:
        logs = [] if keep else clear(folder, keep_logs=logs_wanted)
        if logs:
            result["logs"] = str(folder)
            names = ", ".join(str(log.relative_to(folder)) for log in logs)
            out.show(f"\nits logs are kept in {folder}: {names}", "qubix demo --keep leaves the platform running, to look at it")
    result |= {"ok": not expectations.failed, "seconds": round(time.monotonic() - began, 1)}
    if expectations.failed:
        result["failed"] = expectations.failed
    out.show(f"\n{'[bold green]all of it held' if result['ok'] else '[bold red]not all of it held'}[/], {result['seconds']:.0f} s")
    out.finish(result, then=_next(folder, ok=result["ok"], keep=keep), code=ExitCode.DONE if result["ok"] else ExitCode.FAILED)


def _see_that_jobs_can_run() -> None:
    """Raises: Unavailable where no sandbox starts on this machine: every job of the demo would wait for ever."""
    found = sandbox()
    if found.verdict is Verdict.FAIL:
        raise Unavailable(f"no sandbox starts here, and without one no job runs: {found.detail}", next_step=found.next_step)


def clear(folder: Path, *, keep_logs: bool) -> list[Path]:
    """Remove the demo's folder; with keep_logs all of it but what its processes said. Returns: the logs that are left."""
    patterns = ("*.log", "log/**/*", "*/supervisor.log", "*/agent.log") if keep_logs else ()
    logs = {found for pattern in patterns for found in folder.glob(pattern) if found.is_file() and found.stat().st_size}
    if not logs:
        shutil.rmtree(folder, ignore_errors=True)
        return []
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):  # a folder that still holds a log stays
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif path not in logs:
                path.unlink()
    return sorted(logs)


def _next(folder: Path, *, ok: bool, keep: bool) -> tuple[str, ...]:
    if not keep:
        return ("qubix up", "qubix signup", "qubix run mnist") if ok else ("qubix demo --keep", "qubix doctor")
    run, consumer = runfile.read(folder), folder / "consumer.json"
    if run is None or not run.live:
        return ("qubix doctor", f"rm -r {folder}")
    looks = (f"QUBIX_CONFIG={consumer} qubix jobs",) if consumer.exists() else ()
    return (*looks, f"qubix status --data-dir {folder}", f"qubix down --data-dir {folder}")


@contextlib.contextmanager
def _platform(out: Output, folder: Path, *, keep: bool) -> Iterator[tuple[runfile.RunFile, str]]:
    """The stack on its own data folder and ports; stopped at the end, and also when this process dies, unless it is kept."""
    settings = {"dispute_window_s": str(DISPUTE_WINDOW_S), "network": "devnet", "devnet_tick_s": str(TICK_S)}
    run, key = up.start_detached(folder, settings=settings, owner=None if keep else os.getpid())
    if key is None:
        raise Unavailable("a fresh platform has made no operator")
    out.show(f"application {run.urls['application']}   Ray dashboard {run.urls['ray_dashboard']}")
    try:
        yield run, key
    finally:
        if not keep:
            out.note("stopping everything")
            members = [runfile.read(folder / node.name) for node in NODES]
            end([member.supervisor for member in members if member is not None and member.supervisor is not None], grace_s=20.0)
            up.stop(folder)


def _play(out: Output, folder: Path, run: runfile.RunFile, operator_key: str, expectations: Expectations, result: dict[str, Any]) -> None:
    url = run.urls["application"]
    homes = _join_nodes(out, folder, run, expectations)
    consumer = _account(folder, url, "consumer")
    ports = tuple(run.ports[name] for name in ("ray", "ray_dashboard", "postgres"))
    with (
        Client(url, consumer.api_key) as client,
        Client(url, config_of(folder, "provider").api_key) as provider,
        Client(url, operator_key) as operator,
    ):
        network, purse = Network(run.urls["qubic"]), Purse()
        network.pay(FAUCET, purse.identity, PURSE_FUNDS)
        stage = Stage(out, client, expectations, homes, ports, max(node.price for node in NODES))
        expectations.begin("job 1: a training, paid on chain")
        network.await_balance(purse.identity, PURSE_FUNDS)
        out.show(f"the consumer's own Qubic wallet has {amount(PURSE_FUNDS)}, the wallet here is empty")
        trained, paid = demo_jobs.train_paid_on_chain(stage, network, purse, then=lambda: _draw(out, client))
        out.show(attempts_table(trained), receipt_table(trained))
        result["jobs"].append(_summary(stage, trained))
        for title, play in (
            ("job 2: the same, and its node dies", demo_jobs.lose_a_node),
            ("job 3: a script that means harm", demo_jobs.misbehave),
            ("job 4: cancelled while it runs", demo_jobs.cancel),
        ):
            expectations.begin(title)
            job = play(stage)
            out.show(attempts_table(job), receipt_table(job))
            result["jobs"].append(_summary(stage, job))
        expectations.begin("the money")
        _pay_out(out, provider, result["jobs"], expectations)
        _audit(out, client, operator, expectations, result, drawn=TEST_FUNDS + paid.amount)
        expectations.begin("the way out: a withdrawal to a Qubic identity")
        payout = _withdraw(out, provider, network, expectations)
        agree, figures = books_agree(network, folder / "secrets" / "qubix_treasury.url")
        expectations.check("the ledger equals the chain", agree, figures)
        links = [paid.explorer_url, payout["explorer_url"]]
        result["chain"] = {
            "funding_tx": paid.tx_id,
            "payout_tx": payout["tx_id"],
            "explorer": links,
            "ledger_equals_chain": agree,
        }
        out.show("", *(f"{what}: {link}" for what, link in zip(("paid in", "paid out"), links, strict=True)))


def _draw(out: Output, client: Client) -> None:
    """Test funds for the other jobs: on the devnet a real payment, which arrives while the first one runs."""
    client.post("/api/wallets/faucet", {"amount": TEST_FUNDS})
    out.show(f"the consumer draws {amount(TEST_FUNDS)} of test funds, a payment of the devnet's faucet")


def _withdraw(out: Output, provider: Client, network: Network, expectations: Expectations) -> Mapping[str, Any]:
    """The provider takes out all that was earned. Returns: the withdrawal at its end."""
    purse = Purse()
    earned = provider.get("/api/wallets/balance")["wallets"][0]["available"]
    asked = provider.post("/api/wallets/withdraw", {"address": purse.identity, "amount": earned})
    out.show(f"the provider withdraws {amount(earned)} to {purse.identity}")
    deadline = time.monotonic() + ARRIVES_TIMEOUT_S
    said = ""
    while (now := provider.get(f"/api/wallets/transactions/{asked['id']}"))["status"] == "pending" and time.monotonic() < deadline:
        if now["detail"] != said:
            said = now["detail"]
            out.show(f"  [dim]{plain(said)}[/dim]")
        time.sleep(0.2)
    ended: Mapping[str, Any] = now
    expectations.check("it is paid", now["status"] == "completed", now["detail"] or now["status"])
    expectations.check("the identity has it on the chain", network.balance(purse.identity) == earned, amount(earned))
    return ended


def _join_nodes(out: Output, folder: Path, run: runfile.RunFile, expectations: Expectations) -> dict[str, Path]:
    expectations.begin("two nodes join")
    _account(folder, run.urls["application"], "provider")
    owner = run.supervisor.pid if run.supervisor is not None else os.getpid()

    def join(node: DemoNode) -> runfile.RunFile:
        line = [sys.executable, "-m", "qubix.cli.main", "provider", "join", "--home", str(folder / node.name), "--data-dir", str(folder)]
        line += ["--name", node.name, "--declare-gpu", node.gpu, "--price", str(node.price), "--owner-pid", str(owner)]
        return start_and_wait(line, folder / node.name, f"the node {node.name}", extra={"QUBIX_CONFIG": str(folder / "provider.json")})

    with ThreadPoolExecutor(len(NODES)) as pool:
        joined = list(pool.map(join, NODES))
    for node in NODES:
        out.show(f"{node.name}: {node.gpu} (declared) for {amount(node.price)} per GPU-hour")
    with Client(run.urls["application"]) as anybody:
        offers = anybody.get("/api/gpus/search")["items"]
    expectations.check("both are on offer, shown as declared", [offer["detected_by"] for offer in offers] == ["declared"] * 2, len(offers))
    return {node_run.facts["node_id"]: folder / node.name for node, node_run in zip(NODES, joined, strict=True)}


def _account(folder: Path, url: str, name: str) -> config.Account:
    account, _ = sign_up(url, f"{name}@qubix.example", secrets.token_urlsafe(16))
    path = folder / f"{name}.json"
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"url": account.url, "api_key": account.api_key}, file)
    return account


def config_of(folder: Path, name: str) -> config.Account:
    """An account of the demo, as its file keeps it."""
    return config.Account(**json.loads((folder / f"{name}.json").read_text()))


def _summary(stage: Stage, job: Mapping[str, Any]) -> dict[str, Any]:
    receipt = job["receipt"]
    return {
        "id": job["id"],
        "name": job["name"],
        "status": job["state"],
        "held": receipt["held"],
        "charged": receipt["charged"],
        "refunded": receipt["refunded"],
        "attempts": [
            {"node": line["node"], "status": line["status"], "resumed_from": line["resumed_from"]} for line in receipt["attempts"]
        ],
        "artefacts": [{name: item[name] for name in ("name", "sha256", "size")} for item in stage.artefacts(job["id"])],
    }


def _pay_out(out: Output, provider: Client, jobs: list[dict[str, Any]], expectations: Expectations) -> None:
    """The provider's earnings: pending for the dispute window, then paid."""
    charged = sum(job["charged"] for job in jobs)
    first = provider.get("/api/earnings")["items"]
    out.show(earnings_table(first))
    pending = sum(item["pending"] for item in first)
    deadline = time.monotonic() + EARNINGS_TIMEOUT_S
    last = first
    while sum(item["pending"] for item in last) > 0 and time.monotonic() < deadline:
        time.sleep(0.5)
        last = provider.get("/api/earnings")["items"]
    out.show(earnings_table(last))
    available = sum(wallet["available"] for wallet in provider.get("/api/wallets/balance")["wallets"])
    expectations.check("earnings were pending first", pending > 0, amount(pending))
    expectations.check("then all were paid", sum(item["pending"] for item in last) == 0, amount(sum(item["total"] for item in last)))
    expectations.check(
        "the provider's wallet holds what the jobs were charged", available == charged, f"{amount(available)} of {amount(charged)}"
    )


def _audit(out: Output, client: Client, operator: Client, expectations: Expectations, result: dict[str, Any], *, drawn: int) -> None:
    audit = operator.get("/api/audit")
    states = {job["id"]: client.get(f"/api/escrows/{job['id']}")["state"] for job in result["jobs"]}
    wallet = client.get("/api/wallets/balance")["wallets"][0]
    spent = sum(job["charged"] for job in result["jobs"])
    result["ledger_problems"] = sum(problem["count"] for problem in audit["problems"])
    result["escrows_open"] = sum(state in _OPEN for state in states.values())
    out.show(table("Escrows", ("job", "state"), [(job["name"], states[job["id"]]) for job in result["jobs"]]))
    expectations.check("no escrow is open", result["escrows_open"] == 0, ", ".join(states.values()))
    left = f"{amount(wallet['available'])} available, {amount(wallet['in_escrow'])} in escrow"
    expectations.check("the consumer has the rest back", wallet["available"] == drawn - spent and wallet["in_escrow"] == 0, left)
    expectations.check(
        "the ledger's audit finds nothing", audit["ok"] and result["ledger_problems"] == 0, audit["problems"] or "sum 0, every rule"
    )

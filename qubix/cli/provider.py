"""Share a GPU: `qubix provider join | status | price | pause | drain | leave`."""

from __future__ import annotations

import dataclasses
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from qubix.cli import config, runfile
from qubix.cli.client import Client, connect
from qubix.cli.output import JsonFlag, Output, YesFlag, ago, amount, ask, memory, table
from qubix.cli.processes import end, seen
from qubix.cli.supervise import signals_set, start_and_wait
from qubix.kernel.errors import Conflict, Invalid, NotFound, QubixError

app = typer.Typer(help="Share this machine's GPUs and earn.", no_args_is_help=True)
STOP_TIMEOUT_S: Final = 30.0
HomeOption = Annotated[
    Path | None,
    typer.Option(
        help="The agent's folder, with its key and spool; default: `node` in this user's own data folder, whatever --data-dir says."
    ),
]
NodeOption = Annotated[str | None, typer.Option("--node", help="A machine's id or name; default: this one, or the only one.")]


@app.command()
def join(
    price: Annotated[int | None, typer.Option(min=1, help="Whole units per GPU-hour; asked for at a terminal.")] = None,
    declare_gpu: Annotated[
        list[str] | None, typer.Option("--declare-gpu", help="MODEL:<GB>GB[:COUNT], for a machine that NVML cannot ask; shown as declared.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call this machine.")] = None,
    region: Annotated[str, typer.Option(help="Lower case, as eu-central.")] = "eu",
    price_class: Annotated[str, typer.Option(help="economy, standard or premium.")] = "standard",
    address: Annotated[str | None, typer.Option(help="host:port of the cluster's head; default: the platform on this machine.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the cluster's token.")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The platform's data folder, where it runs on this machine.")] = None,
    home: HomeOption = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is online; qubix provider leave stops it.")] = False,
    owner_pid: Annotated[int | None, typer.Option(hidden=True)] = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Share this machine's GPUs: detects them, registers them, joins the Ray cluster, and stays until Ctrl-C. Repeating it is harmless."""
    out = Output(as_json)
    folder = (home or runfile.default_home()).resolve()
    known = runfile.read(folder)
    if known is not None and known.live and known.state == "ready" and runfile.is_node(known):
        out.show(f"this machine's node runs already; before it joins another platform: qubix down --data-dir {shlex.quote(str(folder))}")
        known.facts.pop("price_per_hour", None)  # what it was when the node started
        out.finish(
            _told(out, known, folder, None),
            then=("qubix provider status", f"qubix provider price {price or 'NEW'}", runfile.at_home("qubix provider leave", folder)),
        )
        return
    asked = _price(ask(out, yes, price=(None if price is None else str(price), "Price per GPU-hour in QU"))[0])
    if detach:
        line = [sys.executable, "-m", "qubix.cli.main", *(part for part in sys.argv[1:] if part not in ("--detach", "-d", "--json"))]
        line += ["--home", str(folder), "--price", str(asked)]  # what stands last wins; the supervisor has another current folder
        for option, place in (("--data-dir", data_dir), ("--token-file", token_file)):
            line += [option, str(place.resolve())] if place is not None else []
        run = start_and_wait(line, folder, "the node")
        out.finish(
            _told(out, run, folder, asked),
            then=("qubix provider status", "qubix provider price NEW", runfile.at_home("qubix provider leave", folder)),
        )
        return
    from qubix.cli.member import Member, Membership, made_for_this, unmake  # heavy: only where a node is started

    head, token = _cluster(address, token_file, data_dir)
    account = config.load()
    plan = Membership(
        url=account.url,
        api_key=account.api_key,
        address=head,
        token_file=token,
        home=folder,
        declared=tuple(declare_gpu or ()),
        name=name or platform.node() or "node",
        region=region,
        price_per_hour=asked,
        price_class=price_class,
        owner=seen(owner_pid) if owner_pid else None,
    )
    fresh = made_for_this(folder)
    with runfile.locked(folder):
        runfile.clear_remains(folder)
        member = Member(plan, say=lambda step: out.note(f"[dim]· {step}[/dim]"))
        with signals_set(member.stopping):
            try:
                member.start()
                member.announce()
                document = _told(out, member.run, folder, asked)
                if out.as_json:
                    out.finish(document)
                out.note("online; Ctrl-C leaves the cluster, earnings stay")
                member.watch()
            except QubixError:
                if not member.stopping.is_set():
                    raise
            finally:
                if member.answer is not None:
                    out.note("leaving the cluster")
                member.stop()
                if fresh:
                    unmake(folder)


@app.command()
def status(as_json: JsonFlag = False) -> None:
    """Show the machines, their GPUs and offers, and what they earned."""
    out = Output(as_json)
    with connect() as client:
        mine = client.get("/api/providers/me")
        earnings = client.get("/api/earnings")["items"]
        nodes = [client.get(f"/api/nodes/{node['id']}") for node in mine["nodes"] if node["state"] != "left"]
    document = {"provider": mine["id"], "nodes": nodes, "earnings": earnings}
    if nodes:
        _show_machines(out, nodes)
    else:
        out.show("no machine of yours is in the market")
    if any(item["jobs"] for item in earnings):
        out.show(earnings_table(earnings))
    else:
        out.show("no job has earned anything yet")
    then = (
        ("qubix provider price NEW", "qubix provider pause", "qubix provider drain") if nodes else ("qubix provider join", "qubix wallet")
    )
    out.finish(document, then=then)


def _show_machines(out: Output, nodes: list[Mapping[str, Any]]) -> None:
    rows = [
        (
            node["name"],
            node["presence"] + (" paused" if node["paused"] else "") + (" draining" if node["draining"] else ""),
            f"{len(node['devices'])} × {offer['model']} {memory(offer['vram_bytes'])} ({offer['detected_by']})",
            f"{offer['gpus_free']}/{offer['gpus']}",
            amount(offer["price_per_hour"]),
            node["sandbox"].get("limits") if node["sandbox"].get("ok") == "yes" else f"no: {node['sandbox'].get('reason')}",
            ago(node["last_status_at"]),
        )
        for node in nodes
        for offer in node["offers"]
    ]
    out.show(
        table("Machines", ("name", "state", "gpus", "free", "per GPU-hour", "sandbox", "last heard"), rows, right=("free", "per GPU-hour"))
    )


@app.command()
def price(
    units: Annotated[int, typer.Argument(min=1, help="Whole units per GPU-hour.")], node: NodeOption = None, as_json: JsonFlag = False
) -> None:
    """Change the price; quotes and jobs that exist keep theirs."""
    out = Output(as_json)
    with connect() as client:
        changed = client.patch(f"/api/nodes/{node_of(client, node)}", {"price_per_hour": units})
    out.show(f"{changed['name']} now asks {amount(units)} per GPU-hour")
    out.finish(changed, then=("qubix provider status", "qubix offers"))


@app.command()
def pause(
    node: NodeOption = None, resume: Annotated[bool, typer.Option("--resume", help="Take jobs again.")] = False, as_json: JsonFlag = False
) -> None:
    """Take the offers off the market for a while; what runs goes on."""
    out = Output(as_json)
    with connect() as client:
        changed = client.patch(f"/api/nodes/{node_of(client, node)}", {"paused": not resume})
    out.show(f"{changed['name']} {'takes jobs again' if resume else 'is paused'}")
    out.finish(changed, then=("qubix provider pause --resume", "qubix provider status"))


@app.command()
def drain(
    node: NodeOption = None, undo: Annotated[bool, typer.Option("--undo", help="Take jobs again.")] = False, as_json: JsonFlag = False
) -> None:
    """Take no new jobs and let the running ones end: before maintenance, or before leaving."""
    out = Output(as_json)
    with connect() as client:
        changed = client.post(f"/api/nodes/{node_of(client, node)}/drain", {"draining": not undo})
    out.show(f"{changed['name']} {'takes jobs again' if undo else 'drains'}")
    out.finish(changed, then=("qubix provider status", "qubix provider leave", "qubix provider drain --undo"))


@app.command()
def leave(node: NodeOption = None, home: HomeOption = None, yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    """Leave the market and stop this machine's node; what was earned stays yours. Refused while a job runs or a quote holds it: drain first."""
    out = Output(as_json)
    folder = (home or runfile.default_home()).resolve()
    out.confirm("Leave the market with this machine?", yes)
    run = runfile.read(folder)
    here = run.facts.get("node_id") if run is not None and run.live and run.supervisor is not None else None
    with connect() as client:
        nodes = client.get("/api/providers/me")["nodes"]
        if node is None and any(known["id"] == here and known["state"] == "left" for known in nodes):
            node_id, seen_lately = str(here), True  # it has left the market already; what runs here is still to be ended
        else:
            node_id = node_of(client, node, folder)
            seen_lately = client.get(f"/api/nodes/{node_id}")["presence"] != "offline"
            client.post(f"/api/nodes/{node_id}/leave")
    stopped = run is not None and run.supervisor is not None and here == node_id
    if stopped and run is not None and run.supervisor is not None:
        end([run.supervisor], grace_s=STOP_TIMEOUT_S)
    out.show("left; earnings stay")
    if not stopped and seen_lately:
        out.show("its processes run on where they were started: end them there with Ctrl-C, or qubix provider leave --home FOLDER")
    out.finish({"left": node_id, "stopped": stopped}, then=("qubix wallet", "qubix provider join"))


def node_of(client: Client, wanted: str | None, home: Path | None = None) -> str:
    """The id of the machine that is meant: named, or this one, or the only one.

    Raises: NotFound for an unknown one; Conflict where several could be meant.
    """
    nodes = [node for node in client.get("/api/providers/me")["nodes"] if node["state"] != "left"]
    if wanted is None:
        run = runfile.read(home or runfile.default_home())
        wanted = run.facts.get("node_id") if run is not None and run.live else None
    if wanted is None and len(nodes) == 1:
        return str(nodes[0]["id"])
    names = ", ".join(node["name"] for node in nodes) or "none"
    if wanted is None:
        raise Conflict(f"you have several machines: {names}", next_step="say which: --node NAME")
    found = [node["id"] for node in nodes if wanted in (node["id"], node["name"])]
    if len(found) != 1:
        raise NotFound(f"no machine of yours is called {wanted}", next_step=f"yours: {names}")
    return str(found[0])


def earnings_table(earnings: list[Mapping[str, Any]]) -> Any:
    """Earnings per asset; pending ones wait for their dispute window."""
    columns = ("asset", "pending", "paid", "today", "month", "jobs")
    rows = [
        (
            item["asset"],
            *(amount(item[name], item["asset"]) for name in ("pending", "total", "today", "month")),
            item["jobs"],
        )
        for item in earnings
    ]
    return table("Earnings", columns, rows, right=columns[1:])


def _price(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise Invalid(f"{text!r} is no price", next_step="give whole units of at least 1: --price 1500")
    return int(text)


def _cluster(address: str | None, token_file: Path | None, data_dir: Path | None) -> tuple[str, Path]:
    if address and token_file:
        return address, token_file.resolve()
    if address or token_file:
        raise Invalid("--address and --token-file belong together", next_step="give both, or neither on the platform's own machine")
    folder = (data_dir or runfile.default_data_dir()).resolve()
    run = runfile.read(folder)
    if run is None or not run.live or "ray_address" not in run.facts:
        raise Invalid(
            f"no platform runs on {folder}",
            next_step="name the cluster with --address HOST:PORT --token-file FILE, or the platform's data folder with --data-dir",
        )
    token = Path(run.facts["ray_token_file"])
    if not os.access(token, os.R_OK):
        raise Invalid(f"the cluster's token {token} is not readable for this user", next_step="ask the platform's owner for it")
    return run.facts["ray_address"], token


def _told(out: Output, run: runfile.RunFile, folder: Path, asked: int | None) -> dict[str, Any]:
    rows = [
        ("node", run.facts.get("node_id")),
        ("provider", run.facts.get("provider_id")),
        ("platform", run.urls.get("application")),
        ("home", str(folder)),
        *([("per GPU-hour", amount(int(asks)))] if (asks := run.facts.get("price_per_hour")) else []),
    ]
    out.show(table("This machine shares its GPUs", ("what", ""), rows))
    if asks and asked is not None and int(asks) != asked:  # a restart by systemd, say, must not undo a change of price
        out.show(f"it was here before and keeps its price; to change it: qubix provider price {asked}")
    return {"home": str(folder), **dataclasses.asdict(run)}

"""Jobs of this account: `qubix jobs`, `show`, `logs`, `cancel`, `artefacts`."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from qubix.cli.client import Client, connect
from qubix.cli.follow import FINAL, follow
from qubix.cli.output import JsonFlag, Output, YesFlag, ago, amount, job_code, table, tame
from qubix.cli.quantities import spoken
from qubix.kernel.errors import Conflict, NotFound

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
_PANEL = "Jobs"


def register(app: typer.Typer) -> None:
    """Add this noun's commands."""
    for command in (jobs, show, logs, cancel, artefacts):
        app.command(rich_help_panel=_PANEL)(command)


def jobs(limit: Annotated[int, typer.Option(min=1, max=1000)] = 20, as_json: JsonFlag = False) -> None:
    """List the jobs, newest first."""
    out = Output(as_json)
    with connect() as client:
        items = client.pages("/api/jobs", items_max=limit)
    rows = [
        (
            item["id"],
            item.get("name") or item.get("kind"),
            item["state"],
            f"{item.get('progress') or 0:.0f} %",
            amount(item.get("ceiling")),
            ago(item.get("created_at")),
        )
        for item in items
    ]
    out.show(table("Jobs", ("id", "name", "state", "progress", "ceiling", "made"), rows, right=("progress", "ceiling")))
    out.finish({"items": items}, then=("qubix show JOB", "qubix logs -f JOB", "qubix run mnist"))


def show(job_id: JobArgument, as_json: JsonFlag = False) -> None:
    """Show a job with its attempts and its receipt. Exit 0 done, 100 failed, 101 not finished, 103 cancelled."""
    out = Output(as_json)
    with connect() as client:
        job = client.get(f"/api/jobs/{job_id}")
    out.show(facts_table(job), attempts_table(job), receipt_table(job))
    then: tuple[str, ...] = (f"qubix logs -f {job_id}", f"qubix cancel {job_id}")
    if job["state"] in FINAL:
        then = (f"qubix logs {job_id}", f"qubix artefacts {job_id} --download .", f"qubix escrow dispute {job_id}")
    out.finish(job, then=then, code=job_code(job["state"]))


def logs(
    job_id: JobArgument,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the job ends; exits as qubix show does.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print a job's log lines."""
    out = Output(as_json)
    with connect() as client:
        if not following:
            lines = log_lines(client, job_id)
            for line in lines:
                write_line(out, line)
            out.finish({"items": lines}, then=(f"qubix logs -f {job_id}", f"qubix show {job_id}"))
            return
        kept: list[Mapping[str, Any]] = []

        def line_came(line: Mapping[str, Any]) -> None:
            kept.append(line)
            write_line(out, line)

        job = follow(client, job_id, on_line=line_came)
    out.finish(
        {"items": kept, "state": job["state"]}, then=(f"qubix show {job_id}", f"qubix artefacts {job_id}"), code=job_code(job["state"])
    )


def cancel(job_id: JobArgument, yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    """Cancel a job: its processes end within seconds, the metered part is paid, the rest comes back."""
    out = Output(as_json)
    out.confirm(f"Cancel {job_id}? What ran so far is paid, the rest is refunded.", yes)
    with connect() as client:
        job = client.post(f"/api/jobs/{job_id}/cancel")
    out.show("cancellation asked for")
    out.finish(job, then=(f"qubix show {job_id}", "qubix wallet"))


def artefacts(
    job_id: JobArgument,
    download: Annotated[Path | None, typer.Option(help="Fetch them all into this folder, checksums verified.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List a job's results, or fetch them."""
    out = Output(as_json)
    with connect() as client:
        answer = client.get(f"/api/jobs/{job_id}/artefacts")
        items = answer["items"] if isinstance(answer, dict) else answer
        if download is not None:
            for item in items:
                item["path"] = str(fetch(client, job_id, item, download))
    rows = [(item["name"], item["size"], item["sha256"], item.get("path", "")) for item in items]
    out.show(table("Artefacts", ("name", "bytes", "sha256", "path"), rows, right=("bytes",)))
    out.finish({"items": items}, then=(f"qubix artefacts {job_id} --download .", f"qubix show {job_id}"))


def fetch(client: Client, job_id: str, item: Mapping[str, Any], folder: Path) -> Path:
    """Download one artefact and check it. Raises: NotFound for a name that would leave the folder; Conflict for a wrong checksum."""
    target: Path = (folder / item["name"]).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise NotFound(f"the artefact's name {item['name']!r} points outside of {folder}")
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    partial = target.with_name(target.name + ".part")
    with client.download(f"/api/jobs/{job_id}/artefacts/{quote(item['name'])}") as chunks, partial.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != item["sha256"]:
        partial.unlink()
        raise Conflict(f"{item['name']} arrived damaged", next_step="download it again")
    partial.replace(target)
    return target


def log_lines(client: Client, job_id: str) -> list[Mapping[str, Any]]:
    """All log pieces that are stored now."""
    lines: list[Mapping[str, Any]] = []
    after = 0
    while True:
        page = client.get(f"/api/jobs/{job_id}/logs", after=after)
        if not page["items"]:
            return lines
        lines += page["items"]
        after = page["items"][-1]["position"]


def write_line(out: Output, line: Mapping[str, Any]) -> None:
    """Print a piece of a log: as it is into a file or a pipe, tamed on a terminal."""
    if not out.as_json:
        sys.stdout.write(tame(line["text"]) if sys.stdout.isatty() else line["text"])
        sys.stdout.flush()


def facts_table(job: Mapping[str, Any]) -> Any:
    """What a job is and where it stands."""
    rows = [
        ("id", job["id"]),
        ("kind", f"{job.get('kind')}  {' '.join(f'{k}={v}' for k, v in (job.get('params') or {}).items())}"),
        ("state", job["state"] + (f" ({job['reason']})" if job.get("reason") else "")),
        ("progress", f"{job.get('progress') or 0:.0f} %  {job.get('operation') or ''}"),
        ("ceiling", amount(job.get("ceiling"))),
    ]
    if unplaceable := job.get("unplaceable"):
        rows.append(("waiting", f"{unplaceable.get('message')} {unplaceable.get('relaxation') or ''}"))
    if job["state"] in FINAL and job.get("reason_detail"):
        rows.append(("detail", str(job["reason_detail"])[-500:]))
    return table(job.get("name") or "Job", ("what", ""), rows)


def attempts_table(job: Mapping[str, Any]) -> Any:
    """A job's tries: where, how they ended, what they cost; while it runs, so far."""
    rows = [
        (
            line["number"],
            line["node"],
            line["status"],
            line["resumed_from"],
            spoken(line["metered_ms"] / 1000),
            amount(line["charge"]),
            line["reason"] or "",
        )
        for line in job["receipt"]["attempts"]
    ]
    columns = ("attempt", "node", "state", "from checkpoint", "metered", "charge", "reason")
    return table("Attempts", columns, rows, right=("from checkpoint", "charge"))


def receipt_table(job: Mapping[str, Any]) -> Any:
    """held = charged + refunded."""
    receipt = job["receipt"]
    rows = [(name, amount(receipt[name])) for name in ("held", "charged", "refunded", "fee")]
    return table("Receipt", ("what", "amount"), [*rows, ("escrow", receipt["escrow_state"])], right=("amount",))

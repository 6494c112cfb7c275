"""Jobs of this account: `qubix jobs`, `show`, `logs`, `cancel`, `artefacts`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from qubix.cli.client import Client, connect
from qubix.cli.follow import follow
from qubix.cli.output import JsonFlag, Output, YesFlag, ago, amount, job_code, plain, table
from qubix.cli.payment import payment_table
from qubix.cli.quantities import spoken
from qubix.cli.screen import Lines, Nowhere, Screen
from qubix.cli.telling import FINAL, Narrator, one_line, progress_of, why_waiting
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
    if not items:
        out.show("this account has no job yet")
        out.finish({"items": []}, then=("qubix run mnist", "qubix offers"))
        return
    rows = [
        (
            item["id"],
            item.get("name") or item.get("kind"),
            item["state"],
            f"{progress_of(item)} %",
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
    paid_on_chain = [payment_table(job["payment"])] if job.get("payment") else []
    out.show(facts_table(job), *paid_on_chain, attempts_table(job), receipt_table(job))
    then: tuple[str, ...] = (f"qubix logs -f {job_id}", f"qubix cancel {job_id}")
    if job["state"] in FINAL:
        ran = (f"qubix logs {job_id}", f"qubix artefacts {job_id} --download .", f"qubix escrow dispute {job_id}")
        then = ran if job["attempts"] else ("qubix jobs", "qubix wallet")
    out.finish(job, then=then, code=job_code(job["state"]))


def logs(
    job_id: JobArgument,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the job ends; exits as qubix show does.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print a job's log lines: they alone on stdout, what became of its attempts on stderr."""
    out = Output(as_json)
    screen: Screen = Nowhere() if as_json else Lines(out)
    with connect() as client:
        if following:
            _follow_logs(out, screen, client, job_id)
            return
        job = client.get(f"/api/jobs/{job_id}")
        lines = log_lines(client, job_id)
    narrator = Narrator(screen.say)
    if len(job["attempts"]) > 1:
        narrator.look(job)
    for line in lines:
        if len(job["attempts"]) > 1:
            narrator.before(line)
        screen.write(line["text"])
    narrator.flush()
    if not lines:
        out.note(f"there is no log line: the job is {job['state']}")
    out.finish({"items": lines}, then=(f"qubix logs -f {job_id}", f"qubix show {job_id}"))


def _follow_logs(out: Output, screen: Screen, client: Client, job_id: str) -> None:
    narrator = Narrator(screen.say)
    kept: list[Mapping[str, Any]] = []

    def line_came(line: Mapping[str, Any]) -> None:
        narrator.before(line)
        kept.append(line)
        screen.write(line["text"])

    job = follow(client, job_id, on_look=narrator.look, on_line=line_came, on_change=lambda _: narrator.flush())
    why = plain(one_line(job.get("reason_detail") or job.get("reason") or ""))
    out.note(f"the job is {job['state']}" + (f": {why}" if why else ""))
    then = (f"qubix show {job_id}", f"qubix artefacts {job_id}" if job["attempts"] else "qubix wallet")
    out.finish({"items": kept, "state": job["state"]}, then=then, code=job_code(job["state"]))


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
        items = answer["items"]
        if not items:
            _no_artefacts(out, client.get(f"/api/jobs/{job_id}"))
            return
        if download is not None:
            for item in items:
                item["path"] = str(fetch(client, job_id, item, download))
    rows = [(item["name"], item["size"], item["sha256"], item.get("path", "")) for item in items]
    out.show(table("Artefacts", ("name", "bytes", "sha256", "path"), rows, right=("bytes",)))
    out.finish({"items": items}, then=(f"qubix artefacts {job_id} --download .", f"qubix show {job_id}"))


def _no_artefacts(out: Output, job: Mapping[str, Any]) -> None:
    job_id, ended = job["id"], job["state"] in FINAL
    when = "it ended without storing one" if ended else "they appear once the job has stored them"
    out.show(f"job {job_id} is {job['state']} and has no artefact: {when}")
    out.finish({"items": []}, then=(f"qubix logs {job_id}", f"qubix show {job_id}") if ended else (f"qubix logs -f {job_id}",))


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


def facts_table(job: Mapping[str, Any]) -> Any:
    """What a job is and where it stands."""
    rows = [
        ("id", job["id"]),
        ("kind", f"{job.get('kind')}  {' '.join(f'{k}={v}' for k, v in (job.get('params') or {}).items())}"),
        ("state", job["state"] + (f" ({job['reason']})" if job.get("reason") else "")),
        ("progress", f"{progress_of(job)} %  {job.get('operation') or ''}"),
        ("ceiling", amount(job.get("ceiling"))),
    ]
    if unplaceable := job.get("unplaceable"):
        rows.append(("waiting", why_waiting(unplaceable)))
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

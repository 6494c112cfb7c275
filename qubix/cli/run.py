"""`qubix run FILE|JOB`: plan, one question, then the stream to the end."""

from __future__ import annotations

import contextlib
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from qubix.cli.client import Client, connect
from qubix.cli.follow import follow
from qubix.cli.jobs import attempts_table, receipt_table
from qubix.cli.output import JsonFlag, Output, YesFlag, amount, job_code, plain
from qubix.cli.payment import ask_for
from qubix.cli.plan import agreed_ceiling, agreed_terms, show_plan
from qubix.cli.quantities import duration_s, pairs, size_bytes
from qubix.cli.screen import screen_of
from qubix.cli.telling import Narrator
from qubix.jobs.model import Pay
from qubix.kernel.errors import Invalid, QubixError

SCRIPT_KIND = "script"
SCRIPT_INPUT = "main.py"
"""The name under which the library's script job starts what it was sent."""
DURATION_DEFAULT_S = 3600


def register(app: typer.Typer) -> None:
    """Add this noun's commands."""
    app.command(rich_help_panel="Jobs")(run)


@dataclass
class Request:
    """A job before it is sent.

    Args: body, members that quote and job share; files, inputs by the name that the job sees.
    """

    body: dict[str, Any]
    files: dict[str, Path] = field(default_factory=dict)


def run(
    target: Annotated[
        str, typer.Argument(metavar="FILE|JOB", help="A Python script, or a job of the library (mnist, stable_diffusion, …).")
    ],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="name=value; a file's path becomes an input of that name.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    gpu: Annotated[list[str] | None, typer.Option("--gpu", help="Any of these models.")] = None,
    vram: Annotated[str | None, typer.Option(help="At least this much per GPU, as 24GB.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, max=16, help="GPUs of one node, all or none.")] = None,
    region: Annotated[list[str] | None, typer.Option(help="Any of these regions.")] = None,
    offer: Annotated[str | None, typer.Option(help="This offer and no other.")] = None,
    max_duration: Annotated[str | None, typer.Option("--max-duration", help="Longest paid run, as 2h; default 1h.")] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="The ceiling itself, whole units.")] = None,
    price_max: Annotated[int | None, typer.Option("--price-max", min=1, help="The most per GPU-hour, also for a retry elsewhere.")] = None,
    wait: Annotated[str | None, typer.Option(help="How long to wait for a matching node, as 10min.")] = None,
    pay: Annotated[
        Pay, typer.Option(help="chain: what the wallet lacks is asked for as a Qubic payment, and the job waits for it.")
    ] = Pay.WALLET,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it is funded, or its payment is asked for.")] = False,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Run a job on a GPU: shows the plan, asks once, follows it to its end. Exit 0 done, 100 failed, 101 not finished, 103 cancelled."""
    out = Output(as_json)
    needs = {"gpu_models": gpu, "vram_bytes": size_bytes(vram) if vram else None, "gpus": gpus, "regions": region}
    request = read_request(target, pairs(param or []), {key: value for key, value in needs.items() if value})
    request.body |= _present(
        offer_id=offer, duration_max_s=duration_s(max_duration) if max_duration else None, budget=budget, price_max=price_max
    )
    with connect() as client:
        plan = client.post("/api/quotes", request.body)
        show_plan(out, plan, budget=budget)
        extra = _present(
            name=name or (Path(target).name if SCRIPT_INPUT in request.files else None),
            wait_s=duration_s(wait) if wait else None,
            pay=None if pay is Pay.WALLET else pay.value,
        )
        with held(client, quote_id(plan)) as quoted:
            locked = amount(agreed_ceiling(plan))
            once_paid = ", once it is paid," if pay is Pay.CHAIN else ""
            out.confirm(f"Lock the ceiling of {locked}{once_paid} and {'run it' if quoted else 'wait for a machine'}?", yes)
            answer = place(client, request, **extra, **agreed_terms(plan, budget), **quoted)
        job, payment = answer["job"], answer.get("payment")
        job_id = str(job["id"])
        if payment is not None and not (detach and as_json):
            ask_for(out, payment)
        elif pay is Pay.CHAIN:
            out.show("the wallet holds the ceiling already: it is funded from the wallet")
        if detach:
            out.show(f"job {job_id} " + ("waits for its payment" if payment else "is funded and waits for its node"))
            out.finish({**job, "payment": payment}, then=(f"qubix logs -f {job_id}", f"qubix show {job_id}", f"qubix cancel {job_id}"))
            return
        try:
            ended = stream(out, client, job_id)
        except KeyboardInterrupt:
            left = client.get(f"/api/jobs/{job_id}")
            waits = left["state"] == "AWAITING_FUNDS"
            out.note(f"\nthe job {'still waits for its payment' if waits else 'goes on'}; qubix cancel {job_id} ends it")
            out.finish(left, then=(f"qubix logs -f {job_id}", f"qubix show {job_id}"), code=job_code("RUNNING"))
            return
    out.show(f"[bold]{ended['state']}[/bold] {plain(ended['reason_detail'] or ended['reason'] or '')}")
    out.show(attempts_table(ended), receipt_table(ended))
    out.finish(ended, then=next_after_end(ended), code=job_code(ended["state"]))


def next_after_end(job: Mapping[str, Any]) -> tuple[str, ...]:
    """The useful commands after a job's end: the results of what is done, the log of what failed; without an attempt there is neither."""
    job_id = job["id"]
    rest = (f"qubix show {job_id}", "qubix wallet")
    if not job["attempts"]:
        return rest
    return (f"qubix logs {job_id}" if job["state"] == "FAILED" else f"qubix artefacts {job_id} --download .", *rest)


def read_request(target: str, params: Mapping[str, str], needs: Mapping[str, Any]) -> Request:
    """A script with the job.toml beside it, or a library job; flags win over the file.

    Raises: Invalid for a file that is missing or a job.toml that cannot be read.
    """
    path = Path(target)
    if not path.is_file():
        if path.suffix or "/" in target:
            raise Invalid(f"there is no file {target}", next_step="name a script that exists, or a library job such as mnist")
        return _with_files(Request({"kind": target, "needs": dict(needs)}), params)
    request = Request({"kind": SCRIPT_KIND, "needs": dict(needs)}, {SCRIPT_INPUT: path})
    beside = path.with_name("job.toml")
    if beside.is_file():
        try:
            text = tomllib.loads(beside.read_text())
        except tomllib.TOMLDecodeError as error:
            raise Invalid(f"{beside}: {error}", next_step="mend the file, or move it away") from None
        request.body["needs"] = {**text.get("needs", {}), **needs}
        params = {**{name: str(value) for name, value in text.get("params", {}).items()}, **params}
    return _with_files(request, params)


def _with_files(request: Request, params: Mapping[str, str]) -> Request:
    """A parameter that names an existing file or folder sends it as an input, and then holds the input's name."""
    request.body["params"] = plain = dict(params)
    for name, value in params.items():
        path = Path(value)
        if ("/" in value or path.suffix) and path.exists():
            plain[name] = path.name + ".tar" if path.is_dir() else path.name
            request.files[plain[name]] = path
    return request


@contextlib.contextmanager
def packed(path: Path) -> Iterator[Path]:
    """A file as it is, a folder as one archive for the time of its upload."""
    if not path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="qubix-") as place:
        archive = Path(place) / (path.name + ".tar")
        with tarfile.open(archive, "w") as tar:
            tar.add(path, arcname=path.name)
        yield archive


def submit(client: Client, request: Request, **extra: Any) -> Mapping[str, Any]:
    """Upload the inputs and make the job. Returns: the job. Raises: ApiError, with nothing created."""
    job: Mapping[str, Any] = place(client, request, **extra)["job"]
    return job


def place(client: Client, request: Request, **extra: Any) -> Mapping[str, Any]:
    """Upload the inputs and make the job. Returns: the job, and the payment that it waits for (null: it is funded). Raises: as `submit`."""
    inputs = []
    for name, path in request.files.items():
        with packed(path) as file:
            inputs.append({"name": name, "upload_id": client.upload(file, name)["id"]})
    body = {**request.body, "inputs": inputs, **extra}
    if "quote_id" in extra:
        body.pop("offer_id", None)
    answer: Mapping[str, Any] = client.post("/api/jobs/create", body)
    return answer


def quote_id(plan: Mapping[str, Any]) -> str | None:
    """The id of a plan's quote; None where nothing fits now."""
    quote = plan.get("quote")
    return None if quote is None else str(quote["id"])


@contextlib.contextmanager
def held(client: Client, quote: str | None) -> Iterator[dict[str, str]]:
    """A quote while one decides: given back at once if nothing comes of it, so that its devices are free for others."""
    try:
        yield {"quote_id": quote} if quote else {}
    except BaseException:
        if quote:
            with contextlib.suppress(QubixError, httpx.HTTPError):
                client.delete(f"/api/quotes/{quote}")
        raise


def stream(
    out: Output, client: Client, job_id: str, *, on_change: Callable[[Mapping[str, Any]], None] = lambda job: None
) -> Mapping[str, Any]:
    """Show attempts, progress and log lines until the job has ended. Args: on_change, told of the job at each look. Returns: the job."""
    with screen_of(out) as screen:
        narrator = Narrator(screen.say)

        def line_came(line: Mapping[str, Any]) -> None:
            narrator.before(line)
            screen.write(line["text"])

        def changed(job: Mapping[str, Any]) -> None:
            narrator.flush()
            screen.show(job)
            on_change(job)

        return follow(client, job_id, on_look=narrator.look, on_line=line_came, on_change=changed)


def _present(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}

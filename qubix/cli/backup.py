"""`qubix backup` and `qubix restore`: a whole platform into a folder, while it runs, and out of it into an empty place."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qubix.cli import runfile
from qubix.cli.output import ExitCode, JsonFlag, Output, WrongUsage, YesFlag, plain, table
from qubix.cli.supervise import make_runtime_dir
from qubix.kernel.errors import Conflict, Invalid, NotFound
from qubix.kernel.sizes import gigabytes

if TYPE_CHECKING:
    from qubix.backup.model import Manifest
    from qubix.backup.restore import Restored

LAST: Final = "backup.json"
"""In the data folder: where the newest backup is, and of when; qubix doctor reads it."""
SIGNER_KEY: Final = "signer.key"
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The platform's data folder.")]
UrlFile = Annotated[
    Path | None, typer.Option(help="File of mode 0600 with the URL of the database's owner; default: the data folder's own server.")
]


def register(app: typer.Typer) -> None:
    """Add this noun's commands."""
    app.command(rich_help_panel="This machine")(backup)
    app.command(rich_help_panel="This machine")(restore)


def backup(
    to: Annotated[Path, typer.Argument(help="The folder of backups, on another disk; made if it is not there.")],
    keep: Annotated[
        int | None, typer.Option(min=1, help="Afterwards remove all but the newest so many, and the bytes that only they had.")
    ] = None,
    data_dir: DataDir = None,
    url_file: UrlFile = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Back up the database and the bytes of jobs, also while the platform runs. The signer's key is never in it: keep that apart."""
    from qubix.backup.take import prune, take  # heavy: only where a database is touched

    out, folder, place = Output(as_json), _folder(data_dir), to.resolve()
    if place.is_relative_to(folder):
        raise Invalid("a backup inside the data folder is lost with it", next_step="name a folder on another disk")
    if keep is not None:
        out.confirm(f"Remove all but the newest {keep} backups in {place} afterwards?", yes)
    with _database(folder, url_file) as url:
        made = asyncio.run(take(url, folder / "blobs", place, say=_sayer(out)))
    gone = prune(place, keep) if keep is not None else []
    size = sum(part.size for part in made.manifest.parts)
    document = {
        **_told(made.folder, made.manifest),
        "copied": made.copied,
        "copied_bytes": made.copied_bytes,
        "took_s": round(made.took_s, 2),
    }
    _remember(folder, made.folder, made.manifest)
    out.show(
        table(
            "Backup",
            ("what", ""),
            [
                ("folder", str(made.folder)),
                ("of", f"{made.manifest.taken_at.isoformat()}, network {made.manifest.network}, schema {made.manifest.revision}"),
                ("database", f"{size} bytes"),
                ("bytes of jobs", f"{made.manifest.blobs} files, {gigabytes(made.manifest.blobs_bytes)}; {made.copied} copied now"),
                ("removed", len(gone)),
                ("took", f"{made.took_s:.1f} s"),
            ],
        )
    )
    if made.manifest.missing:
        out.show(
            f"[bold red]{len(made.manifest.missing)} files that rows refer to are gone or damaged[/bold red]: {plain(made.manifest.missing[0])} …"
        )
    then = (f"qubix restore --check {made.folder}", "qubix doctor")
    code = ExitCode.FAILED if made.manifest.missing else ExitCode.DONE
    out.finish({**document, "removed": [str(one) for one in gone]}, then=then, code=code)


def restore(
    backup: Annotated[Path, typer.Argument(help="A backup, or a folder of backups: then its newest.")],
    check: Annotated[bool, typer.Option("--check", help="Read all of it, hold it against its checksums, and do nothing else.")] = False,
    data_dir: DataDir = None,
    url_file: UrlFile = None,
    signer_key: Annotated[Path | None, typer.Option(help="The signer's key file, to be tried and put into the data folder.")] = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Restore a backup into an empty data folder, or an empty database of your own; audits it, and leaves payouts on hold."""
    from qubix.backup import restore as restoring  # heavy: only where a backup is read
    from qubix.backup.verify import find

    out = Output(as_json)
    found = find(backup.resolve())
    out.note("[dim]· checksums[/dim]")
    manifest = restoring.check(found)
    if check:
        out.show(f"{plain(str(found))} is whole: of {manifest.taken_at.isoformat()}, {manifest.blobs} files of jobs")
        out.finish({**_told(found, manifest), "whole": True}, then=(f"qubix restore {found} --data-dir DIR",))
        return
    if data_dir is None:
        raise WrongUsage("say where to", next_step="--data-dir DIR: a folder that does not exist yet, or is empty")
    folder = data_dir.resolve()
    restoring.check_empty(folder)
    if signer_key is not None:
        restoring.check_key_file(signer_key)
    where = f"the database of {url_file} and {folder}" if url_file else folder
    out.confirm(f"Restore the backup of {manifest.taken_at.isoformat()} into {where}?", yes)
    with runfile.locked(folder), _marked(folder), _new_database(folder, url_file) as url:
        done = asyncio.run(restoring.restore(found, manifest, url, folder, say=_sayer(out)))
        key = asyncio.run(_place_key(url, folder, signer_key))
    _show(out, done, key)
    document = {
        **_told(found, manifest),
        "sound": done.is_sound,
        "differs": done.differs,
        "problems": done.problems,
        "missing": done.missing,
        "attempts_lost": done.lost,
        "payouts": "on hold" if done.halted else "none",
        "signer_key": key,
    }
    then = (
        (runfile.named("qubix up", folder), runfile.named("qubix treasury recover", folder))
        if done.halted
        else (runfile.named("qubix up", folder),)
    )
    out.finish(document, then=then, code=ExitCode.DONE if done.is_sound and key != "wrong" else ExitCode.FAILED)


def refuse_half_restored(folder: Path) -> None:
    """See that no restore into this data folder was cut off. Raises: Conflict."""
    if (folder / "restoring").exists():
        raise Conflict(
            f"a restore into {folder} did not come to its end: what is there is half", next_step=f"remove {folder}, and restore again"
        )


def _show(out: Output, done: Restored, key: str) -> None:
    rows = [(name, count) for name, count in done.manifest.rows.items()]
    rows += [("files of jobs", done.manifest.blobs), ("attempts that ran, and were ended", done.lost)]
    out.show(table("Restored", ("what", "how many"), rows, right=("how many",)))
    for word in [
        *done.differs,
        *(f"the audit: {problem}" for problem in done.problems),
        *(f"bytes not there: {one}" for one in done.missing[:10]),
    ]:
        out.show(f"[bold red]{plain(word)}[/bold red]")
    if done.is_sound:
        out.show("it is what was backed up, the ledger's audit finds no problem, and every file is there")
    if key in _KEYS:
        out.show(_KEYS[key])
    if done.halted:
        out.show("payouts are on hold: the chain may have paid what this backup does not know. Bring it up, then: qubix treasury recover")


_KEYS: Final = {
    "needed": "the signer's key is not there: put your copy of it at secrets/signer.key, mode 0600, before you start it",
    "wrong": "[bold red]that key file does not open this database's seeds[/bold red]: find the right copy, or the money at every address is lost",
}


async def _place_key(url: str, folder: Path, signer_key: Path | None) -> str:
    """Try a key file and copy it into the data folder. Returns: placed, wrong, needed, or not needed."""
    from qubix.backup.restore import key_opens, needs_key

    if not await needs_key(url):
        return "not needed"
    if signer_key is None:
        return "needed"
    if not await key_opens(url, signer_key):
        return "wrong"
    await asyncio.to_thread(_copy_key, signer_key, folder / "secrets" / SIGNER_KEY)
    return "placed"


def _copy_key(key_file: Path, target: Path) -> None:
    from qubix.backup import files

    target.parent.mkdir(mode=0o700, exist_ok=True)
    files.write(target, key_file.read_text())
    files.flush_folder(target.parent)


@contextlib.contextmanager
def _database(folder: Path, url_file: Path | None) -> Iterator[str]:
    """The owner's URL of the database that is backed up; an embedded server that does not run is started for as long as it is needed."""
    from qubix.postgres.embedded import EmbeddedServer
    from qubix.postgres.engine import read_url_file

    run = runfile.read(folder)
    if url_file is not None:
        yield read_url_file(url_file)
    elif run is not None and run.live and "postgres" in run.ports:
        yield EmbeddedServer(folder, Path(run.runtime_dir), port=run.ports["postgres"]).url()
    elif not (folder / "pg" / "PG_VERSION").exists():
        raise NotFound(f"there is no platform in {folder}", next_step="name its folder with --data-dir, or your database with --url-file")
    else:
        with runfile.locked(folder), _server(folder) as url:
            yield url


@contextlib.contextmanager
def _new_database(folder: Path, url_file: Path | None) -> Iterator[str]:
    """The owner's URL of an empty database: the named one, or a new embedded server's."""
    from qubix.postgres.engine import read_url_file

    if url_file is not None:
        yield read_url_file(url_file)
        return
    with _server(folder) as url:
        yield url


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    from qubix.postgres.embedded import EmbeddedServer

    runfile.clear_remains(folder)
    runtime = make_runtime_dir()
    server = EmbeddedServer(folder, runtime)
    try:
        server.start()
        yield server.url()
    finally:
        server.stop()
        shutil.rmtree(runtime, ignore_errors=True)


@contextlib.contextmanager
def _marked(folder: Path) -> Iterator[None]:
    """Mark a data folder while it is filled; the mark goes only at a clean end, so nothing starts on a half."""
    from qubix.backup import files

    mark = folder / "restoring"
    files.write(mark, "")
    yield
    files.flush_folder(folder)
    mark.unlink()
    files.flush_folder(folder)


def _remember(folder: Path, kept: Path, manifest: Manifest) -> None:
    if not folder.is_dir():
        return
    fresh = folder / "backup.new"
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"folder": str(kept), "taken_at": manifest.taken_at.isoformat(), "missing": len(manifest.missing)}, file)
    fresh.replace(folder / LAST)


def _told(folder: Path, manifest: Manifest) -> dict[str, Any]:
    return {"folder": str(folder), **manifest.document(), "parts": [dataclasses.asdict(part) for part in manifest.parts]}


def _folder(data_dir: Path | None) -> Path:
    return (data_dir or runfile.default_data_dir()).resolve()


def _sayer(out: Output) -> Any:
    return lambda step: out.note(f"[dim]· {step}[/dim]")

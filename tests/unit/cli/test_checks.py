"""What `qubix doctor` makes of a running stack's own word."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from qubix.cli import checks, runfile
from qubix.cli.checks import Verdict
from qubix.cli.processes import seen
from qubix.cli.runfile import RunFile

URL = "http://127.0.0.1:1"


def stack(folder: Path, monkeypatch: pytest.MonkeyPatch, status: int, parts: dict[str, Any]) -> None:
    """A run file of a stack that lives, and what its health address answers."""
    runfile.write(folder, RunFile(supervisor=seen(os.getpid()), urls={"application": URL}))
    monkeypatch.setattr(httpx, "get", lambda url, **_: httpx.Response(status, json={"parts": parts}, request=httpx.Request("GET", url)))


def test_a_stack_that_cannot_store_bytes_fails_the_check_and_names_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = {"ok": False, "detail": "the blob store cannot write: Permission denied"}
    stack(tmp_path, monkeypatch, 503, {"database": {"ok": True, "detail": "answers"}, "storage": away})
    found = checks.readiness(tmp_path)
    assert (found.verdict, found.detail) == (Verdict.FAIL, "storage: the blob store cannot write: Permission denied")


def test_a_ready_stack_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack(tmp_path, monkeypatch, 200, {"storage": {"ok": True, "detail": "writable"}})
    assert checks.readiness(tmp_path).verdict is Verdict.OK


def test_where_nothing_runs_there_is_nothing_to_ask(tmp_path: Path) -> None:
    assert checks.readiness(tmp_path).verdict is Verdict.NOTE


def money(folder: Path, monkeypatch: pytest.MonkeyPatch, network: str, halts: dict[str, str], running: tuple[str, ...]) -> None:
    """A stack that lives, with these processes, and what its database says."""

    async def answer(url: str) -> tuple[str, dict[str, str]]:
        assert url == "postgresql://treasury"
        return network, halts

    me = seen(os.getpid())
    assert me is not None
    runfile.write(folder, RunFile(supervisor=me, processes=dict.fromkeys(running, me)))
    file = folder / "secrets" / "qubix_treasury.url"
    file.parent.mkdir()
    file.write_text("postgresql://treasury")
    file.chmod(0o600)
    monkeypatch.setattr(checks, "_payouts", answer)


BOTH = ("treasury", "signer")


@pytest.mark.parametrize(
    ("network", "halts", "running", "verdict", "detail"),
    [
        ("none", {}, (), Verdict.OK, "none: test money without a chain"),
        ("devnet", {}, BOTH, Verdict.OK, "devnet; treasury and signer run; payouts go"),
        ("devnet", {}, ("treasury",), Verdict.FAIL, "devnet; not running: signer"),
        ("mainnet", {"*": "R1", "A": "R2"}, BOTH, Verdict.FAIL, "mainnet; treasury and signer run; all payouts are halted"),
        ("mainnet", {"A": "R2"}, BOTH, Verdict.NOTE, "mainnet; treasury and signer run; payouts are halted for A"),
    ],
)
def test_the_network_row_tells_who_runs_and_whether_payouts_go(
    network: str,
    halts: dict[str, str],
    running: tuple[str, ...],
    verdict: Verdict,
    detail: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    money(tmp_path, monkeypatch, network, halts, running)
    found = checks.network(tmp_path)
    assert (found.verdict, found.detail) == (verdict, detail)
    assert (verdict is Verdict.OK) or "qubix treasury status" in found.next_step


def test_after_a_restore_the_network_row_leads_to_what_a_person_has_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    money(tmp_path, monkeypatch, "devnet", {"*": "R1, restored"}, BOTH)
    assert "qubix treasury recover" in checks.network(tmp_path).next_step


def test_without_a_stack_the_network_is_not_known(tmp_path: Path) -> None:
    assert checks.network(tmp_path).verdict is Verdict.NOTE


def test_the_age_of_the_newest_backup_is_told_and_what_lacks_in_it_fails(tmp_path: Path) -> None:
    assert checks.backup(tmp_path).verdict is Verdict.NOTE
    (tmp_path / "pg").mkdir()
    assert "none was taken" in checks.backup(tmp_path).detail
    for age_h, missing, verdict in ((1, 0, Verdict.OK), (30, 0, Verdict.NOTE), (1, 2, Verdict.FAIL)):
        taken = dt.datetime.now(dt.UTC) - dt.timedelta(hours=age_h)
        (tmp_path / "backup.json").write_text(json.dumps({"folder": "/b", "taken_at": taken.isoformat(), "missing": missing}))
        found = checks.backup(tmp_path)
        assert (found.verdict, found.detail[:4]) == (verdict, f"{age_h} h "[:4])
    (tmp_path / "backup.json").write_text("half")
    assert checks.backup(tmp_path).verdict is Verdict.NOTE


def test_the_clock_is_asked_of_the_kernel() -> None:
    found = checks.clock()
    assert found.verdict in (Verdict.OK, Verdict.NOTE)
    assert found.verdict is Verdict.OK or found.detail

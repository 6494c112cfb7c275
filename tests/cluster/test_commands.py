"""The commands of a provider and a consumer against a real platform with one node, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qubix.cli import runfile, up
from qubix.cli.processes import end

pytestmark = pytest.mark.cluster


class User:
    """A person at a terminal. Args: folder, of everything; name, of the person."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, "QUBIX_CONFIG": str(folder / f"{name}.json")}

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr of a command."""
        line = [sys.executable, "-m", "qubix.cli.main", *arguments]
        answer = subprocess.run(line, capture_output=True, text=True, check=False, timeout=200, env=self.environment, cwd=self.folder)
        return answer.returncode, answer.stdout, answer.stderr

    def told(self, *arguments: str, code: int = 0) -> Any:
        """The one JSON document of a command that ends with `code`."""
        found, said, aside = self.run(*arguments, "--json")
        assert found == code, said + aside
        assert said.count("\n") == 1
        return json.loads(said)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def user(folder: Path) -> Iterator[User]:
    """A user who is logged in, has funds, and shares two declared GPUs of this machine."""
    run, _ = up.start_detached(folder / "platform", settings={"dispute_window_s": "600", "network": "none"})
    made = User(folder, "user")
    try:
        made.told("signup", "--url", run.urls["application"], "--email", "u@example.org", "--password", "a password of many words")
        made.told("wallet", "faucet", "10000000")
        made.told(
            *("provider", "join", "--detach", "--data-dir", str(folder / "platform"), "--home", str(folder / "node")),
            *("--declare-gpu", "RTX_4090:24GB:2", "--price", "1800000", "--name", "atlas"),
        )
        yield made
    finally:
        node = runfile.read(folder / "node")
        if node is not None and node.supervisor is not None:
            end([node.supervisor], grace_s=20)
        up.stop(folder / "platform")


def test_a_typed_query_finds_the_offer_and_grouping_sums_it_up(user: User) -> None:
    found = user.told("offers", "gpu=RTX_4090 vram>=24GB price<2000000 region in [eu,us]")["items"]
    assert [(item["model"], item["gpus_free"], item["detected_by"]) for item in found] == [("RTX_4090", 2, "declared")]
    assert user.told("offers", "gpu=RTX_4090 price<10")["items"] == []
    groups = user.told("offers", "--group-by", "gpu,provider")["groups"]
    assert [(group["gpu"], group["offers"], group["free"]) for group in groups] == [("RTX_4090", 1, 2)]


def test_the_market_is_open_to_who_is_not_logged_in(user: User) -> None:
    stranger = User(user.folder, "stranger")
    assert stranger.run("jobs", "--json")[0] == 1
    assert json.loads(stranger.run("jobs", "--json")[1])["error"]["code"] == "unauthenticated"


def test_keys_are_made_listed_and_revoked(user: User) -> None:
    made = user.told("keys", "create", "robot")
    assert made["key"].startswith("qk_")
    assert "robot" in {key["name"] for key in user.told("keys")["items"]}
    user.told("keys", "revoke", made["id"], "-y")
    assert "robot" not in {key["name"] for key in user.told("keys")["items"]}


def test_a_script_runs_to_its_artefact_and_its_escrow_can_be_disputed(user: User) -> None:
    (user.folder / "hello.py").write_text("print('hello'); open('out.txt', 'w').write('hi')\n")
    code, said, aside = user.run("run", "hello.py", "-y")
    assert code == 0, said + aside
    assert "✔" in said
    assert "hello" in said
    assert "qubix artefacts" in aside
    job = user.told("jobs")["items"][0]
    assert (job["name"], job["state"]) == ("hello.py", "COMPLETED")
    shown = user.told("show", job["id"])
    assert shown["receipt"]["held"] == shown["receipt"]["charged"] + shown["receipt"]["refunded"]
    assert user.run("logs", "-f", job["id"])[1] == "hello\n"
    [artefact] = user.told("artefacts", job["id"], "--download", "got")["items"]
    assert Path(artefact["path"]).read_text() == "hi"
    assert user.told("escrow", "dispute", job["id"], "--evidence", "it said hi", "-y")["lines"][0]["state"] == "FROZEN"
    user.told("escrow", "resolve", job["id"], "--reason", "mine", "-y", code=102)


def test_a_failing_script_exits_100(user: User) -> None:
    (user.folder / "bad.py").write_text("raise SystemExit(3)\n")
    attempts = user.told("run", "bad.py", "-y", code=100)["attempts"]
    assert attempts[-1]["exit_code"] == 3, attempts


def test_a_running_job_is_101_and_a_cancelled_one_103(user: User) -> None:
    (user.folder / "slow.py").write_text("import time; time.sleep(300)\n")
    job = user.told("run", "slow.py", "-y", "--detach", "--gpus", "2")
    assert user.told("show", job["id"], code=101)["needs"]["gpus"] == 2
    user.told("cancel", job["id"], "-y")
    assert user.told("logs", "-f", job["id"], code=103)["state"] == "CANCELLED"
    assert user.told("show", job["id"], code=103)["receipt"]["escrow_state"] in ("SPLIT", "REFUNDED")


def test_what_nothing_matches_says_what_would_and_is_refunded_after_the_wait(user: User) -> None:
    code, said, _ = user.run("run", "mnist", "--gpu", "H100", "-y", "--wait", "2s")
    assert code == 100
    assert "RTX_4090" in said
    job = user.told("jobs")["items"][0]
    assert (job["state"], job["reason"]) == ("FAILED", "no_match")
    assert user.told("show", job["id"], code=100)["receipt"]["escrow_state"] == "REFUNDED"


def test_too_little_money_is_refused_with_what_is_missing_and_nothing_is_made(user: User) -> None:
    before = len(user.told("jobs")["items"])
    error = user.told("run", "mnist", "-y", "--budget", "99999999999", code=1)["error"]
    assert error["code"] == "insufficient_funds"
    assert error["missing"] > 0
    assert len(user.told("jobs")["items"]) == before


def test_what_does_not_exist_is_102_and_bad_usage_2(user: User) -> None:
    user.told("show", "01a2041d-691e-76cb-8773-46ace45ab76d", code=102)
    assert user.run("run", "mnist", "--vram", "much", "-y")[0] == 2


def test_a_provider_changes_its_price_pauses_and_drains(user: User) -> None:
    assert user.told("provider", "price", "99")["offers"][0]["price_per_hour"] == 99
    user.told("provider", "pause")
    assert user.told("offers")["items"] == []
    user.told("provider", "pause", "--resume")
    user.told("provider", "drain")
    assert user.told("provider", "status")["nodes"][0]["draining"]
    user.told("provider", "drain", "--undo")
    assert user.told("offers")["items"][0]["price_per_hour"] == 99


def test_leaving_ends_the_node_and_keeps_the_earnings(user: User) -> None:
    name = user.told("provider", "status")["nodes"][0]["name"]
    assert not user.told("provider", "leave", "-y", "--node", name, "--home", str(user.folder / "elsewhere"))["stopped"]
    # It has left the market; the machine itself can still be ended by the same command.
    assert user.told("provider", "leave", "-y", "--home", str(user.folder / "node"))["stopped"]
    assert runfile.read(user.folder / "node") is None
    assert user.told("offers", "--all")["items"] == []
    assert user.told("wallet")["wallets"][0]["pending_earnings"] > 0

"""What hostile jobs get out of a real platform, sent by `qubix run` to machines on both rungs: nothing, and they pay for trying.

Each attack prints BREACH where it got through. The controls run some of the same scripts outside, as nobody, and see breaches:
a wall that holds is worth something only if the attack works without it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qubix.kernel.money import Qu, charge
from tests.faults.escape import suite
from tests.faults.escape.conftest import Campaign
from tests.planted import secrets_of
from tests.whole import PASSWORD

pytestmark = [pytest.mark.cluster, pytest.mark.sandbox]
RUNGS = ("cgroup", "rlimits")
NEVER_RAN = ("not_accepted", "not_started", "sandbox_failed")


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("name", suite.BY_NAME)
def test_an_attack_finds_no_way_out_and_ends_as_its_own_doing(campaign: Campaign, rung: str, name: str) -> None:
    run = campaign.on(rung).runs[name]
    assert "BREACH" not in run.text, run.text[-8000:]
    assert run.job["reason"] in run.attack.reasons, (run.job["reason"], run.job["reason_detail"], run.log)
    assert (run.code == 0) == (run.job["reason"] == "succeeded")
    if run.attack.reaches_its_end:
        assert "done" in run.text.split(), run.log


@pytest.mark.parametrize("rung", RUNGS)
def test_every_attack_ran_once_and_is_charged_by_the_metered_time_whatever_end_it_feigned(campaign: Campaign, rung: str) -> None:
    for name, run in campaign.on(rung).runs.items():
        receipt = run.job["receipt"]
        *before, attempt = receipt["attempts"]
        # A machine under load may not have accepted, or started, in time; nothing ran then, and nothing is paid.
        assert {(one["reason"] in NEVER_RAN, one["charge"]) for one in before} <= {(True, 0)}, (name, before)
        assert attempt["fault"] in ("none", "consumer"), (name, attempt)
        assert attempt["charge"] == charge(Qu(attempt["rate"]), attempt["metered_ms"], Qu(receipt["held"])), (name, attempt)
        assert receipt["held"] == receipt["charged"] + receipt["refunded"], (name, receipt)
        assert receipt["charged"] == attempt["charge"]
        assert attempt["charge"] > 0, (name, attempt)
        assert receipt["escrow_state"] in ("RELEASED", "SPLIT")
    assert campaign.whole.audit() == []


@pytest.mark.parametrize("rung", RUNGS)
def test_no_attack_has_told_a_secret_of_the_platform_or_of_a_neighbour(campaign: Campaign, rung: str) -> None:
    ascent = campaign.on(rung)
    secrets = {**secrets_of(campaign.whole), "canary": ascent.canary.encode(), "password": PASSWORD.encode(), "file": b"TOP-SECRET"}
    secrets |= {person.name: person.key.encode() for person in campaign.people}
    secrets["node's key"] = (ascent.rung.machine.home / "key.pem").read_bytes().splitlines()[1]
    for name, run in ascent.runs.items():
        told = [run.text.encode(), *run.results.values(), json.dumps(run.job).encode()]
        found = [secret for secret, value in secrets.items() if any(value in text for text in told)]
        assert not found, (name, found)


@pytest.mark.parametrize("rung", RUNGS)
def test_after_all_of_them_nothing_is_left_on_the_machine(campaign: Campaign, rung: str) -> None:
    at = campaign.on(rung).rung
    deadline = time.monotonic() + 180
    while (left := [*at.sandboxes(), *at.leftovers()]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


@pytest.mark.parametrize("rung", RUNGS)
def test_after_all_of_them_the_machine_is_as_healthy_as_before(campaign: Campaign, rung: str) -> None:
    ascent = campaign.on(rung)
    assert (ascent.honest["state"], ascent.honest_log) == ("COMPLETED", "honest []\n")
    agent = ascent.rung.machine.named("ray::NodeAgent")
    assert {"QUBIX_AGENT_HOME", "RAY_AUTH_TOKEN_PATH"} <= agent.environ().keys(), "environment_of_others looks for them"
    assert agent in ascent.rung.processes_before, "the agent was started anew"
    node = ascent.rung.provider.get(f"/api/nodes/{ascent.rung.machine.node_id}")
    assert (node["presence"], node["sandbox"]["limits"]) == ("online", ascent.rung.limits)
    for descriptor in pty.openpty():
        os.close(descriptor)
    assert "77" not in {Path(f"/proc/sys/{name}").read_text().strip() for name in ("kernel/msgmax", "fs/mqueue/msg_max")}


@pytest.mark.parametrize("rung", RUNGS)
def test_a_neighbours_job_ran_through_all_of_it_undisturbed(campaign: Campaign, rung: str) -> None:
    ascent = campaign.on(rung)
    *before, attempt = ascent.victim["attempts"]
    assert {one["running_at"] for one in before} <= {None}
    assert (ascent.victim["state"], attempt["state"], attempt["fault"]) == ("CANCELLED", "CANCELLED", "none")
    attacks = [run.job["attempts"][-1] for run in ascent.runs.values()]
    assert attempt["running_at"] < min(one["running_at"] for one in attacks)
    assert attempt["ended_at"] > max(one["ended_at"] for one in attacks)


@pytest.mark.parametrize("rung", RUNGS)
def test_a_job_that_will_not_leave_wins_no_time_by_its_cancellation(campaign: Campaign, rung: str) -> None:
    ascent = campaign.on(rung)
    print(f"cancelled and gone from the machine {ascent.gone_after_s:.1f} s after the command began")
    *before, attempt = ascent.cancelled["attempts"]
    assert {one["running_at"] for one in before} <= {None}
    assert (attempt["state"], attempt["reason"]) == ("CANCELLED", "cancelled")
    print(f"it ran for {float(ascent.cancelled_log.split()[-1]):.1f} s, and pays for {attempt['metered_ms']} ms")
    ran_at, asked_at = (dt.datetime.fromisoformat(at) for at in (attempt["running_at"], ascent.cancelled["cancel_requested_at"]))
    assert 0 < attempt["metered_ms"] <= (asked_at - ran_at) / dt.timedelta(milliseconds=1) + 1


@pytest.mark.parametrize("rung", RUNGS)
def test_a_job_that_ignores_its_time_limit_is_ended_and_pays_for_no_more_than_it(campaign: Campaign, rung: str) -> None:
    run = campaign.on(rung).runs["will_not_leave"]
    receipt = run.job["receipt"]
    assert 0 < receipt["attempts"][-1]["metered_ms"] <= 1000 * int(run.attack.duration)
    assert 0 < receipt["charged"] <= receipt["held"]


@pytest.mark.parametrize("rung", RUNGS)
def test_what_hostile_names_are_downloaded_stays_in_its_folder(campaign: Campaign, rung: str) -> None:
    ascent = campaign.on(rung)
    for name, folder in ascent.downloads.items():
        found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if not path.is_dir()}
        assert set(found) == set(ascent.runs[name].results) | {item for item in found if item.startswith("f_sparse")}
        assert all(path.resolve().is_relative_to(folder.resolve()) and path.is_file() and not path.is_symlink() for path in found.values())
    assert not list(campaign.folder.rglob("escaped"))
    names = set(ascent.runs["artefact_names"].results)
    assert {"..%2f..%2fescaped", "$(id)", "main.py", "sub/..dots/.. /file"} <= names
    assert all(name.isprintable() for name in names)


@pytest.mark.parametrize("rung", RUNGS)
def test_no_link_device_or_foreign_file_becomes_a_result(campaign: Campaign, rung: str) -> None:
    ascent = campaign.on(rung)
    results = ascent.runs["hostile_results"].results
    assert results["good/file.txt"] == b"good"
    # Root reads what the job has closed to itself.
    assert set(results) <= {"good/file.txt", "j_closed/file", "k_closed"}
    assert set(ascent.runs["results_race"].results.values()) <= {b"x"}
    assert ascent.runs["checkpoint_race"].job["progress"] <= 100


@pytest.mark.parametrize("rung", RUNGS)
def test_a_log_shows_no_control_sequence_and_holds_no_word_in_the_platforms_voice(campaign: Campaign, rung: str) -> None:
    ascent = campaign.on(rung)
    run = ascent.runs["log_injection"]
    assert set(run.log) <= {"out", "err"}, run.log.get("agent")
    assert max(map(len, run.log["out"].splitlines())) <= 16 << 10
    shown = ascent.shown["log_injection"]
    assert "owned" not in shown
    assert not {letter for letter in shown if not letter.isprintable()} - set("\n\t\r\u2028\u2029\u202e\u202c\ufffd"), set(shown)


@pytest.mark.parametrize("rung", RUNGS)
def test_a_flood_of_output_and_of_checkpoints_is_cut(campaign: Campaign, rung: str) -> None:
    ascent = campaign.on(rung)
    flood = ascent.runs["output_flood"]
    assert max(len(line) for line in flood.log["out"].splitlines()) <= 16 << 10
    assert len(flood.log["out"]) <= 16 << 20
    stored = sum(path.stat().st_size for path in (campaign.whole.data_dir / "blobs").rglob("*") if path.is_file())
    print(f"blobs of the platform after all attacks: {stored >> 20} MiB")


@pytest.mark.parametrize("rung", RUNGS)
def test_only_the_granted_processors_are_used(campaign: Campaign, rung: str) -> None:
    run = campaign.on(rung).runs["busy"]
    used_s = float(run.text.split("seconds ")[1].split()[0])
    print(f"{rung}: six busy processes used {used_s:.1f} s of two")
    assert rung == "rlimits" or used_s < 1.6


@pytest.mark.parametrize("name", suite.CONTROLS)
def test_control_the_same_attack_gets_through_outside(campaign: Campaign, name: str) -> None:
    assert "BREACH" in campaign.outside[name], campaign.outside[name]


def test_control_an_attack_refuses_to_run_as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can see it")
    text = suite.preamble({}) + "\nprint('went on')\n"
    said = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=20)
    assert (said.returncode, said.stdout) == (99, "BREACH the attack runs as root: nothing contains it\n")

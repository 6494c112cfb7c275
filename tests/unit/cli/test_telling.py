"""What somebody who follows a job is told, and when."""

from __future__ import annotations

import io
import json
import sys

import httpx
import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn
from typer.testing import CliRunner, Result

from qubix.cli.main import app
from qubix.cli.output import Output
from qubix.cli.run import stream
from qubix.cli.screen import Bar, Lines
from qubix.cli.telling import Narrator, began, ended, one_line, progress_of, why_waiting
from tests.unit.cli.platform import JOB_ID, Script, attempt, client_of, job, line, stand_in

LOST = attempt(1, "atlas", "LOST", reason="node_lost", reason_detail="the node died while the job ran", progress=99.9)
STEPS = (
    (job("RUNNING", attempt(1, "atlas", progress=99.9), progress=99.9), [line(1, 1, "epoch 1\n")]),
    (
        job("PENDING", LOST, progress=99.9, unplaceable={"message": "One offer fits but every device is in use.", "relaxation": {}}),
        [line(2, 1, "epoch 2\n")],
    ),
    (job("RUNNING", LOST, attempt(2, "borea", resumed_from=2, progress=41.6), progress=99.9), [line(3, 2, "epoch 3\n")]),
    (job("COMPLETED", LOST, attempt(2, "borea", "SUCCEEDED", resumed_from=2, progress=100.0), progress=100.0), [line(4, 2, "done\n")]),
)
LOSS = "attempt 1 on node atlas was lost: the node died while the job ran (node_lost)"
RESUMPTION = "attempt 2 on node borea resumes from checkpoint 2"


def told(said: str) -> list[str]:
    return [text.removeprefix("──").strip() for text in said.splitlines() if text.startswith("──")]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_following_the_log_tells_of_a_lost_attempt_why_and_where_the_next_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(Script(*STEPS), monkeypatch)
    answer = run("logs", "-f", JOB_ID)
    assert answer.stdout == "epoch 1\nepoch 2\nepoch 3\ndone\n"
    waiting = "waiting: One offer fits but every device is in use."
    assert told(answer.stderr) == ["attempt 1 on node atlas", LOSS, waiting, RESUMPTION]
    assert answer.exit_code == 0


def test_a_run_tells_the_same_between_its_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script(*STEPS)
    stand_in(script, monkeypatch)
    stream(Output(as_json=False), client_of(script), JOB_ID)
    said = capsys.readouterr()
    assert said.out == "epoch 1\nepoch 2\nepoch 3\ndone\n"
    assert told(said.err) == [
        "attempt 1 on node atlas",
        "RUNNING 99 %",
        LOSS,
        "waiting: One offer fits but every device is in use.",
        "PENDING 0 %",
        RESUMPTION,
        "RUNNING 41 %",
        "COMPLETED 100 %",
    ]


def test_the_last_lines_of_a_lost_attempt_come_before_its_loss_and_the_next_ones_lines_after_it() -> None:
    said: list[str] = []
    narrator = Narrator(said.append)
    narrator.look(job("RUNNING", LOST, attempt(2, "borea", resumed_from=2)))
    for item in (line(1, 1, "last words"), line(2, 2, "first words")):
        narrator.before(item)
        said.append(item["text"])
    narrator.flush()
    assert said == ["attempt 1 on node atlas", "last words", LOSS, RESUMPTION, "first words"]


def test_each_thing_is_told_once_and_the_last_attempts_end_is_left_to_the_job() -> None:
    said: list[str] = []
    narrator = Narrator(said.append)
    for _ in range(3):
        narrator.look(job("FAILED", LOST, attempt(2, "borea", "FAILED", reason="exit_code")))
        narrator.flush()
    assert said == ["attempt 1 on node atlas", LOSS, "attempt 2 on node borea starts from the beginning: no checkpoint was stored"]


def test_the_log_of_several_attempts_has_a_heading_for_each_on_stderr_and_is_plain_on_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line(1, 1, "a\n"), line(2, 2, "b\n"), line(3, 1, "late\n")]
    stand_in(Script((job("RUNNING", LOST, attempt(2, "borea", resumed_from=2)), lines)), monkeypatch)
    answer = run("logs", JOB_ID)
    assert answer.stdout == "a\nb\nlate\n"
    assert told(answer.stderr) == ["attempt 1 on node atlas", LOSS, RESUMPTION, "attempt 1, continued"]


def test_the_log_of_a_single_attempt_has_no_heading(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(Script((job("RUNNING", attempt(1, "atlas")), [line(1, 1, "a\n")])), monkeypatch)
    answer = run("logs", JOB_ID)
    assert answer.stdout == "a\n"
    assert told(answer.stderr) == []


def test_with_json_nothing_is_told_but_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(Script(*STEPS), monkeypatch)
    answer = run("logs", "-f", JOB_ID, "--json")
    assert [item["text"] for item in json.loads(answer.stdout)["items"]] == ["epoch 1\n", "epoch 2\n", "epoch 3\n", "done\n"]
    assert answer.stderr == ""


def test_progress_is_the_newest_attempts_own() -> None:
    assert [progress_of(step) for step, _ in STEPS] == [99, 0, 41, 100]


def test_only_a_job_that_is_done_shows_100_per_cent(monkeypatch: pytest.MonkeyPatch) -> None:
    nearly = job("RUNNING", attempt(1, "atlas", progress=99.9), progress=99.9)
    stand_in(Script((nearly, [])), monkeypatch)
    said = run("show", JOB_ID).stdout
    assert "99 %" in said
    assert "100 %" not in said
    del nearly["attempts"]
    assert progress_of(nearly) == 99


@pytest.mark.parametrize(
    ("unplaceable", "sentence"),
    [
        (
            {
                "code": "all_busy",
                "message": "Every matching GPU is in use.",
                "relaxation": {"field": "wait", "before": 0, "after": None, "offers": 1, "message": "Wait: a matching GPU will be free."},
            },
            "Every matching GPU is in use. Wait: a matching GPU will be free.",
        ),
        ({"code": "busy", "message": "One offer fits but is in use.", "relaxation": {}}, "One offer fits but is in use."),
        (
            {"code": "vram", "message": "No device has 48 GB: 24 GB would match.", "relaxation": {"vram": 1}},
            "No device has 48 GB: 24 GB would match.",
        ),
        (
            {"code": "no_offers", "message": "There is no offer.", "relaxation": None, "next_step": "Try later."},
            "There is no offer. Try later.",
        ),
        ({}, "Nothing fits now."),
    ],
)
def test_why_a_job_waits_is_a_sentence(unplaceable: dict[str, object], sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_waiting(unplaceable) == sentence
    stand_in(Script((job("PENDING", unplaceable=unplaceable), [])), monkeypatch)
    said = " ".join(run("show", JOB_ID).stdout.split())
    assert "{" not in said
    assert sentence in said or not unplaceable


# -- text from strangers --

HOSTILE = "[/red] [link=http://evil]x[/link] \x1b]0;title\x07\x1b]52;c;ZWNobw==\x07\x1b[31m\x9b2J end"
FORBIDDEN = {"\x1b", "\x07", "\x9b", "\x9d"}


def test_what_a_node_and_a_job_say_of_themselves_drives_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = attempt(1, HOSTILE, "LOST", reason=HOSTILE, reason_detail=HOSTILE + "\nerror: forged")
    for text in (began(lost), ended(lost), one_line(HOSTILE), why_waiting({"message": HOSTILE})):
        assert not FORBIDDEN & set(text)
        assert "\n" not in text
    failed = job(
        "FAILED",
        lost,
        attempt(2, HOSTILE),
        name=HOSTILE,
        kind=HOSTILE,
        operation=HOSTILE,
        reason=HOSTILE,
        reason_detail=HOSTILE,
        params={"a": HOSTILE},
    )
    failed["receipt"]["attempts"] = [
        {"number": 1, "node": HOSTILE, "status": "LOST", "resumed_from": None, "metered_ms": 1, "charge": 0, "reason": HOSTILE}
    ]
    stand_in(Script((failed, [])), monkeypatch)
    for command in (("show", JOB_ID), ("logs", JOB_ID), ("logs", "-f", JOB_ID)):
        answer = run(*command)
        assert answer.exception is None or isinstance(answer.exception, SystemExit)
        assert not FORBIDDEN & set(answer.output), command
        if command[0] == "show":
            assert "[link=http://evil]x[/link]" in answer.stdout


def test_a_listed_job_drives_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(lambda _: httpx.Response(200, json={"items": [job("RUNNING", name=HOSTILE)]}), monkeypatch)
    assert not FORBIDDEN & set(run("jobs").output)


class Typed(io.StringIO):
    """A stdout that is, or is not, a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def test_a_log_is_tamed_on_a_terminal_and_as_it_is_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\x1b]0;title\x07\x1b[31mred\x1b[8m\n"
    for terminal, shown in ((True, "\x1b[31mred\n\x1b[0m"), (False, text)):
        stdout = Typed(terminal)
        monkeypatch.setattr(sys, "stdout", stdout)
        Lines(Output(as_json=False)).write(text)
        assert stdout.getvalue() == shown


def test_above_a_bar_a_log_is_tamed_too() -> None:
    written = io.StringIO()
    with Progress(TextColumn("x"), console=Console(file=written, force_terminal=True, width=60), auto_refresh=False) as bar:
        screen = Bar(bar)
        screen.write("[bold]\x1b]52;c;ZWNobw==\x07\x1b[31mred\x1b[0m 10 %\r20 %\r\n")
        screen.write("a\n\nb\n")
        screen.say("attempt [1]")
        screen.show(job("RUNNING", attempt(1, "n", progress=99.9), operation=HOSTILE))
    said = written.getvalue()
    assert "52;c" not in said
    assert "20 %" in said
    assert "10 %" not in said
    assert "a\n\nb\n" in said.replace("\r", "")
    assert "attempt [1]" in said

"""What commands print and how they exit."""

from __future__ import annotations

import io
import json
import re
import time

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from qubix.cli.main import app
from qubix.cli.output import ExitCode, Output, ago, amount, bare, fail, job_code, plain, table, tame


def test_the_exit_codes_are_those_that_scripts_rely_on() -> None:
    codes = {code.name: int(code) for code in ExitCode}
    assert codes == {"DONE": 0, "ERROR": 1, "USAGE": 2, "FAILED": 100, "NOT_FINISHED": 101, "NOT_FOUND": 102, "CANCELLED": 103}


@pytest.mark.parametrize(
    ("state", "code"), [("COMPLETED", 0), ("FAILED", 100), ("RUNNING", 101), ("PENDING", 101), ("CANCELLED", 103), ("ASSIGNED", 101)]
)
def test_a_jobs_state_decides_the_exit_code(state: str, code: int) -> None:
    assert int(job_code(state)) == code


def test_json_prints_one_document_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(as_json=True)
    out.show("a table")
    out.note("a step")
    out.finish({"a": 1}, then=("qubix jobs",))
    said = capsys.readouterr()
    assert json.loads(said.out) == {"a": 1}
    assert said.err == ""


def test_people_get_the_next_commands_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).finish({}, then=("qubix jobs", "qubix wallet"))
    said = capsys.readouterr()
    assert said.out == ""
    assert "qubix jobs" in said.err
    assert "qubix wallet" in said.err


def test_a_finish_with_a_code_exits_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        Output(as_json=True).finish({"a": 1}, code=ExitCode.FAILED)
    assert ended.value.exit_code == 100
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_an_error_says_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    fail("you lack 5 QU [really]", next_step="qubix wallet faucet 5")
    said = capsys.readouterr().err
    assert "you lack 5 QU [really]" in said
    assert "qubix wallet faucet 5" in said


def test_an_error_as_json_carries_its_code_and_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    fail("short", next_step="n", code="insufficient_funds", extra={"missing": 5}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "error": {"code": "insufficient_funds", "detail": "short", "next_step": "n", "missing": 5}
    }


def test_a_strangers_name_is_neither_markup_nor_a_command_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "[/red] [link=http://evil]x[/link] \x1b]0;title\x07 \x9b2J \x1b[31m"
    out = Output(as_json=False)
    out.show(table(hostile, ("provider",), [(hostile,)]))
    out.note(plain("\\" + hostile))
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert "[/red] [link=http://evil]x[/link]" in text
        assert not {"\x1b", "\x07", "\x9b"} & set(text)


def test_a_log_keeps_its_colours_and_lines_and_loses_what_drives_the_terminal() -> None:
    assert tame("\x1b[31mred\x1b[0m\ttab\r\n") == "\x1b[31mred\x1b[0m\ttab\r\n"
    assert tame("a\x1b[2Jb\x1b]52;c;ZWNobw==\x07c") == "abc"


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b]0;title\x07",
        "\x1b]0;title\x1b\\",
        "\x1b]52;c;ZWNobw==\x07",
        "\x9d52;c;ZWNobw==\x9c",
        "\x1b]8;;http://evil\x1b\\",
        "\x1bP+q544e\x1b\\",
        "\x1b[6n",
        "\x9b2J",
        "\x1bc",
        "\x1b(0",
        "\x1b[8m",
        "\x1b[5m",
        "\x1b[31;8m",
        "\x1b[?1049h",
    ],
)
def test_a_sequence_that_is_no_plain_colour_is_gone_as_a_whole(hostile: str) -> None:
    assert tame(f"a{hostile}b") == bare(f"a{hostile}b") == "ab"


@pytest.mark.parametrize("colour", ["\x1b[m", "\x1b[0m", "\x1b[01;34m", "\x1b[38;5;208m", "\x1b[48;2;1;2;3m", "\x1b[1;97;40m"])
def test_plain_colours_stay_in_a_log_and_nowhere_else(colour: str) -> None:
    assert tame(f"a{colour}b") == f"a{colour}b"
    assert bare(f"a{colour}b") == "ab"


@settings(max_examples=500)
@given(st.text(alphabet="\x1b\x9b\x9d\x9c\x07\x00[]()\\;?0123 5mJPc\n", max_size=40))
def test_nothing_but_plain_colours_comes_through(text: str) -> None:
    left = re.sub(r"\x1b\[[0-9;]*m", "", tame(text))
    assert not set(left) & {chr(code) for code in (*range(9), *range(11, 13), *range(14, 32), *range(127, 160))}
    assert "\x1b" not in bare(text)


def test_a_long_beginning_of_a_sequence_takes_no_long_time() -> None:
    began = time.perf_counter()
    for start in ("\x1b]", "\x9d", "\x1b[", "\x9b", "\x1bP", "\x1b[31;", "\x1b "):
        tame(start * 100_000)
    assert time.perf_counter() - began < 5


def test_a_hint_keeps_its_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).finish({}, then=("qubix offers 'region in [eu,us]' --all",))
    assert "[eu,us]" in capsys.readouterr().err


def test_amounts_are_grouped_whole_units() -> None:
    assert amount(1234567) == "1 234 567 QU"
    assert amount(None) == "-"


def test_a_time_that_never_was_is_never() -> None:
    assert ago(None) == "never"


@pytest.mark.parametrize("command", ["", "provider", "wallet", "escrow", "keys", "run", "up", "demo", "doctor", "jobs", "logs"])
def test_every_command_explains_itself(command: str) -> None:
    answer = CliRunner().invoke(app, [*command.split(), "--help"])
    assert answer.exit_code == 0, answer.output
    assert "Usage" in answer.output


def test_a_table_in_a_pipe_has_one_line_a_row_however_long_and_no_blanks_at_its_ends(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 100 + "end"
    title = "a title that is longer than the narrow table below it"
    Output(as_json=False).show(table(title, ("id", "n"), [("1", 5), ("2", 12345)], right=("n",)), table("", ("a", "b"), [(long, "x")]))
    assert capsys.readouterr().out.splitlines() == [
        title,
        "id      n",
        "1       5",
        "2   12345",
        "a" + " " * (len(long) + 1) + "b",
        long + "  x",
    ]


def test_a_table_on_a_terminal_keeps_to_its_width() -> None:
    page = io.StringIO()
    terminal = Console(file=page, width=40, force_terminal=True, color_system=None)
    Output(as_json=False, terminal=terminal).show(table("t", ("a",), [("word " * 30,)]))
    assert max(len(line) for line in page.getvalue().splitlines()) == 40


def test_a_sentence_in_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).show("word " * 100 + "end")
    assert capsys.readouterr().out == "word " * 100 + "end\n"

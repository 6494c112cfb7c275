"""The files of cluster_configs: every unit starts something that exists, with settings that exist, and the tools that read them agree."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from qubix.cli.main import app
from qubix.settings import Settings

ROOT = Path(__file__).parents[3]
UNITS = sorted([*(ROOT / "cluster_configs").glob("*/*.service"), *(ROOT / "cluster_configs").glob("*/*.timer")])
BIN = "/opt/qubix/.venv/bin/"
DEBIANS = {"/usr/bin/prometheus", "/bin/kill"}
"""Programs of the system's own packages, as the unit's first lines say."""
NOT_OURS = {"QUBIX_CONFIG", "QUBIX_HEAD", "QUBIX_PRICE"}
"""The command line's own file, and what a unit's command takes from its own lines."""


def logical(unit: Path) -> list[str]:
    """A unit's lines, continued ones joined."""
    return re.sub(r"\\\n\s*", " ", unit.read_text()).splitlines()


def commands(unit: Path) -> Iterator[list[str]]:
    for line in logical(unit):
        if found := re.match(r"Exec\w+=(.*)", line):
            yield shlex.split(found[1])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_each_unit_starts_a_module_or_a_command_that_exists(unit: Path) -> None:
    for program, *arguments in commands(unit):
        if program in DEBIANS:
            continue
        assert program.startswith(BIN)
        match program.removeprefix(BIN):
            case "python":
                option, module, *_ = [argument for argument in arguments if argument != "-P"]
                assert option == "-m"
                assert importlib.util.find_spec(module) is not None, module
                if module == "qubix.fabric.ray_start":
                    assert '--resources={"qubix_head":1000}' in arguments, "systemd takes quotes away that are not quoted themselves"
            case "qubix":
                command = typer.main.get_command(app)
                while arguments and not arguments[0].startswith("-") and hasattr(command, "commands"):
                    assert arguments[0] in command.commands, arguments[0]
                    command = command.commands[arguments.pop(0)]
                known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
                assert {word for word in arguments if word.startswith("--")} <= known
            case other:
                pytest.fail(f"nobody installs {other}")


@pytest.mark.parametrize("file", [*UNITS, ROOT / "cluster_configs/minimal/qubix.env"], ids=lambda file: file.name)
def test_every_variable_is_a_setting(file: Path) -> None:
    named = {word for line in logical(file) if not line.startswith("#") for word in re.findall(r"\b(QUBIX_[A-Z_]+)=", line)}
    assert named - NOT_OURS <= {f"QUBIX_{name.upper()}" for name in Settings.model_fields}


def test_every_process_of_the_smallest_production_has_its_unit_and_the_secrets_are_of_three_users() -> None:
    units = {unit.name: unit.read_text() for unit in UNITS if unit.parent.name == "minimal"}
    assert units.keys() == {
        *("ray-head.service", "qubix-controller.service", "qubix-fabric.service", "qubix-treasury.service", "qubix-signer.service"),
        *("qubix-backup.service", "qubix-backup.timer"),
    }
    users = {name: re.search(r"^User=(.*)$", text, re.M) for name, text in units.items() if name.endswith(".service")}
    assert {name for name, user in users.items() if user and user[1] != "qubix"} == {"qubix-treasury.service", "qubix-signer.service"}
    assert [name for name, text in units.items() if "SIGNER_KEY_FILE" in text] == ["qubix-signer.service"]
    for name, text in units.items():
        if name.endswith(".service"):
            assert "NoNewPrivileges=yes" in text, name
            assert "ProtectSystem=strict" in text, name


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here (Debian: apt-get install systemd)")
def test_systemd_itself_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    here = Path(sys.executable).parent
    absent = [program for program in DEBIANS if not Path(program).exists()]
    for unit in UNITS:
        text = unit.read_text().replace(BIN, f"{here}/")
        for program in absent:  # the unit is what is tested, not this machine's packages
            text = text.replace(program, sys.executable)
        (tmp_path / unit.name).write_text(text)
    names = [str(tmp_path / unit.name) for unit in UNITS]
    said = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, check=False, timeout=60)
    assert [line for line in said.stderr.splitlines() if str(tmp_path) in line or any(unit.name in line for unit in UNITS)] == []
    (tmp_path / "ray-head.service").write_text(f"[Service]\nExecStart={here}/python\nRestrat=always\n")
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", names[-1], str(tmp_path / "ray-head.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Restrat" in said.stderr, "it notices what is wrong"


@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx here (Debian: apt-get install nginx-light)")
def test_nginx_itself_takes_the_example(tmp_path: Path) -> None:
    key = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "privkey.pem", "-out", "fullchain.pem", "-subj", "/CN=x"]
    subprocess.run(key, cwd=tmp_path, check=True, capture_output=True)
    text = (ROOT / "cluster_configs/minimal/nginx.conf").read_text().replace("/etc/ssl/qubix/", f"{tmp_path}/")
    text = re.sub(
        r"listen (?:\[::\]:)?(\d+)([^;]*);",
        lambda found: f"listen unix:{tmp_path}/{found[1]}.{found.start()}\\2;".replace("\\2", found[2]),
        text,
    )
    assert text.count("listen unix:") == 4
    (tmp_path / "qubix.conf").write_text(text)
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{ access_log off; include {tmp_path}/qubix.conf; }}\n")
    said = subprocess.run(
        ["nginx", "-t", "-p", str(tmp_path), "-e", str(tmp_path / "log"), "-c", str(tmp_path / "nginx.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr

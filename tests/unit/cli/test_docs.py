"""What the documents say is what the program has."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from qubix.chains.qubic import identity, keys
from qubix.chains.qubic.transaction import Transaction
from qubix.cli import runfile, settings_page, stack
from qubix.cli.main import app
from qubix.fabric import head
from qubix.fabric.head import HeadAddress
from qubix.settings import Settings

ROOT = Path(__file__).parents[3]


def test_the_settings_page_is_what_the_settings_tree_says() -> None:
    assert settings_page.PAGE.read_text() == settings_page.page(), "python -m qubix.cli.settings_page writes it anew"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_means_something_and_is_read_somewhere(name: str) -> None:
    assert Settings.model_fields[name].description
    places = [path for folder in ("qubix", "serve_app") for path in (ROOT / folder).rglob("*.py") if path.name != "settings.py"]
    assert any(f".{name}" in path.read_text() for path in places)


@pytest.mark.parametrize(("uid", "folder"), [(0, "/var/lib/qubix"), (1000, "/home/anna/.local/share/qubix")])
def test_every_process_keeps_its_files_where_the_page_says(uid: int, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_DATA_HOME", "QUBIX_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert Settings().data_dir == runfile.default_data_dir() == Path(folder)
    assert f"`{folder.replace('/home/anna', '~')}`" in settings_page.PAGE.read_text()


def test_every_command_is_in_the_command_lines_page() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        assert f"qubix {name}" in page or name == "version", name


async def test_the_devnet_pages_example_signs_a_payment_for_a_tick_ahead_and_sees_it_executed() -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "devnet.md").read_text(), re.DOTALL)
    made: dict[str, Any] = {}
    exec(example.replace("asyncio.run(main(*sys.argv[1:]))", ""), made)  # noqa: S102  (our own page)
    sent: list[Transaction] = []

    class Rpc:
        async def tick_info(self) -> SimpleNamespace:
            return SimpleNamespace(tick=100)

        async def broadcast(self, encoded: bytes) -> None:
            sent.append(Transaction.from_bytes(encoded))

        async def last_processed(self) -> SimpleNamespace:
            return SimpleNamespace(tick=200)

        async def transaction(self, tx_id: str) -> object:
            return tx_id

    payee = identity.encode(keys.public_key_from_subseed(keys.subseed_from_seed("b" * 55)))
    assert await made["pay"](Rpc(), keys.new_seed(), payee, 70) == sent[0].id
    assert sent[0].verify()
    assert (sent[0].amount, sent[0].tick, identity.encode(sent[0].destination)) == (70, 100 + made["TICKS_AHEAD"], payee)


def test_readme_says_that_there_is_no_web_page_as_long_as_there_is_none() -> None:
    assert ("There is no web page yet" in (ROOT / "README.md").read_text()) is not (ROOT / "web").exists()


def test_the_ports_of_the_ingress_that_the_operations_page_tells_of_are_named_in_the_run_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    made = stack.Stack(stack.Plan(tmp_path), say=lambda _: None)
    made._runtime = tmp_path
    where = HeadAddress("127.0.0.1:1", "http://127.0.0.1:2", "token", "r", 1, 2, stats := 4, metrics := 5, fallback := 6)
    started = SimpleNamespace(where=where, environment={}, process=SimpleNamespace(members=list))
    monkeypatch.setattr(stack, "start_head", lambda *_, **__: started)
    made._start_ray(0)
    for name, port in (("haproxy_stats", stats), ("haproxy_metrics", metrics)):
        assert made.run.ports[name] == port
        assert f"`{name}` in `run.json`" in page
    assert made.run.ports["serve_fallback"] == fallback
    assert "`serve_fallback`\nof `run.json`" in page


def test_no_port_of_serves_proxies_is_the_same_for_all_platforms_of_a_machine(tmp_path: Path) -> None:
    ray = Path(str(find_spec("ray").origin)).parent  # type: ignore[union-attr]
    known = set(re.findall(r'"(RAY_SERVE_\w+_PORT)"', (ray / "serve" / "_private" / "constants.py").read_text()))
    ours = head._proxy_environment(tmp_path, 1, 2, 3, 4)
    # Ranges, of which each replica takes a free one; and two that only override others on worker nodes.
    ranges = {name for name in known if "_MIN_" in name or "_MAX_" in name}
    assert known - ranges - set(ours) == {"RAY_SERVE_WORKER_PROXY_HTTP_PORT", "RAY_SERVE_WORKER_PROXY_GRPC_PORT"}


def test_readme_opens_with_the_two_commands() -> None:
    top = (ROOT / "README.md").read_text()[:700]
    assert "make demo" in top
    assert "make test" in top


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md"])
def test_every_make_target_that_a_page_names_is_there(page: str) -> None:
    made = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)(?=`| +#)", (ROOT / page).read_text()))
    assert "install" in named <= made


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(app, ["version", "--json"]).exit_code == 0

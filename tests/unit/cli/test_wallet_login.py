"""`qubix login --wallet`: in one go at a terminal, in two steps elsewhere; the signatures are judged as the platform judges them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from qubix.chains.qubic import login
from qubix.chains.qubic.login import Scheme
from qubix.cli import account, main
from qubix.cli.client import Client
from qubix.cli.wallet_login import read_signed
from qubix.identity import challenge
from qubix.kernel.clock import SystemClock
from qubix.kernel.errors import Invalid
from tests.fakes.wallets import QubicWallet

WALLET = QubicWallet()
ISSUED = challenge.issue("qubix.example", WALLET.identity, now=SystemClock().now())


class Platform:
    """Knows one challenge; its accounts have no address."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        body = json.loads(request.content or b"{}")
        user = {"id": "0190aaaa-0000-7000-8000-000000000001", "email": None}
        if request.url.path == "/api/wallet/challenge":
            made = {"nonce": ISSUED.nonce, "identity": body["identity"], "purpose": "login", "text": ISSUED.text, "expires_at": "2026"}
            return httpx.Response(201, json=made)
        if request.url.path == "/api/wallet/connect":
            assert body["nonce"] == ISSUED.nonce
            if login.verify(Scheme(body["scheme"]), WALLET.identity, ISSUED.text, body["signature"]):
                return httpx.Response(200, json={"access_token": "qs_session", "user": user})
            return httpx.Response(401, json={"code": "wrong_signature", "detail": "no", "next_step": "sign"})
        if request.url.path == "/api/auth/keys":
            assert request.headers["authorization"] == "Bearer qs_session"
            return httpx.Response(201, json={"key": "qk_made"})
        return httpx.Response(200, json=user)


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setenv("QUBIX_CONFIG", str(tmp_path / "config.json"))
    found = Platform()
    client: Callable[..., Client] = lambda url, key=None: Client(url, key, transport=httpx.MockTransport(found))  # noqa: E731
    monkeypatch.setattr(account, "Client", client)
    return found


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, typed: str | None = None) -> int:
    monkeypatch.setattr(sys, "argv", ["qubix", "login", "--url", "http://platform.example", *arguments])
    terminal = io.StringIO(typed or "")
    monkeypatch.setattr(terminal, "isatty", lambda: typed is not None, raising=False)
    monkeypatch.setattr(sys, "stdin", terminal)
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def saved(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize("lines", [None, 2])
@pytest.mark.parametrize("whole", [False, True])
def test_at_a_terminal_the_text_is_shown_and_the_wallets_answer_pasted(
    platform: Platform, whole: bool, lines: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signature = WALLET.sign(Scheme.MANUAL, ISSUED.text)
    answer = json.dumps({"identity": WALLET.identity, "message": ISSUED.text, "signature": signature}, indent=lines) if whole else signature
    assert run(monkeypatch, "--wallet", WALLET.identity, typed=answer + "\n") == 0
    assert ISSUED.text + "\n" in capsys.readouterr().out
    assert saved(tmp_path) == {"url": "http://platform.example", "api_key": "qk_made"}


def test_without_a_terminal_the_first_step_prints_the_text_and_the_second_logs_in(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--wallet", WALLET.identity) == 0
    said = capsys.readouterr()
    assert said.out == ISSUED.text + "\n"
    again = f"qubix login --url http://platform.example --wallet {WALLET.identity} --nonce {ISSUED.nonce} --signature …"
    assert again in said.err, "this machine knows no platform yet"
    assert not (tmp_path / "config.json").exists()
    signed = WALLET.sign(Scheme.EXTENSION, ISSUED.text)
    assert run(monkeypatch, "--wallet", WALLET.identity, "--nonce", ISSUED.nonce, "--signature", signed, "--scheme", "extension") == 0
    assert saved(tmp_path)["api_key"] == "qk_made"


def test_with_json_each_step_is_one_document(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--wallet", WALLET.identity, "--json", typed="") == 0
    said = capsys.readouterr()
    asked = json.loads(said.out)["challenge"]
    assert (asked["text"], said.err) == (ISSUED.text, "")
    signed = WALLET.sign(Scheme.MANUAL, asked["text"])
    assert run(monkeypatch, "--wallet", WALLET.identity, "--json", "--nonce", asked["nonce"], "--signature", signed) == 0
    assert json.loads(capsys.readouterr().out)["user"]["email"] is None


def test_a_wrong_signature_logs_nobody_in_and_says_what_to_do(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signed = QubicWallet().sign(Scheme.MANUAL, ISSUED.text)
    assert run(monkeypatch, "--wallet", WALLET.identity, "--json", "--nonce", ISSUED.nonce, "--signature", signed) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "wrong_signature"
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--wallet", WALLET.identity, "--nonce", "0"),
        ("--wallet", WALLET.identity, "--signature", "x"),
        ("--wallet", WALLET.identity, "--email", "a@example.com"),
        ("--wallet", WALLET.identity, "--key", "qk_x"),
        ("--scheme", "manual"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_asked(
    platform: Platform, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, *options, "--json") == 2
    assert platform.asked == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (" ABC\n", (Scheme.MANUAL, "ABC")),
        ('{"signatureHex": "00ff", "digestHex": "aa"}', (Scheme.EXTENSION, "00ff")),
        ('{"signedData": "eA==", "digest": "eA==", "signature": "c2ln"}', (Scheme.WALLETCONNECT, "c2ln")),
        ('{"signature": "ABC"}', (Scheme.MANUAL, "ABC")),
    ],
)
def test_a_wallets_answer_tells_how_it_signs(given: str, expected: tuple[Scheme, str]) -> None:
    assert read_signed(given, wallet=WALLET.identity, scheme=None) == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ('{"identity": "A', "whole answer"),
        ("{}", "no signature"),
        ('{"signature": 1}', "no signature"),
        ('{"identity": "ANOTHER", "signature": "A"}', "another wallet"),
        ('{"message": "text\\n", "signature": "A"}', "another text"),
    ],
)
def test_an_answer_that_cannot_be_right_is_told_before_it_is_sent(given: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        read_signed(given, wallet=WALLET.identity, scheme=None, text="text")

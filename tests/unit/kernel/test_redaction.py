"""Logs never carry a secret, whatever member it hides in."""

from __future__ import annotations

import pytest

from qubix.observability import REDACTED, redact


@pytest.mark.parametrize("name", ["password", "api_key", "Authorization", "session_token", "client_secret", "set_cookie", "private_key"])
def test_members_with_a_secret_name_are_blanked(name: str) -> None:
    assert redact(None, "info", {name: "canary"})[name] == REDACTED


@pytest.mark.parametrize(
    "text", ["login with qk_abcdefghijkl failed", "Authorization: Bearer canary123", "postgresql://web:canary@127.0.0.1/qubix"]
)
def test_secrets_inside_text_are_blanked(text: str) -> None:
    out = redact(None, "info", {"event": text})["event"]
    assert REDACTED in out
    assert "canary" not in out
    assert "abcdefghijkl" not in out


def test_ordinary_members_stay() -> None:
    assert redact(None, "info", {"event": "job placed", "job_id": "1"}) == {"event": "job placed", "job_id": "1"}

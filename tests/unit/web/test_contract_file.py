"""The committed OpenAPI document."""

from __future__ import annotations

from serve_app import openapi


def test_the_committed_contract_is_fresh() -> None:
    assert openapi.PATH.read_text() == openapi.document(), "run: python -m serve_app.openapi"

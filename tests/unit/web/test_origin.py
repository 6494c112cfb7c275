"""Whose page a request comes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from serve_app.errors import CrossSite
from serve_app.origin import Origins

ORIGINS = Origins("https://qubix.example", ("https://friend.example",))


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({"origin": "https://qubix.example"}, True),
        ({"origin": "HTTPS://QUBIX.EXAMPLE"}, True),
        ({"origin": "https://friend.example"}, True),
        ({"origin": "https://qubix.example.evil.example"}, False),
        ({"origin": "https://qubix.example:444"}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://evil.example", "sec-fetch-site": "same-origin"}, False),
        ({"origin": "http://10.0.0.1:8080", "host": "10.0.0.1:8080"}, True),
        ({"origin": "", "host": ""}, False),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({}, False),
    ],
)
def test_the_origin_header_decides_and_without_it_the_browsers_own_word(headers: dict[str, str], ours: bool) -> None:
    assert ORIGINS.is_ours(Headers(headers)) is ours


@given(st.text(min_size=1, max_size=60))
def test_no_other_origin_counts_as_ours(origin: str) -> None:
    headers = Headers(raw=[(b"origin", origin.encode("utf-8", "replace"))])
    ours = headers["origin"].lower() in {"https://qubix.example", "https://friend.example"}
    assert ORIGINS.is_ours(headers) is ours or headers["origin"].lower().startswith(("https://qubix.example/", "https://friend.example/"))


def test_reading_is_allowed_from_anywhere_and_changing_is_not() -> None:
    foreign = Headers({"origin": "https://evil.example"})
    ORIGINS.check_cookie_request("GET", foreign)
    with pytest.raises(CrossSite):
        ORIGINS.check_cookie_request("DELETE", foreign)


def test_a_program_may_log_in_without_an_origin() -> None:
    ORIGINS.check_foreign_form(Headers({}))
    with pytest.raises(CrossSite):
        ORIGINS.check_foreign_form(Headers({"sec-fetch-site": "cross-site"}))

"""The devnet's own explorer: a link to a transaction, an address or a tick opens a page that names it."""

from __future__ import annotations

import re

import httpx
import pytest

from qubix.chains.qubic.explorer import Explorer
from tests.integration.chains.devnet_process import Devnet, Person

ALICE, BOB = Person(61), Person(62)
FUNDED = (ALICE,)


def opened(devnet: Devnet, link: str) -> httpx.Response:
    found = devnet.http.get(link)
    assert found.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in found.headers["content-security-policy"]
    return found


def test_p_b35_the_link_of_a_transaction_opens_its_hash_before_and_after_it_executes(devnet: Devnet) -> None:
    links = Explorer(f"{devnet.url}/network")
    sent = ALICE.pays(BOB.key, 12_345, devnet.tick + 3, payload=b"<script>qubix:job:1</script>")
    unknown = opened(devnet, links.transaction(sent.id))
    assert (unknown.status_code, sent.id in unknown.text) == (404, True)
    devnet.send(sent).raise_for_status()
    waiting = opened(devnet, links.transaction(sent.id))
    assert (waiting.status_code, sent.id in waiting.text, "waits for tick" in waiting.text) == (200, True, True)
    devnet.step(3)
    executed = opened(devnet, links.transaction(sent.id))
    assert executed.status_code == 200
    for part in (sent.id, ALICE.identity, BOB.identity, str(sent.tick), "12 345 QU", "money moved"):
        assert part in executed.text
    assert "<script>" not in executed.text
    for link in re.findall(r'href="\.\./([^"]+)"', executed.text):
        assert opened(devnet, f"{devnet.url}/network/{link}").status_code == 200
    for page in (links.address(BOB.identity), links.tick(sent.tick)):
        assert sent.id in opened(devnet, page).text


@pytest.mark.parametrize(
    "path", ["tx/" + "a" * 60, "tx/nope", "tx/%3Cb%3E", "address/nope", "tick/x", "tick/99999999999", "tick/1", "tick/4294967295"]
)
def test_what_is_not_there_is_said_on_a_page_too(devnet: Devnet, path: str) -> None:
    found = opened(devnet, f"{devnet.url}/network/{path}")
    assert found.status_code == 404
    assert "<b>" not in found.text

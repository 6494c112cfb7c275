"""The text that a wallet signs to log in, and whom it may be made for."""

from __future__ import annotations

import datetime as dt
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.chains.qubic import identity, login
from qubix.chains.qubic.errors import InvalidIdentity
from qubix.chains.qubic.login import Scheme
from qubix.identity import challenge
from qubix.identity.challenge import Purpose
from qubix.identity.model import User, normal_email
from qubix.kernel.ids import UserId, new_id
from tests.fakes.wallets import QubicWallet
from tests.unit.chains.qubic import vectors

WALLETS = [key["identity"] for key in vectors.KEYS]
TIMES = st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2100, 1, 1), timezones=st.timezones())
DOMAINS = st.sampled_from(["qubix.example", "127.0.0.1:8080", "[::1]:8080", "xn--bcher-kva.example"])
LOCAL = st.text(string.ascii_letters + string.digits + "+_-", min_size=1, max_size=20)
ACCOUNTS = st.builds(
    User,
    id=st.builds(lambda: UserId(new_id())),
    email=st.none() | LOCAL.map(lambda local: normal_email(f"{local}@example.com")),
    name=st.text(max_size=100),
    roles=st.just(frozenset()),
    created_at=st.just(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
)


@given(DOMAINS, st.sampled_from(WALLETS), TIMES, st.none() | ACCOUNTS)
def test_a_text_is_printable_longer_than_a_digest_and_says_all_that_it_is_for(
    domain: str, wallet: str, now: dt.datetime, account: User | None
) -> None:
    made = challenge.issue(domain, wallet, now=now, account=account)
    lines = made.text.split("\n")
    assert len(made.text) > 32
    assert len(lines) > 5
    assert all(re.fullmatch(r"[ -~]*", line) for line in lines)
    assert made.text == made.text.strip()
    for line in (f"Domain: {domain}", f"Identity: {wallet}", f"Nonce: {made.nonce}", f"Expires: {made.expires_at:%Y-%m-%dT%H:%M:%SZ}"):
        assert lines.count(line) == 1
    assert made.purpose is (Purpose.LOGIN if account is None else Purpose.LINK)
    assert made.user_id == (None if account is None else account.id)
    assert ("log in with your Qubic wallet" in lines[0]) is (account is None)
    assert sum(line.startswith("Account: ") for line in lines) == (account is not None)


@given(TIMES)
def test_a_challenge_lives_five_minutes_from_the_second_it_was_made(now: dt.datetime) -> None:
    made = challenge.issue("qubix.example", WALLETS[0], now=now)
    assert made.expires_at - made.issued_at == dt.timedelta(minutes=5)
    assert dt.timedelta(0) <= now - made.issued_at < dt.timedelta(seconds=1)
    assert made.issued_at.tzinfo is dt.UTC


def test_a_nonce_has_128_bits_and_never_comes_twice() -> None:
    now = dt.datetime.now(dt.UTC)
    nonces = [challenge.issue("qubix.example", WALLETS[0], now=now).nonce for _ in range(1000)]
    assert len(set(nonces)) == 1000
    assert all(challenge.is_nonce(nonce) for nonce in nonces)


@given(st.text())
def test_any_other_text_is_no_nonce(text: str) -> None:
    assert challenge.is_nonce(text) is (re.fullmatch("[0-9a-f]{32}", text) is not None)
    assert not challenge.is_nonce("0" * 32 + "\n")


@given(st.text(max_size=80) | st.sampled_from(vectors.BAD_IDENTITIES))
def test_what_is_no_identity_is_refused_by_its_own_error(text: str) -> None:
    with pytest.raises(InvalidIdentity) as caught:
        challenge.check_identity(text)
    assert caught.value.extra["field"] == "identity"
    assert caught.value.next_step


@pytest.mark.parametrize("index", [0, 1, 4, 465, 1023])
def test_a_contract_signs_nothing_and_gets_no_challenge(index: int) -> None:
    with pytest.raises(InvalidIdentity, match="No wallet holds"):
        challenge.check_identity(identity.encode(identity.contract(index)))


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("https://qubix.example", "qubix.example"),
        ("https://Qubix.Example/", "qubix.example"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://[::1]:8080/x", "[::1]:8080"),
        ("https://somebody:secret@qubix.example", "qubix.example"),
        ("https://qubіx.example", "xn--qubx-n9d.example"),
    ],
)
def test_the_domain_is_the_addresss_host_and_look_alike_letters_show(url: str, domain: str) -> None:
    assert challenge.domain_of(url) == domain


@pytest.mark.parametrize("scheme", Scheme)
def test_a_signature_of_one_challenge_is_none_of_another_nor_of_the_other_purpose(scheme: Scheme) -> None:
    wallet, now = QubicWallet(), dt.datetime.now(dt.UTC)
    account = User(UserId(new_id()), None, "", frozenset(), now)
    texts = [challenge.issue("qubix.example", wallet.identity, now=now, account=found).text for found in (None, None, account)]
    for signed in texts:
        for text in texts:
            assert login.verify(scheme, wallet.identity, text, wallet.sign(scheme, signed)) is (text == signed)
    assert not login.verify(scheme, wallet.identity, texts[0], wallet.twin(scheme, texts[0]))

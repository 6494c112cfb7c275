"""Addresses, passwords, tokens and scopes: the pure rules, and the hasher."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.identity import model
from qubix.identity import passwords as passwords_module
from qubix.identity.model import Principal, Scope, ScopeMissing, Via
from qubix.identity.passwords import Passwords
from qubix.identity.service import request_hash
from qubix.kernel.errors import Invalid
from qubix.kernel.ids import UserId, new_id

LOCAL = st.text(string.ascii_letters + string.digits + "+_-", min_size=1, max_size=20)


@given(LOCAL, st.sampled_from(["example.com", "EXAMPLE.com", "mail.Example.org"]))
def test_an_address_has_one_form_and_that_form_is_its_own(local: str, domain: str) -> None:
    normal = model.normal_email(f"  {local}@{domain} ")
    assert normal == normal.lower()
    assert model.normal_email(normal) == normal
    assert model.normal_email(f"{local.upper()}@{domain.upper()}") == normal


@pytest.mark.parametrize(
    "text", ["", "ada", "ada@", "@example.com", "a b@example.com", "ada@example", "x" * 400 + "@example.com", "a@b@example.com"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        model.normal_email(text)


@given(st.text(max_size=300))
def test_a_password_has_10_to_256_characters(password: str) -> None:
    if 10 <= len(password) <= 256:
        model.check_password(password)
    else:
        with pytest.raises(Invalid):
            model.check_password(password)


def test_secrets_have_256_bits_and_their_prefix() -> None:
    made = {model.new_secret(model.KEY_PREFIX) for _ in range(100)}
    assert len(made) == 100
    assert all(secret.startswith("qk_") and len(secret) == 3 + 43 for secret in made)
    assert all(len(model.token_hash(secret)) == 32 for secret in made)


@given(st.sets(st.sampled_from(Scope)), st.sampled_from(Scope))
def test_a_credential_may_do_what_its_scopes_say(scopes: set[Scope], asked: Scope) -> None:
    principal = Principal(UserId(new_id()), frozenset(), frozenset(scopes), Via.KEY)
    if asked in scopes:
        principal.require(asked)
    else:
        with pytest.raises(ScopeMissing):
            principal.require(asked)


def test_a_key_gets_no_account_scope_unless_asked_and_unknown_scopes_are_refused() -> None:
    assert Scope.ACCOUNT not in model.parse_scopes(None)
    assert model.parse_scopes(["read", "account"]) == {Scope.READ, Scope.ACCOUNT}
    for wrong in ([], ["everything"]):
        with pytest.raises(Invalid):
            model.parse_scopes(wrong)


@pytest.mark.parametrize("name", ["x" * 101, "line\nbreak", "\x00"])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        model.check_name("a" + name)


async def test_a_password_verifies_and_nobodys_never_does() -> None:
    passwords = Passwords(memory_kib=8, time_cost=1)
    stored = await passwords.hash("correct horse")
    assert stored.startswith("$argon2id$")
    assert stored != await passwords.hash("correct horse")
    assert await passwords.verify("correct horse", stored)
    assert not await passwords.verify("wrong horse", stored)
    assert not await passwords.verify("nobody has this password", None)


def test_a_request_is_the_same_whatever_the_order_of_its_members() -> None:
    one = request_hash("POST", "/x", {"a": 1, "b": [1, 2]})
    assert one == request_hash("POST", "/x", {"b": [1, 2], "a": 1})
    assert one != request_hash("POST", "/x", {"b": [2, 1], "a": 1})
    assert one != request_hash("POST", "/y", {"a": 1, "b": [1, 2]})


async def test_an_unknown_account_costs_the_same_work_as_a_known_one() -> None:
    passwords = Passwords()
    stored = await passwords.hash("correct horse")
    assert stored.split("$")[:4] == passwords_module._DECOY.split("$")[:4]
    assert not await passwords.verify("correct horse", None)

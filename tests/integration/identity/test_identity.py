"""Accounts on the real database, as the web role."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.identity.model import EmailTaken, Key, Role, Scope, ScopeMissing, User, Via, WrongLogin
from qubix.identity.service import KeyReused, StillRunning, request_hash
from qubix.kernel.errors import Conflict, Invalid, NotFound, Unauthenticated
from qubix.kernel.ids import UserId
from qubix.postgres.embedded import OWNER
from tests.conftest import Database

pytestmark = pytest.mark.postgres
PASSWORD = "correct horse battery"


async def signup(resources: Resources, email: str = "ada@example.com") -> UserId:
    async with scope(resources) as s:
        return (await s.identity.signup(email, PASSWORD, "Ada")).id


async def test_a_sign_up_opens_wallets_and_the_password_logs_in(resources: Resources, owner: AsyncConnection) -> None:
    user_id = await signup(resources, "  Ada@Example.COM ")
    assert await owner.scalar(sa.text("SELECT count(*) FROM accounts WHERE owner_id = :id AND kind = 'wallet'"), {"id": user_id}) == 2
    async with scope(resources) as s:
        user, session = await s.identity.login("ADA@example.com", PASSWORD, kind=Via.BROWSER)
        assert user.id == user_id
        assert user.email == "ada@example.com"
        principal = await s.identity.authenticate(session.token)
    assert principal.user_id == user_id
    assert principal.via is Via.BROWSER
    assert principal.scopes == frozenset(Scope)


async def test_an_address_signs_up_once_whatever_its_case(resources: Resources) -> None:
    await signup(resources)
    with pytest.raises(EmailTaken):
        await signup(resources, "ADA@example.com")


@pytest.mark.parametrize("password", ["short", "x" * 257])
async def test_a_password_out_of_bounds_is_refused(resources: Resources, password: str) -> None:
    async with scope(resources) as s:
        with pytest.raises(Invalid):
            await s.identity.signup("bob@example.com", password)


@pytest.mark.parametrize(
    ("email", "password"), [("ada@example.com", "wrong password"), ("nobody@example.com", PASSWORD), ("not an address", PASSWORD)]
)
async def test_a_wrong_login_says_the_same_for_every_reason(resources: Resources, email: str, password: str) -> None:
    await signup(resources)
    async with scope(resources) as s:
        with pytest.raises(WrongLogin) as caught:
            await s.identity.login(email, password)
    assert caught.value.message == "The address or the password is wrong."


async def test_a_session_ends_by_logout_and_all_of_them_by_logout_everywhere(resources: Resources) -> None:
    user_id = await signup(resources)
    async with scope(resources) as s:
        one, two, three = [await s.identity.open_session(user_id, Via.BEARER) for _ in range(3)]
        assert await s.identity.logout(one.token) == 1
        assert await s.identity.logout(one.token) == 0
        assert await s.identity.logout(two.token, everywhere=True) == 2
        for ended in (one, two, three):
            with pytest.raises(Unauthenticated):
                await s.identity.authenticate(ended.token)


async def test_an_expired_session_is_nobody_and_is_swept(resources: Resources, owner: AsyncConnection) -> None:
    user_id = await signup(resources)
    async with scope(resources) as s:
        session = await s.identity.open_session(user_id, Via.BEARER)
    await owner.execute(sa.text("UPDATE sessions SET expires_at = now() - interval '1 second'"))
    async with scope(resources) as s:
        with pytest.raises(Unauthenticated):
            await s.identity.authenticate(session.token)
        assert await s.identity.sweep() == 1


async def test_no_token_lies_in_the_database(resources: Resources, owner: AsyncConnection) -> None:
    user_id = await signup(resources)
    async with scope(resources) as s:
        session, key = await s.identity.open_session(user_id, Via.BEARER), await s.identity.add_key(user_id, "cli")
    dump = ""
    for table in ("users", "sessions", "api_keys"):
        dump += str((await owner.execute(sa.text(f"SELECT row_to_json(t)::text FROM {table} t"))).all())
    assert key.secret is not None
    assert session.token not in dump
    assert key.secret not in dump
    assert PASSWORD not in dump


async def test_an_api_key_works_within_its_scopes_until_it_is_revoked(resources: Resources, owner: AsyncConnection) -> None:
    user_id = await signup(resources)
    async with scope(resources) as s:
        key = await s.identity.add_key(user_id, "reader", ["read"])
        assert key.secret is not None
        assert key.secret.startswith("qk_")
        principal = await s.identity.authenticate(key.secret)
        principal.require(Scope.READ)
        with pytest.raises(ScopeMissing):
            principal.require(Scope.MONEY)
        assert [k.secret for k in await s.identity.keys(user_id)] == [None]
    assert await owner.scalar(sa.text("SELECT last_used_at IS NOT NULL FROM api_keys"))
    async with scope(resources) as s:
        await s.identity.remove_key(user_id, key.id)
        with pytest.raises(Unauthenticated):
            await s.identity.authenticate(key.secret)


async def test_the_use_of_a_key_is_noted_coarsely(resources: Resources, owner: AsyncConnection) -> None:
    user_id = await signup(resources)
    async with scope(resources) as s:
        key = await s.identity.add_key(user_id, "cli")
        await s.identity.authenticate(key.secret or "")
    first = await owner.scalar(sa.text("SELECT last_used_at FROM api_keys"))
    async with scope(resources) as s:
        await s.identity.authenticate(key.secret or "")
    assert await owner.scalar(sa.text("SELECT last_used_at FROM api_keys")) == first


async def test_another_accounts_key_cannot_be_seen_or_revoked(resources: Resources) -> None:
    ada, eve = await signup(resources), await signup(resources, "eve@example.com")
    async with scope(resources) as s:
        key = await s.identity.add_key(ada, "mine")
        assert await s.identity.keys(eve) == []
        with pytest.raises(NotFound):
            await s.identity.remove_key(eve, key.id)


async def test_a_password_changes_only_with_the_current_one_and_ends_every_session(resources: Resources) -> None:
    user_id = await signup(resources)
    async with scope(resources) as s:
        session = await s.identity.open_session(user_id, Via.BROWSER)
        with pytest.raises(WrongLogin):
            await s.identity.patch_me(user_id, password="a brand new one", current_password="guess")
        assert (await s.identity.patch_me(user_id, name="Countess")).name == "Countess"
        await s.identity.patch_me(user_id, password="a brand new one", current_password=PASSWORD)
        with pytest.raises(Unauthenticated):
            await s.identity.authenticate(session.token)
        await s.identity.login("ada@example.com", "a brand new one")


async def test_the_first_operator_is_made_once_under_a_race(resources: Resources, database: Database) -> None:
    owners = database.resources(OWNER)

    async def make(number: int) -> tuple[User, Key] | None:
        async with scope(owners) as s:
            return await s.identity.first_operator(f"op{number}@example.com")

    made = [result for result in await asyncio.gather(*(make(n) for n in range(4))) if result is not None]
    await owners.close()
    assert len(made) == 1
    async with scope(resources) as s:
        _, key = made[0]
        assert (await s.identity.authenticate(key.secret or "")).roles == frozenset(Role)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE users SET roles = ARRAY['operator'] WHERE id = :id",
        "INSERT INTO users (id, email, roles) VALUES (gen_random_uuid(), 'eve@example.com', ARRAY['arbiter'])",
        "INSERT INTO users (id, email) VALUES (:id, 'eve@example.com') ON CONFLICT (id) DO UPDATE SET roles = ARRAY['operator']",
        "UPDATE users SET email = 'eve@example.com' WHERE id = :id",
        "UPDATE users SET disabled_at = NULL WHERE id = :id",
        "DELETE FROM users WHERE id = :id",
        "ALTER TABLE users DISABLE TRIGGER ALL",
    ],
)
async def test_a_hole_in_the_web_layer_makes_nobody_operator_or_arbiter(resources: Resources, statement: str) -> None:
    user_id = await signup(resources)
    with pytest.raises(DBAPIError, match=r"permission denied|must be owner"):
        async with scope(resources) as s:
            await s.connection.execute(sa.text(statement), {"id": user_id} if ":id" in statement else {})
    async with scope(resources) as s:
        assert (await s.identity.me(user_id)).roles == frozenset()


async def test_the_web_role_cannot_make_the_first_operator(resources: Resources) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        async with scope(resources) as s:
            await s.identity.first_operator("eve@example.com")


async def test_the_same_idempotency_key_gives_the_same_answer_and_another_body_a_conflict(resources: Resources) -> None:
    user_id = await signup(resources)
    hashed = request_hash("POST", "/api/jobs/create", {"a": 1})
    async with scope(resources) as s:
        assert await s.identity.begin_request(user_id, "k", hashed) is None
        await s.identity.finish_request(user_id, "k", 201, {"job": "1"})
    async with scope(resources) as s:
        again = await s.identity.begin_request(user_id, "k", hashed)
        assert again is not None
        assert (again.status, again.response) == (201, {"job": "1"})
        with pytest.raises(KeyReused):
            await s.identity.begin_request(user_id, "k", request_hash("POST", "/api/jobs/create", {"a": 2}))


async def test_fifty_parallel_requests_with_one_key_have_one_effect(resources: Resources, owner: AsyncConnection) -> None:
    user_id = await signup(resources)
    hashed = request_hash("POST", "/x", b"body")
    ran: list[int] = []

    async def request(number: int) -> object:
        async with scope(resources) as s:
            before = await s.identity.begin_request(user_id, "once", hashed)
            if before is not None:
                return before.response
            ran.append(number)
            await asyncio.sleep(0.02)
            await s.identity.finish_request(user_id, "once", 200, {"by": number})
            return {"by": number}

    answers = await asyncio.gather(*(request(n) for n in range(50)))
    assert len(ran) == 1
    assert answers == [{"by": ran[0]}] * 50


async def test_a_request_that_failed_leaves_its_key_free(resources: Resources) -> None:
    user_id = await signup(resources)
    hashed = request_hash("POST", "/x", b"")

    async def fail() -> None:
        async with scope(resources) as s:
            await s.identity.begin_request(user_id, "k", hashed)
            raise Conflict("no money")

    with pytest.raises(Conflict, match="no money"):
        await fail()
    async with scope(resources) as s:
        assert await s.identity.begin_request(user_id, "k", hashed) is None


async def test_a_key_taken_and_never_answered_is_reported_as_running(resources: Resources) -> None:
    user_id = await signup(resources)
    hashed = request_hash("POST", "/x", b"")
    async with scope(resources) as s:
        await s.identity.begin_request(user_id, "k", hashed)
    async with scope(resources) as s:
        with pytest.raises(StillRunning):
            await s.identity.begin_request(user_id, "k", hashed)


async def test_one_accounts_idempotency_key_is_not_anothers(resources: Resources) -> None:
    ada, eve = await signup(resources), await signup(resources, "eve@example.com")
    async with scope(resources) as s:
        await s.identity.begin_request(ada, "k", request_hash("POST", "/x", b"1"))
        assert await s.identity.begin_request(eve, "k", request_hash("POST", "/x", b"2")) is None


@pytest.mark.parametrize("token", ["", "qk_", "qs_nothing", "x" * 5000, str(UUID(int=1))])
async def test_an_unknown_token_is_nobody(resources: Resources, token: str) -> None:
    async with scope(resources) as s:
        with pytest.raises(Unauthenticated):
            await s.identity.authenticate(token)


async def test_the_controller_may_sweep_and_may_not_read_password_hashes(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    user_id = await signup(resources)
    async with scope(resources) as s:
        await s.identity.open_session(user_id, Via.BEARER)
        await s.identity.begin_request(user_id, "k", request_hash("POST", "/x", b""))
    await owner.execute(sa.text("UPDATE sessions SET expires_at = now() - interval '1 second'"))
    await owner.execute(sa.text("UPDATE idempotency_keys SET created_at = now() - interval '49 hours'"))
    async with scope(controller_resources) as s:
        assert await s.identity.sweep() == 2
    async with controller_resources.engine.connect() as connection:
        with pytest.raises(DBAPIError, match="permission denied"):
            await connection.execute(sa.text("SELECT password_hash FROM users"))

"""The database's own rules of wallet logins, as the web role and the controller meet them."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.chains.qubic.login import Scheme
from qubix.identity.challenge import Challenge, LastWayIn
from qubix.identity.model import User, Via
from tests.fakes.wallets import QubicWallet

pytestmark = pytest.mark.postgres


async def logged_in(resources: Resources, wallet: QubicWallet) -> User:
    async with scope(resources) as s:
        asked = await s.wallet_logins.login_challenge(wallet.identity)
    async with scope(resources) as s:
        signed = wallet.sign(Scheme.MANUAL, asked.text)
        return (await s.wallet_logins.connect(asked.nonce, Scheme.MANUAL, signed, kind=Via.BEARER)).user


async def asked(resources: Resources) -> Challenge:
    async with scope(resources) as s:
        return await s.wallet_logins.login_challenge(QubicWallet().identity)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE wallet_challenges SET text = 'Nonce ' || nonce || ' ' || identity",
        "UPDATE wallet_challenges SET identity = repeat('A', 60)",
        "UPDATE wallet_challenges SET expires_at = expires_at + interval '1 hour'",
        "DELETE FROM wallet_challenges",
        "UPDATE wallet_identities SET user_id = gen_random_uuid()",
        "UPDATE users SET email = 'eve@example.com'",
    ],
)
async def test_the_web_role_changes_no_challenge_and_moves_no_wallet(resources: Resources, statement: str) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        async with scope(resources) as s:
            await s.connection.execute(sa.text(statement))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"expires": "interval '6 minutes'"}, "short"),
        ({"text": "'sign here'"}, "text"),
        ({"purpose": "'link'"}, "purpose"),
        ({"nonce": "'1234'"}, "nonce"),
        ({"identity": "repeat('a', 60)"}, "identity"),
    ],
)
async def test_no_challenge_is_kept_that_breaks_its_rules(resources: Resources, change: dict[str, str], rule: str) -> None:
    given = {
        "nonce": "repeat('0', 32)",
        "identity": "repeat('A', 60)",
        "text": "repeat('0', 32) || repeat('A', 60)",
        "purpose": "'login'",
        "expires": "interval '5 minutes'",
        **change,
    }
    with pytest.raises(DBAPIError, match=f"wallet_challenges_{rule}|ck_wallet_challenges_{rule}"):
        async with scope(resources) as s:
            await s.connection.execute(
                sa.text(
                    "INSERT INTO wallet_challenges (nonce, identity, text, purpose, created_at, expires_at) VALUES"
                    " ({nonce}, {identity}, {text}, {purpose}, now(), now() + {expires})".format_map(given)
                )
            )


async def test_an_address_is_set_once_and_nobody_elses_is_taken(resources: Resources, owner: AsyncConnection) -> None:
    user = await logged_in(resources, QubicWallet())
    async with scope(resources) as s:
        await s.identity.signup("ada@example.com", "correct horse battery")
        said = [
            await s.connection.scalar(sa.text("SELECT set_email(:id, :email)"), {"id": user.id, "email": email})
            for email in ("ada@example.com", "wally@example.com", "wally@example.com", "other@example.com")
        ]
    assert said == ["taken", "set", "set", "kept"]
    assert await owner.scalar(sa.text("SELECT email FROM users WHERE id = :id"), {"id": user.id}) == "wally@example.com"


async def test_of_an_accounts_two_wallets_removed_at_once_one_stays(resources: Resources, owner: AsyncConnection) -> None:
    user = await logged_in(resources, QubicWallet())
    async with scope(resources) as s:
        await s.connection.execute(
            sa.text("INSERT INTO wallet_identities (identity, user_id, scheme) VALUES (:identity, :user, 'manual')"),
            {"identity": QubicWallet().identity, "user": user.id},
        )
        identities = [found.identity for found in await s.wallet_logins.wallets(user.id)]

    async def remove(identity: str) -> str:
        try:
            async with scope(resources) as s:
                await s.wallet_logins.unlink(user.id, identity)
                await asyncio.sleep(0.2)
        except LastWayIn:
            return "kept"
        return "removed"

    assert sorted(await asyncio.gather(*(remove(identity) for identity in identities))) == ["kept", "removed"]
    assert await owner.scalar(sa.text("SELECT count(*) FROM wallet_identities")) == 1


async def test_challenges_are_forgotten_an_hour_after_they_expired(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    for age in ("1 minute", "30 minutes", "70 minutes"):
        made = await asked(resources)
        await owner.execute(
            sa.text(
                "UPDATE wallet_challenges SET created_at = created_at - cast(:age AS text)::interval,"
                " expires_at = expires_at - cast(:age AS text)::interval WHERE nonce = :nonce"
            ),
            {"age": age, "nonce": made.nonce},
        )
    async with scope(controller_resources) as s:
        assert await s.wallet_logins.sweep() == 1
        assert await s.wallet_logins.sweep() == 0
    assert await owner.scalar(sa.text("SELECT count(*) FROM wallet_challenges")) == 2

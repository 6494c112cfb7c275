"""Qubic wallets from outside: logging in with one, and which ones log in to an account."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from qubix.bootstrap import Scope
from qubix.chains.qubic.login import Scheme
from qubix.identity.challenge import Challenge, Purpose, Wallet, WrongSignature
from qubix.identity.model import Principal
from qubix.identity.model import Scope as Grant
from qubix.identity.wallets import Connected
from serve_app.api.auth import TokenView, logged_in, retire, session_kind
from serve_app.api.shapes import FROM_TEXT, OPTIONAL_LOGIN, PROBLEMS, Body, View
from serve_app.calls import DefaultCall, LoginCall
from serve_app.web import SESSIONS

router = APIRouter(prefix="/api/wallet", tags=["wallet"], responses=PROBLEMS)

LETTERS_MAX = 200
"""Longer than any identity or signature; what is wrong with a shorter one is said in our own words."""


class ChallengeRequest(Body):
    """Whose wallet will sign, and what for: to log in, or to let the wallet log in to my account from now on."""

    identity: str = Field(max_length=LETTERS_MAX)
    purpose: Annotated[Purpose, FROM_TEXT] = Purpose.LOGIN


class ChallengeView(View):
    """The text to sign, exactly as it is, and until when."""

    nonce: str
    identity: str
    purpose: Purpose
    text: str
    expires_at: dt.datetime


class ConnectRequest(Body):
    """A signed challenge.

    `signature` as the wallet gives it: `walletconnect`, base64 (`signature` of qubic_sign); `extension`, hex (`signatureHex` of
    signMessage); `manual`, the 130 letters A to P of "Sign message".
    """

    nonce: str = Field(max_length=LETTERS_MAX)
    scheme: Annotated[Scheme, FROM_TEXT]
    signature: str = Field(max_length=LETTERS_MAX)


class ConnectedView(TokenView):
    """An open session of the account that the wallet logs in to; `created`: made just now."""

    identity: str
    purpose: Purpose
    created: bool


class IdentityView(View):
    """A wallet that logs in to my account, and how it signed when it was added."""

    identity: str
    scheme: Scheme
    linked_at: dt.datetime


class IdentitiesView(View):
    """All wallets that log in to my account."""

    items: list[IdentityView]


@router.post("/challenge", status_code=201, openapi_extra=OPTIONAL_LOGIN)
async def make_challenge(body: ChallengeRequest, call: LoginCall) -> ChallengeView:
    """Ask for a text to sign; it is good once, for five minutes. `link` needs a login, or an API key with every scope."""
    call.web.origins.check_foreign_form(call.request.headers)
    if body.purpose is Purpose.LINK:

        async def link(s: Scope, caller: Principal) -> Challenge:
            return await s.wallet_logins.link_challenge(body.identity, caller)

        return ChallengeView.model_validate(await call.user(link, grant=Grant.ACCOUNT))
    await call.web.limits.admit_address(call.bucket, f"challenge/{call.address}")

    async def login(s: Scope) -> Challenge:
        return await s.wallet_logins.login_challenge(body.identity)

    return ChallengeView.model_validate(await call.unidentified(login))


@router.post("/connect", openapi_extra=OPTIONAL_LOGIN)
async def connect(body: ConnectRequest, call: LoginCall, response: Response) -> ConnectedView:
    """Log in by a signed challenge: a token or a cookie as by a password. The first login of a wallet makes its account."""
    call.web.origins.check_foreign_form(call.request.headers)
    limits = call.web.limits
    await limits.admit_login(body.nonce, call.address)

    async def work(s: Scope) -> Connected:
        kind = session_kind(call.request)
        connected = await s.wallet_logins.connect(body.nonce, body.scheme, body.signature, kind=kind, token=call.token)
        await retire(s, call)
        return connected

    try:
        found = await call.unidentified(work)
    except WrongSignature:
        await limits.note_login(body.nonce, call.address, good=False)
        raise
    session = logged_in(call, response, found.user, found.session)
    return ConnectedView(**dict(session), identity=found.identity, purpose=found.purpose, created=found.created)


@router.get("/identities")
async def list_identities(call: DefaultCall) -> IdentitiesView:
    """The wallets that log in to my account."""

    async def work(s: Scope, caller: Principal) -> list[Wallet]:
        return await s.wallet_logins.wallets(caller.user_id)

    return IdentitiesView(items=[IdentityView.model_validate(found) for found in await call.user(work)])


@router.delete("/identities/{identity}", status_code=204)
async def unlink(identity: Annotated[str, Path(max_length=LETTERS_MAX)], call: DefaultCall) -> None:
    """Let a wallet log in no more, and end every session of the account; refused for its only way in."""

    async def work(s: Scope, caller: Principal) -> None:
        s.wake(SESSIONS, str(caller.user_id))
        await s.wallet_logins.unlink(caller.user_id, identity)

    await call.user(work, grant=Grant.ACCOUNT)

"""Accounts: sign-up, login, logout, profile, API keys."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError

from qubix.bootstrap import Scope
from qubix.identity.model import Principal, Role, Session, User, Via, WrongLogin, normal_email
from qubix.identity.model import Scope as Grant
from qubix.kernel.errors import Invalid, Unauthenticated
from serve_app.api.shapes import OPTIONAL_LOGIN, PROBLEMS, Body, View
from serve_app.calls import DefaultCall, LoginCall, cookie_of
from serve_app.web import SESSIONS

router = APIRouter(prefix="/api/auth", tags=["auth"], responses=PROBLEMS)

Password = Annotated[str, Field(min_length=1, max_length=1000)]


class SignupRequest(Body):
    """A new account."""

    email: str = Field(max_length=320)
    password: Password
    name: str = Field("", max_length=200)


class LoginRequest(Body):
    """A login; the form of the OAuth2 password flow is accepted too, with `username` for the address."""

    email: str = Field(max_length=320)
    password: Password


class LogoutRequest(Body):
    """A logout, of this session or of all."""

    everywhere: bool = False


class ProfileChange(Body):
    """What to change; another password needs the current one, and a new one ends every session.

    An account made by a wallet's login may set its `email`, once, and with it a first `password`.
    """

    name: str | None = Field(None, max_length=200)
    email: str | None = Field(None, max_length=320)
    password: Password | None = None
    current_password: Password | None = None


class KeyRequest(Body):
    """A new API key."""

    name: str = Field("", max_length=200)
    scopes: list[str] | None = Field(None, max_length=20)


class UserView(View):
    """An account."""

    id: UUID
    email: str | None = Field(description="null: made by a wallet's login, and none set yet")
    name: str
    roles: list[Role]
    created_at: dt.datetime


class TokenView(View):
    """An open session. Browsers have it as a cookie too."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  (the OAuth2 word)
    expires_in: int
    user: UserView


class KeyView(View):
    """An API key without its secret."""

    id: UUID
    name: str
    prefix: str
    scopes: list[Grant]
    created_at: dt.datetime
    last_used_at: dt.datetime | None


class NewKeyView(KeyView):
    """An API key, just made: `key` is never shown again."""

    key: str = Field(validation_alias="secret")


class KeysView(View):
    """All of an account's keys."""

    items: list[KeyView]


class Ended(View):
    """How many sessions ended."""

    ended: int


@router.post("/signup", status_code=201, openapi_extra=OPTIONAL_LOGIN)
async def sign_up(body: SignupRequest, call: LoginCall, response: Response) -> TokenView:
    """Make an account with its wallets, and log in."""
    call.web.origins.check_foreign_form(call.request.headers)
    await call.web.limits.admit_address(call.bucket, f"signup/{call.address}")

    async def work(s: Scope) -> tuple[User, Session]:
        user = await s.identity.signup(body.email, body.password, body.name)
        await retire(s, call)
        return user, await s.identity.open_session(user.id, session_kind(call.request))

    async with call.web.hashing.place():
        found = await call.unidentified(work)
    await call.web.limits.note_login(_one_spelling(body.email), call.address, good=True)
    return logged_in(call, response, *found)


@router.post(
    "/login",
    openapi_extra={
        **OPTIONAL_LOGIN,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": LoginRequest.model_json_schema()},
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "required": ["username", "password"],
                        "properties": {"username": {"type": "string"}, "password": {"type": "string"}},
                    }
                },
            },
        },
    },
)
async def log_in(call: LoginCall, request: Request, response: Response) -> TokenView:
    """Open a session: a bearer token of 15 minutes for programs, a cookie for browsers."""
    call.web.origins.check_foreign_form(request.headers)
    body = await _login_body(request)
    limits, account = call.web.limits, _one_spelling(body.email)
    await limits.admit_login(account, call.address)

    async def work(s: Scope) -> tuple[User, Session]:
        entered = await s.identity.login(body.email, body.password, kind=session_kind(request))
        await retire(s, call)
        return entered

    try:
        async with call.web.hashing.place():
            found = await call.unidentified(work)
    except WrongLogin:
        await limits.note_login(account, call.address, good=False)
        raise
    await limits.note_login(account, call.address, good=True)
    return logged_in(call, response, *found)


@router.post("/logout", openapi_extra=OPTIONAL_LOGIN)
async def log_out(call: DefaultCall, response: Response, body: LogoutRequest | None = None) -> Ended:
    """End this session, or every session of the account; open sockets of it end too."""
    everywhere = body is not None and body.everywhere

    async def work(s: Scope, caller: Principal | None) -> int:
        if caller is None:
            return 0
        if everywhere:
            caller.require(Grant.ACCOUNT)
        s.wake(SESSIONS, str(caller.user_id))
        return await s.identity.logout(call.token or "", everywhere=everywhere)

    ended = await call.public(work)
    secure = call.web.resources.settings.https
    response.delete_cookie(cookie_of(call.web), path="/", secure=secure, httponly=True, samesite="lax")
    return Ended(ended=ended)


@router.get("/me")
async def me(call: DefaultCall) -> UserView:
    """Who I am."""

    async def work(s: Scope, caller: Principal) -> User:
        return await s.identity.me(caller.user_id)

    return UserView.model_validate(await call.user(work))


@router.patch("/me")
async def change_me(body: ProfileChange, call: LoginCall) -> UserView:
    """Change my name or password; set my e-mail address where there is none."""

    async def work(s: Scope, caller: Principal) -> User:
        s.wake(SESSIONS, str(caller.user_id))
        return await s.identity.patch_me(
            caller.user_id,
            name=body.name,
            email=body.email,
            password=body.password,
            current_password=body.current_password,
            within=caller.scopes,
        )

    if body.password is None:
        return UserView.model_validate(await call.user(work, grant=Grant.ACCOUNT))
    async with call.web.hashing.place():
        return UserView.model_validate(await call.user(work, grant=Grant.ACCOUNT))


@router.get("/keys")
async def list_keys(call: DefaultCall) -> KeysView:
    """My API keys."""

    async def work(s: Scope, caller: Principal) -> KeysView:
        return KeysView(items=[KeyView.model_validate(key) for key in await s.identity.keys(caller.user_id)])

    return await call.user(work)


@router.post("/keys", status_code=201)
async def make_key(body: KeyRequest, call: DefaultCall) -> NewKeyView:
    """Make an API key; its secret is in this answer alone, so a repeat makes another key."""

    async def work(s: Scope, caller: Principal) -> NewKeyView:
        return NewKeyView.model_validate(await s.identity.add_key(caller.user_id, body.name, body.scopes, within=caller.scopes))

    return await call.user(work, grant=Grant.ACCOUNT)


@router.delete("/keys/{key_id}", status_code=204)
async def revoke_key(key_id: UUID, call: DefaultCall) -> None:
    """Revoke an API key at once."""

    async def work(s: Scope, caller: Principal) -> None:
        s.wake(SESSIONS, str(caller.user_id))
        await s.identity.remove_key(caller.user_id, key_id)

    await call.user(work, grant=Grant.ACCOUNT)


def session_kind(request: Request) -> Via:
    """A browser says where its request comes from; its session is long and lives in a cookie."""
    return Via.BROWSER if "sec-fetch-site" in request.headers or "origin" in request.headers else Via.BEARER


async def retire(s: Scope, call: LoginCall) -> None:
    """End the session that a browser brought to a login: the new one takes its cookie's place, and nobody holds the old one any more.

    Its open sockets end too, whoever's it was.
    """
    if not call.from_cookie or not call.token:
        return
    with contextlib.suppress(Unauthenticated):
        before = await s.identity.authenticate(call.token)
        s.wake(SESSIONS, str(before.user_id))
    await s.identity.logout(call.token)


def logged_in(call: LoginCall, response: Response, user: User, session: Session) -> TokenView:
    """The answer to a login, with its cookie."""
    secure = call.web.resources.settings.https
    response.set_cookie(
        cookie_of(call.web), session.token, max_age=session.expires_in_s, path="/", secure=secure, httponly=True, samesite="lax"
    )
    return TokenView(access_token=session.token, expires_in=session.expires_in_s, user=UserView.model_validate(user))


def _one_spelling(email: str) -> str:
    try:
        return normal_email(email)
    except Invalid:
        return email.strip().lower()


async def _login_body(request: Request) -> LoginRequest:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if media_type in {"application/x-www-form-urlencoded", "multipart/form-data"}:
            async with request.form(max_files=0, max_fields=10) as form:
                return LoginRequest.model_validate({"email": form.get("username"), "password": form.get("password")})
        return LoginRequest.model_validate_json(await request.body() or b"null")
    except ValidationError as error:
        raise RequestValidationError([{**found, "loc": ("body", *found["loc"])} for found in error.errors(include_url=False)]) from error

"""One request's way to the services: who calls, how often they may, one transaction, and one answer per Idempotency-Key."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, TypeVar

from fastapi import Depends, Header, Request, Response, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from qubix.bootstrap import Scope, scope
from qubix.identity.model import Principal, Role, Via
from qubix.identity.model import Scope as Grant
from qubix.identity.service import request_hash
from qubix.kernel.errors import NotFound, Unauthenticated
from qubix.kernel.failpoints import reach
from serve_app.limits import Bucket
from serve_app.web import Web, web_of

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
COOKIE: Final = "qubix_session"
SECURE_COOKIE: Final = f"__Host-{COOKIE}"
"""Its name where we are reached by https: no browser takes one of this name from a neighbouring host, or without `Secure`."""
_BEARER: Final = HTTPBearer(auto_error=False, description="A session token from /api/auth/login, or an API key.")
_COOKIE: Final = APIKeyCookie(
    name=COOKIE, auto_error=False, description=f"The browser's session; behind https its name is {SECURE_COOKIE}."
)

Work = Callable[[Scope, Principal], Awaitable[T]]


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A request that may open transactions.

    Args: token, the credential as sent, None for nobody; bucket, what the request counts as.
    """

    web: Web
    request: Request
    token: str | None
    bucket: Bucket
    idempotency_key: str | None
    from_cookie: bool

    @property
    def address(self) -> str:
        """The client's address, as the last trusted proxy saw it."""
        return address_of(self.request)

    async def unidentified(self, work: Callable[[Scope], Awaitable[T]]) -> T:
        """Run `work` in one transaction without asking who calls; the route counts the request itself."""

        async def transaction() -> T:
            async with scope(self.web.resources) as s:
                return await work(s)

        return await self.web.breaker.run(transaction)

    async def anyone(self, work: Callable[[Scope, Principal | None], Awaitable[T]]) -> T:
        """Run `work` in one transaction, for a user or for nobody."""

        async def identified(s: Scope) -> T:
            return await work(s, await self._identify(s))

        return await self.unidentified(identified)

    async def public(self, work: Callable[[Scope, Principal | None], Awaitable[T]]) -> T:
        """Run `work` for a page that needs no login: a browser's expired session counts as nobody."""
        try:
            return await self.anyone(work)
        except Unauthenticated:
            if not self.from_cookie:
                raise
        return await dataclasses.replace(self, token=None).anyone(work)

    async def user(self, work: Work[T], *, grant: Grant = Grant.READ) -> T:
        """Run `work` in one transaction, for whoever is logged in with the grant. Raises: Unauthenticated."""

        async def identified(s: Scope, caller: Principal | None) -> T:
            return await work(s, _known(caller, grant))

        return await self.anyone(identified)

    async def role(self, role: Role, work: Work[T], *, grant: Grant = Grant.READ) -> T:
        """Run `work` for somebody with the role; to all others the route does not exist. Raises: NotFound."""

        async def checked(s: Scope, caller: Principal) -> T:
            if not caller.has(role):
                raise NotFound("There is nothing here.", next_step="See /api/docs for the paths.")
            return await work(s, caller)

        return await self.user(checked, grant=grant)

    async def once(self, body: BaseModel | None, work: Work[M], *, grant: Grant, status: int = 200) -> Response:
        """Run `work` for a user at most once per Idempotency-Key; a repeat gets the first answer.

        The key is taken, the work done and its answer stored in one transaction, so there is no moment between. What was
        refused leaves nothing behind and may be tried again with the same key.
        Raises: KeyReused for the same key with another body.
        """
        key = self.idempotency_key
        hashed = request_hash(self.request.method, self.request.url.path, {} if body is None else body.model_dump(mode="json"))

        async def answered(s: Scope, caller: Principal) -> Response:
            if key is None:
                return json_response((await work(s, caller)).model_dump_json(), status)
            before = await s.identity.begin_request(caller.user_id, key, hashed)
            if before is not None:
                return json_response(before.response["body"], before.status, replayed=True)
            text = (await work(s, caller)).model_dump_json()
            await s.identity.finish_request(caller.user_id, key, status, {"body": text})
            reach("web.request_finished")
            return json_response(text, status)

        return await self.user(answered, grant=grant)

    async def count_search(self) -> None:
        """Count a search, which opens no transaction: who asks matters for the limit alone, and is remembered for some seconds."""
        token = self.token
        known = self.web.callers.get(token) if token else None
        if token and known is None:
            try:
                known = await self.anyone(_who)
            except Unauthenticated:
                if not self.from_cookie:
                    raise
            if known is not None:
                self.web.callers.add(token, known)
            return
        await self._count(known)

    async def _identify(self, s: Scope) -> Principal | None:
        caller = None if self.token is None else await s.identity.authenticate(self.token)
        await self._count(caller)
        return caller

    async def _count(self, caller: Principal | None) -> None:
        """Count the request; an operator's API key is not limited."""
        if caller is None:
            await self.web.limits.admit_address(self.bucket, self.address)
        elif not (caller.via is Via.KEY and caller.has(Role.OPERATOR)):
            await self.web.limits.admit_account(self.bucket, caller.user_id, self.address)


async def _who(_: Scope, caller: Principal | None) -> Principal | None:
    return caller


def _known(caller: Principal | None, grant: Grant) -> Principal:
    if caller is None:
        raise Unauthenticated("This needs a login.", next_step="Log in, or send an API key as a bearer token.")
    caller.require(grant)
    return caller


def json_response(text: str, status: int, *, replayed: bool = False) -> Response:
    """An answer whose JSON exists already."""
    headers = {"Idempotency-Replayed": "true"} if replayed else None
    return Response(text, status, media_type="application/json", headers=headers)


def address_of(request: HTTPConnection) -> str:
    """What limits count as the client: the peer, or what the last `forwarded_hops` proxies wrote down; of IPv6 its whole /64."""
    hops = web_of(request).resources.settings.forwarded_hops
    if hops:
        chain = [part.strip() for part in request.headers.get("x-forwarded-for", "").split(",") if part.strip()]
        if len(chain) >= hops:
            return network_of(chain[-hops])
    return network_of(request.client.host) if request.client else "unknown"


def network_of(address: str) -> str:
    """What counts as one address: an IPv6 client has a whole /64 of them."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(ipaddress.ip_network((found.packed[:8] + bytes(8), 64)))


def cookie_of(web: Web) -> str:
    """The session cookie's name on this platform."""
    return SECURE_COOKIE if web.resources.settings.https else COOKIE


def _calling(bucket: Bucket) -> Callable[..., Awaitable[Call]]:
    async def call(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        _documented: Annotated[str | None, Security(_COOKIE)],
        idempotency_key: Annotated[str | None, Header(description="Same key and body: the same answer.", max_length=200)] = None,
    ) -> Call:
        web = web_of(request)
        cookie = request.cookies.get(cookie_of(web))
        if bearer is None and cookie:
            web.origins.check_cookie_request(request.method, request.headers)
        return Call(
            web, request, bearer.credentials if bearer else cookie or None, bucket, idempotency_key, bearer is None and bool(cookie)
        )

    return call


DefaultCall = Annotated[Call, Depends(_calling(Bucket.DEFAULT))]
MoneyCall = Annotated[Call, Depends(_calling(Bucket.MONEY))]
UploadCall = Annotated[Call, Depends(_calling(Bucket.UPLOAD))]
SearchCall = Annotated[Call, Depends(_calling(Bucket.SEARCH))]
LoginCall = Annotated[Call, Depends(_calling(Bucket.LOGIN))]

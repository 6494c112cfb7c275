"""The devnet over HTTP: the RPC's paths at two doors, the admin's calls, the explorer's pages, the clock.

The second door, /b, is the same network seen through another endpoint: a client with two base URLs can be lied to at one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from qubix.chains.qubic.devnet import pages
from qubix.chains.qubic.devnet.faults import Area, Kind
from qubix.chains.qubic.devnet.network import Network, View
from qubix.chains.qubic.devnet.refusal import Code, Refusal, bad
from qubix.chains.qubic.devnet.rpc import Rpc
from qubix.kernel.clock import Clock, SystemClock

BODY_BYTES_MAX: Final = 64 * 1024
"""A request's body; a transaction's base64 has at most 1560 bytes."""
BODY_TIME_S: Final = 5.0

Answer = Callable[[View, Mapping[str, Any]], Any]


class Cut(Response):
    """A head without its body: the server then closes the connection, and the client has no answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})


def create_app(network: Network, *, tick_s: float = 1.0, admin: list[BaseRoute] | None = None, legacy: bool = False) -> Starlette:
    """The application.

    Args: network; tick_s, seconds from tick to tick, 0: by the admin's step alone; admin, its routes, if there is an admin; legacy,
        whether the two paths that end with 2026 are served too.
    """
    clock = SystemClock()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        ticking = asyncio.create_task(tick_on(network, clock, tick_s)) if tick_s else None
        if ticking is not None:
            ticking.add_done_callback(_end_with_the_clock)
        yield
        if ticking is not None:
            ticking.cancel()
            await asyncio.wait([ticking])

    doors = [Mount("/b", routes=_door(network, "b", tick_s, legacy)), *_door(network, "a", tick_s, legacy)]
    explorer = Mount("/network", routes=pages.routes(network))
    app = Starlette(routes=[Mount("/admin", routes=admin or []), explorer, *doors], lifespan=lifespan)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(Exception, _failed)
    return app


async def tick_on(network: Network, clock: Clock, tick_s: float) -> None:
    """Execute a tick every `tick_s` seconds, for ever; what was missed while the machine slept, or the network stood still, is not caught up."""
    due = clock.monotonic() + tick_s
    while True:
        await clock.sleep(max(0.0, due - clock.monotonic()))
        # A tick that could not be written was undone: the next round tries again.
        with contextlib.suppress(Refusal):
            network.pulse()
        due = max(due + tick_s, clock.monotonic())


def _end_with_the_clock(ticking: asyncio.Task[None]) -> None:
    """A network whose ticks stand still for good is no network: end the process, and say why."""
    if not ticking.cancelled() and (error := ticking.exception()) is not None:
        traceback.print_exception(error)
        signal.raise_signal(signal.SIGTERM)


def _door(network: Network, door: str, tick_s: float, legacy: bool) -> list[BaseRoute]:
    rpc = Rpc(network, tick_s)

    def route(method: str, path: str, area: Area, answer: Answer) -> Route:
        async def serve(request: Request) -> Response:
            return await _gate(network, door, area) or JSONResponse(answer(network.view(door, area), await _asked(request)))

        return Route(path, serve, methods=[method])

    async def broadcast(request: Request) -> Response:
        return await _gate(network, door, "broadcast") or await _broadcast(network, rpc, door, await _asked(request))

    routes: list[BaseRoute] = [
        route("GET", "/live/v1/tick-info", "live", rpc.tick_info),
        route("GET", "/live/v1/balances/{id}", "live", rpc.balance),
        Route("/live/v1/broadcast-transaction", broadcast, methods=["POST"]),
        route("POST", "/live/v1/querySmartContract", "live", rpc.query_smart_contract),
        route("GET", "/query/v1/getLastProcessedTick", "query", rpc.last_processed_tick),
        route("GET", "/query/v1/getProcessedTickIntervals", "query", rpc.processed_tick_intervals),
        route("POST", "/query/v1/getTransactionByHash", "query", rpc.transaction_by_hash),
        route("POST", "/query/v1/getTransactionsForTick", "query", rpc.transactions_for_tick),
        route("POST", "/query/v1/getTransactionsForIdentity", "query", rpc.transactions_for_identity),
        route("POST", "/query/v1/getTickData", "query", rpc.tick_data),
        route("POST", "/query/v1/getEventLogs", "query", rpc.event_logs),
    ]
    if legacy:
        routes.append(route("GET", "/v1/tx-status/{id}", "query", rpc.legacy_status))
        routes.append(route("GET", "/v2/transactions/{id}", "query", rpc.legacy_transaction))
    return routes


async def _gate(network: Network, door: str, area: Area) -> Response | None:
    """The faults that keep a request from reaching the network; None if it passes."""
    tick, faults = network.ledger.tick, network.faults
    if faults.strikes(Kind.UNREACHABLE, tick, door=door, area=area):
        return Cut()
    limit = faults.strikes(Kind.LIMIT, tick, door=door, area=area)
    if limit:
        refusal = Refusal(Code.RESOURCE_EXHAUSTED, "Too Many Requests")
        return JSONResponse(refusal.body, refusal.status, headers={"Retry-After": str(limit.retry_after_s)})
    if faults.strikes(Kind.ERROR, tick, door=door, area=area):
        sent = area == "broadcast"
        raise Refusal(Code.INTERNAL, "tx wasn't broadcast to any peers, please retry" if sent else "internal error")
    return None


async def _broadcast(network: Network, rpc: Rpc, door: str, asked: Mapping[str, Any]) -> Response:
    document = rpc.broadcast(network.view(door, "live"), asked)
    # Each broadcast is an occasion of its own: what is sent again after a lost answer may be answered.
    fault = network.faults.strikes(Kind.AMBIGUOUS, network.ledger.tick, door=door, area="broadcast")
    if fault is None:
        return JSONResponse(document)
    if fault.answer == "error":
        raise Refusal(Code.INTERNAL, "tx wasn't broadcast to any peers, please retry")
    if fault.answer == "hang":
        await asyncio.sleep(fault.hang_s)
    return Cut()


async def _asked(request: Request) -> dict[str, Any]:
    """What a request says: its JSON object, and the names in its path. Raises: Refusal (3), with 413 if it is too large."""
    if request.method == "GET":
        return dict(request.path_params)
    return await read_object(request)


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object of a request's body, {} for an empty one.

    Raises: Refusal (3) for anything else, 413 for more than 64 KiB, 408 if it takes longer than 5 s.
    """
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_TIME_S):
            async for chunk in request.stream():
                found += chunk
                if len(found) > BODY_BYTES_MAX:
                    raise Refusal(Code.INVALID_ARGUMENT, f"the body is larger than {BODY_BYTES_MAX} bytes", status=413)
    except TimeoutError as error:
        raise Refusal(Code.INVALID_ARGUMENT, "the body took too long", status=408) from error
    except ClientDisconnect as error:
        raise bad("the body did not come") from error
    try:
        document = json.loads(found or b"{}")
    except (ValueError, RecursionError) as error:
        raise bad("invalid JSON") from error
    if not isinstance(document, dict):
        raise bad("the body is no JSON object")
    return document


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101  (typing: registered for it)
    return JSONResponse(error.body, error.status)


async def _not_routed(_: Request, error: Exception) -> Response:
    """As a gRPC gateway: an unknown path is Not Found, a wrong method is Unimplemented."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        refusal = Refusal(Code.UNIMPLEMENTED, "Method Not Allowed")
    else:
        refusal = Refusal(Code.NOT_FOUND, "Not Found")
    return JSONResponse(refusal.body, refusal.status)


async def _failed(_: Request, error: Exception) -> Response:
    traceback.print_exception(error)  # uvicorn is told to keep quiet
    refusal = Refusal(Code.INTERNAL, f"the devnet failed: {type(error).__name__}")
    return JSONResponse(refusal.body, refusal.status)

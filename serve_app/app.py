"""The application, without Ray: routes, errors, edge. `serve_app/deployment.py` puts it under Ray Serve."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

import qubix
from qubix.bootstrap import Resources
from qubix.exporter import exported
from serve_app import agents, agents_bytes, docs, errors, health, live
from serve_app.api import audit, auth, chain_balance, earnings, escrows, gpus, jobs, nodes, providers, quotes, uploads, wallet, wallets
from serve_app.api.shapes import Problem
from serve_app.edge import Edge
from serve_app.headers import security_headers
from serve_app.metrics import PROCESS
from serve_app.web import Web, make_web

DESCRIPTION = """\
GPU marketplace: offers, quotes, jobs in sandboxes, escrowed money.

Log in with `POST /api/auth/login` and send the token (or an API key) as `Authorization: Bearer …`. Amounts are whole units in
integers, times RFC 3339 in UTC, ids UUIDs. A POST that costs or moves something takes an `Idempotency-Key`: same key and body, same answer.
Lists carry `position`; follow the WebSocket `/api/ws` from there.
"""
GC_THRESHOLDS: Final = (10_000, 20, 50)
"""Net new containers before a young collection, young ones before a middle one, middle ones before one of everything: ten million."""
_NOUNS = (auth, gpus, quotes, uploads, jobs, wallet, chain_balance, wallets, earnings, escrows, providers, nodes, audit)


def collect_rarely() -> None:
    """Let the cyclic collector pass over what is there for good, and look through everything rarely.

    With 10 000 open sockets one look stops the process for 2 s (benchmarks/fanout.py), and by default one comes with every few events.
    What is dropped is freed by its reference count as ever.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class Api(FastAPI):
    """The framework, and in its contract the one shape of all problems."""

    def openapi(self) -> dict[str, Any]:
        """The contract; made once."""
        schema = super().openapi()
        schema["components"]["schemas"].setdefault("Problem", Problem.model_json_schema())
        return schema


def create_app(resources: Resources | None, *, web: Web | None = None, export: bool = False) -> FastAPI:
    """The application over its resources; None only to describe it (openapi.json).

    Args: export, answer Prometheus on a port of the replica's own while it serves.
    """
    web = web or (make_web(resources) if resources is not None else None)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        assert web is not None  # noqa: S101  (typing: nobody serves a description)
        if export:
            collect_rarely()
        exporting = exported(web.resources.settings, web.measurements.registry, PROCESS) if export else contextlib.nullcontext()
        with exporting:
            async with web.background():
                yield

    app = Api(
        title="Qubix",
        version=qubix.__version__,
        description=DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    errors.install(app)
    for noun in _NOUNS:
        app.include_router(noun.router)
    for part in (health, docs, live, agents, agents_bytes):
        app.include_router(part.router)
    if web is not None:
        _dress(app, web)
    return app


def _dress(app: FastAPI, web: Web) -> None:
    settings = web.resources.settings
    app.state.web = web
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After", "Idempotency-Replayed"],
            allow_credentials=True,
        )
    app.add_middleware(
        Edge,
        measurements=web.measurements,
        security_headers=security_headers(https=settings.https),
        body_limits=(
            ("/api/uploads", settings.upload_size_max_bytes),
            ("/agent/v1/attempts/", settings.artefact_size_max_bytes),
        ),
    )

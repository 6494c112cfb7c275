"""Whether this replica lives, whether the platform is ready, and this replica's measurements."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from qubix.bootstrap import Resources, Scope, scope
from qubix.identity.model import Principal, Role
from qubix.kernel.errors import Unavailable
from serve_app.api.shapes import PROBLEMS
from serve_app.calls import DefaultCall
from serve_app.metrics import CONTENT_TYPE
from serve_app.web import web_of

router = APIRouter(tags=["health"])
CHECK_TIMEOUT_S: Final = 3.0
BEAT_AGE_MAX_S: Final = 15.0

# The controller leads as long as it renews its row.
_BEAT_AGE: Final = sa.text("SELECT extract(epoch FROM clock_timestamp() - max(beat_at)) FROM leaders WHERE name = 'controller'")
_LIVE: Final = b'{"status":"live"}'


class Part(BaseModel):
    """One thing that readiness needs."""

    ok: bool
    detail: str


class Readiness(BaseModel):
    """Ready only if every part is."""

    status: Literal["ready", "not_ready"]
    parts: dict[str, Part]


@router.get("/health/live", responses={200: {"content": {"application/json": {"example": {"status": "live"}}}}})
async def live() -> Response:
    """The process answers; nothing else is asked."""
    return Response(_LIVE, media_type="application/json")


@router.get("/health/ready", responses={503: {"model": Readiness}})
async def ready(request: Request, response: Response) -> Readiness:
    """The database answers, Ray answers, the controller's beat is fresh, bytes can be stored."""
    resources = web_of(request).resources
    database, ray, storage = await asyncio.gather(_database(resources), _ray(resources), _storage(resources))
    parts = {**database, "ray": ray, "storage": storage}
    good = all(part.ok for part in parts.values())
    response.status_code = 200 if good else 503
    return Readiness(status="ready" if good else "not_ready", parts=parts)


@router.get("/metrics", response_class=PlainTextResponse, responses=PROBLEMS)
async def metrics(call: DefaultCall) -> Response:
    """Prometheus metrics of the replica that answers, for operators; every process has a port of its own for Prometheus (docs/metrics.md)."""

    async def allowed(_: Scope, __: Principal) -> None:
        return None

    await call.role(Role.OPERATOR, allowed)
    return Response(call.web.measurements.exposition(), media_type=CONTENT_TYPE)


async def _database(resources: Resources) -> dict[str, Part]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S), scope(resources) as s:
            age_s = await s.connection.scalar(_BEAT_AGE)
    except Exception as error:
        away = Part(ok=False, detail=f"not answering ({type(error).__name__})")
        return {"database": away, "controller": Part(ok=False, detail="unknown")}
    fresh = age_s is not None and age_s <= BEAT_AGE_MAX_S
    seen = "has never led" if age_s is None else f"last beat {age_s:.1f} s ago"
    return {"database": Part(ok=True, detail="answers"), "controller": Part(ok=fresh, detail=seen)}


async def _ray(resources: Resources) -> Part:
    """Whether the head's GCS takes connections; a replica without Ray (tests, a plain server) does not need it, and the dashboard is nobody's need."""
    host, _, port = resources.settings.ray_address.rpartition(":")
    if not port.isdigit():
        return Part(ok=True, detail="not used")
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError) as error:
        return Part(ok=False, detail=f"not answering ({type(error).__name__})")
    writer.close()
    return Part(ok=True, detail="answers")


async def _storage(resources: Resources) -> Part:
    """Without it neither uploads nor results are taken."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await asyncio.to_thread(resources.blobs.check_writable)
    except TimeoutError:
        return Part(ok=False, detail="not answering")
    except Unavailable as error:
        return Part(ok=False, detail=error.message)
    return Part(ok=True, detail="writable")

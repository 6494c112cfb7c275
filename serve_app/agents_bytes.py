"""Bytes beside an agent's session, under its attempt and fence: results in, inputs and checkpoints out. Streamed both ways."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response, Security
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from qubix.bootstrap import recording, scope
from qubix.kernel.errors import Unauthenticated, Unavailable
from qubix.kernel.failpoints import reach
from serve_app.api.shapes import PROBLEMS
from serve_app.api.uploads import chunks
from serve_app.web import Web, web_of

router = APIRouter(prefix="/agent/v1/attempts/{attempt_id}/{fence}", tags=["agents"], responses=PROBLEMS)
_BEARER: Final = HTTPBearer(auto_error=False, scheme_name="AgentSession", description="The token of the agent's session.")
Token = Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]


@router.put("/blobs/{sha256}", status_code=204)
async def put_blob(attempt_id: UUID, fence: int, sha256: Sha256, request: Request, token: Token) -> Response:
    """A checkpoint's or artefact's bytes, before the frame that names them. A repeat is harmless."""
    web = web_of(request)
    async with scope(web.resources) as s:
        left = await s.frames.put_limit(_secret(token), attempt_id, fence, sha256=sha256)
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isdecimal() else None
    with web.incoming.room(attempt_id, min(left, web.resources.settings.artefact_size_max_bytes), size, of=left) as limit:
        try:
            blob = await web.resources.blobs.put(chunks(request), size_max_bytes=limit, sha256=sha256)
        except Unavailable:
            async with scope(web.resources) as s:
                await s.frames.not_stored(_secret(token), attempt_id, fence)
            raise
        reach("web.bytes_put")
        async with recording(web.resources, blob), scope(web.resources) as s:
            await s.frames.stored(_secret(token), attempt_id, fence, blob)
    return Response(status_code=204)


@router.get("/inputs/{name:path}", response_class=StreamingResponse)
async def get_input(attempt_id: UUID, fence: int, name: str, request: Request, token: Token) -> StreamingResponse:
    """An input's bytes."""
    web = web_of(request)
    async with scope(web.resources) as s:
        found = await s.frames.input(_secret(token), attempt_id, fence, name)
    return _stream(web, found.sha256, found.size)


@router.get("/checkpoint", response_class=StreamingResponse)
async def get_checkpoint(attempt_id: UUID, fence: int, request: Request, token: Token) -> StreamingResponse:
    """The bytes of the checkpoint that the attempt resumes from."""
    web = web_of(request)
    async with scope(web.resources) as s:
        found = await s.frames.checkpoint(_secret(token), attempt_id, fence)
    return _stream(web, found.sha256, found.size)


def _secret(token: HTTPAuthorizationCredentials | None) -> str:
    if token is None:
        raise Unauthenticated("This needs the token of the agent's session.", next_step="Connect anew.")
    return token.credentials


def _stream(web: Web, sha256: str, size: int) -> StreamingResponse:
    headers = {"Content-Length": str(size), "X-Content-SHA256": sha256}
    return StreamingResponse(web.resources.blobs.open(sha256), media_type="application/octet-stream", headers=headers)

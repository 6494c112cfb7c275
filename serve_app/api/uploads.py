"""Uploads: admitted before a byte is read, streamed to disk with no transaction open, then recorded."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.requests import ClientDisconnect

from qubix.bootstrap import Scope, recording
from qubix.identity.model import Principal
from qubix.identity.model import Scope as Grant
from qubix.intake.model import Upload
from qubix.intake.service import Admission, receive
from qubix.jobs.blobs import Blob
from qubix.kernel.errors import Invalid
from qubix.kernel.failpoints import reach
from serve_app.api.shapes import PROBLEMS, Limit, Page, View
from serve_app.calls import UploadCall

router = APIRouter(prefix="/api/uploads", tags=["uploads"], responses=PROBLEMS)
CHUNK_WAIT_S: Final = 30.0
"""A sender that is silent for this long is given up."""
_BODY: Final = {
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
Filename = Annotated[str, Query(min_length=1, max_length=200)]
Sha256 = Annotated[str | None, Header(alias="X-Content-SHA256", pattern="^[0-9a-f]{64}$", description="Checked while it streams.")]


class BodyIncomplete(Invalid):
    """The sender stopped sending, or broke off: the same request may well succeed another time."""

    code = "body_incomplete"


class UploadView(View):
    """A stored file."""

    id: UUID
    filename: str
    sha256: str
    size: int
    created_at: dt.datetime


@router.put("", status_code=201, openapi_extra=_BODY, operation_id="put_upload")
@router.post("", status_code=201, openapi_extra=_BODY, operation_id="post_upload")
async def upload(call: UploadCall, request: Request, filename: Filename, sha256: Sha256 = None) -> UploadView:
    """Send one file as the raw body, at most 500 MB. The same bytes under the same name are the same upload, so a repeat is harmless."""
    announced = request.headers.get("content-length", "")

    async def admit(s: Scope, caller: Principal) -> tuple[Principal, Admission]:
        size = int(announced) if announced.isdecimal() else None
        return caller, await s.intake.admit(caller.user_id, filename, size=size, sha256=sha256)

    caller, admission = await call.user(admit, grant=Grant.JOBS)
    blob = await receive(call.web.resources.blobs, chunks(request), admission)
    reach("web.upload_put")

    async def record(s: Scope) -> Upload:
        return await s.intake.record(caller.user_id, admission, blob)

    async with recording(call.web.resources, Blob(blob.sha256, blob.size)):
        return UploadView.model_validate(await call.unidentified(record))


@router.get("")
async def uploads(call: UploadCall, limit: Limit = 50, cursor: UUID | None = None) -> Page[UploadView]:
    """My uploads, newest first."""

    async def work(s: Scope, caller: Principal) -> list[Upload]:
        return await s.intake.page(caller.user_id, before=cursor, limit=limit)

    found = await call.user(work)
    after = str(found[-1].id) if len(found) == limit else None
    return Page(items=[UploadView.model_validate(item) for item in found], next_cursor=after)


@router.delete("/{upload_id}", status_code=204)
async def forget(upload_id: UUID, call: UploadCall) -> Response:
    """Forget an upload; jobs that use its bytes keep them."""

    async def work(s: Scope, caller: Principal) -> None:
        await s.intake.remove(caller.user_id, upload_id)

    await call.user(work, grant=Grant.JOBS)
    return Response(status_code=204)


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes; never more of it in memory than one piece.

    Raises: BodyIncomplete when the sender breaks off, or is silent for CHUNK_WAIT_S.
    """
    pieces = request.stream()
    while True:
        try:
            async with asyncio.timeout(CHUNK_WAIT_S):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise BodyIncomplete("The body stopped coming.", next_step="Send it again.", field="body") from None
        except ClientDisconnect:
            raise BodyIncomplete("The body broke off.", next_step="Send it again.", field="body") from None
        if piece is None:
            return
        if piece:
            yield piece

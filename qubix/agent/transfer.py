"""Bytes between node and web layer, beside the session: streamed, and checked by sha256 at both ends."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote
from uuid import UUID

import httpx

from qubix.kernel.errors import Conflict, Invalid, Unavailable

CHUNK_BYTES = 1 << 20
_TRY_AGAIN = (401, 404, 408, 409, 425, 429)
"""Answers that a new session, a little patience, or the `stop` that follows them resolves."""
_INCOMPLETE = "body_incomplete"
"""The problem's code for a body that stalled on its way: neither the bytes nor their size are at fault."""
_STALE = "stale_attempt"
"""The problem's code by which the web layer says what a `stop` frame says."""


class TransferRefused(Invalid):
    """The web layer will never take, or never give, these bytes."""

    code = "transfer_refused"


class TransferFailed(Unavailable):
    """The bytes did not get through this time."""

    code = "transfer_failed"


class BytesDiffer(TransferRefused):
    """What arrived is not what was promised."""

    code = "bytes_differ"


class AttemptOver(Conflict):
    """The attempt is fenced off or over: the platform wants nothing more of it."""

    code = _STALE


class Transfer(Protocol):
    """Moves bytes of attempts. All methods raise TransferFailed (try again), TransferRefused (give up) or AttemptOver (forget it)."""

    async def put_blob(self, attempt: UUID, fence: int, sha256: str, path: Path) -> None:
        """Store a checkpoint's or artefact's bytes."""
        ...

    async def get_input(self, attempt: UUID, fence: int, name: str, sha256: str, size: int, target: Path) -> None:
        """Fetch an input file."""
        ...

    async def get_checkpoint(self, attempt: UUID, fence: int, sha256: str, size: int, target: Path) -> None:
        """Fetch the checkpoint that the attempt resumes from."""
        ...


class HttpTransfer:
    """The real one: streaming PUT and GET with the session's token."""

    def __init__(self, server_url: str, client: httpx.AsyncClient | None = None) -> None:
        self._base = server_url.rstrip("/") + "/agent/v1/attempts"
        self._client = client or httpx.AsyncClient(timeout=httpx.Timeout(30, connect=5), follow_redirects=False)
        self.token = ""

    async def put_blob(self, attempt: UUID, fence: int, sha256: str, path: Path) -> None:
        headers = self._headers() | {"Content-Length": str(os.stat(path).st_size), "Content-Type": "application/octet-stream"}
        try:
            answer = await self._client.put(f"{self._base}/{attempt}/{fence}/blobs/{sha256}", content=_read(path), headers=headers)
        except httpx.HTTPError as error:
            raise TransferFailed(f"{type(error).__name__} while sending {sha256[:12]}: {error}") from error
        _judge(answer.status_code, f"blob {sha256[:12]}", answer.text)

    async def get_input(self, attempt: UUID, fence: int, name: str, sha256: str, size: int, target: Path) -> None:
        await self._get(f"{self._base}/{attempt}/{fence}/inputs/{quote(name)}", name, sha256, size, target)

    async def get_checkpoint(self, attempt: UUID, fence: int, sha256: str, size: int, target: Path) -> None:
        await self._get(f"{self._base}/{attempt}/{fence}/checkpoint", "checkpoint", sha256, size, target)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def _get(self, url: str, what: str, sha256: str, size: int, target: Path) -> None:
        seen, count = hashlib.sha256(), 0
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            async with self._client.stream("GET", url, headers=self._headers()) as answer:
                if answer.status_code != 200:
                    _judge(answer.status_code, what, (await answer.aread()).decode(errors="replace"))
                    raise TransferFailed(f"{what}: unexpected answer {answer.status_code}")
                with target.open("wb") as file:
                    async for chunk in answer.aiter_bytes(CHUNK_BYTES):
                        count += len(chunk)
                        if count > size:
                            raise BytesDiffer(f"{what} is longer than its {size} bytes.")
                        seen.update(chunk)
                        file.write(chunk)
        except httpx.HTTPError as error:
            raise TransferFailed(f"{type(error).__name__} while fetching {what}: {error}") from error
        if count < size:
            raise TransferFailed(f"{what} ended after {count} of {size} bytes")
        if seen.hexdigest() != sha256:
            raise BytesDiffer(f"{what} does not have the sha256 that was promised.")
        # The job's own uid reads it in the sandbox; the folders above stay closed to everybody else.
        os.chmod(target, 0o644)


def _judge(status: int, what: str, text: str) -> None:
    if status < 300:
        return
    found = _problem(text)
    told = f"{what}: {status} {str(found.get('detail', text))[:300]}"
    if status == 409 and found.get("code") == _STALE:
        raise AttemptOver(told, next_step="kill it and forget it")
    if status >= 500 or status in _TRY_AGAIN or found.get("code") == _INCOMPLETE:
        raise TransferFailed(told)
    raise TransferRefused(told)


def _problem(text: str) -> dict[str, Any]:
    """The members of a problem+json body; none for anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


async def _read(path: Path) -> AsyncIterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while chunk := os.read(fd, CHUNK_BYTES):
            yield chunk
    finally:
        os.close(fd)

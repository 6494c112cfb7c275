"""Uploads: admitted by name, size and quota before a byte is read, streamed outside any transaction, then recorded.

async with scope(resources) as s:
    admission = await s.intake.admit(user_id, filename, size=content_length)
blob = await receive(resources.blobs, stream, admission)      # no transaction is open while bytes flow
async with scope(resources) as s:
    upload = await s.intake.record(user_id, admission, blob)
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol
from uuid import UUID

from qubix.intake import model
from qubix.intake.model import Upload
from qubix.kernel.errors import Invalid, NotFound
from qubix.kernel.ids import UserId, new_id


class StoredBlob(Protocol):
    """Stored bytes (qubix.jobs.blobs.Blob)."""

    @property
    def sha256(self) -> str: ...
    @property
    def size(self) -> int: ...


class Blobs(Protocol):
    """Where bytes go (qubix.jobs.blobs.BlobStore)."""

    async def put(self, stream: AsyncIterable[bytes], *, size_max_bytes: int, sha256: str | None = None) -> StoredBlob: ...


class Store(Protocol):
    """What the service needs kept (qubix.intake.store.IntakeStore)."""

    async def used(self, owner_id: UUID, *, lock: bool) -> tuple[int, int]: ...
    async def find(self, owner_id: UUID, filename: str, sha256: str) -> Upload | None: ...
    async def add(self, upload_id: UUID, owner_id: UUID, filename: str, sha256: str, size: int) -> Upload: ...
    async def owned(self, owner_id: UUID, ids: Sequence[UUID]) -> list[Upload]: ...
    async def page(self, owner_id: UUID, before: UUID | None, limit: int) -> list[Upload]: ...
    async def remove(self, owner_id: UUID, upload_id: UUID) -> bool: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Admission:
    """Leave to send one file: its checked name, how many bytes are taken at most, and what the sender said of it."""

    filename: str
    size_max_bytes: int
    size: int | None = None
    sha256: str | None = None


async def receive(blobs: Blobs, stream: AsyncIterable[bytes], admission: Admission) -> StoredBlob:
    """Stream a file into the blob store, in constant memory, counting.

    Raises: TooLarge as soon as the limit is passed, with the limit; Invalid when the body is shorter or longer than was
    said, or its hash differs. Nothing stays behind then.
    """
    exact = _Exact(stream, admission.size)
    return await blobs.put(exact, size_max_bytes=admission.size_max_bytes, sha256=admission.sha256)


class _Exact:
    """A stream that must have the length that was announced: a body cut short is not a shorter file."""

    def __init__(self, stream: AsyncIterable[bytes], size: int | None) -> None:
        self._stream = stream
        self._size = size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        async for chunk in self._stream:
            seen += len(chunk)
            yield chunk
        if self._size is not None and seen != self._size:
            raise Invalid(f"The body has {seen} bytes, {self._size} were announced.", next_step="Send the file again.", field="body")


class IntakeService:
    """An account's uploads in one transaction.

    Args: store; keep_blob, notes stored bytes so that a reference to them is safe (qubix.jobs.store.JobStore.keep_blob);
        size_max_bytes, of one file; quota_bytes, of one account.
    """

    def __init__(
        self,
        store: Store,
        *,
        keep_blob: Callable[[Any], Awaitable[object]],
        size_max_bytes: int = model.SIZE_MAX_BYTES,
        quota_bytes: int = 10 * model.SIZE_MAX_BYTES,
    ) -> None:
        self._store = store
        self._keep_blob = keep_blob
        self._size_max_bytes = size_max_bytes
        self._quota_bytes = quota_bytes

    async def admit(self, user_id: UserId, filename: str, *, size: int | None = None, sha256: str | None = None) -> Admission:
        """Check a file before its body is read.

        Args: size, the announced length, None where it is not known; sha256, in hexadecimal, where the sender knows it.
        Raises: Invalid or TypeRefused for the name; TooLarge; QuotaExceeded.
        """
        name = model.check_filename(filename)
        model.check_size(size, limit=self._size_max_bytes)
        used, files = await self._store.used(user_id, lock=False)
        model.check_quota(used, files, size or 0, quota=self._quota_bytes)
        return Admission(name, min(self._size_max_bytes, self._quota_bytes - used), size, sha256)

    async def record(self, user_id: UserId, admission: Admission, blob: StoredBlob) -> Upload:
        """Note a file whose bytes are stored. The same bytes under the same name again are the same upload.

        Raises: QuotaExceeded when other uploads of the account ended meanwhile.
        """
        used, files = await self._store.used(user_id, lock=True)
        known = await self._store.find(user_id, admission.filename, blob.sha256)
        if known is not None:
            return known
        model.check_quota(used, files, blob.size, quota=self._quota_bytes)
        await self._keep_blob(blob)
        return await self._store.add(new_id(), user_id, admission.filename, blob.sha256, blob.size)

    async def get(self, user_id: UserId, ids: Sequence[UUID]) -> list[Upload]:
        """These uploads of the account, in the order asked. Raises: NotFound when one is not the account's."""
        found = {upload.id: upload for upload in await self._store.owned(user_id, ids)}
        if missing := [upload_id for upload_id in ids if upload_id not in found]:
            raise NotFound(f"You have no upload {missing[0]}.", next_step="Upload the file first.", field="inputs")
        return [found[upload_id] for upload_id in ids]

    async def page(self, user_id: UserId, *, before: UUID | None = None, limit: int = 50) -> list[Upload]:
        """The account's uploads, newest first."""
        return await self._store.page(user_id, before, min(limit, 100))

    async def remove(self, user_id: UserId, upload_id: UUID) -> None:
        """Forget an upload; jobs that use its bytes keep them. Raises: NotFound."""
        if not await self._store.remove(user_id, upload_id):
            raise NotFound("You have no such upload.", next_step="List your uploads.")

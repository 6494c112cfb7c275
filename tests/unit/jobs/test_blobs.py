"""The blob store: streams in by hash, limits while streaming, nothing left behind."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qubix.jobs import blobs
from qubix.jobs.blobs import CHUNK_BYTES, BlobStore
from qubix.kernel.errors import Invalid, NotFound, TooLarge, Unavailable


async def parts(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def read(store: BlobStore, sha256: str) -> bytes:
    return b"".join([chunk async for chunk in store.open(sha256)])


async def test_bytes_come_back_as_they_went_in(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    content = os.urandom(CHUNK_BYTES + 17)
    blob = await store.put(parts(content[:5], content[5:-1], content[-1:]), size_max_bytes=2 * CHUNK_BYTES)
    assert (blob.sha256, blob.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert await read(store, blob.sha256) == content
    assert files(tmp_path) == [store.path(blob.sha256)]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=50), max_size=10), st.integers(min_value=0, max_value=200))
def test_a_stream_is_stored_whole_or_not_at_all(tmp_path: Path, chunks: list[bytes], limit: int) -> None:
    store = BlobStore(tmp_path / str(time.perf_counter_ns()))
    content = b"".join(chunks)
    if len(content) > limit:
        with pytest.raises(TooLarge):
            asyncio.run(store.put(parts(*chunks), size_max_bytes=limit))
        assert files(store._root) == []
    else:
        blob = asyncio.run(store.put(parts(*chunks), size_max_bytes=limit))
        assert asyncio.run(read(store, blob.sha256)) == content


async def test_the_limit_is_enforced_while_streaming(tmp_path: Path) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1000

    with pytest.raises(TooLarge):
        await BlobStore(tmp_path).put(endless(), size_max_bytes=10_000)
    assert taken == 11


async def test_bytes_that_are_not_what_was_named_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        await BlobStore(tmp_path).put(parts(b"a"), size_max_bytes=10, sha256="0" * 64)
    assert files(tmp_path) == []


async def test_a_sender_that_goes_away_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError):
        await BlobStore(tmp_path).put(broken(), size_max_bytes=10)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "ab", "G" * 64, "", "a" * 63 + "/"])
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        BlobStore(tmp_path).path(name)


async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await read(BlobStore(tmp_path), "0" * 64)


async def test_fresh_bytes_survive_a_discard_and_old_ones_do_not(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    blob = await store.put(parts(b"a"), size_max_bytes=10)
    assert store.discard(blob.sha256) is False
    assert await read(store, blob.sha256) == b"a"
    os.utime(store.path(blob.sha256), (0, 0))
    assert store.discard(blob.sha256) is True
    assert files(tmp_path) == []


async def test_a_disk_that_fills_up_while_bytes_stream_keeps_nothing_of_them_and_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(tmp_path)
    real, pieces = blobs._append, 0

    def full(*arguments: Any) -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(blobs, "_append", full)
    content = b"x" * (blobs.CHUNK_BYTES + 1)
    with pytest.raises(Unavailable, match="No space left"):
        await store.put(parts(content), size_max_bytes=len(content))
    assert files(tmp_path) == []
    blob = await store.put(parts(content), size_max_bytes=len(content))
    assert await read(store, blob.sha256) == content


async def test_old_files_are_found_by_folder_and_nothing_else_is(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    old, fresh = await store.put(parts(b"a"), size_max_bytes=10), await store.put(parts(b"b"), size_max_bytes=10)
    os.utime(store.path(old.sha256), (0, 0))
    (store.path(old.sha256).parent / ("z" * 64)).write_bytes(b"not ours")
    os.utime(store.path(old.sha256).parent / ("z" * 64), (0, 0))
    assert [blob for folder in range(blobs.FOLDERS) for blob in store.old(folder)] == [old]
    store.confirm(fresh.sha256)
    store.remove(fresh.sha256)
    with pytest.raises(Unavailable, match="removed while"):
        store.confirm(fresh.sha256)


async def test_a_half_written_file_of_a_killed_process_is_swept(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    await store.put(parts(b"a"), size_max_bytes=10)
    stale = tmp_path / "incoming" / "stale"
    stale.write_bytes(b"half")
    assert store.sweep_incoming() == 0
    os.utime(stale, (0, 0))
    assert store.sweep_incoming() == 1


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    root.write_text("a file, where a folder should be")
    with pytest.raises(Unavailable, match="cannot write"):
        BlobStore(root).check_writable()
    BlobStore(tmp_path / "good").check_writable()
    assert files(tmp_path / "good") == []


def test_a_disk_that_is_nearly_full_says_so_before_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "FREE_MIN_BYTES", 1 << 62)
    with pytest.raises(Unavailable, match="MiB left"):
        BlobStore(tmp_path).check_writable()

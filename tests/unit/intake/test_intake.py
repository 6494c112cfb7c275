"""What is refused before a byte is read, and what while it streams."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.intake import model
from qubix.intake.model import QuotaExceeded, TypeRefused
from qubix.intake.service import Admission, StoredBlob, receive
from qubix.kernel.errors import Invalid, QubixError, TooLarge


class FakeBlob:
    """Stored bytes."""

    def __init__(self, content: bytes) -> None:
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.size = len(content)


class FakeBlobs:
    """Keeps what was put, and nothing of what failed."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.read = 0

    async def put(self, stream: AsyncIterable[bytes], *, size_max_bytes: int, sha256: str | None = None) -> StoredBlob:
        content = b""
        async for chunk in stream:
            self.read += len(chunk)
            content += chunk
            if len(content) > size_max_bytes:
                raise TooLarge("too large", limit=size_max_bytes)
        blob = FakeBlob(content)
        if sha256 not in (None, blob.sha256):
            raise Invalid("hash")
        self.kept.append(content)
        return blob


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize(
    "name", ["train.py", "Notebook.IPYNB", "archive.tar.gz", "Dockerfile", "train-images-idx3-ubyte", "données.csv", " main.py "]
)
def test_a_file_of_an_accepted_type_is_taken(name: str) -> None:
    assert model.check_filename(name) == name.strip()


@pytest.mark.parametrize("name", ["virus.exe", "noending", "a.b.dll", ".py.exe"])
def test_another_type_is_refused_with_the_accepted_ones(name: str) -> None:
    with pytest.raises(TypeRefused) as caught:
        model.check_filename(name)
    assert ".py" in caught.value.extra["accepted"]
    assert ".py" in caught.value.next_step


@pytest.mark.parametrize("name", ["", "  ", "../x.py", "a/b.py", "a\\b.py", "x\x00.py", "x\n.py", "..", "x" * 200 + ".py"])
def test_a_name_that_is_a_path_or_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        model.check_filename(name)


@given(st.text(max_size=220))
def test_any_name_is_refused_or_stays_one_plain_name(name: str) -> None:
    try:
        kept = model.check_filename(name)
    except QubixError:
        return
    assert "/" not in kept
    assert "\\" not in kept
    assert kept.isprintable()
    assert model.check_filename(kept) == kept


@given(st.integers(-5, 10**10), st.integers(1, 10**9))
def test_an_announced_size_is_judged_before_the_body(size: int, limit: int) -> None:
    if 0 <= size <= limit:
        model.check_size(size, limit=limit)
        return
    with pytest.raises(Invalid) as caught:
        model.check_size(size, limit=limit)
    assert isinstance(caught.value, TooLarge) == (size > limit)
    if size > limit:
        assert caught.value.extra["limit"] == limit
        assert str(limit) in caught.value.message


def test_the_quota_counts_what_is_to_come() -> None:
    model.check_quota(90, 1, 10, quota=100)
    for used, files, size in ((90, 1, 11), (0, model.UPLOADS_PER_USER_MAX, 1)):
        with pytest.raises(QuotaExceeded):
            model.check_quota(used, files, size, quota=100)


async def test_a_stream_is_stopped_at_the_limit_and_not_read_on() -> None:
    blobs = FakeBlobs()
    with pytest.raises(TooLarge):
        await receive(blobs, chunks(*[b"x" * 10] * 1000), Admission("a.py", 25))
    assert blobs.read == 30
    assert blobs.kept == []


@pytest.mark.parametrize("announced", [3, 7])
async def test_a_body_of_another_length_than_announced_is_refused_and_not_kept(announced: int) -> None:
    blobs = FakeBlobs()
    with pytest.raises(Invalid):
        await receive(blobs, chunks(b"12", b"345"), Admission("a.py", 100, size=announced))
    assert blobs.kept == []


async def test_a_good_stream_is_kept() -> None:
    blobs = FakeBlobs()
    digest = hashlib.sha256(b"12345").hexdigest()
    blob = await receive(blobs, chunks(b"12", b"345"), Admission("a.py", 100, size=5, sha256=digest))
    assert (blob.sha256, blob.size) == (digest, 5)

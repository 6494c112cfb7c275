"""A disk that is full: 503, nothing half done, and the same request does it later."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from qubix.jobs import blobs
from tests.api.conftest import World


async def test_a_full_disk_is_a_503_and_no_upload_and_the_next_one_is_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = await world.person("anna")
    real = blobs._append

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(blobs, "_append", full)
    answer = await anna.http.put("/api/uploads?filename=job.py", content=b"print()")
    assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (503, True)
    assert (await anna.http.get("/api/uploads")).json()["items"] == []
    assert [path for path in (world.resources.settings.data_dir / "blobs").rglob("*") if path.is_file()] == []
    monkeypatch.setattr(blobs, "_append", real)
    assert (await anna.http.put("/api/uploads?filename=job.py", content=b"print()")).status_code == 201

"""Uploads on the real database and the real blob store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.intake.model import QuotaExceeded, Upload
from qubix.intake.service import receive
from qubix.kernel.errors import NotFound, TooLarge
from qubix.kernel.ids import UserId
from tests.conftest import Database
from tests.fakes.nodes import person

pytestmark = pytest.mark.postgres


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def upload(resources: Resources, user: UserId, name: str, content: bytes, *, announced: bool = True) -> Upload:
    async with scope(resources) as s:
        admission = await s.intake.admit(user, name, size=len(content) if announced else None)
    blob = await receive(resources.blobs, chunks(content), admission)
    async with scope(resources) as s:
        return await s.intake.record(user, admission, blob)


async def test_an_upload_is_stored_by_its_hash_and_read_back(resources: Resources) -> None:
    user = await person(resources)
    made = await upload(resources, user, "train.py", b"print(1)")
    assert b"".join([chunk async for chunk in resources.blobs.open(made.sha256)]) == b"print(1)"
    async with scope(resources) as s:
        assert await s.intake.get(user, [made.id]) == [made]


async def test_the_same_file_again_is_the_same_upload(resources: Resources, owner: AsyncConnection) -> None:
    user = await person(resources)
    first, *others = [await upload(resources, user, "train.py", b"print(1)") for _ in range(3)]
    assert {other.id for other in others} == {first.id}
    assert (await upload(resources, user, "other.py", b"print(1)")).id != first.id
    assert await owner.scalar(sa.text("SELECT count(*) FROM blobs")) == 1


async def test_another_accounts_upload_does_not_exist(resources: Resources) -> None:
    ada, eve = await person(resources), await person(resources)
    made = await upload(resources, ada, "train.py", b"secret")
    async with scope(resources) as s:
        assert await s.intake.page(eve) == []
        with pytest.raises(NotFound):
            await s.intake.get(eve, [made.id])
        with pytest.raises(NotFound):
            await s.intake.remove(eve, made.id)
        with pytest.raises(NotFound):
            await s.intake.get(ada, [made.id, uuid4()])


async def test_limits_and_quota_hold_before_and_while_streaming(database: Database) -> None:
    resources = database.resources(upload_size_max_bytes=100, upload_quota_bytes=150)
    try:
        user = await person(resources)
        async with scope(resources) as s:
            with pytest.raises(TooLarge):
                await s.intake.admit(user, "a.py", size=101)
        with pytest.raises(TooLarge):
            await upload(resources, user, "a.py", b"x" * 101, announced=False)
        await upload(resources, user, "a.py", b"x" * 100)
        async with scope(resources) as s:
            with pytest.raises(QuotaExceeded):
                await s.intake.admit(user, "b.py", size=51)
        with pytest.raises(TooLarge):
            await upload(resources, user, "b.py", b"y" * 60, announced=False)
    finally:
        await resources.close()


async def test_parallel_uploads_do_not_pass_the_quota_together(database: Database) -> None:
    resources = database.resources(upload_size_max_bytes=100, upload_quota_bytes=250)
    try:
        user = await person(resources)
        results = await asyncio.gather(*(upload(resources, user, f"{n}.py", bytes([n]) * 100) for n in range(5)), return_exceptions=True)
        assert sum(isinstance(result, Upload) for result in results) == 2
        assert sum(isinstance(result, QuotaExceeded) for result in results) == 3
    finally:
        await resources.close()


async def test_uploads_are_paged_newest_first_and_removed(resources: Resources) -> None:
    user = await person(resources)
    made = [await upload(resources, user, f"{n}.py", b"%d" % n) for n in range(5)]
    async with scope(resources) as s:
        first = await s.intake.page(user, limit=3)
        rest = await s.intake.page(user, before=first[-1].id, limit=3)
        assert [u.id for u in first + rest] == [u.id for u in reversed(made)]
        await s.intake.remove(user, made[0].id)
        with pytest.raises(NotFound):
            await s.intake.get(user, [made[0].id])

"""Device leases raced on the real database: all or none, one holder at a time."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.capacity.model import Purpose
from tests.fakes.nodes import Joined, join


async def device_ids(owner: AsyncConnection, node: Joined) -> list[int]:
    rows = await owner.execute(sa.text("SELECT id FROM devices WHERE node_id = :id ORDER BY id"), {"id": node.node_id})
    return [row.id for row in rows]


async def lease(resources: Resources, node: Joined, gpus: int = 1) -> tuple[int, ...] | None:
    async with scope(resources) as s:
        return await s.capacity.lease_for_quote(uuid4(), node_id=node.node_id, model="RTX_4090", gpus=gpus, ttl_s=60)


async def test_twenty_callers_race_for_four_devices_and_none_is_leased_twice_or_out_of_reach(
    resources: Resources, owner: AsyncConnection
) -> None:
    node = await join(resources, gpus=4)
    taken = [one for one in await asyncio.gather(*(lease(resources, node) for _ in range(20))) if one is not None]
    assert taken
    # A caller passes over a device that another transaction has just locked, so a race may leave one free: for the next who asks.
    while (late := await lease(resources, node)) is not None:
        taken.append(late)
    assert sorted(device for devices in taken for device in devices) == await device_ids(owner, node)


async def test_leases_of_several_devices_are_all_or_none_under_a_race(resources: Resources, owner: AsyncConnection) -> None:
    node = await join(resources, gpus=5)
    taken = [one for one in await asyncio.gather(*(lease(resources, node, 2) for _ in range(10))) if one is not None]
    held = [device for devices in taken for device in devices]
    assert all(len(devices) == 2 for devices in taken)
    assert len(held) == len(set(held)) == await owner.scalar(sa.text("SELECT count(*) FROM device_leases"))
    assert 1 <= len(taken) <= 2


async def test_two_who_lease_on_one_node_at_once_do_not_wait_for_each_other(resources: Resources, owner: AsyncConnection) -> None:
    node = await join(resources, gpus=2)
    one, other = await device_ids(owner, node)
    async with scope(resources) as first, scope(resources) as second:
        await second.connection.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
        assert await first.capacity.lease_for_quote(uuid4(), node_id=node.node_id, model="RTX_4090", gpus=1, ttl_s=60) == (one,)
        assert await second.capacity.lease_for_quote(uuid4(), node_id=node.node_id, model="RTX_4090", gpus=1, ttl_s=60) == (other,)
    assert await owner.scalar(sa.text("SELECT gpus_free FROM offers")) == 0, "the second to commit counts the first's too"


async def test_of_two_who_want_both_devices_at_once_one_gets_them(resources: Resources, owner: AsyncConnection) -> None:
    node = await join(resources, gpus=2)
    slow = "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END $$"
    for statement in (slow, "CREATE TRIGGER slowly BEFORE INSERT ON device_leases FOR EACH ROW EXECUTE FUNCTION slowly()"):
        await owner.execute(sa.text(statement))
    taken = await asyncio.gather(lease(resources, node, 2), lease(resources, node, 2))
    assert sorted(one is None for one in taken) == [False, True]


async def test_who_gets_too_few_devices_leaves_them_to_others_at_once(resources: Resources, owner: AsyncConnection) -> None:
    node = await join(resources, gpus=2)
    async with scope(resources) as first:
        assert await first.capacity.lease_for_quote(uuid4(), node_id=node.node_id, model="RTX_4090", gpus=3, ttl_s=60) is None
        assert await lease(resources, node, 2) is not None, "though the first's transaction goes on"


async def test_a_device_that_another_is_just_taking_counts_as_taken_and_is_not_waited_for(
    resources: Resources, owner: AsyncConnection
) -> None:
    node = await join(resources)
    devices = await device_ids(owner, node)
    async with scope(resources) as first, scope(resources) as second:
        await second.connection.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
        assert await first.capacity.lease_for_quote(uuid4(), node_id=node.node_id, model="RTX_4090", gpus=1, ttl_s=60)
        assert not await second.capacity.lease_to_attempt(uuid4(), devices, ttl_s=60)


async def test_the_database_refuses_two_leases_of_a_device_at_one_time(resources: Resources, owner: AsyncConnection) -> None:
    (device,) = await device_ids(owner, await join(resources))
    add = sa.text("""INSERT INTO device_leases (device_id, purpose, holder_id, during)
                     VALUES (:device, 'job', gen_random_uuid(), tstzrange(now() + :from * interval '1 s', now() + :to * interval '1 s'))""")
    await owner.execute(add, {"device": device, "from": 0, "to": 10})
    await owner.execute(add, {"device": device, "from": 10, "to": 20})
    with pytest.raises(IntegrityError, match="device_leases_one_holder_excl"):
        await owner.execute(add, {"device": device, "from": 9, "to": 11})


async def test_a_quotes_leases_become_the_attempts_in_one_step(resources: Resources, owner: AsyncConnection) -> None:
    node = await join(resources, gpus=2)
    quote, attempt = uuid4(), uuid4()
    async with scope(resources) as s:
        held = await s.capacity.lease_for_quote(quote, node_id=node.node_id, model="RTX_4090", gpus=2, ttl_s=60)
        assert held is not None
        assert await s.capacity.lease_to_attempt(attempt, held, ttl_s=600, instead_of=[quote])
        uses = await s.capacity.uses([node.node_id])
    assert {(use.purpose, use.holder_id) for use in uses} == {(Purpose.JOB, attempt)}


async def test_an_attempt_gets_no_device_that_another_holds_or_that_is_in_quarantine(resources: Resources, owner: AsyncConnection) -> None:
    node = await join(resources, gpus=2)
    devices = await device_ids(owner, node)
    first = uuid4()
    async with scope(resources) as s:
        assert await s.capacity.lease_to_attempt(first, devices[:1], ttl_s=600)
        assert not await s.capacity.lease_to_attempt(uuid4(), devices, ttl_s=600)
        assert [use.device_id for use in await s.capacity.free(node.node_id, model="RTX_4090")] == devices[1:]
        assert await s.capacity.quarantine(first) == 1
        assert await s.capacity.release(first) == (devices[0],)
        assert await s.capacity.release(first) == ()
        assert not await s.capacity.lease_to_attempt(uuid4(), devices[:1], ttl_s=600)


async def test_a_lease_that_ran_out_frees_its_device_before_anybody_sweeps(resources: Resources, owner: AsyncConnection) -> None:
    node = await join(resources)
    assert await lease(resources, node) is not None
    assert await lease(resources, node) is None
    await owner.execute(
        sa.text("UPDATE device_leases SET during = tstzrange(lower(during) - interval '2 min', upper(during) - interval '2 min')")
    )
    assert await lease(resources, node) is not None
    async with scope(resources) as s:
        assert await s.capacity.expire() == [node.node_id]
        assert await s.capacity.expire() == []


async def test_a_lease_is_extended_and_never_shortened(resources: Resources, owner: AsyncConnection) -> None:
    node = await join(resources)
    quote = uuid4()
    async with scope(resources) as s:
        await s.capacity.lease_for_quote(quote, node_id=node.node_id, model="RTX_4090", gpus=1, ttl_s=60)
        assert await s.capacity.extend(quote, ttl_s=300)
        assert await s.capacity.extend(quote, ttl_s=1)
        assert not await s.capacity.extend(uuid4(), ttl_s=300)
    assert await owner.scalar(sa.text("SELECT upper(during) - clock_timestamp() > interval '290 s' FROM device_leases")) is True


async def test_a_reservation_follows_what_is_named_and_frees_the_rest(resources: Resources, owner: AsyncConnection) -> None:
    node = await join(resources, gpus=3)
    devices = await device_ids(owner, node)
    job = uuid4()
    async with scope(resources) as s:
        assert await s.capacity.reserve(job, devices[:2], ttl_s=15) == tuple(devices[:2])
        assert await s.capacity.reserve(job, devices[1:], ttl_s=15) == tuple(devices[1:])
        assert await s.capacity.reserve(job, [], ttl_s=15) == ()

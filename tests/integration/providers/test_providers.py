"""Providers on the real database, as the web, controller and fabric roles."""

from __future__ import annotations

import asyncio
import itertools
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

import qubix
from qubix.bootstrap import Resources, scope
from qubix.kernel.errors import Invalid, Limited, NotFound
from qubix.providers.model import Heat, NodeBusy, NodeState, Presence, TokenRefused, VersionMismatch, WorkerTaken
from tests.conftest import Database
from tests.fakes.nodes import facts, gpu, join, person, request, sample

pytestmark = pytest.mark.postgres


async def events(owner: AsyncConnection, kind: str) -> list[dict[str, object]]:
    rows = await owner.execute(sa.text("SELECT payload FROM events WHERE type = :type ORDER BY id"), {"type": kind})
    return [row.payload for row in rows]


async def test_a_join_makes_provider_node_devices_and_an_offer_and_tells_the_marketplace(
    resources: Resources, owner: AsyncConnection
) -> None:
    node = await join(resources, gpus=2)
    async with scope(resources) as s:
        provider = await s.providers.mine(node.owner_id)
        offers = await s.market.offers_of(node.node_id)
    assert [n.id for n in provider.nodes] == [node.node_id]
    assert provider.nodes[0].presence is Presence.ONLINE
    assert [(d.model, d.verified, d.detected_by) for d in provider.nodes[0].devices] == [("RTX_4090", False, "declared")] * 2
    assert [(o.model, o.gpus, o.gpus_free, o.price_per_hour, o.status.value) for o in offers] == [("RTX_4090", 2, 2, 1000, "available")]
    assert len(await events(owner, "PROVIDER_REGISTERED")) == 1
    assert [e["status"] for e in await events(owner, "MARKETPLACE_UPDATE")][-1] == "available"


async def test_providers_without_a_name_of_their_own_can_be_told_apart(resources: Resources) -> None:
    users = [await person(resources), await person(resources)]
    names = set()
    for user in users:
        async with scope(resources) as s:
            await s.providers.join_token(user)
            names.add((await s.providers.mine(user)).name)
    assert len(names) == 2


async def test_a_join_token_lets_one_node_in_and_a_repeat_of_the_same_request_gets_the_same_answer(resources: Resources) -> None:
    user = await person(resources)
    async with scope(resources) as s:
        token = (await s.providers.join_token(user)).token
    first, other = request(token, [gpu("a")]), request(token, [gpu("b")])
    async with scope(resources) as s:
        made = await s.providers.join(first)
    async with scope(resources) as s:
        again = await s.providers.join(first)
        assert (again.node_id, again.created) == (made.node_id, False)
        with pytest.raises(TokenRefused, match="used already"):
            await s.providers.join(other)


async def test_a_spent_token_does_not_replace_a_nodes_key(resources: Resources) -> None:
    user = await person(resources)
    async with scope(resources) as s:
        token = (await s.providers.join_token(user)).token
        first = request(token, [gpu("a")])
        await s.providers.join(first)
        thief = request(token, [gpu("a")], worker_id=first.worker_id)
        with pytest.raises(TokenRefused):
            await s.providers.join(thief)


async def test_a_spent_token_does_not_bring_back_a_node_that_left(resources: Resources) -> None:
    user = await person(resources)
    async with scope(resources) as s:
        first = request((await s.providers.join_token(user)).token, [gpu("a")])
        node = await s.providers.join(first)
    async with scope(resources) as s:
        await s.providers.leave(user, node.node_id)
        with pytest.raises(TokenRefused):
            await s.providers.join(first)
        assert (await s.providers.node(node.node_id)).state is NodeState.LEFT
        again = first.model_copy(update={"token": (await s.providers.join_token(user)).token})
        assert (await s.providers.join(again)).node_id == node.node_id


async def test_a_fresh_token_of_the_owner_replaces_the_key_and_ends_the_old_session(resources: Resources, owner: AsyncConnection) -> None:
    node = await join(resources)
    await owner.execute(sa.text("UPDATE nodes SET session = gen_random_uuid()"))
    async with scope(resources) as s:
        token = (await s.providers.join_token(node.owner_id)).token
        fresh = request(token, [gpu("a")], worker_id=node.worker_id)
        assert (await s.providers.join(fresh)).node_id == node.node_id
    row = (await owner.execute(sa.text("SELECT public_key, session FROM nodes"))).one()
    assert (bytes(row.public_key).hex(), row.session) == (fresh.public_key, None)


async def test_an_expired_or_unknown_token_is_refused(resources: Resources, owner: AsyncConnection) -> None:
    user = await person(resources)
    async with scope(resources) as s:
        token = (await s.providers.join_token(user)).token
    await owner.execute(sa.text("UPDATE join_tokens SET expires_at = now() - interval '1 second'"))
    async with scope(resources) as s:
        with pytest.raises(TokenRefused, match="expired"):
            await s.providers.join(request(token, [gpu("a")]))
        with pytest.raises(TokenRefused, match="does not exist"):
            await s.providers.join(request("qj_guess", [gpu("a")]))


async def test_another_owners_worker_id_is_refused(resources: Resources) -> None:
    node, eve = await join(resources), await person(resources)
    async with scope(resources) as s:
        token = (await s.providers.join_token(eve)).token
        with pytest.raises(WorkerTaken):
            await s.providers.join(request(token, [gpu("a")], worker_id=node.worker_id))


@pytest.mark.parametrize(("member", "other"), [("ray_version", "2.9.0"), ("qubix_version", "9.9.9")])
async def test_another_release_is_refused_with_both_versions(resources: Resources, member: str, other: str) -> None:
    user = await person(resources)
    async with scope(resources) as s:
        token = (await s.providers.join_token(user)).token
        with pytest.raises(VersionMismatch) as caught:
            await s.providers.join(request(token, [gpu("a")], **{member: other}))  # type: ignore[arg-type]
    assert other in caught.value.message
    assert caught.value.extra["server_version"] in caught.value.message
    assert caught.value.extra["server_version"] in caught.value.next_step


async def test_a_node_of_the_release_before_stays_during_an_upgrade_but_none_of_it_joins_and_none_older_stays(
    resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await join(resources)
    devices = [gpu(uuid) for uuid in node.device_uuids]
    monkeypatch.setattr(qubix, "RELEASE_BEFORE", "0.0.9")  # as if the server had just been upgraded
    async with scope(resources) as s:
        await s.providers.hello(node.node_id, facts(devices, qubix_version="0.0.9"))
        assert (await s.providers.node(node.node_id)).qubix_version == "0.0.9"
        token = (await s.providers.join_token(node.owner_id)).token
        with pytest.raises(VersionMismatch):
            await s.providers.hello(node.node_id, facts(devices, qubix_version="0.0.8"))
        with pytest.raises(VersionMismatch):
            await s.providers.join(request(token, [gpu("b")], qubix_version="0.0.9"))


async def test_two_devices_of_one_uuid_are_refused(resources: Resources) -> None:
    user = await person(resources)
    async with scope(resources) as s:
        token = (await s.providers.join_token(user)).token
        with pytest.raises(Invalid):
            await s.providers.join(request(token, [gpu("a"), gpu("a")]))


async def test_p_a02_any_number_of_registrations_of_one_worker_id_yields_one_provider(resources: Resources, owner: AsyncConnection) -> None:
    """100 registrations of five worker ids, some at once, some with a fresh key: five nodes of one provider."""
    user = await person(resources)
    workers = [f"worker-{n}" for n in range(5)]

    async def register(worker: str) -> UUID:
        async with scope(resources) as s:
            token = (await s.providers.join_token(user)).token
        async with scope(resources) as s:
            return (await s.providers.join(request(token, [gpu("a")], worker_id=worker))).node_id

    seen: dict[str, set[UUID]] = {worker: set() for worker in workers}
    for _ in range(10):
        batch = list(itertools.islice(itertools.cycle(workers), 10))
        for worker, node_id in zip(batch, await asyncio.gather(*(register(worker) for worker in batch)), strict=True):
            seen[worker].add(node_id)
    assert all(len(ids) == 1 for ids in seen.values())
    counts = (
        await owner.execute(sa.text("SELECT (SELECT count(*) FROM providers), (SELECT count(*) FROM nodes), (SELECT count(*) FROM offers)"))
    ).one()
    assert tuple(counts) == (1, 5, 5)


async def test_a_device_that_a_node_no_longer_reports_leaves_its_offer(resources: Resources) -> None:
    node = await join(resources, gpus=2)
    async with scope(resources) as s:
        await s.providers.hello(node.node_id, facts([gpu(node.device_uuids[0])]))
        assert [(o.gpus, o.gpus_free) for o in await s.market.offers_of(node.node_id)] == [(1, 1)]
        await s.providers.hello(node.node_id, facts([gpu(node.device_uuids[0]), gpu("new", "RTX_3090")]))
        offers = await s.market.offers_of(node.node_id)
    assert [(o.model, o.price_per_hour, o.gpus) for o in offers] == [("RTX_4090", 1000, 1), ("RTX_3090", 1000, 1)]


async def test_a_node_without_a_sandbox_is_not_rentable(resources: Resources) -> None:
    node = await join(resources, sandbox={"ok": "no", "reason": "no user namespaces"})
    async with scope(resources) as s:
        assert [o.status.value for o in await s.market.offers_of(node.node_id)] == ["no_sandbox"]


async def test_pause_drain_and_region_change_the_offer_at_once(resources: Resources) -> None:
    node = await join(resources)

    async def status() -> tuple[str, str]:
        async with scope(resources) as s:
            offer = (await s.market.offers_of(node.node_id))[0]
            return offer.status.value, offer.region

    async with scope(resources) as s:
        await s.providers.update_node(node.owner_id, node.node_id, paused=True, region="us-east")
    assert await status() == ("paused", "us-east")
    async with scope(resources) as s:
        await s.providers.update_node(node.owner_id, node.node_id, paused=False)
        await s.providers.drain(node.owner_id, node.node_id)
    assert await status() == ("draining", "us-east")
    async with scope(resources) as s:
        await s.providers.drain(node.owner_id, node.node_id, draining=False)
    assert await status() == ("available", "us-east")


async def test_outside_its_windows_a_node_has_nothing_free(resources: Resources, owner: AsyncConnection) -> None:
    node = await join(resources)
    now = await owner.scalar(sa.text("SELECT extract(isodow FROM now() AT TIME ZONE 'UTC')::int - 1"))
    tomorrow, today = {"weekday": (now + 1) % 7, "opens": 0, "closes": 1440}, {"weekday": now, "opens": 0, "closes": 1440}
    async with scope(resources) as s:
        await s.providers.update_node(node.owner_id, node.node_id, availability=[tomorrow])
        assert (await s.market.offers_of(node.node_id))[0].gpus_free == 0
        await s.providers.update_node(node.owner_id, node.node_id, availability=[today])
        assert (await s.market.offers_of(node.node_id))[0].gpus_free == 1
        await s.providers.update_node(node.owner_id, node.node_id, availability=[])
        assert (await s.market.offers_of(node.node_id))[0].gpus_free == 1


async def test_a_node_leaves_only_when_nothing_is_leased_and_may_come_back(resources: Resources) -> None:
    node = await join(resources)
    holder = uuid4()
    async with scope(resources) as s:
        await s.capacity.lease_for_quote(holder, node_id=node.node_id, model="RTX_4090", gpus=1, ttl_s=60)
        with pytest.raises(NodeBusy):
            await s.providers.leave(node.owner_id, node.node_id)
        await s.capacity.release(holder)
        await s.providers.leave(node.owner_id, node.node_id)
        await s.providers.leave(node.owner_id, node.node_id)
        assert [o.status.value for o in await s.market.offers_of(node.node_id)] == ["left"]
        with pytest.raises(NotFound):
            await s.providers.hello(node.node_id, facts([gpu("a")]))
        token = (await s.providers.join_token(node.owner_id)).token
        back = await s.providers.join(request(token, [gpu(node.device_uuids[0])], worker_id=node.worker_id))
        assert back.node_id == node.node_id
        assert (await s.providers.node(node.node_id)).state is NodeState.REGISTERING


async def test_another_owners_node_does_not_exist(resources: Resources) -> None:
    node, eve = await join(resources), await person(resources)
    async with scope(resources) as s:
        for act in (
            s.providers.update_node(eve, node.node_id, paused=True),
            s.providers.drain(eve, node.node_id),
            s.providers.leave(eve, node.node_id),
            s.market.set_price(eve, node.node_id, 5),
            s.providers.mine(eve),
        ):
            with pytest.raises(NotFound):
                await act


async def test_open_join_tokens_are_limited(resources: Resources) -> None:
    user = await person(resources)
    async with scope(resources) as s:
        for _ in range(50):
            await s.providers.join_token(user)
        with pytest.raises(Limited):
            await s.providers.join_token(user)


async def test_a_silent_node_goes_offline_once_and_comes_back_with_a_hello(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    node = await join(resources)
    await owner.execute(sa.text("UPDATE nodes SET last_status_at = now() - interval '91 seconds'"))
    async with scope(controller_resources) as s:
        assert await s.providers.mark_offline() == [node.node_id]
        assert await s.providers.mark_offline() == []
    async with scope(resources) as s:
        assert [o.status.value for o in await s.market.offers_of(node.node_id)] == ["offline"]
        await s.providers.hello(node.node_id, facts([gpu(node.device_uuids[0])]))
        assert [o.status.value for o in await s.market.offers_of(node.node_id)] == ["available"]
    states = [e.get("state") for e in await events(owner, "PROVIDER_STATUS_CHANGED")]
    assert states == ["online", "offline", "online"]


async def test_a_sample_is_kept_and_is_the_devices_latest(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    async with scope(controller_resources) as s:
        await s.providers.keep_house()
    node = await join(resources, gpus=2)
    async with scope(resources) as s:
        await s.providers.record_sample(node.node_id, sample(node.device_uuids, temperature_c=61))
        detail = await s.market.detail((await s.market.offers_of(node.node_id))[0].id)
        device = (await s.providers.node(node.node_id)).devices[0]
        assert len(await s.providers.history(device.id)) == 2
    assert [d["sample"]["temperature_c"] for d in detail.devices] == [61, 61]
    assert await owner.scalar(sa.text("SELECT count(*) FROM device_metrics")) == 4
    assert await owner.scalar(sa.text("SELECT count(*) FROM device_metrics_default")) == 0


async def test_an_overheating_device_gets_no_new_work_until_it_has_cooled(resources: Resources) -> None:
    node = await join(resources)

    async def measure(celsius: float) -> tuple[Heat, int]:
        async with scope(resources) as s:
            worst = await s.providers.record_sample(node.node_id, sample(node.device_uuids, temperature_c=celsius))
            return worst, (await s.market.offers_of(node.node_id))[0].gpus_free

    assert await measure(86) == (Heat.HOT, 0)
    assert await measure(82) == (Heat.HOT, 0)
    assert await measure(79) == (Heat.NORMAL, 1)
    assert await measure(93) == (Heat.OVER_LIMIT, 0)
    assert await measure(101) == (Heat.CRITICAL, 0)
    async with scope(resources) as s:
        assert (await s.providers.node(node.node_id)).draining


async def test_metrics_partitions_are_made_ahead_and_dropped_past_retention(
    controller_resources: Resources, owner: AsyncConnection
) -> None:
    async with scope(controller_resources) as s:
        await s.providers.keep_house()
        await s.providers.keep_house()
    names = sa.text("SELECT count(*) FROM pg_inherits WHERE inhparent = 'device_metrics'::regclass")
    assert await owner.scalar(names) == 5
    await owner.execute(
        sa.text("CREATE TABLE device_metrics_20200101 PARTITION OF device_metrics FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')")
    )
    assert await owner.scalar(names) == 6
    async with scope(controller_resources) as s:
        await s.providers.keep_house()
    assert await owner.scalar(names) == 5


async def test_the_fabric_role_may_say_what_it_saw_and_nothing_else(resources: Resources, database: Database) -> None:
    node = await join(resources)
    fabric = database.resources("qubix_fabric")
    try:
        async with scope(fabric) as s:
            seen = await s.connection.scalar(sa.text("SELECT node_seen(:worker, 'ray-1')"), {"worker": node.worker_id})
            assert seen == node.node_id
            assert await s.connection.scalar(sa.text("SELECT node_dead('ray-1')")) == node.node_id
            assert await s.connection.scalar(sa.text("SELECT node_dead('another')")) is None
            row = (await s.connection.execute(sa.text("SELECT * FROM issue_join_token(:id)"), {"id": node.provider_id})).one()
            nobody = (await s.connection.execute(sa.text("SELECT * FROM issue_join_token(gen_random_uuid())"))).one()
        assert nobody.token is None
        for forbidden in (
            "UPDATE nodes SET state = 'online'",
            "SELECT * FROM users",
            "SELECT * FROM join_tokens",
            "SELECT public_key FROM nodes",
        ):
            async with fabric.engine.connect() as connection:
                with pytest.raises(DBAPIError, match="permission denied"):
                    await connection.execute(sa.text(forbidden))
    finally:
        await fabric.close()
    async with scope(resources) as s:
        assert (await s.providers.join(request(row.token, [gpu("x")]))).provider_id == node.provider_id


async def test_a_token_made_from_labels_never_replaces_the_key_of_a_node_that_exists(resources: Resources, database: Database) -> None:
    node = await join(resources)
    fabric = database.resources("qubix_fabric")
    async with scope(fabric) as s:
        token = await s.connection.scalar(sa.text("SELECT token FROM issue_join_token(:id)"), {"id": node.provider_id})
    await fabric.close()
    with pytest.raises(TokenRefused, match="labels alone"):
        async with scope(resources) as s:
            await s.providers.join(request(token, [gpu("x")], worker_id=node.worker_id))


async def test_a_rejoin_keeps_the_price_and_the_region_that_the_owner_set(resources: Resources) -> None:
    node = await join(resources, price=1000, region="eu")
    async with scope(resources) as s:
        await s.market.set_price(node.owner_id, node.node_id, 1234)
        await s.providers.update_node(node.owner_id, node.node_id, region="us")
        token = (await s.providers.join_token(node.owner_id)).token
        again = request(token, [gpu(node.device_uuids[0])], worker_id=node.worker_id, price=1, region="asia")
        assert not (await s.providers.join(again)).created
        offer = (await s.market.offers_of(node.node_id))[0]
    assert (offer.price_per_hour, offer.region) == (1234, "us")

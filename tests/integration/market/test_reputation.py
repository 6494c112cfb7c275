"""A provider's reputation follows its attempts, and its offers follow it."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.bootstrap import Resources, scope
from qubix.kernel.ids import new_id
from tests.fakes.nodes import join

pytestmark = pytest.mark.postgres


async def attempt(owner: AsyncConnection, provider_id: object, state: str, fault: str) -> None:
    """An attempt that ends: constraints on jobs are of no interest here, so they are set aside for the arrangement."""
    await owner.execute(sa.text("SET session_replication_role = replica"))
    values = {"id": new_id(), "job": new_id(), "provider": provider_id, "node": new_id()}
    await owner.execute(
        sa.text("""INSERT INTO attempts (id, job_id, number, fence, node_id, provider_id, offer_id, rate, limit_ms, state, device_uuids)
                   VALUES (:id, :job, 1, 1, :node, :provider, :node, 1, 1, 'RUNNING', '{}')"""),
        values,
    )
    await owner.execute(sa.text("SET session_replication_role = origin"))
    ended = sa.text("UPDATE attempts SET state = :state, fault = :fault, ended_at = now() WHERE id = :id")
    await owner.execute(ended, {"state": state, "fault": fault, "id": values["id"]})


async def test_reputation_is_the_share_of_attempts_without_the_providers_fault(
    resources: Resources, controller_resources: Resources, owner: AsyncConnection
) -> None:
    node = await join(resources)
    for state, fault in (("SUCCEEDED", "none"), ("FAILED", "consumer"), ("LOST", "provider"), ("CANCELLED", "none")):
        await attempt(owner, node.provider_id, state, fault)
    async with scope(resources) as s:
        provider = await s.providers.provider(node.provider_id)
        assert (provider.reputation.ended, provider.reputation.faulted, provider.reputation.share) == (4, 1, 0.75)
        assert await s.providers.reputation(node.provider_id) == provider.reputation
    async with scope(controller_resources) as s:
        assert await s.market.refresh_due() == 1
        assert await s.market.refresh_due() == 0
    async with scope(resources) as s:
        offer = (await s.market.offers_of(node.node_id))[0]
    assert (offer.reliability, offer.attempts) == (0.75, 4)

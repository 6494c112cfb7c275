"""Jobs over HTTP: from quote to receipt, and every refusal that leaves nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

import pytest
import sqlalchemy as sa

from qubix.agent.protocol import Accept, Ack, Artefact, Desired, Exit, Finished, Grant, Log, Missing, Progress, Running, Stop, Stream
from qubix.controller import Controller
from tests.api.conftest import Person, World
from tests.api.machines import Machine, machine
from tests.fakes.nodes import join

MNIST: dict[str, Any] = {"kind": "mnist", "duration_max_s": 60}


async def wallet(person: Person) -> dict[str, Any]:
    wallets = (await person.http.get("/api/wallets/balance")).json()["wallets"]
    found: dict[str, Any] = next(item for item in wallets if item["asset"] == "QUBIC")
    return found


async def counts(world: World) -> tuple[int, int, int]:
    row = (
        await world.owner.execute(
            sa.text("SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM escrows), (SELECT count(*) FROM quotes)")
        )
    ).one()
    return tuple(row)  # type: ignore[return-value]


async def test_the_library_says_what_its_jobs_take(world: World) -> None:
    items = (await world.client().get("/api/jobs/catalogue")).json()["items"]
    assert {"mnist", "script", "stable_diffusion"} <= {item["name"] for item in items}
    mnist = next(item for item in items if item["name"] == "mnist")
    assert any(param["name"] == "epochs" and param["allowed"] for param in mnist["params"])


async def test_a_quote_shows_offer_ceiling_estimate_and_alternatives(world: World) -> None:
    anna = await world.person("anna")
    await join(world.resources, price=3600)
    await join(world.resources, price=7200, model="RTX_3090")
    body = (await anna.http.post("/api/quotes", json={**MNIST, "params": {"epochs": 5}})).json()
    assert body["quote"]["ceiling"] == body["quote"]["rate_max"] * 60 // 3600
    assert body["offer"]["id"] == body["quote"]["offer_id"]
    assert body["estimate"]["cost"] > 0
    assert len(body["alternatives"]) == 2
    assert (await anna.http.get(f"/api/quotes/{body['quote']['id']}")).json()["state"] == "open"
    assert (await anna.http.delete(f"/api/quotes/{body['quote']['id']}")).status_code == 204


async def test_where_nothing_fits_the_quote_says_why_and_what_would_help(world: World) -> None:
    anna = await world.person("anna")
    await join(world.resources, gib=8)
    body = (await anna.http.post("/api/quotes", json={**MNIST, "needs": {"vram_bytes": 16 << 30}})).json()
    assert body["quote"] is None
    assert body["unplaceable"]["relaxation"]


async def test_what_a_job_would_lock_while_it_waits_is_told_and_then_locked(world: World) -> None:
    anna = await world.person("anna", funds=100_000)
    await join(world.resources, gib=8, price=3600)
    wish = {**MNIST, "needs": {"vram_bytes": 16 << 30}}
    waiting = (await anna.http.post("/api/quotes", json=wish)).json()["waiting"]
    assert waiting["ceiling"] == waiting["rate_max"] * waiting["duration_max_s"] // 3600
    for request in (wish, {**wish, "budget": waiting["ceiling"], "duration_max_s": waiting["duration_max_s"]}):
        made = (await anna.http.post("/api/jobs/create", json=request)).json()["job"]
        assert (made["ceiling"], made["rate_max"]) == (waiting["ceiling"], waiting["rate_max"])


async def test_where_nobody_offers_a_gpu_a_quote_claims_no_ceiling_unless_a_price_is_named(world: World) -> None:
    anna = await world.person("anna")
    assert (await anna.http.post("/api/quotes", json=MNIST)).json()["waiting"] is None
    assert (await anna.http.post("/api/quotes", json={**MNIST, "budget": 500})).json()["waiting"]["ceiling"] == 500


async def test_insufficient_funds_are_402_with_the_missing_amount_and_nothing_is_made(world: World) -> None:
    anna = await world.person("anna", funds=100)
    await join(world.resources, price=3600)
    answer = await anna.http.post("/api/jobs/create", json={**MNIST, "budget": 1000}, headers={"Idempotency-Key": "a"})
    assert (answer.status_code, answer.json()["code"], answer.json()["missing"]) == (402, "insufficient_funds", 900)
    assert await counts(world) == (0, 0, 0)
    assert (await wallet(anna))["available"] == 100


async def test_the_same_request_twice_makes_one_job(world: World) -> None:
    anna = await world.person("anna", funds=10_000)
    await join(world.resources, price=3600)
    answers = await asyncio.gather(
        *(anna.http.post("/api/jobs/create", json={**MNIST, "budget": 100}, headers={"Idempotency-Key": "a"}) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert (await counts(world))[:2] == (1, 1)
    assert (await wallet(anna))["in_escrow"] == 100


async def test_an_offer_gone_between_plan_and_confirm_is_409_with_the_next_best(world: World) -> None:
    anna, bert = await world.person("anna", funds=10_000), await world.person("bert", funds=10_000)
    await join(world.resources, price=3600)
    await join(world.resources, price=7200, model="RTX_3090")
    plan = (await anna.http.post("/api/quotes", json=MNIST)).json()
    await anna.http.delete(f"/api/quotes/{plan['quote']['id']}")
    assert (await bert.http.post("/api/quotes", json={**MNIST, "offer_id": plan["offer"]["id"]})).status_code == 200
    answer = await anna.http.post("/api/jobs/create", json={**MNIST, "offer_id": plan["offer"]["id"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "offer_taken")
    assert answer.json()["next_best"]["model"] == "RTX_3090"
    assert (await counts(world))[:2] == (0, 0)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "dance"}, "kind"),
        ({"kind": "mnist", "params": {"epochs": 0}}, "params.epochs"),
        ({"kind": "mnist", "params": {"colour": 1}}, "params.colour"),
        ({"kind": "mnist", "needs": {"gpus": 0}}, "body.needs.gpus"),
        ({"kind": "mnist", "needs": {"moons": 1}}, "body.needs.moons"),
        ({"kind": "mnist", "budget": -1}, "body.budget"),
        ({"kind": "script"}, "inputs"),
        ({"kind": "mnist", "extra": 1}, "body.extra"),
    ],
)
async def test_a_wrong_job_names_the_field_and_what_is_allowed(world: World, body: dict[str, Any], field: str) -> None:
    anna = await world.person("anna", funds=10_000)
    answer = await anna.http.post("/api/jobs/create", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert answer.json()["next_step"]


async def test_no_matching_node_leaves_the_job_pending_with_the_reason(world: World) -> None:
    anna = await world.person("anna", funds=10_000)
    await join(world.resources, gib=8, price=3600)
    answer = await anna.http.post("/api/jobs/create", json={**MNIST, "budget": 100, "needs": {"vram_bytes": 16 << 30}})
    assert answer.status_code == 201, answer.text
    job = answer.json()["job"]
    assert job["state"] == "PENDING"
    assert job["unplaceable"]["message"]
    cancelled = await anna.http.post(f"/api/jobs/{job['id']}/cancel")
    assert cancelled.json()["cancel_requested_at"]


async def test_lists_are_paged_and_filtered(world: World) -> None:
    anna = await world.person("anna", funds=10_000)
    await join(world.resources, gpus=3, price=3600)
    made = [(await anna.http.post("/api/jobs/create", json={**MNIST, "budget": 100})).json()["job"]["id"] for _ in range(3)]
    first = (await anna.http.get("/api/jobs?limit=2")).json()
    second = (await anna.http.get(f"/api/jobs?limit=2&cursor={first['next_cursor']}")).json()
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert (await anna.http.get("/api/jobs?state=COMPLETED")).json()["items"] == []


async def run_to_the_end(world: World, owner: Person, anna: Person, node: Machine) -> dict[str, Any]:
    """One job from quote to receipt, with the machine's side spoken by the test."""
    async with node.connected():
        plan = (await anna.http.post("/api/quotes", json=MNIST)).json()
        made = await anna.http.post("/api/jobs/create", json={**MNIST, "quote_id": plan["quote"]["id"]})
        assert made.status_code == 201, made.text
        attempt = await node.work()
        named = {"session": node.session, "attempt": attempt.id, "fence": attempt.fence}
        await node.say(Accept(**named))
        await node.hear(Grant)
        await node.say(Running(**named))
        await node.hear(Ack)
        await node.say(Progress(**named, pct=40, operation="epoch 2", node_at=time.time()))
        content = b"weights"
        assert (await node.put(attempt, content, token="x")).status_code == 401
        assert (await node.put(attempt, content, sha256="0" * 64)).status_code == 422
        assert (await node.put(attempt, content)).status_code == 204
        digest = hashlib.sha256(content).hexdigest()
        end = Finished(**named, exit=Exit.EXITED, exit_code=0, agent_ms=50, log_ends={"out": 3}, artefacts=("model.bin",))
        await node.say(end)
        assert set((await node.hear(Missing)).keys) == {f"{attempt.id}/artefact/model.bin", f"{attempt.id}/log/out/0"}
        await node.say(Log(**named, stream=Stream.OUT, offset=0, text="hi\n", node_at=time.time()))
        await node.say(Artefact(**named, name="model.bin", sha256=digest, size=len(content)))
        await node.say(end)
        while (await node.hear(Ack)).key != end.key:
            pass
        while (await node.hear(Desired)).attempts:
            pass
    job: dict[str, Any] = made.json()["job"]
    return job


async def test_a_job_runs_from_quote_to_receipt_and_its_results_can_be_fetched(served: World, controller: Controller) -> None:
    owner, anna = await served.person("owner"), await served.person("anna", funds=1_000_000)
    node = await machine(served, owner)
    job = await run_to_the_end(served, owner, anna, node)
    shown = (await anna.http.get(f"/api/jobs/{job['id']}")).json()
    assert (shown["state"], shown["progress"]) == ("COMPLETED", 100)
    assert shown["receipt"]["final"]
    assert shown["receipt"]["held"] == shown["receipt"]["charged"] + shown["receipt"]["refunded"]
    assert [attempt["state"] for attempt in shown["attempts"]] == ["SUCCEEDED"]
    assert [line["text"] for line in (await anna.http.get(f"/api/jobs/{job['id']}/logs")).json()["items"]] == ["hi\n"]
    whats = [entry["what"] for entry in (await anna.http.get(f"/api/jobs/{job['id']}/timeline")).json()["items"]]
    assert whats[0] == "created"
    assert whats[-1] == "completed"
    (artefact,) = (await anna.http.get(f"/api/jobs/{job['id']}/artefacts")).json()["items"]
    fetched = await anna.http.get(f"/api/jobs/{job['id']}/artefacts/{artefact['name']}")
    assert fetched.content == b"weights"
    assert fetched.headers["x-content-sha256"] == artefact["sha256"] == hashlib.sha256(fetched.content).hexdigest()
    assert fetched.headers["content-disposition"].startswith("attachment")
    assert fetched.headers["x-content-type-options"] == "nosniff"
    escrow = (await anna.http.get(f"/api/escrows/{job['id']}")).json()
    assert (escrow["state"], escrow["paid"]) == ("RELEASED", shown["receipt"]["charged"])
    disputed = await anna.http.post(f"/api/escrows/{job['id']}/dispute", json={"evidence": "wrong result"})
    assert disputed.json()["lines"][0]["state"] == "FROZEN", disputed.text
    arbiter = await served.person("arbiter", roles=("arbiter",))
    assert (await anna.http.post(f"/api/escrows/{job['id']}/resolve", json={"to_payee": 0, "reason": "x"})).status_code == 404
    unfounded = await arbiter.http.post(f"/api/escrows/{job['id']}/resolve", json={"to_payee": 0, "reason": ""})
    assert (unfounded.status_code, "reason" in unfounded.text) == (422, True)
    ruled = await arbiter.http.post(f"/api/escrows/{job['id']}/resolve", json={"to_payee": 0, "reason": "nothing delivered"})
    assert ruled.status_code == 200, ruled.text


async def test_a_machine_that_leaves_its_socket_is_told_to_stop_what_is_no_longer_its_own(served: World, controller: Controller) -> None:
    owner, anna = await served.person("owner"), await served.person("anna", funds=1_000_000)
    node = await machine(served, owner)
    async with node.connected():
        job = (await anna.http.post("/api/jobs/create", json=MNIST)).json()["job"]
        attempt = await node.work()
        await anna.http.post(f"/api/jobs/{job['id']}/cancel")
        while (await node.hear(Desired)).attempts:
            pass
        await node.say(Accept(session=node.session, attempt=attempt.id, fence=attempt.fence))
        assert (await node.hear(Stop)).attempt == attempt.id

"""Chain money over HTTP: deposit addresses, what is on its way, withdrawals, the history with its links, the devnet's faucet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from qubix.chains.qubic import identity
from qubix.kernel.clock import SystemClock
from serve_app import chain
from tests.api.chain_desk import ChainDesk
from tests.api.conftest import Person, World
from tests.conftest import Database
from tests.integration.chains.devnet_process import Devnet
from tests.integration.chains.devnet_process import Person as Purse

OUTSIDE = Purse(1).identity


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    made = Devnet(tmp_path_factory.mktemp("devnet"))
    yield made
    made.stop()


@pytest.fixture
def web_settings(process: Devnet) -> dict[str, Any]:
    process.order("/faults/clear")
    return {
        "rate_limits": False,
        "network": "devnet",
        "qubic_rpc_urls": (process.url,),
        "qubic_requests_per_s": 1000.0,
        "qubic_explorer_url": f"{process.url}/network",
    }


@pytest.fixture
async def desk(database: Database, owner: AsyncConnection, world: World) -> AsyncIterator[ChainDesk]:
    treasury = database.resources("qubix_treasury", network="devnet")
    found = ChainDesk(owner, treasury)
    await found.make_address("hot")
    await found.stand()
    yield found
    await treasury.close()


async def address_of(person: Person) -> str:
    answer = await person.http.post("/api/wallets/deposit")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["address"])


async def rich(desk: ChainDesk, world: World, name: str = "anna", amount: int = 1000) -> Person:
    """Somebody with a deposit address and money that came to it."""
    await desk.make_address()
    person = await world.person(name)
    await desk.credit(await address_of(person), amount)
    return person


async def qubic_wallet(person: Person) -> dict[str, Any]:
    found: dict[str, Any] = (await person.http.get("/api/wallets/balance")).json()["wallets"][0]
    return found


async def opened(url: str) -> httpx.Response:
    """The page behind a link."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)


async def history(person: Person, query: str = "") -> dict[str, Any]:
    answer = await person.http.get(f"/api/wallets/transactions{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def withdraw(person: Person, amount: int, address: str = OUTSIDE, key: str | None = None) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await person.http.post("/api/wallets/withdraw", json={"amount": amount, "address": address}, headers=headers)


async def test_everybody_has_one_deposit_address_of_their_own_as_soon_as_the_signer_has_made_it(desk: ChainDesk, world: World) -> None:
    anna, bert = await world.person("anna"), await world.person("bert")
    early = await anna.http.post("/api/wallets/deposit")
    assert (early.status_code, early.json()["code"]) == (503, "no_address_yet")
    assert int(early.headers["retry-after"]) > 0
    made = {(await desk.make_address()).identity for _ in range(2)}
    assert {await address_of(anna), await address_of(bert)} == made
    assert await address_of(anna) == await address_of(anna)
    body = (await anna.http.post("/api/wallets/deposit")).json()
    assert (body["network"], body["memo_required"], body["memo_bytes_max"], body["confirmations"]) == ("devnet", False, 880, 3)
    assert body["expected_wait_s"] == 2 * (1000 + 20 + 3 - 997)


async def test_what_is_on_its_way_is_shown_under_the_id_that_it_keeps_and_moves_no_balance(desk: ChainDesk, world: World) -> None:
    await desk.make_address()
    anna = await world.person("anna")
    address = await address_of(anna)
    tx = await desk.see(address, 70, tick=996, confirmations=1)
    (coming,) = (await history(anna))["incoming"]
    assert (coming["status"], coming["amount"], coming["change"], coming["balance"]) == ("pending", 70, 0, None)
    assert (coming["tx_id"], coming["tick"], coming["confirmations"], coming["address"]) == (tx, 996, 1, address)
    assert coming["expected_wait_s"] == 2 * (996 + 3 - 997)
    assert ((await qubic_wallet(anna))["available"], (await qubic_wallet(anna))["incoming"]) == (0, 70)
    assert (await anna.http.get(f"/api/wallets/transactions/{coming['id']}")).json() == coming
    await desk.credit(address, 70, tx=tx)
    page = await history(anna)
    assert page["incoming"] == []
    (row,) = page["items"]
    assert (row["id"], row["subject_id"], row["tx_id"], row["confirmations"]) == (coming["id"], coming["subject_id"], tx, 3)
    assert (row["status"], row["change"], row["balance"], row["expected_wait_s"]) == ("completed", 70, 70, None)
    assert ((await qubic_wallet(anna))["available"], (await qubic_wallet(anna))["incoming"]) == (70, 0)


async def test_a_doubtful_deposit_is_shown_as_unknown_and_its_payment_to_others_is_not_shown(desk: ChainDesk, world: World) -> None:
    for _ in range(2):
        await desk.make_address()
    anna, bert = await world.person("anna"), await world.person("bert")
    await desk.see(await address_of(anna), 70, state="DOUBTFUL")
    await address_of(bert)
    (coming,) = (await history(anna, "?status=unknown"))["incoming"]
    assert (coming["status"], coming["delayed"], coming["expected_wait_s"]) == ("unknown", True, None)
    for query in ("?status=pending", "?type=withdrawal", "?until=2020-01-01T00:00:00Z", "?status=completed&type=deposit"):
        assert (await history(anna, query))["incoming"] == []
    assert (await history(bert))["incoming"] == []
    assert (await bert.http.get(f"/api/wallets/transactions/{coming['id']}")).status_code == 404


async def test_nobody_says_how_long_while_the_archive_stands_still(desk: ChainDesk, world: World) -> None:
    await desk.make_address()
    anna = await world.person("anna")
    await desk.see(await address_of(anna), 70)
    await desk.stand(age_s=61)
    (coming,) = (await history(anna))["incoming"]
    assert (coming["delayed"], coming["expected_wait_s"], coming["status"]) == (True, None, "pending")


@pytest.mark.parametrize(
    ("address", "code", "reason"),
    [
        ("HELLO", "invalid_identity", "60 upper-case letters"),
        (OUTSIDE[:-1] + ("A" if OUTSIDE[-1] != "A" else "B"), "invalid_identity", "last four letters"),
        (identity.encode(identity.NULL), "not_payable", "burned"),
        (identity.encode(identity.contract(1)), "not_payable", "contract"),
        (identity.encode(bytes([1]) + bytes(31)), "not_payable", "contract"),
        (identity.encode(b"\xff" * 31 + b"\x7f"), "not_payable", "nobody can hold"),
    ],
)
async def test_a_withdrawal_to_where_money_is_lost_is_refused_with_the_reason(
    desk: ChainDesk, world: World, address: str, code: str, reason: str
) -> None:
    anna = await rich(desk, world)
    refused = await withdraw(anna, 5, address)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert reason in refused.json()["detail"]
    assert (await qubic_wallet(anna))["held"] == 0


async def test_a_withdrawal_to_an_address_of_ours_or_of_too_much_is_refused(desk: ChainDesk, world: World) -> None:
    anna = await rich(desk, world)
    for ours in (await address_of(anna), desk.hot.identity):
        refused = await withdraw(anna, 5, ours)
        assert (refused.status_code, refused.json()["code"]) == (422, "our_own_address")
    short = await withdraw(anna, 1001)
    assert (short.status_code, short.json()["missing"], short.json()["available"]) == (402, 1, 1000)
    for amount in (0, -1, 10**15 + 1):
        assert (await withdraw(anna, amount)).status_code == 422
    reader = world.client(await anna.api_key(scopes=["read"]))
    assert (await reader.post("/api/wallets/withdraw", json={"amount": 1, "address": OUTSIDE})).status_code == 401


async def test_a_withdrawal_is_made_once_per_key_and_its_owner_is_told(desk: ChainDesk, world: World) -> None:
    anna = await rich(desk, world)
    first, again, other = [await withdraw(anna, amount, key="k") for amount in (60, 60, 61)]
    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 409)
    assert first.json() == again.json()
    wallet = await qubic_wallet(anna)
    assert (wallet["available"], wallet["held"]) == (940, 60)
    told = sa.text("SELECT payload FROM events WHERE type = 'WALLET_UPDATE' AND payload->>'reason' = 'withdrawal'")
    (payload,) = (await desk.owner.execute(told)).scalars().all()
    assert (payload["change"], payload["subject_id"], payload["state"], payload["tx_id"]) == (-60, first.json()["id"], "queued", None)


async def test_a_withdrawal_is_shown_from_the_wallet_to_the_chain(desk: ChainDesk, world: World) -> None:
    anna = await rich(desk, world)
    row = (await withdraw(anna, 60)).json()
    path = f"/api/wallets/transactions/{row['id']}"
    assert (row["status"], row["chain_state"], row["cancellable"], row["tx_id"], row["address"]) == (
        "pending",
        "queued",
        True,
        None,
        OUTSIDE,
    )
    assert row["expected_wait_s"] == 2 * (1000 + 20 + 3 - 997)
    payment, tx = await desk.sign(row["id"], 60, tick=1015)
    signed = (await anna.http.get(path)).json()
    assert (signed["chain_state"], signed["tx_id"], signed["tick"], signed["cancellable"]) == ("signed", tx, 1015, False)
    assert (signed["confirmations"], signed["expected_wait_s"]) == (0, 2 * (1015 + 3 - 997))
    assert signed["explorer_url"].endswith(f"/network/tx/{tx}")
    refused = await anna.http.delete(f"/api/wallets/withdrawals/{row['id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "signed_already")
    await desk.judge("payment_unknown", payment, "the archives disagree")
    (unknown,) = (await history(anna, "?status=unknown"))["items"]
    assert (unknown["id"], unknown["status"], unknown["delayed"]) == (row["id"], "unknown", True)
    assert "the archives disagree" in unknown["detail"]
    await desk.judge("withdrawn", row["id"], True, tx, 1015, "archive and counters")
    await desk.judge("payment_ended", payment, True, "archive and counters")
    done = (await anna.http.get(path)).json()
    assert (done["status"], done["chain_state"], done["confirmations"], done["change"]) == ("completed", "done", 3, -60)
    assert (await anna.http.delete(f"/api/wallets/withdrawals/{row['id']}")).status_code == 409
    assert (await qubic_wallet(anna))["available"] == 940


async def test_a_dead_payment_leaves_the_withdrawal_waiting_to_be_signed_again(desk: ChainDesk, world: World) -> None:
    anna = await rich(desk, world)
    row = (await withdraw(anna, 60)).json()
    payment, tx = await desk.sign(row["id"], 60)
    await desk.judge("payment_ended", payment, False, "absent by two")
    waiting = (await anna.http.get(f"/api/wallets/transactions/{row['id']}")).json()
    assert (waiting["status"], waiting["chain_state"], waiting["cancellable"], waiting["tx_id"]) == ("pending", "queued", True, tx)
    assert "never to have executed" in waiting["detail"]


async def test_a_withdrawal_that_nobody_signed_is_called_off_once_by_its_owner_alone(desk: ChainDesk, world: World) -> None:
    anna, bert = await rich(desk, world), await world.person("bert")
    row = (await withdraw(anna, 60)).json()
    path = f"/api/wallets/withdrawals/{row['id']}"
    assert (await bert.http.delete(path)).status_code == 404
    for _ in range(2):
        ended = await anna.http.delete(path)
        assert ended.status_code == 200, ended.text
        assert (ended.json()["status"], ended.json()["chain_state"], ended.json()["change"]) == ("failed", "cancelled", 0)
    wallet = await qubic_wallet(anna)
    assert (wallet["available"], wallet["held"]) == (1000, 0)
    assert (await desk.owner.execute(sa.text("SELECT count(*) FROM audit() WHERE n > 0"))).scalar() == 0


async def test_stopped_payouts_are_said_and_do_not_hold_a_withdrawal_fast(desk: ChainDesk, world: World) -> None:
    anna = await rich(desk, world)
    row = (await withdraw(anna, 60)).json()
    await desk.owner.execute(sa.text("INSERT INTO payout_halts (subject, rule, figures) VALUES ('*', 'R1', '{}')"))
    held = (await anna.http.get(f"/api/wallets/transactions/{row['id']}")).json()
    assert (held["chain_state"], held["status"], held["delayed"], held["cancellable"]) == ("halted", "pending", True, True)


async def test_a_withdrawal_above_a_limit_says_that_the_operator_must_approve_it(desk: ChainDesk, world: World) -> None:
    anna = await rich(desk, world)
    await desk.owner.execute(sa.text("UPDATE signer_limits SET payment_max = 59"))
    row = (await withdraw(anna, 60)).json()
    assert (row["chain_state"], row["status"], row["expected_wait_s"], row["cancellable"]) == ("approval", "pending", None, True)
    assert "operator" in row["detail"]
    await desk.owner.execute(sa.text("INSERT INTO payout_approvals (hold_id, approved_by) VALUES (:hold, 'ops')"), {"hold": row["id"]})
    assert (await anna.http.get(f"/api/wallets/transactions/{row['id']}")).json()["chain_state"] == "queued"


async def test_p_b34_every_row_carries_its_fields_and_its_hash_or_its_ledger_id(desk: ChainDesk, world: World) -> None:
    anna = await rich(desk, world)
    address = await address_of(anna)
    for _ in range(3):
        await desk.credit(address, 5)
    await desk.see(address, 6, state="WAITING", confirmations=2)
    paid, open_one = [(await withdraw(anna, 10)).json()["id"] for _ in range(2)]
    payment, tx = await desk.sign(paid, 10)
    await desk.judge("withdrawn", paid, True, tx, 1020, "archive")
    await desk.judge("payment_ended", payment, True, "archive")
    rows, cursor = [], ""
    while cursor is not None:
        page = await history(anna, f"?limit=2{cursor and '&cursor=' + cursor}")
        assert len(page["incoming"]) == (1 if not cursor else 0), "on the first page alone"
        rows += page["incoming"] + page["items"]
        cursor = page["next_cursor"]
    assert len(rows) == 7
    assert len({row["id"] for row in rows}) == 7
    for row in rows:
        assert row["type"] in {"deposit", "withdrawal"}
        assert row["status"] in {"pending", "completed", "failed", "unknown"}
        assert row["amount"] > 0
        assert row["created_at"]
        assert row["address"]
        assert 0 <= row["confirmations"] <= 3
        if row["id"] == open_one:
            assert row["tx_id"] is row["explorer_url"] is None
        else:
            assert row["explorer_url"].endswith(f"/tx/{row['tx_id']}")
            assert row["tick"] > 0
        assert (row["expected_wait_s"] is not None) == (row["status"] == "pending")


async def test_p_b14_b35_the_faucets_payment_is_one_transaction_whose_link_opens_its_hash(
    desk: ChainDesk, world: World, process: Devnet
) -> None:
    await desk.make_address()
    anna = await world.person("anna")
    answers = []
    for _ in range(2):
        answers.append(await anna.http.post("/api/wallets/faucet", json={"amount": 500}, headers={"Idempotency-Key": "k"}))
        assert answers[-1].status_code == 200, answers[-1].text
        process.step(1)
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotency-replayed"] == "true"
    payment = answers[0].json()["payment"]
    waiting = await opened(payment["explorer_url"])
    assert (waiting.status_code, payment["tx_id"] in waiting.text) == (200, True)
    process.step(payment["tick"] - process.tick + 3)
    executed = await opened(payment["explorer_url"])
    assert executed.status_code == 200
    assert payment["tx_id"] in executed.text
    assert "500 QU" in executed.text
    shown = process.query("getTransactionByHash", hash=payment["tx_id"])
    assert (shown["destination"], shown["amount"], shown["tickNumber"]) == (payment["address"], "500", payment["tick"])
    assert process.live(f"balances/{payment['address']}")["balance"]["balance"] == "500", "sent once, however often it was asked for"
    late = await anna.http.post("/api/wallets/faucet", json={"amount": 500}, headers={"Idempotency-Key": "k"})
    assert late.json() == answers[0].json()
    await desk.see(payment["address"], 500, tick=payment["tick"], tx=payment["tx_id"])
    assert (await anna.http.get(f"/api/wallets/transactions/{payment['id']}")).json()["tx_id"] == payment["tx_id"]


async def test_the_faucet_gives_no_more_than_it_has_and_nothing_while_the_network_is_away(
    desk: ChainDesk, world: World, process: Devnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.make_address()
    anna = await world.person("anna")
    assert (await anna.http.post("/api/wallets/faucet", json={"amount": 10**15})).status_code == 422
    monkeypatch.setattr(chain, "ANSWER_S", 1.0)
    process.order("/faults", kind="unreachable", area="all", p=1)
    refused = await anna.http.post("/api/wallets/faucet", json={"amount": 5}, headers={"Idempotency-Key": "k"})
    process.order("/faults/clear")
    assert (refused.status_code, refused.json()["code"]) == (503, "qubic_unavailable")


async def test_a_wallet_that_logs_in_to_the_account_is_its_owners_too(desk: ChainDesk, world: World, process: Devnet) -> None:
    anna, bert = await world.person("anna"), await world.person("bert")
    purse = Purse(2)
    process.fund(purse, 77)
    linked = "INSERT INTO wallet_identities (identity, user_id, scheme) VALUES (:identity, cast(:user AS uuid), 'manual')"
    await desk.owner.execute(sa.text(linked), {"identity": purse.identity, "user": anna.id})
    path = f"/api/wallet/{purse.identity}/balance"
    assert (await anna.http.get(path)).json()["balance"] == 77
    assert (await bert.http.get(path)).status_code == 404


class Later(SystemClock):
    """A clock that a test puts forward."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


async def test_p_b12_b15_the_balance_of_an_address_of_mine_is_the_chains_and_at_most_30_s_old(
    desk: ChainDesk, world: World, process: Devnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Later()
    monkeypatch.setattr(world.resources.qubic._wire, "clock", clock)
    purse = await desk.make_address()
    anna, bert = await world.person("anna"), await world.person("bert")
    address = await address_of(anna)
    path = f"/api/wallet/{address}/balance"
    process.fund(purse, 1234)
    first = (await anna.http.get(path)).json()
    assert (first["balance"], first["address"], first["network"]) == (1234, address, "devnet")
    assert first["valid_for_tick"] == process.tick
    process.fund(purse, 1)
    clock.ahead_s = 29
    kept = (await anna.http.get(path)).json()
    assert (kept["balance"], kept["valid_for_tick"]) == (1234, first["valid_for_tick"])
    assert 29 <= kept["age_s"] <= 30
    clock.ahead_s = 30
    fresh = (await anna.http.get(path)).json()
    assert (fresh["balance"], fresh["valid_for_tick"]) == (1235, process.tick)
    assert fresh["age_s"] < 5
    assert address in (await opened(fresh["explorer_url"])).text
    assert (await bert.http.get(path)).status_code == 404, "another's address does not exist"
    assert (await anna.http.get(f"/api/wallet/{OUTSIDE}/balance")).status_code == 404
    assert (await anna.http.get("/api/wallet/NOPE/balance")).json()["code"] == "invalid_identity"
    assert (await world.client().get(path)).status_code == 401
    monkeypatch.setattr(chain, "ANSWER_S", 1.0)
    process.order("/faults", kind="unreachable", area="live", p=1)
    clock.ahead_s = 61
    away = await anna.http.get(path)
    process.order("/faults/clear")
    assert (away.status_code, away.headers["content-type"]) == (503, "application/problem+json")
    assert int(away.headers["retry-after"]) > 0
    assert "try again" in away.json()["next_step"]


async def test_analytics_sum_what_moved_by_day(desk: ChainDesk, world: World) -> None:
    anna = await rich(desk, world)
    paid = (await withdraw(anna, 60)).json()["id"]
    await withdraw(anna, 7)
    payment, tx = await desk.sign(paid, 60)
    await desk.judge("withdrawn", paid, True, tx, 1020, "archive")
    await desk.judge("payment_ended", payment, True, "archive")
    found = (await anna.http.get("/api/wallets/analytics?days=3")).json()
    assert [day["transactions"] for day in found["days"]] == [0, 0, 2]
    assert (found["total"]["deposited"], found["total"]["withdrawn"], found["total"]["spent"]) == (1000, 60, 0)
    assert len((await anna.http.get("/api/wallets/analytics")).json()["days"]) == 30
    for days in (0, 367):
        assert (await anna.http.get(f"/api/wallets/analytics?days={days}")).status_code == 422

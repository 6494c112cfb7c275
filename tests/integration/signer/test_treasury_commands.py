"""What a person sees and decides on the treasury's machine, on the real database."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner

from qubix.cli.main import app
from qubix.cli.output import NotAgreed, WrongUsage
from qubix.kernel.errors import Conflict, Invalid, NotFound, Unavailable
from tests.integration.chains.devnet_process import Person
from tests.integration.ledger.people import problems
from tests.integration.signer.conftest import START_S, World

PAYEE = Person(740)
ROLES = {"resume": "qubix_treasury", "decide": "qubix_treasury", "book": "qubix_treasury"}


async def said(world: World, command: str, *arguments: str, as_json: bool = True) -> Any:
    """A command's document, or what people read. Raises: what the command raises."""
    role = ROLES.get(command, "qubix_signer")
    words = ["treasury", command, *arguments, "--url-file", str(world.url_file(role)), *(["--json"] if as_json else [])]
    told = await asyncio.to_thread(CliRunner().invoke, app, words)
    if told.exception is not None:
        raise told.exception
    return json.loads(told.stdout) if as_json else told.output


async def waiting(world: World) -> dict[str, str]:
    """Why each withdrawal waits."""
    return {row["hold_id"]: row["reason"] for row in (await said(world, "status"))["waiting"]}


async def unknown(world: World, amount: int = 100, *, send: bool = False) -> tuple[UUID, UUID, str]:
    """A payout that nothing has proved paid or dead: its hold, its id, its transaction."""
    ann = await world.user(1000)
    await world.collected()
    hold = await world.withdraws(ann, amount, PAYEE.identity)
    signed = await world.signer.pay()
    assert signed is not None
    [payment] = await world.payments("state = 'SIGNED'")
    if send:
        world.devnet.send(payment.encoded)
        world.devnet.step(30)
    assert await world.value("SELECT payment_unknown(:id, 'the archives disagree')", id=payment.id) == 0
    return hold, payment.id, payment.tx_id


async def test_the_status_shows_addresses_halts_withdrawals_payments_and_doubts(world: World) -> None:
    found = await said(world, "status")
    assert (found["network"], found["chain"], found["waiting"], found["halts"]) == ("devnet", None, [], [])
    assert found["addresses"] == {purpose: await world.address(purpose) for purpose in ("hot", "house")}
    _, payment, tx_id = await unknown(world)
    address = await world.address("user")
    await world.value("INSERT INTO chain_state (cursor, peeked, head, processed, epoch) VALUES (5, 6, 9, 8, 227) RETURNING 1")
    await world.value(
        "INSERT INTO payout_halts (subject, rule, figures) VALUES ('*', 'R1', '{\"balance\": 5, \"recorded\": 7}') RETURNING 1"
    )
    await world.value(
        "INSERT INTO incoming (tx_id, place, address, amount, tick, payer, sender, state, raw)"
        " VALUES ('odd', 0, :address, 7, 5, 'P', 'S', 'DOUBTFUL', '{}') RETURNING 1",
        address=address,
    )
    found = await said(world, "status")
    assert found["chain"]["head"] == 9
    assert found["halts"][0]["figures"] == {"balance": 5, "recorded": 7}
    assert [(row["payment_id"], row["state"], row["tx_id"]) for row in found["payments"]] == [(str(payment), "UNKNOWN", tx_id)]
    assert [(row["tx_id"], row["state"]) for row in found["incoming"]] == [("odd", "DOUBTFUL")]
    told = await said(world, "status", as_json=False)
    for word in ("halted", '"recorded": 7', tx_id, "the archives disagree", "odd", found["addresses"]["hot"], f"decide {payment}"):
        assert word in told


async def test_an_approval_lets_a_withdrawal_past_its_ceiling_go(world: World) -> None:
    assert (await said(world, "limits"))["payment_max"] > 100
    with pytest.raises(NotAgreed):
        await said(world, "limits", "--payment", "100")
    changed = await said(world, "limits", "--payment", "100", "-y")
    assert changed == await said(world, "limits")
    assert changed["payment_max"] == 100
    ann = await world.user(1000)
    await world.collected()
    hold = await world.withdraws(ann, 101, PAYEE.identity)
    assert "needs an approval" in (await waiting(world))[str(hold)]
    assert await world.signer.pay() is None
    assert str(hold) in await said(world, "status", as_json=False)
    with pytest.raises(NotAgreed, match="101 QU"):
        await said(world, "approve", str(hold))
    for _ in range(2):
        assert (await said(world, "approve", str(hold), "--by", "Ada", "-y"))["approved_by"] == "Ada"
    assert (await waiting(world))[str(hold)] == "approved, goes next"
    assert await world.signer.pay() is not None
    await world.send()
    with pytest.raises(Conflict, match="captured"):
        await said(world, "approve", str(hold), "-y")
    with pytest.raises(NotFound):
        await said(world, "approve", str(uuid4()), "-y")


async def test_only_a_halt_that_needs_a_person_is_resumed_by_one(world: World) -> None:
    halt = (
        "INSERT INTO payout_halts (subject, rule, figures, needs_person) VALUES (:subject, 'R1', '{\"missing\": 3}', :person) RETURNING 1"
    )
    await world.value(halt, subject="*", person=True)
    await world.value(halt, subject="X" * 60, person=False)
    with pytest.raises(NotAgreed):
        await said(world, "resume", "*")
    assert (await said(world, "resume", "*", "-y"))["figures"] == {"missing": 3}
    with pytest.raises(NotFound):
        await said(world, "resume", "*", "-y")
    with pytest.raises(Conflict, match="by itself"):
        await said(world, "resume", "X" * 60, "-y")
    assert await world.value("SELECT array_agg(subject) FROM payout_halts") == ["X" * 60]


async def test_a_payment_that_a_person_saw_paid_is_booked_once(world: World) -> None:
    hold, payment, tx_id = await unknown(world, send=True)
    seen = ("--paid", "--evidence", "two explorers show it")
    with pytest.raises(NotAgreed, match=tx_id):
        await said(world, "decide", str(payment), *seen)
    for named in (tx_id, str(payment)):
        assert (await said(world, "decide", named, *seen, "--by", "Ada", "-y"))["state"] == "PAID"
    assert await world.value("SELECT state FROM holds WHERE id = :hold", hold=hold) == "CAPTURED"
    assert await world.value("SELECT reason FROM payments WHERE id = :id", id=payment) == "decided by Ada: two explorers show it"
    assert await world.value("SELECT count(*) FROM events WHERE payload->>'tx_id' = :tx", tx=tx_id) == 1
    with pytest.raises(Conflict, match="final"):
        await said(world, "decide", str(payment), "--dead", "--evidence", "I erred", "-y")
    assert await problems(world.owner) == []


async def test_a_payment_that_a_person_saw_dead_is_signed_for_again(world: World) -> None:
    hold, payment, _ = await unknown(world)
    assert "paid twice" in await said(world, "decide", str(payment), "--dead", "--evidence", "in no archive", "-y", as_json=False)
    assert await world.value("SELECT state FROM holds WHERE id = :hold", hold=hold) == "OPEN"
    assert await world.signer.pay() is None, "its tick is not over yet"
    world.devnet.step(30)
    again = await world.signer.pay()
    assert again is not None
    assert again.holds == (hold,)


async def test_a_person_decides_on_no_payment_that_is_still_asked_about_and_never_without_a_proof(world: World) -> None:
    ann = await world.user(1000)
    await world.collected()
    await world.withdraws(ann, 5, PAYEE.identity)
    assert await world.signer.pay() is not None
    [payment] = await world.payments("state = 'SIGNED'")
    with pytest.raises(Conflict, match="still being asked about"):
        await said(world, "decide", str(payment.id), "--dead", "--evidence", "no patience", "-y")
    for arguments in (("--dead",), ("--evidence", "something"), ("--paid", "--evidence", " ")):
        with pytest.raises(WrongUsage):
            await said(world, "decide", str(payment.id), *arguments, "-y")
    with pytest.raises(NotFound):
        await said(world, "decide", str(uuid4()), "--dead", "--evidence", "none", "-y")


async def test_a_send_many_that_a_person_saw_paid_waits_for_the_fee_of_the_house(world: World) -> None:
    await world.comes_in(await world.address("house"), 50)
    ann = await world.user(1000)
    await world.collected()
    holds = [await world.withdraws(ann, amount, PAYEE.identity) for amount in (3, 4)]
    signed = await world.signer.pay()
    assert signed is not None
    assert len(signed.holds) == 2
    [payment] = await world.payments("kind = 'payout'")
    await world.value("SELECT payment_unknown(:id, 'no event log')", id=payment.id)
    await said(world, "decide", str(payment.id), "--paid", "--evidence", "the contract's events", "-y")
    assert await world.value("SELECT posted FROM accounts WHERE kind = 'house' AND asset = 1") == 50 - signed.fee
    assert await world.value("SELECT count(*) FROM holds WHERE state = 'CAPTURED' AND id = ANY(:holds)", holds=holds) == 2
    assert await problems(world.owner) == []


async def test_the_addresses_are_listed_with_what_is_recorded_there(world: World) -> None:
    ann = await world.user(70)
    found = (await said(world, "addresses"))["items"]
    assert [row["purpose"] for row in found] == ["hot", "house", "user"]
    assert (found[2]["user_id"], found[2]["recorded"]) == (str(ann), 70)
    assert len((await said(world, "addresses", "--limit", "1"))["items"]) == 1


async def test_without_a_database_or_its_file_the_next_step_is_told(world: World, tmp_path: Path) -> None:
    world.database.data_dir.joinpath("secrets").mkdir()
    told = await asyncio.to_thread(CliRunner().invoke, app, ["treasury", "status", "--data-dir", str(tmp_path / "nowhere"), "--json"])
    assert isinstance(told.exception, Invalid)
    gone = tmp_path / "gone.url"
    gone.touch(mode=0o600)
    gone.write_text("postgresql://qubix_signer:none@127.0.0.1:9/none")
    told = await asyncio.to_thread(CliRunner().invoke, app, ["treasury", "status", "--url-file", str(gone), "--json"])
    assert isinstance(told.exception, Unavailable)
    assert "qubix up" in told.exception.next_step


async def test_the_signer_runs_in_the_foreground_with_a_key_that_it_was_told_to_make(world: World, tmp_path: Path) -> None:
    key = tmp_path / "fresh.key"
    qubix = [sys.executable, "-m", "qubix.cli.main", "signer", "--key-file", str(key), "--url-file", str(world.url_file())]
    environment = {
        name: value for name, value in world.environment().items() if name not in ("QUBIX_SIGNER_KEY_FILE", "QUBIX_DATABASE_URL_FILE")
    }

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*qubix, *more, "--json"], env=environment, capture_output=True, text=True, check=False, timeout=START_S)

    refused = await asyncio.to_thread(run)
    assert json.loads(refused.stdout)["error"]["code"] == "key_file_refused"
    made = await asyncio.to_thread(run, "--make-key")
    assert json.loads(made.stdout) == {"key_file": str(key)}
    again = await asyncio.to_thread(run, "--make-key")
    assert (again.returncode, json.loads(again.stdout)["error"]["code"]) == (1, "conflict")
    wrong = await asyncio.to_thread(run)
    assert wrong.returncode == 1, "this database's seeds are sealed under another key"
    assert json.loads(wrong.stdout)["key_file"] == str(key)
    assert "seed_not_opened" in wrong.stderr


async def test_money_that_came_without_a_transaction_is_booked_once_to_whom_its_address_belongs(world: World) -> None:
    ann = await world.user(0)
    address = await world.value("SELECT identity FROM chain_addresses WHERE user_id = :ann", ann=ann)
    evidence = ("--evidence", "event log of tick 900", "--payer", "CONTRACT")
    with pytest.raises(NotFound, match="no figures"):
        await said(world, "book", address, *evidence, "-y")
    with pytest.raises(WrongUsage):
        await said(world, "book", address, "-y")
    figures = json.dumps({"R1": {address: {"balance": 70, "recorded": 0, "tick": 900}}})
    await world.value(
        "INSERT INTO payout_halts (subject, rule, figures) VALUES (:a, 'R1', :figures) RETURNING 1", a=address, figures=figures
    )
    assert (await said(world, "book", address, *evidence, "-y"))["booked"] == 70
    with pytest.raises(Conflict, match="has changed"):
        await said(world, "book", address, *evidence, "-y")
    assert await world.value("SELECT posted FROM accounts WHERE owner_id = :ann AND kind = 'wallet' AND asset = 1", ann=ann) == 70
    assert await world.value("SELECT sum(amount) FROM chain_rows WHERE address = :a", a=address) == 70


async def test_what_is_missing_at_an_address_is_not_booked(world: World) -> None:
    hot = await world.address("hot")
    figures = json.dumps({"R1": {hot: {"balance": 5, "recorded": 70, "tick": 900}}})
    await world.value("INSERT INTO payout_halts (subject, rule, figures) VALUES ('*', 'R1', :figures) RETURNING 1", figures=figures)
    with pytest.raises(Conflict, match="less than is recorded"):
        await said(world, "book", hot, "--evidence", "seen", "--payer", "CONTRACT", "-y")

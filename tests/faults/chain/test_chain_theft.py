"""Somebody else sends what looks like ours: a twin of a signature, or, with the key itself, a second transaction."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from qubix.chains.qubic import identity, keys
from qubix.chains.qubic.fourq import curve
from qubix.chains.qubic.k12 import k12
from qubix.chains.qubic.transaction import Transaction
from qubix.postgres.embedded import OWNER
from qubix.treasury import seeds
from tests.faults.chain.world import World

pytestmark = pytest.mark.postgres


def twin(signed: Transaction) -> Transaction:
    """The same body under s + order, which nodes took until 2026-05-27: anybody can make it."""
    s = int.from_bytes(signed.signature[32:], "little") + curve.ORDER
    return replace(signed, signature=signed.signature[:32] + s.to_bytes(32, "little"))


def signed_again(signed: Transaction, subseed: bytes) -> Transaction:
    """The same body, signed with another nonce: who has the key can make it, and it is valid."""
    private = int.from_bytes(k12(subseed, 64)[:32], "little") % curve.ORDER
    nonce = int.from_bytes(os.urandom(32), "little") % curve.ORDER
    commitment = keys.public_key_of(nonce)
    challenge = int.from_bytes(k12(commitment + signed.source + signed.digest), "little") % curve.ORDER
    s = (nonce - challenge * private) % curve.ORDER
    return replace(signed, signature=commitment + s.to_bytes(32, "little"))


def stolen_subseed(world: World, owner: str) -> bytes:
    """What opens with the key file and the database together."""
    sealed = world.value(OWNER, "SELECT sealed FROM signer_keys WHERE identity = $1", owner)
    return seeds.read_key_file(world.folder / "signer.key").subseed(seeds.SealedSeed(owner, sealed))


def next_payment(world: World, amount: int) -> tuple[Any, Transaction]:
    one = world.withdraws(world.payer, amount)
    [row] = world.until(lambda: world.signed(one), "it is signed")
    return one, Transaction.from_bytes(bytes(row["encoded"]))


def test_a_signatures_twin_is_refused_and_our_own_bytes_sent_by_others_pay_once(world: World) -> None:
    assert world.payer
    world.comes_to_rest()
    world.devnet.order("/faults", kind="halt")
    one, ours = next_payment(world, 700)
    assert world.devnet.send(twin(ours)).status_code == 400
    assert world.devnet.send(twin(ours), "/b").status_code == 400
    assert [world.devnet.send(ours).status_code for _ in range(3)] == [200] * 3
    world.comes_to_rest()
    assert world.state(one) == "CAPTURED"


def test_a_second_transaction_of_our_paying_address_stops_all_payouts_even_across_a_kill(world: World) -> None:
    """The thief's transaction has our payment's body, in our payment's tick. The treasury is killed as soon as it has said so."""
    assert world.payer
    world.comes_to_rest()
    world.treasurer.restart("treasury.unknown")
    world.devnet.order("/faults", kind="halt")
    one, ours = next_payment(world, 600)
    forged = signed_again(ours, stolen_subseed(world, identity.encode(ours.source)))
    assert forged.verify()
    assert forged.id != ours.id
    assert world.devnet.send(forged).status_code == 200
    world.devnet.order("/faults/clear")
    world.until(world.treasurer.is_killed, "the payment is called unknown")
    world.treasurer.start()
    world.until(lambda: world.value(OWNER, "SELECT needs_person FROM payout_halts WHERE subject = '*'"), "payouts are stopped")
    late = world.withdraws(world.payer, 500)
    world.until(lambda: world.value(OWNER, "SELECT cursor FROM chain_state") > ours.tick + 20, "the scan goes on while payouts are stopped")
    assert (world.state(late), world.signed(late)) == ("OPEN", [])
    [row] = world.signed(one)
    assert (row["state"], row["tx_id"] in row["reason"] or forged.id in row["reason"]) == ("UNKNOWN", True)
    assert world.value(OWNER, "SELECT figures::text FROM payout_halts WHERE subject = '*'").count(forged.id) >= 1
    world.until_archived()
    with pytest.raises(AssertionError):
        world.oracle.check(world.withdrawals, may_be_open=True)
    assert world.oracle.check(world.withdrawals, strangers={forged.id}, may_be_open=True).unknown == 1

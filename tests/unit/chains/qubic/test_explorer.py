"""Links to what happened."""

from __future__ import annotations

from qubix.chains.qubic.explorer import Explorer


def test_p_b14_a_transaction_an_address_and_a_tick_have_a_page_each() -> None:
    tx_id, address = "a" * 60, "B" * 60
    assert Explorer().transaction(tx_id) == f"https://explorer.qubic.org/network/tx/{tx_id}"
    assert Explorer().address(address) == f"https://explorer.qubic.org/network/address/{address}"
    assert Explorer("http://127.0.0.1:1/network").tick(7) == "http://127.0.0.1:1/network/tick/7"

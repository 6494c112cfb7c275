"""Ports for servers that are started in a moment."""

from __future__ import annotations

import pytest

from qubix.kernel import ports
from qubix.kernel.ports import free_ports


def test_a_port_is_given_once_and_never_one_that_an_outgoing_connection_may_take() -> None:
    first, second = free_ports(20), free_ports(20)
    assert len({*first, *second}) == 40
    assert all(port < 32_768 for port in (*first, *second))


def test_more_ports_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PORTS", range(20_000, 20_003))
    with pytest.raises(OSError, match="fewer than 4 TCP ports are free"):
        free_ports(4)

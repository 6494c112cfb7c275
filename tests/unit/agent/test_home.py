"""The agent's home: private, one agent, one holder per device."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from qubix.agent.home import AgentConfig, AgentRunsAlready, Home, NotJoined, lock_devices
from qubix.agent.protocol import hello_bytes


def test_a_home_and_what_it_holds_are_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    home.key()
    assert (tmp_path / "h").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "h" / "key.pem").stat().st_mode & 0o777 == 0o600


def test_the_key_is_made_once_and_signs_the_challenge(tmp_path: Path) -> None:
    home, node = Home(tmp_path), uuid4()
    public = home.public_key_hex()
    assert Home(tmp_path).public_key_hex() == public
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(home.sign_hello("n", node)), hello_bytes("n", node))


def test_agent_json_reads_back(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(NotJoined):
        home.read_config()
    config = AgentConfig(server_url="http://127.0.0.1:1", node_id=uuid4(), provider_id=uuid4(), worker_id="w", declared_gpus=("A:1GB",))
    home.write_config(config)
    assert Home(tmp_path).read_config() == config


def test_a_second_agent_of_one_home_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = home.claim(machine_gpus=False)
    with pytest.raises(AgentRunsAlready):
        Home(tmp_path).claim(machine_gpus=False)
    first.close()
    Home(tmp_path).claim(machine_gpus=False).close()


def test_several_devices_are_locked_all_or_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    pairs = [(u, home.lock_path(u)) for u in ("g0", "g1", "g2")]
    held = lock_devices([pairs[1]])
    with pytest.raises(BlockingIOError):
        lock_devices(pairs)
    assert home.device_free("g0")
    assert not home.device_free("g1")
    held[0].close()
    assert home.device_free("g1")


def test_a_device_stays_locked_while_an_inheritor_lives(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (lock,) = lock_devices([("g0", home.lock_path("g0"))])
    inherited = os.dup(lock.fd)
    lock.close()
    assert not home.device_free("g0")
    os.close(inherited)
    assert home.device_free("g0")

"""Devices: as NVIDIA's library told them, and as an owner declared them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qubix.agent.devices import BadDeclaration, Declaration, DeclaredDevices, NodeMeter, NvmlDevices, model_name, parse_declaration
from tests.fakes.nvml import Card, RecordedError, RecordedNvml

RTX = Card("GPU-aaa", "NVIDIA GeForce RTX 4090", 24564 << 20, minor=1)
T4 = Card("GPU-bbb", "Tesla T4", 15360 << 20, used=3 << 30, milliwatts=None, minor=0)


def test_nvml_devices_are_known_by_uuid_model_and_memory() -> None:
    found = NvmlDevices(RecordedNvml(RTX, T4)).devices()
    assert [(d.uuid, d.model, d.vram_bytes, d.detected_by) for d in found] == [
        ("GPU-aaa", "RTX_4090", 24564 << 20, "nvml"),
        ("GPU-bbb", "T4", 15360 << 20, "nvml"),
    ]


def test_a_sample_has_what_the_card_tells_and_none_for_the_rest() -> None:
    first, second = NvmlDevices(RecordedNvml(RTX, T4)).samples()
    assert (first.utilisation_pct, first.temperature_c, first.power_w, first.memory_used_bytes) == (87.0, 61.0, 311.5, 400 << 20)
    assert (second.power_w, second.temperature_c) == (None, 61.0)


def test_memory_in_use_by_others_is_seen() -> None:
    source = NvmlDevices(RecordedNvml(RTX, T4))
    assert source.foreign_bytes("GPU-bbb") == 3 << 30
    assert source.foreign_bytes("unknown") is None


def test_a_sandbox_gets_only_the_leased_device_nodes() -> None:
    source = NvmlDevices(RecordedNvml(RTX, T4))
    assert source.device_nodes(["GPU-aaa"])[0] == "/dev/nvidia1"
    assert "/dev/nvidia0" not in source.device_nodes(["GPU-aaa"])
    assert source.visible(["GPU-aaa"]) == "GPU-aaa"
    assert source.device_nodes([]) == ()


def test_without_a_driver_nvml_says_so() -> None:
    with pytest.raises(RecordedError):
        NvmlDevices(RecordedNvml(driver=False))


def test_declared_devices_have_stable_uuids_of_their_own_worker() -> None:
    one = DeclaredDevices(["RTX_4090:24GB:2", "A100:80GB"], "w1").devices()
    assert [d.model for d in one] == ["RTX_4090", "RTX_4090", "A100"]
    assert {d.detected_by for d in one} == {"declared"}
    assert one == DeclaredDevices(["RTX_4090:24GB:2", "A100:80GB"], "w1").devices()
    assert not {d.uuid for d in one} & {d.uuid for d in DeclaredDevices(["RTX_4090:24GB"], "w2").devices()}


def test_no_figure_is_made_up_for_a_declared_device() -> None:
    source = DeclaredDevices(["RTX_4090:24GB"], "w1")
    (sample,) = source.samples()
    assert sample.model_dump(exclude={"uuid"}) == {
        "utilisation_pct": None,
        "memory_used_bytes": None,
        "temperature_c": None,
        "power_w": None,
    }
    assert source.foreign_bytes(sample.uuid) is None


@pytest.mark.parametrize(
    ("text", "expected"), [("RTX_4090:24GB", Declaration("RTX_4090", 24 << 30, 1)), ("H100:80GB:8", Declaration("H100", 80 << 30, 8))]
)
def test_a_declaration_reads(text: str, expected: Declaration) -> None:
    assert parse_declaration(text) == expected


@pytest.mark.parametrize("text", ["", "RTX_4090", "RTX_4090:24", "RTX 4090:24GB", "X:0GB", "X:1GB:0", "X:1GB:65", "X:1.5GB", "X:24GB:1:1"])
def test_a_malformed_declaration_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(BadDeclaration) as caught:
        parse_declaration(text)
    assert "RTX_4090:24GB" in caught.value.next_step


def test_more_than_64_devices_are_refused() -> None:
    with pytest.raises(BadDeclaration):
        DeclaredDevices(["A:1GB:40", "B:1GB:40"], "w1")


@pytest.mark.parametrize(
    ("name", "model"), [("NVIDIA H100 80GB HBM3", "H100_80GB_HBM3"), ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"), ("???", "unknown")]
)
def test_a_model_has_a_name_that_the_marketplace_accepts(name: str, model: str) -> None:
    assert model_name(name) == model


def test_a_node_sample_carries_the_nodes_clock_and_all_devices() -> None:
    sample = NodeMeter(NvmlDevices(RecordedNvml(RTX, T4))).sample(12.5)
    assert sample.node_at == 12.5
    assert sample.ram_used_bytes > 0
    assert len(sample.devices) == 2


def test_a_card_that_fell_off_the_bus_is_lost_and_one_that_does_not_know_its_power_is_not() -> None:
    nvml = RecordedNvml(replace(RTX), replace(T4))
    devices = NvmlDevices(nvml)
    assert [devices.lost(uuid) for uuid in ("GPU-aaa", "GPU-bbb", "GPU-unknown")] == [False] * 3
    nvml.cards[1].on_the_bus = False
    assert [devices.lost(uuid) for uuid in ("GPU-aaa", "GPU-bbb")] == [False, True]
    assert devices.samples()[1].memory_used_bytes is None


def test_a_declared_device_has_no_driver_to_lose() -> None:
    devices = DeclaredDevices(["RTX_4090:24GB"], "w1")
    assert not devices.lost(devices.devices()[0].uuid)

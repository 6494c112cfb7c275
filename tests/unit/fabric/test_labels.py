"""Labels of provider nodes, and the versions that a joining machine must have."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.fabric.labels import BadLabel, NodeLabels, parse, to_text
from qubix.fabric.node import Versions, VersionsDiffer, check_versions

VALUE = st.from_regex(r"[a-z0-9]([a-z0-9_.\-]{0,20}[a-z0-9])?", fullmatch=True)


@given(provider=VALUE, worker=VALUE, region=VALUE, price=st.sampled_from(["economy", "standard", "premium"]), vram=st.integers(0, 999))
def test_labels_that_were_built_read_back(provider: str, worker: str, region: str, price: str, vram: int) -> None:
    labels = NodeLabels(provider, worker, region, price, "RTX_4090", vram)
    assert parse(labels.build()) == labels


def test_a_machine_that_is_no_providers_is_not_read_as_one() -> None:
    assert parse({"qubix.role": "head"}) is None
    assert parse({}) is None
    assert parse({"qubix.provider": "p", "qubix.worker-id": "w", "qubix.region": "eu", "qubix.vram-gb": "many"}) is None


@pytest.mark.parametrize("change", [{"provider": "a,b"}, {"worker_id": ""}, {"region": "-eu"}, {"price_class": "cheap"}, {"model": "x=y"}])
def test_a_label_that_ray_would_refuse_is_refused_first(change: dict[str, str]) -> None:
    with pytest.raises(BadLabel):
        dataclasses.replace(NodeLabels("p", "w", "eu"), **change).build()  # type: ignore[arg-type]


def test_labels_have_the_form_of_ray_start() -> None:
    assert to_text(NodeLabels("p", "w", "eu").build()) == "qubix.provider=p,qubix.worker-id=w,qubix.region=eu,qubix.price-class=standard"


def test_resources_count_vram_and_devices() -> None:
    assert NodeLabels("p", "w", "eu", model="A100", vram_gb=80).resources(2) == {"accelerator_type:A100": 2.0, "vram_gb": 160.0}
    assert NodeLabels("p", "w", "eu").resources(0) == {}


def test_a_machine_of_the_same_release_may_join_whatever_pythons_patch() -> None:
    check_versions(Versions("0.1.0", "2.60.0", "3.11.7"), Versions("0.1.0", "2.60.0", "3.11.2"))


@pytest.mark.parametrize(
    ("here", "named"),
    [
        (Versions("0.2.0", "2.60.0", "3.11.7"), "Qubix here 0.2.0, in the cluster 0.1.0"),
        (Versions("0.1.0", "2.59.0", "3.11.7"), "Ray here 2.59.0, in the cluster 2.60.0"),
        (Versions("0.1.0", "2.60.0", "3.12.1"), "Python here 3.12, in the cluster 3.11"),
    ],
)
def test_a_differing_version_is_refused_with_both(here: Versions, named: str) -> None:
    with pytest.raises(VersionsDiffer) as caught:
        check_versions(here, Versions("0.1.0", "2.60.0", "3.11.7"))
    assert named in caught.value.message

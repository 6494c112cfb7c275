"""Offers made up for pure tests."""

from __future__ import annotations

import dataclasses

from hypothesis import strategies as st

from qubix.kernel.ids import NodeId, OfferId, ProviderId, new_id
from qubix.kernel.money import Qu
from qubix.market.model import Offer, Status

GIB = 1 << 30


def offer(**changes: object) -> Offer:
    """A free RTX 4090 for 1000 an hour."""
    plain = Offer(
        id=OfferId(new_id()),
        node_id=NodeId(new_id()),
        provider_id=ProviderId(new_id()),
        provider="acme",
        model="RTX_4090",
        gpus=1,
        gpus_free=1,
        vram_bytes=24 * GIB,
        price_per_hour=Qu(1000),
        region="eu",
        cpu_model="EPYC",
        cpu_cores=8,
        ram_bytes=32 * GIB,
        tflops=165.2,
        reliability=None,
        attempts=0,
        verified=False,
        detected_by="declared",
        status=Status.AVAILABLE,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    """Any offer."""
    gpus = draw(st.integers(0, 8))
    attempts = draw(st.integers(0, 50))
    return offer(
        model=draw(st.sampled_from(["RTX_4090", "RTX_3090", "A100_80GB", "ODD"])),
        gpus=gpus,
        gpus_free=draw(st.integers(0, gpus)),
        vram_bytes=draw(st.integers(1, 200)) * GIB,
        price_per_hour=Qu(draw(st.sampled_from([1, 500, 1000, 1000, 10**15]))),
        region=draw(st.sampled_from(["eu", "eu-west", "us"])),
        tflops=draw(st.sampled_from([0.0, 71.2, 165.2, 312.0])),
        reliability=draw(st.floats(0, 1)) if attempts else None,
        attempts=attempts,
        status=draw(st.sampled_from([Status.AVAILABLE, Status.AVAILABLE, Status.AVAILABLE, Status.STALE, Status.PAUSED])),
    )

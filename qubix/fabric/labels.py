"""The labels and resources by which a provider node tells the cluster what it is. Self-declared: nothing here is verified.

| key | value |
| --- | --- |
| qubix.provider | the provider's id |
| qubix.worker-id | the node's worker id, unique in the marketplace; its presence makes a Ray node a provider node |
| qubix.region | lower-case region, `eu-central` |
| qubix.price-class | `economy`, `standard` or `premium` |
| qubix.vram-gb | VRAM of one device, whole GB, the smallest of the node |
| ray.io/accelerator-type | the model of its devices, Ray's own key, `RTX_4090`; several: the first |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qubix.kernel.errors import Invalid

PROVIDER: Final = "qubix.provider"
WORKER_ID: Final = "qubix.worker-id"
REGION: Final = "qubix.region"
PRICE_CLASS: Final = "qubix.price-class"
VRAM_GB: Final = "qubix.vram-gb"
ACCELERATOR: Final = "ray.io/accelerator-type"
ROLE: Final = "qubix.role"

PRICE_CLASSES: Final = ("economy", "standard", "premium")
PRICE_PER_HOUR: Final = {"economy": 500, "standard": 1_000, "premium": 2_000}
"""What a GPU-hour of a node that joined by labels alone costs at first, in whole units; `qubix provider price` changes it."""
_VALUE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.\-]{0,61}[A-Za-z0-9])?")


class BadLabel(Invalid):
    """A label's value is not one that Ray and Qubix accept."""

    code = "bad_label"


@dataclass(frozen=True, slots=True)
class NodeLabels:
    """What the labels of a provider node say."""

    provider: str
    worker_id: str
    region: str
    price_class: str = "standard"
    model: str | None = None
    vram_gb: int = 0

    def build(self) -> dict[str, str]:
        """The labels to start the node with. Raises: BadLabel."""
        labels = {PROVIDER: self.provider, WORKER_ID: self.worker_id, REGION: self.region, PRICE_CLASS: self.price_class}
        if self.model is not None:
            labels |= {ACCELERATOR: self.model, VRAM_GB: str(self.vram_gb)}
        for key, value in labels.items():
            check(key, value)
        return labels

    def resources(self, num_gpus: int) -> dict[str, float]:
        """Custom resources beside num_gpus: `accelerator_type:<model>` (Ray's own decorator asks for it) and the node's VRAM in GB."""
        if self.model is None or num_gpus == 0:
            return {}
        return {f"accelerator_type:{self.model}": float(num_gpus), "vram_gb": float(self.vram_gb * num_gpus)}


def check(key: str, value: str) -> None:
    """Raises: BadLabel for a value that Ray would refuse, or an unknown price class or VRAM that is no number."""
    if not _VALUE.fullmatch(value):
        raise BadLabel(
            f"{value!r} cannot be the label {key}: 1 to 63 letters, digits, '_', '.', '-', a letter or digit at both ends.", label=key
        )
    if key == PRICE_CLASS and value not in PRICE_CLASSES:
        raise BadLabel(f"{value!r} is no price class: {', '.join(PRICE_CLASSES)}.", label=key)
    if key == VRAM_GB and not (value.isascii() and value.isdigit()):
        raise BadLabel(f"{value!r} is no VRAM in whole GB.", label=key)


def parse(labels: Mapping[str, str]) -> NodeLabels | None:
    """Read a Ray node's labels; None where they do not describe a provider node (the head, somebody's own node, malformed)."""
    try:
        for key in (PROVIDER, WORKER_ID, REGION):
            check(key, labels.get(key, ""))
        price_class = labels.get(PRICE_CLASS, "standard")
        check(PRICE_CLASS, price_class)
        vram = labels.get(VRAM_GB, "0")
        check(VRAM_GB, vram)
    except BadLabel:
        return None
    return NodeLabels(labels[PROVIDER], labels[WORKER_ID], labels[REGION], price_class, labels.get(ACCELERATOR), int(vram))


def to_text(labels: Mapping[str, str]) -> str:
    """The form that `ray start --labels` reads: `k=v,k=v`."""
    return ",".join(f"{key}={value}" for key, value in labels.items())

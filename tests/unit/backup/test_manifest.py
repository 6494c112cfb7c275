"""A manifest that is read is the one that was written."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from qubix.backup.model import Damaged, Manifest, Part, decoded
from qubix.kernel.errors import Invalid

MANIFEST = Manifest(
    dt.datetime(2026, 11, 29, 17, 0, 1, 234567, dt.UTC),
    "1",
    "18.4",
    "0001",
    "devnet",
    5,
    7,
    {"jobs": 1},
    (Part("a", 1, "b"),),
    1,
    2,
    ("c",),
)


def test_what_was_written_is_read_and_its_name_sorts_by_time() -> None:
    assert decoded(MANIFEST.encoded()) == MANIFEST
    assert MANIFEST.name == "20261129T170001.234Z"


def test_a_changed_cut_or_later_manifest_is_refused() -> None:
    text = MANIFEST.encoded()
    for harmed in (text.replace("devnet", "none"), text[:-20], "[]", "", text.replace('"sha256"', '"other"')):
        with pytest.raises(Damaged):
            decoded(harmed)
    document = json.loads(text)
    assert document["format"] == 1
    with pytest.raises(Invalid, match="format 2"):
        decoded(Manifest(**{**{name: getattr(MANIFEST, name) for name in Manifest.__slots__}, "format": 2}).encoded())

"""Identifiers: unique, ordered by time, and money steps that always have the same one."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from qubix.kernel.ids import new_id, transfer_id


def test_new_ids_are_version_7_and_distinct() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {i.version for i in ids} == {7}
    assert {i.variant for i in ids} == {"specified in RFC 4122"}


def test_new_ids_sort_by_the_millisecond_they_were_made_in() -> None:
    stamps = [new_id().int >> 80 for _ in range(1000)]
    assert stamps == sorted(stamps)


@given(st.uuids(), st.uuids(), st.text(max_size=20), st.text(max_size=20))
def test_a_transfer_id_depends_on_subject_and_step_alone(a: UUID, b: UUID, one: str, two: str) -> None:
    assert transfer_id(a, one) == transfer_id(a, one)
    assert (transfer_id(a, one) == transfer_id(b, two)) == ((a, one) == (b, two))

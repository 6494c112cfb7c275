"""Topics."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.kernel.errors import Invalid, Unauthenticated
from qubix.live.topics import Topic, TopicKind, parse


@given(st.sampled_from([TopicKind.JOB, TopicKind.ESCROW, TopicKind.PROVIDER]), st.uuids())
def test_a_topic_with_an_id_reads_back_from_its_name(kind: TopicKind, subject: UUID) -> None:
    topic = Topic(kind, subject)
    assert parse(topic.name, uuid4()) == topic == parse(f"subscribe:{topic.shown}", uuid4())


@pytest.mark.parametrize("name", ["earnings", "wallet"])
def test_earnings_and_wallet_are_the_callers_own_and_do_not_show_the_id(name: str) -> None:
    caller = uuid4()
    topic = parse(name, caller)
    assert (topic.name, topic.shown) == (f"{name}:{caller}", name)


@given(st.text(max_size=120))
def test_no_text_reaches_another_users_wallet(text: str) -> None:
    caller = UUID(int=1)
    try:
        topic = parse(text, caller)
    except Invalid:
        return
    assert topic.kind not in (TopicKind.EARNINGS, TopicKind.WALLET) or topic.subject == caller


@pytest.mark.parametrize("text", ["", "jobs", "job", "job:", "job:1", f"wallet:{UUID(int=2)}", "marketplace:x", "job:" + "0" * 500])
def test_an_unknown_topic_is_refused_with_the_list(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse(text, uuid4())
    assert "marketplace" in refusal.value.next_step


def test_nobody_may_follow_the_marketplace_and_nothing_else() -> None:
    assert parse("marketplace", None).name == "marketplace"
    with pytest.raises(Unauthenticated):
        parse(f"job:{uuid4()}", None)

"""Topics of the live view: what a client may subscribe to, and under which name events are stored."""

from __future__ import annotations

import dataclasses
import enum
from typing import Final
from uuid import UUID

from qubix.kernel.errors import Invalid, Unauthenticated

TOPICS_MAX: Final = 50
"""Topics per connection."""


class TopicKind(enum.StrEnum):
    """The closed list of topics."""

    MARKETPLACE = "marketplace"
    PROVIDER = "provider"
    JOB = "job"
    ESCROW = "escrow"
    EARNINGS = "earnings"
    WALLET = "wallet"


_WITH_ID: Final = frozenset({TopicKind.PROVIDER, TopicKind.JOB, TopicKind.ESCROW})
_OF_THE_CALLER: Final = frozenset({TopicKind.EARNINGS, TopicKind.WALLET})


@dataclasses.dataclass(frozen=True, slots=True)
class Topic:
    """A topic with the row that it is about; `subject` is the caller for `earnings` and `wallet`."""

    kind: TopicKind
    subject: UUID | None = None

    @property
    def name(self) -> str:
        """The name under which events carry it, as `job:<id>` or `earnings:<user id>`."""
        return self.kind.value if self.subject is None else f"{self.kind.value}:{self.subject}"

    @property
    def shown(self) -> str:
        """The name that the client knows: `earnings` and `wallet` without the caller's id."""
        return self.kind.value if self.kind in _OF_THE_CALLER else self.name


def parse(text: str, caller: UUID | None) -> Topic:
    """Read a client's topic name, with or without the prefix `subscribe:`.

    Args: text, as `marketplace`, `job:<id>`, `earnings`; caller, the user who asks, None for nobody.
    Raises: Invalid for an unknown topic; Unauthenticated where a topic needs a user.
    """
    head, _, tail = text.removeprefix("subscribe:").partition(":")
    try:
        kind = TopicKind(head)
        subject = UUID(tail) if kind in _WITH_ID else None
    except ValueError:
        raise Invalid(f"There is no topic {text[:80]!r}.", next_step=_ALLOWED) from None
    if tail and kind not in _WITH_ID:
        raise Invalid(f"The topic {head!r} takes no id.", next_step=_ALLOWED)
    if kind is not TopicKind.MARKETPLACE and caller is None:
        raise Unauthenticated("This topic needs a login.", next_step="Log in and connect again.")
    return Topic(kind, caller if kind in _OF_THE_CALLER else subject)


_ALLOWED: Final = "Topics are marketplace, provider:{id}, job:{id}, escrow:{id}, earnings, wallet."

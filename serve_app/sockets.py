"""The open sockets of one replica: which agent holds which node, which clients belong to which credential."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol
from uuid import UUID


class AgentSocket(Protocol):
    """An agent's open session."""

    def refresh(self) -> None:
        """Send the desired state soon."""
        ...


class AgentSockets:
    """Node → socket. The newest session of a node replaces an older one."""

    def __init__(self) -> None:
        self._by_node: dict[UUID, AgentSocket] = {}

    def add(self, node: UUID, socket: AgentSocket) -> None:
        """This socket speaks for the node from now on."""
        self._by_node[node] = socket

    def remove(self, node: UUID, socket: AgentSocket) -> None:
        """The socket closed; a newer one of the same node stays."""
        if self._by_node.get(node) is socket:
            del self._by_node[node]

    def refresh(self, nodes: Iterable[str]) -> None:
        """The desired state of these nodes changed; others' nodes are somebody else's."""
        for text in nodes:
            try:
                socket = self._by_node.get(UUID(text))
            except ValueError:
                continue
            if socket is not None:
                socket.refresh()

    def refresh_all(self) -> None:
        """Any of them may have changed: news was missed."""
        for socket in self._by_node.values():
            socket.refresh()


class ClientSockets:
    """User → the events that tell a user's sockets to check whether their credential still holds."""

    def __init__(self) -> None:
        self._checks: dict[UUID, set[asyncio.Event]] = {}

    def add(self, user: UUID) -> asyncio.Event:
        """An event that is set when the user's sockets must check themselves."""
        check = asyncio.Event()
        self._checks.setdefault(user, set()).add(check)
        return check

    def remove(self, user: UUID, check: asyncio.Event) -> None:
        """The socket closed."""
        checks = self._checks.get(user, set())
        checks.discard(check)
        if not checks:
            self._checks.pop(user, None)

    def check(self, users: Iterable[str]) -> None:
        """These users logged out somewhere, or lost a key: every socket of theirs asks the database now."""
        for text in users:
            try:
                checks = self._checks.get(UUID(text), set())
            except ValueError:
                continue
            for check in checks:
                check.set()

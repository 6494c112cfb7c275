"""Agent sessions: who speaks for a node. The last hello wins; a status counts once, if its session is current.

Called by whichever web replica holds the socket; each method is one transaction, and the database is the only judge.
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from qubix.agent.protocol import PROTOCOL_VERSION, Desired, Down, Hello, Status, Stop, Welcome, hello_bytes
from qubix.kernel.errors import Conflict, Unauthenticated
from qubix.kernel.events import Event, EventType
from qubix.kernel.ids import new_id
from qubix.scheduling.model import WEB_GAP_S

if TYPE_CHECKING:
    from qubix.capacity.service import CapacityService
    from qubix.providers.service import ProvidersService
    from qubix.scheduling.frame_store import FrameStore


class SessionOver(Conflict):
    """Another session speaks for the node: close this socket. What the frame said is ignored."""

    code = "session_over"


class HelloRefused(Unauthenticated):
    """The node is unknown, or the signature is not its key's."""

    code = "hello_refused"


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """A session was opened: send `welcome`, then `desired`."""

    welcome: Welcome
    desired: Desired
    provider_id: UUID
    replaced: UUID | None


class SessionsService:
    """Sessions of agents.

    Args: store, providers and capacity over the transaction's connection; tell, adds an event to its outbox; wake, after
        the commit; lease_ttl_s, told to the agent.
    """

    def __init__(
        self,
        store: FrameStore,
        *,
        providers: ProvidersService,
        capacity: CapacityService,
        tell: Callable[[Event], None],
        wake: Callable[[str, str], None],
        lease_ttl_s: float,
    ) -> None:
        self._store = store
        self._providers = providers
        self._capacity = capacity
        self._tell = tell
        self._wake = wake
        self._lease_ttl_s = lease_ttl_s

    async def open(self, hello: Hello, nonce: str) -> Opened:
        """Open a session for the node that signed `nonce`; any earlier session of it is over.

        Raises: HelloRefused for an unknown node or a wrong signature; Conflict for another protocol version; what
        providers.hello raises for the facts (another release of Qubix or Ray).
        """
        if hello.protocol != PROTOCOL_VERSION:
            raise Conflict(
                f"the agent speaks protocol {hello.protocol}, this server {PROTOCOL_VERSION}", next_step="install the server's release"
            )
        node = await self._store.lock_node(hello.node)
        if node is None or node.state == "left":
            raise HelloRefused("this node is not registered", next_step="join again: qubix provider join")
        try:
            Ed25519PublicKey.from_public_bytes(node.public_key).verify(bytes.fromhex(hello.signature), hello_bytes(nonce, hello.node))
        except (InvalidSignature, ValueError):
            raise HelloRefused("the signature is not that of the node's key", next_step="join again: qubix provider join") from None
        await self._providers.hello(hello.node, hello.facts)
        session, token = new_id(), secrets.token_urlsafe(32)
        await self._store.open_session(hello.node, session, token_hash(token))
        desired = await self._store.desired(hello.node)
        assert desired is not None  # noqa: S101  (typing: the session was opened in this transaction)
        self._wake("nodes", str(hello.node))
        return Opened(Welcome(session=session, token=token, lease_ttl_s=self._lease_ttl_s), desired, node.provider_id, node.session)

    async def status(self, node_id: UUID, frame: Status) -> list[Down]:
        """A heartbeat: renews the leases of the attempts that it names, ends quarantines, answers with the desired state.

        Returns: a `stop` for every attempt alive on the node that should not be, then `desired`. An old seq answers [].
        Raises: SessionOver.
        """
        node = await self._store.lock_node(node_id)
        if node is None or node.session != frame.session:
            raise SessionOver("another session speaks for this node", next_step="connect anew")
        if frame.seq <= node.session_seq:
            return []
        await self._store.note_status(node_id, seq=frame.seq, seen=frame.generation)
        renewed = await self._store.renew(node_id, frame.alive)
        freed = await self._capacity.release_quarantines(node_id, seen=frame.generation, alive=[attempt.id for attempt in frame.alive])
        if node.state in ("registering", "offline"):
            members = {"node_id": str(node_id), "provider_id": str(node.provider_id), "name": node.name, "state": "online"}
            self._tell(Event(EventType.PROVIDER_STATUS_CHANGED, ("marketplace", f"provider:{node.provider_id}"), node_id, members))
        if freed or node.state in ("registering", "offline"):
            self._wake("jobs", "")
        if frame.sample is not None:
            await self._providers.record_sample(node_id, frame.sample)
        answers: list[Down] = [
            Stop(attempt=attempt.id, fence=attempt.fence, reason="not this attempt's time any more")
            for attempt in frame.alive
            if attempt.id not in renewed
        ]
        desired = await self._store.desired(node_id)
        return answers if desired is None else [*answers, desired]

    async def desired(self, node_id: UUID) -> Desired | None:
        """The node's desired state now; None while it has no session."""
        return await self._store.desired(node_id)

    async def disconnected(self, node_id: UUID, session: UUID) -> None:
        """The session's socket is gone; a node that the fabric then declares dead loses its attempts at once."""
        if await self._store.close_socket(node_id, session):
            self._wake("jobs", "")

    async def beat(self, *, begun: bool) -> None:
        """Tell that the web layer lives, every WEB_BEAT_S. Args: begun, this replica has just begun, and had no socket before."""
        await self._store.beat(begun=begun, gap_max_s=WEB_GAP_S)

    async def authenticate(self, token: str) -> tuple[UUID, UUID]:
        """(node, session) of a session's bearer token. Raises: Unauthenticated."""
        found = await self._store.by_token(token_hash(token))
        if found is None:
            raise Unauthenticated("this session is over", next_step="connect anew")
        return found


def token_hash(token: str) -> bytes:
    """What the database keeps of a session's token."""
    return hashlib.sha256(token.encode()).digest()

"""Agent sessions: who speaks for a node. The last hello wins; what another session says counts for nothing.

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

from qubix.agent.protocol import PROTOCOL_VERSION, Desired, Hello, Welcome, hello_bytes
from qubix.kernel.errors import Conflict, Unauthenticated
from qubix.kernel.ids import new_id
from qubix.scheduling.model import WEB_GAP_S

if TYPE_CHECKING:
    from qubix.providers.service import ProvidersService
    from qubix.scheduling.frame_store import FrameStore, NodeRow


class SessionOver(Conflict):
    """Another session speaks for the node: close this socket. What the frame said is ignored."""

    code = "session_over"

    def __init__(self) -> None:
        super().__init__("another session speaks for this node", next_step="connect anew")


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

    Args: store and providers over the transaction's connection; wake, after the commit; lease_ttl_s, told to the agent.
    """

    def __init__(
        self,
        store: FrameStore,
        *,
        providers: ProvidersService,
        wake: Callable[[str, str], None],
        lease_ttl_s: float,
    ) -> None:
        self._store = store
        self._providers = providers
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
        known = await self._store.node(hello.node)
        _check_signature(known, hello, nonce)  # whoever has not the node's key takes no lock that its agent waits for
        node = await self._store.node(hello.node, locked=True)
        if node is None or known is None or node.state == "left" or node.public_key != known.public_key:
            raise HelloRefused("this node has just left", next_step="join again: qubix provider join")
        await self._providers.hello(hello.node, hello.facts)
        session, token = new_id(), secrets.token_urlsafe(32)
        await self._store.open_session(hello.node, session, token_hash(token))
        desired = (await self._store.desired([hello.node]))[hello.node]
        self._wake("nodes", str(hello.node))
        return Opened(Welcome(session=session, token=token, lease_ttl_s=self._lease_ttl_s), desired, node.provider_id, node.session)

    async def desired(self, node_id: UUID) -> Desired | None:
        """The node's desired state now; None while it has no session."""
        return (await self._store.desired([node_id])).get(node_id)

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


def _check_signature(node: NodeRow | None, hello: Hello, nonce: str) -> None:
    if node is None or node.state == "left":
        raise HelloRefused("this node is not registered", next_step="join again: qubix provider join")
    try:
        Ed25519PublicKey.from_public_bytes(node.public_key).verify(bytes.fromhex(hello.signature), hello_bytes(nonce, hello.node))
    except (InvalidSignature, ValueError):
        raise HelloRefused("the signature is not that of the node's key", next_step="join again: qubix provider join") from None


def token_hash(token: str) -> bytes:
    """What the database keeps of a session's token."""
    return hashlib.sha256(token.encode()).digest()

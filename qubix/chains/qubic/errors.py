"""What the Qubic primitives refuse, and how the network fails. No message quotes a seed, a subseed or a key."""

from __future__ import annotations

from qubix.kernel.errors import Conflict, Invalid, Unavailable


class InvalidSeed(Invalid):
    """A seed is 55 letters a–z, a subseed 32 bytes."""

    code = "invalid_seed"


class InvalidKey(Invalid):
    """The public key is not the one of the secret that was to sign."""

    code = "invalid_key"


class InvalidDigest(Invalid):
    """A digest is 32 bytes."""

    code = "invalid_digest"


class InvalidIdentity(Invalid):
    """No Qubic identity: wrong length, letters, range or checksum."""

    code = "invalid_identity"


class InvalidTransaction(Invalid):
    """A transaction that no node would take, or bytes that are none."""

    code = "invalid_transaction"


class RpcUnavailable(Unavailable):
    """No endpoint gave an answer that can be used: away, failing, limiting us, or behind what was seen before."""

    code = "qubic_unavailable"


class MalformedAnswer(RpcUnavailable):
    """An endpoint answered what no Qubic endpoint answers."""

    code = "qubic_malformed_answer"


class RpcRefused(Invalid):
    """The network says that the question can never be answered as it stands."""

    code = "qubic_refused"


class NotThere(RpcRefused):
    """The network knows no such thing (yet)."""

    code = "qubic_not_there"


class TickNotYetProcessed(Conflict):
    """The archive has not come to this tick: wait.

    Args: last_tick, the archive's last one if it says so.
    """

    code = "qubic_tick_not_yet_processed"

    def __init__(self, tick: int, last_tick: int | None) -> None:
        super().__init__(f"tick {tick} is not in the archive yet", next_step="ask again when it is", last_tick=last_tick)
        self.last_tick = last_tick


class TickSkipped(Conflict):
    """The network never had this tick.

    Args: next_tick, the first one after it that it had.
    """

    code = "qubic_tick_skipped"

    def __init__(self, tick: int, next_tick: int) -> None:
        super().__init__(f"the network skipped tick {tick}; the next one is {next_tick}", next_tick=next_tick)
        self.next_tick = next_tick

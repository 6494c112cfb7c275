"""What the Qubic primitives refuse. No message quotes a seed, a subseed or a key."""

from __future__ import annotations

from qubix.kernel.errors import Invalid


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

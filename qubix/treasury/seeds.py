"""Seeds at rest: sealed under a key that lies in a file of its own, so that the database alone, or a copy of it, pays nobody.

XChaCha20-Poly1305 with a random nonce of 24 bytes; the identity is authenticated with it, so that a sealed seed moved to another row does not
open. Neither key nor seed is ever in an environment, an argument, a log or an error's text.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from Crypto.Cipher import ChaCha20_Poly1305

from qubix.chains.qubic import identity, keys
from qubix.chains.qubic.errors import InvalidSeed
from qubix.kernel.errors import Conflict, Invalid

KEY_BYTES: Final = 32
_KEY_LETTERS: Final = 2 * KEY_BYTES
_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 24
_TAG_BYTES: Final = 16
_SEALED_BYTES: Final = len(_VERSION) + _NONCE_BYTES + keys.SEED_LETTERS + _TAG_BYTES
_PURPOSE: Final = b"qubix seed of "
_MODES: Final = (0o600, 0o400)


class KeyFileRefused(Invalid):
    """The key file is missing, open to others, somebody else's, or holds no key."""

    code = "key_file_refused"


class SeedNotOpened(Invalid):
    """The sealed seed was sealed under another key or for another identity, or was changed."""

    code = "seed_not_opened"


@dataclass(frozen=True, slots=True)
class SealedSeed:
    """An identity of ours, and its seed as the database keeps it."""

    identity: str
    sealed: bytes


class Sealer:
    """Seals seeds and opens them. Args: key, 32 bytes. Raises: KeyFileRefused for another length."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise KeyFileRefused(f"a sealing key has {KEY_BYTES} bytes")
        self._key = key

    def make(self) -> SealedSeed:
        """A new seed, known to nobody else, sealed; it was opened again and gave its identity."""
        seed = keys.new_seed()
        owner = identity.encode(keys.public_key_from_subseed(keys.subseed_from_seed(seed)))
        made = SealedSeed(owner, self._seal(seed, owner))
        self.subseed(made)
        return made

    def subseed(self, found: SealedSeed) -> bytes:
        """What signs for that identity.

        Raises: SeedNotOpened unless the seed was sealed by this key for this identity, and is that identity's.
        """
        if len(found.sealed) != _SEALED_BYTES or found.sealed[:1] != _VERSION:
            raise self._refusal(found)
        nonce, ciphertext, tag = (
            found.sealed[1 : 1 + _NONCE_BYTES],
            found.sealed[1 + _NONCE_BYTES : -_TAG_BYTES],
            found.sealed[-_TAG_BYTES:],
        )
        try:
            subseed = keys.subseed_from_seed(self._cipher(nonce, found.identity).decrypt_and_verify(ciphertext, tag).decode("ascii"))
        except (ValueError, InvalidSeed):
            raise self._refusal(found) from None  # what went before could quote the seed
        if identity.encode(keys.public_key_from_subseed(subseed)) != found.identity:
            raise self._refusal(found)
        return subseed

    def _seal(self, seed: str, owner: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        ciphertext, tag = self._cipher(nonce, owner).encrypt_and_digest(seed.encode())
        return _VERSION + nonce + ciphertext + tag

    def _cipher(self, nonce: bytes, owner: str) -> ChaCha20_Poly1305.ChaCha20Poly1305Cipher:
        cipher = ChaCha20_Poly1305.new(key=self._key, nonce=nonce)
        cipher.update(_PURPOSE + owner.encode())
        return cipher

    def _refusal(self, found: SealedSeed) -> SeedNotOpened:
        return SeedNotOpened(
            f"the seed of {found.identity} does not open with this key file",
            next_step="name the key file that it was sealed with (QUBIX_SIGNER_KEY_FILE); docs/signer.md tells of backups",
        )


def make_key_file(path: Path) -> None:
    """Make a key file of mode 0600 with a new key, on the disk when this returns.

    Raises: Conflict when there is something already: a key that is overwritten takes all money with it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Conflict(f"there is a file at {path} already", next_step="use it, or name another path; a key is never overwritten") from None
    except OSError as error:
        raise KeyFileRefused(
            f"no key file can be made at {path}: {error.strerror}", next_step="name a path in a folder of your own"
        ) from error
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
        file.flush()
        os.fsync(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_key_file(path: Path) -> Sealer:
    """The sealer whose key is in the file: 64 hexadecimal letters.

    Raises: KeyFileRefused unless it is a plain file, no link, of this process's user, of mode 0600 or 0400, with such a key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyFileRefused(f"there is no key file at {path}", next_step=f"qubix signer --key-file {path} --make-key makes one") from None
    except OSError as error:
        why = "it is a link" if path.is_symlink() else error.strerror
        raise KeyFileRefused(f"the key file {path} is not read: {why}", next_step="name the plain file itself") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise KeyFileRefused(f"{path} is no plain file", next_step="name the key file itself")
        if found.st_uid != os.geteuid():
            raise KeyFileRefused(f"{path} belongs to another user", next_step="run the signer as the user who owns its key")
        if stat.S_IMODE(found.st_mode) not in _MODES:
            next_step = f"chmod 600 {path}; if somebody may have read it, see docs/signer.md"
            raise KeyFileRefused(f"others may read or change {path}", next_step=next_step)
        content = os.read(descriptor, _KEY_LETTERS + 2)
    finally:
        os.close(descriptor)
    text = content.strip()
    try:
        if len(text) != _KEY_LETTERS or len(content) > _KEY_LETTERS + 1:
            raise ValueError
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise KeyFileRefused(f"{path} holds no key", next_step=f"a key is {_KEY_LETTERS} hexadecimal letters in one line") from None
    return Sealer(key)

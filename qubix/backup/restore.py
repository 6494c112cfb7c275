"""Restoring a backup into an empty place, and saying what was found there.

Checksums come first, and nothing is ever overwritten. The database is filled in one transaction, which also takes back what must not be believed
any more (settle.sql): payouts stand still until a person has reconciled them with the chain.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qubix.backup import files, programs
from qubix.backup.model import BLOBS, DUMP, Manifest, NotEmpty
from qubix.backup.store import Facts, differences, open_source
from qubix.backup.verify import blob_path, blobs_of, verify
from qubix.bootstrap import open_resources, scope
from qubix.kernel.errors import Invalid, Unavailable
from qubix.postgres import migrate
from qubix.settings import Settings
from qubix.treasury.seeds import SealedSeed, SeedNotOpened, read_key_file

MARK: Final = "restoring"
"""In a data folder while it is filled: nothing starts on it."""
ROUNDS_MAX: Final = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class Restored:
    """What a restored platform says of itself.

    Args: differs, what is not as the backup said; problems, the ledger's audit; missing, bytes that rows refer to and that are not there;
        lost, attempts that ran and were ended; halted, whether payouts wait for a person.
    """

    manifest: Manifest
    facts: Facts
    differs: list[str]
    problems: list[str]
    missing: list[str]
    lost: int
    halted: bool

    @property
    def is_sound(self) -> bool:
        """Whether nothing lacks."""
        return not self.differs and not self.problems and not self.missing


def check(folder: Path) -> Manifest:
    """Verify a backup, and that this release can read it. Raises: Damaged; Invalid for a later release's."""
    manifest = verify(folder)
    if not migrate.knows(manifest.revision):
        raise Invalid(
            f"this backup's schema is {manifest.revision}, of Qubix {manifest.qubix_version}, and this release does not know it",
            next_step="install the release that made it, or a later one",
        )
    return manifest


def check_empty(data_dir: Path) -> None:
    """See that a data folder is fit to be restored into: none yet, or nothing in it. Raises: NotEmpty."""
    found = sorted(path.name for path in data_dir.iterdir() if path.name != "lock") if data_dir.exists() else []
    if found:
        raise NotEmpty(
            f"{data_dir} has something in it already ({', '.join(found[:5])})",
            next_step="name a folder that does not exist yet: nothing is ever overwritten",
        )


def check_key_file(key_file: Path) -> None:
    """See, before anything is written, that it is a signer's key and nobody else can read it. Raises: KeyFileRefused."""
    read_key_file(key_file)


async def key_opens(url: str, key_file: Path) -> bool | None:
    """Whether a key file opens the signer's seeds; None where there are none. Raises: KeyFileRefused."""
    sealer = read_key_file(key_file)
    async with open_source(url) as target:
        seed = await target.seed()
    if seed is None:
        return None
    try:
        sealer.subseed(SealedSeed(*seed))
    except SeedNotOpened:
        return False
    return True


async def needs_key(url: str) -> bool:
    """Whether there are seeds that only the signer's key opens."""
    async with open_source(url) as target:
        return await target.seed() is not None


async def restore(folder: Path, manifest: Manifest, url: str, data_dir: Path, *, say: Callable[[str], None] = lambda _: None) -> Restored:
    """Fill an empty database and an empty data folder from a backup that was verified.

    Args: url, of the database's owner; data_dir, where its bytes go.
    Raises: NotEmpty; Unavailable, when nothing is in the database; whatever a migration raises.
    """
    async with open_source(url) as target:
        await target.check_fit()
    say("bytes")
    await asyncio.to_thread(_copy_blobs, folder, data_dir / BLOBS)
    say("database")
    await programs.load(url, folder / DUMP, _settled(manifest))
    async with open_source(url) as target:
        facts, referred = await target.facts(), await target.blobs()
    differs = differences(manifest, facts)
    say("migrations")
    await migrate.upgrade(url)
    await migrate.check(url)
    say("attempts that ran")
    lost = await _end_attempts(url)
    say("audit")
    problems = await audit(url)
    missing = await asyncio.to_thread(_missing, data_dir / BLOBS, referred)
    return Restored(manifest, facts, differs, problems, missing, lost, manifest.network not in (None, "none"))


async def audit(url: str) -> list[str]:
    """What the ledger's audit complains of."""
    resources = open_resources(Settings(), url=url, pool_size=1)
    try:
        async with scope(resources) as s:
            return [f"{found.rule} ({found.count}): {found.example}" for found in await s.ledger.audit()]
    finally:
        await resources.close()


async def _end_attempts(url: str) -> int:
    """End what ran when the backup was taken, as the sweeper does for a dead node: each job goes on from its last checkpoint, or ends."""
    resources = open_resources(Settings(), url=url, pool_size=1)
    ended = 0
    try:
        for _ in range(ROUNDS_MAX):
            async with scope(resources) as s:
                due = await s.ends.overdue()
            before = ended
            for attempt in due:
                async with scope(resources) as s:
                    ended += await s.ends.sweep(attempt)
            if ended == before:
                return ended
    finally:
        await resources.close()
    return ended


def _settled(manifest: Manifest) -> str:
    text = Path(__file__).with_name("settle.sql").read_text()
    return text.replace("{taken_at}", manifest.taken_at.isoformat())


def _copy_blobs(folder: Path, root: Path) -> None:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for sha256 in blobs_of(folder):
        if not files.copy(blob_path(folder, sha256), root / sha256[:2] / sha256, sha256):
            raise Unavailable(f"blob {sha256} of the backup cannot be read any more", next_step="verify it: qubix restore --check")


def _missing(root: Path, referred: dict[str, int]) -> list[str]:
    return sorted(sha256 for sha256 in referred if not (root / sha256[:2] / sha256).is_file())

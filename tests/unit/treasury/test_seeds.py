"""A sealed seed opens for its own identity, under its own key, unchanged; a key file that others could have read is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubix.chains.qubic import identity, keys
from qubix.kernel.errors import Conflict
from qubix.treasury.seeds import KeyFileRefused, SealedSeed, Sealer, SeedNotOpened, make_key_file, read_key_file

SEALER = Sealer(bytes(range(32)))
MADE = SEALER.make()


def test_a_new_seed_opens_for_its_identity() -> None:
    subseed = SEALER.subseed(MADE)
    assert identity.encode(keys.public_key_from_subseed(subseed)) == MADE.identity


def test_the_same_key_never_makes_the_same_twice() -> None:
    again = SEALER.make()
    assert again.identity != MADE.identity
    assert again.sealed != MADE.sealed


@given(at=st.integers(0, len(MADE.sealed) - 1), by=st.integers(1, 255))
def test_a_sealed_seed_that_was_changed_does_not_open(at: int, by: int) -> None:
    changed = bytearray(MADE.sealed)
    changed[at] ^= by
    with pytest.raises(SeedNotOpened):
        SEALER.subseed(SealedSeed(MADE.identity, bytes(changed)))


@given(sealed=st.binary(max_size=200))
def test_any_other_bytes_do_not_open(sealed: bytes) -> None:
    with pytest.raises(SeedNotOpened):
        SEALER.subseed(SealedSeed(MADE.identity, sealed))


def test_a_sealed_seed_opens_neither_for_another_identity_nor_under_another_key() -> None:
    with pytest.raises(SeedNotOpened):
        SEALER.subseed(SealedSeed(SEALER.make().identity, MADE.sealed))
    with pytest.raises(SeedNotOpened) as refused:
        Sealer(bytes(32)).subseed(MADE)
    assert MADE.identity in refused.value.message
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_a_seed_sealed_for_an_identity_that_is_not_its_own_is_refused() -> None:
    stranger = SEALER.make().identity
    sealed = SEALER._seal("a" * 55, stranger)
    with pytest.raises(SeedNotOpened):
        SEALER.subseed(SealedSeed(stranger, sealed))


def test_neither_key_nor_seed_shows_in_a_representation() -> None:
    assert bytes(range(32)).hex() not in f"{SEALER!r} {vars(type(SEALER))}"
    assert "sealed" in repr(MADE)


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "signer.key"
    make_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_text()
    assert len(bytes.fromhex(content.strip())) == 32
    with pytest.raises(Conflict):
        make_key_file(path)
    assert path.read_text() == content
    made = read_key_file(path).make()
    assert read_key_file(path).subseed(made)


def test_no_key_file_is_made_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(Conflict):
        make_key_file(tmp_path / "link")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o666, 0o700, 0o200])
def test_a_key_file_of_another_mode_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "signer.key"
    make_key_file(path)
    path.chmod(mode)
    with pytest.raises(KeyFileRefused) as refused:
        read_key_file(path)
    if os.geteuid() == 0 or mode & 0o400:
        assert "chmod 600" in refused.value.next_step


@pytest.mark.parametrize("content", ["", "ab" * 31, "ab" * 33, "zz" * 32, "ab" * 32 + "\n\n", " " * 64, "ä" * 32])
def test_a_key_file_without_a_key_is_refused_and_not_quoted(tmp_path: Path, content: str) -> None:
    path = tmp_path / "signer.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileRefused) as refused:
        read_key_file(path)
    said = f"{refused.value.message} {refused.value.next_step} {refused.value.__cause__}"
    assert not content.strip() or content.strip() not in said


def test_a_link_a_folder_a_pipe_and_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "signer.key"
    make_key_file(path)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for refused in ("link", "pipe", "nothing", "."):
        with pytest.raises(KeyFileRefused):
            read_key_file(tmp_path / refused)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signer.key"
    make_key_file(path)
    os.chown(path, 12345, -1)
    with pytest.raises(KeyFileRefused, match="another user"):
        read_key_file(path)

"""Files out of a hostile folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from qubix.sandbox import collect as c
from qubix.sandbox.checkpoints import Checkpoints
from qubix.sandbox.events import CheckpointReady


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "output").mkdir()
    (tmp_path / "spool").mkdir()
    return tmp_path


def collected(folder: Path, size_max: int = 1 << 20) -> tuple[dict[str, bytes], dict[str, str]]:
    descriptor = os.open(folder / "output", os.O_RDONLY)
    try:
        found = list(c.collect(descriptor, folder / "spool", size_max=size_max, prefix="a"))
    finally:
        os.close(descriptor)
    taken = [entry for entry in found if isinstance(entry, c.Taken)]
    for entry in taken:
        assert entry.sha256 == hashlib.sha256(entry.path.read_bytes()).hexdigest()
        assert entry.size == entry.path.stat().st_size
    return {entry.name: entry.path.read_bytes() for entry in taken}, {
        entry.name: entry.reason for entry in found if isinstance(entry, c.Refused)
    }


def test_regular_files_are_taken_with_their_paths(folder: Path) -> None:
    (folder / "output" / "deep" / "er").mkdir(parents=True)
    (folder / "output" / "a.txt").write_text("a")
    (folder / "output" / "deep" / "er" / "b.txt").write_text("b")
    assert collected(folder) == ({"a.txt": b"a", "deep/er/b.txt": b"b"}, {})


def test_links_and_special_files_are_refused(folder: Path) -> None:
    output = folder / "output"
    (folder / "outside").write_text("secret")
    (output / "link").symlink_to(folder / "outside")
    (output / "folder link").symlink_to(folder)
    os.mkfifo(output / "fifo")
    (output / "hard").write_text("x")
    os.link(output / "hard", output / "hard 2")
    taken, refused = collected(folder)
    assert taken == {}
    assert refused == {
        "link": "not a regular file",
        "folder link": "not a regular file",
        "fifo": "not a regular file",
        "hard": "hard link",
        "hard 2": "hard link",
    }


def test_sizes_count_over_all_files_and_by_apparent_size(folder: Path) -> None:
    with open(folder / "output" / "a sparse", "wb") as file:
        file.truncate(1000)
    (folder / "output" / "b").write_bytes(bytes(600))
    (folder / "output" / "c").write_bytes(bytes(400))
    taken, refused = collected(folder, size_max=1500)
    assert set(taken) == {"a sparse", "c"}
    assert refused == {"b": "too big"}


def test_odd_names_are_refused(folder: Path) -> None:
    (folder / "output" / "line\nend").write_text("x")
    (folder / "output" / ("n" * 201)).write_text("x")
    Path(os.fsdecode(os.fsencode(folder / "output") + b"/bad\xff")).write_text("x")
    taken, refused = collected(folder)
    assert taken == {}
    assert len(refused) == 3


def test_depth_and_count_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "FILES_MAX", 5)
    deep = folder / "output" / "/".join("d" * 20)
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    for number in range(8):
        (folder / "output" / f"f{number}").write_text("x")
    taken, refused = collected(folder)
    assert len(taken) == 5
    assert "too deep" in refused.values()
    assert "more than 5 files" in refused.values()


def test_descriptors_are_closed(folder: Path) -> None:
    for number in range(30):
        (folder / "output" / f"folder {number}").mkdir()
        (folder / "output" / f"folder {number}" / "file").write_text("x")
    before = len(os.listdir("/proc/self/fd"))
    collected(folder)
    assert len(os.listdir("/proc/self/fd")) == before


def test_usage_counts_blocks_and_entries(folder: Path) -> None:
    (folder / "output" / "sub").mkdir()
    (folder / "output" / "sub" / "file").write_bytes(b"x" * 100_000)
    with open(folder / "output" / "sparse", "wb") as file:
        file.truncate(1 << 30)
    descriptor = os.open(folder / "output", os.O_RDONLY)
    found = c.usage(descriptor)
    os.close(descriptor)
    assert 100_000 <= found.size < 1 << 20
    assert (found.entries, found.uncounted) == (3, False)


def test_usage_counts_what_a_job_has_closed_and_says_when_it_does_not_look_deep_enough(folder: Path) -> None:
    for number in range(700):
        (folder / "output" / f"{number:03}").mkdir()
    (folder / "output" / "699" / "file").write_bytes(b"x" * 100_000)
    (folder / "output" / "699").chmod(0o300)
    (folder / "output").chmod(0)
    descriptor = os.open(folder / "output", os.O_PATH)
    found = c.usage(descriptor)
    assert found.size >= 100_000
    assert (found.entries, found.uncounted) == (701, False)
    (folder / "output" / "/".join("d" * 70)).mkdir(parents=True)
    assert c.usage(descriptor).uncounted
    os.close(descriptor)


class Bench:
    """A checkpoint folder and its copier."""

    def __init__(self, folder: Path, size_max: int = 1 << 30) -> None:
        self.inside = folder / "output"
        self.descriptor = os.open(self.inside, os.O_RDONLY)
        self.checkpoints = Checkpoints(self.descriptor, folder / "spool", "a", size_max)

    def announce(self, name: str, content: bytes = b"state") -> None:
        (self.inside / name).write_bytes(content)
        self.checkpoints.announce(name, 10.0, 100)

    def advance(self) -> list[CheckpointReady | str]:
        found: list[CheckpointReady | str] = []
        while self.checkpoints.busy:
            found += self.checkpoints.advance()
        return found


def test_a_checkpoint_is_copied_in_pieces_and_removed_inside(folder: Path) -> None:
    bench = Bench(folder)
    content = os.urandom(3 * c.PIECE_BYTES + 5)
    bench.announce("1", content)
    assert list(bench.checkpoints.advance()) == []
    (ready,) = bench.advance()
    assert isinstance(ready, CheckpointReady)
    assert (ready.number, ready.size, ready.sha256) == (1, len(content), hashlib.sha256(content).hexdigest())
    assert ready.path.read_bytes() == content
    assert not (bench.inside / "1").exists()
    os.close(bench.descriptor)


def test_two_copies_may_wait_and_a_third_waits_inside(folder: Path) -> None:
    bench = Bench(folder)
    ready = []
    for name in ("1", "2", "3"):
        bench.announce(name)
        ready += [event for event in bench.advance() if isinstance(event, CheckpointReady)]
    assert [event.number for event in ready] == [1, 2]
    assert not bench.checkpoints.busy
    ready[0].path.unlink()
    (third,) = bench.advance()
    assert isinstance(third, CheckpointReady)
    assert third.number == 3
    os.close(bench.descriptor)


def test_a_copy_that_waits_to_be_sent_under_its_hash_counts_as_well(folder: Path) -> None:
    bench = Bench(folder)
    ready = []
    for name in ("1", "2", "3"):
        bench.announce(name, name.encode())
        for event in bench.advance():
            assert isinstance(event, CheckpointReady)
            ready.append(event.path.replace(folder / "spool" / event.sha256))
    assert len(ready) == 2
    ready[0].unlink()
    assert len(bench.advance()) == 1
    os.close(bench.descriptor)


def test_of_a_burst_only_the_newest_is_taken(folder: Path) -> None:
    bench = Bench(folder)
    for number in range(1, 7):
        bench.announce(str(number), str(number).encode())
    (ready,) = bench.advance()
    assert isinstance(ready, CheckpointReady)
    assert (ready.number, ready.path.read_bytes()) == (1, b"6")
    assert not list(bench.inside.iterdir())
    os.close(bench.descriptor)


def test_at_the_end_the_newest_that_waits_is_taken(folder: Path) -> None:
    bench = Bench(folder)
    for number in range(1, 7):
        bench.announce(str(number), str(number).encode())
        bench.advance()
    bench.checkpoints.finish()
    (last,) = bench.advance()
    assert isinstance(last, CheckpointReady)
    assert (last.number, last.path.read_bytes()) == (3, b"6")
    assert not list(bench.inside.iterdir())
    os.close(bench.descriptor)


def test_what_cannot_be_a_checkpoint_is_refused_with_a_word(folder: Path) -> None:
    bench = Bench(folder, size_max=10)
    (bench.inside / "link").symlink_to("/etc/passwd")
    found: list[CheckpointReady | str] = []
    for name in ("link", "missing"):
        bench.checkpoints.announce(name, 1.0, 1)
        found += bench.advance()
    bench.announce("big", bytes(100))
    found += bench.advance()
    assert [type(event) for event in found] == [str, str, str]
    assert not list((folder / "spool").iterdir())
    os.close(bench.descriptor)

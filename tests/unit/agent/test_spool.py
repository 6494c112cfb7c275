"""The spool: what a crash, at any byte, may and may not cost."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubix.agent import spool
from qubix.agent.attempts import finished_frame
from qubix.agent.protocol import FRAME_SIZE_MAX_BYTES, Artefact, Checkpoint, Exit, Finished, Log, Running, Stream
from qubix.agent.spool import Spool
from qubix.sandbox.collect import FILES_MAX, NAME_MAX_CHARACTERS

ATTEMPT, NONE, SESSION = UUID(int=7), UUID(int=0), UUID(int=9)


def line(offset: int, text: str) -> Log:
    return Log(session=NONE, attempt=ATTEMPT, fence=1, stream=Stream.OUT, offset=offset, text=text, node_at=1.0)


def finished() -> Finished:
    return Finished(session=NONE, attempt=ATTEMPT, fence=1, exit=Exit.EXITED, exit_code=0, agent_ms=5)


def lines(*texts: str) -> list[Log]:
    offset, made = 0, []
    for text in texts:
        made.append(line(offset, text))
        offset += len(text.encode())
    return made


def test_frames_come_back_in_order_after_a_crash(tmp_path: Path) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    sent = [Running(session=NONE, attempt=ATTEMPT, fence=1), *lines("a\n", "é\n"), finished()]
    for frame in sent:
        journal.append(frame)
    again = Spool(tmp_path).get(ATTEMPT)
    assert again is not None
    assert again.unacknowledged() == [f.key for f in sent]
    assert again.frame(sent[2].key, SESSION) == lines("a\n", "é\n")[1].model_copy(update={"session": SESSION})
    assert again.fence == 1
    assert again.finished


def test_an_acknowledged_frame_is_not_sent_again_after_a_crash(tmp_path: Path) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    first, second = lines("a\n", "b\n")
    journal.append(first)
    journal.append(second)
    journal.acknowledge(first.key)
    again = Spool(tmp_path).get(ATTEMPT)
    assert again is not None
    assert again.unacknowledged() == [second.key]


def test_the_same_key_is_stored_once(tmp_path: Path) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    assert journal.append(line(0, "a\n"))
    assert not journal.append(line(0, "a\n"))


def test_finished_is_due_only_when_all_else_is_acknowledged(tmp_path: Path) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    journal.append(line(0, "a\n"))
    journal.append(finished())
    assert journal.next_due() == line(0, "a\n").key
    assert journal.next_due() is None
    journal.acknowledge(line(0, "a\n").key)
    assert journal.next_due() == finished().key


def test_the_end_fits_into_a_frame_whatever_the_job_wrote(tmp_path: Path) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    journal.manifest.checkpoints = list(range(1, 200_000))
    journal.manifest.artefacts = [f"{number:04}" + "\U00010000" * (NAME_MAX_CHARACTERS - 4) for number in range(FILES_MAX)]
    end = finished_frame(journal, Exit.EXITED, exit_code=0, detail="\U00010000" * 5000)
    assert len(end.model_dump_json().encode()) < FRAME_SIZE_MAX_BYTES
    assert end.checkpoints[-1] == 199_999


def test_a_missing_frame_is_due_again_though_it_was_acknowledged(tmp_path: Path) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    journal.append(line(0, "a\n"))
    journal.acknowledge(journal.next_due() or "")
    assert journal.want(line(0, "a\n").key)
    assert journal.next_due() == line(0, "a\n").key
    assert not journal.want(f"{ATTEMPT}/checkpoint/4")


def test_a_new_session_sends_everything_unacknowledged_in_order(tmp_path: Path) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    for frame in lines("a\n", "b\n", "c\n"):
        journal.append(frame)
    keys = [journal.next_due() for _ in range(3)]
    journal.all_due()
    assert [journal.next_due() for _ in range(3)] == keys


def test_the_manifest_of_a_crashed_attempt_is_known(tmp_path: Path) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    for frame in lines("ab\n", "é\n"):
        journal.append(frame)
    journal.append(Checkpoint(session=NONE, attempt=ATTEMPT, fence=1, number=1, sha256="0" * 64, size=3, pct=20, ran_ms=1500))
    again = Spool(tmp_path).get(ATTEMPT)
    assert again is not None
    assert again.manifest.log_ends == {"out": 6}
    assert again.manifest.checkpoints == [1]
    assert again.manifest.ran_ms == 1500


def test_what_the_platform_refused_stays_refused_after_a_crash(tmp_path: Path) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    artefact = Artefact(session=NONE, attempt=ATTEMPT, fence=1, name="big.bin", sha256="0" * 64, size=3)
    journal.append(artefact)
    journal.append(finished())
    journal.refuse(artefact.key)
    again = Spool(tmp_path).get(ATTEMPT)
    assert again is not None
    assert again.refused == {artefact.key}
    assert again.unacknowledged() == [finished().key]


def test_what_came_after_finished_is_sent_before_it(tmp_path: Path) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    journal.append(finished())
    journal.log(Stream.AGENT, "late\n", 1.0)
    assert journal.next_due() == f"{ATTEMPT}/log/agent/0"
    assert journal.next_due() is None


def test_the_agents_lines_follow_the_sandboxs_in_their_stream(tmp_path: Path) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    assert journal.log(Stream.AGENT, "é\n", 1.0)
    assert journal.log(Stream.AGENT, "b\n", 1.0)
    assert journal.manifest.log_ends == {"agent": 5}


def test_a_forgotten_attempt_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.open(ATTEMPT, 1).append(line(0, "a\n"))
    spool.forget(ATTEMPT)
    assert list(tmp_path.iterdir()) == []
    assert spool.get(ATTEMPT) is None


def test_a_full_spool_says_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path, size_max_bytes=1000)
    assert spool.has_room()
    spool.open(ATTEMPT, 1).append(line(0, "x" * 2000))
    assert not spool.has_room()


def test_a_folder_without_a_readable_beginning_is_removed(tmp_path: Path) -> None:
    (tmp_path / str(uuid4())).mkdir()
    assert list(Spool(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=12), cut=st.floats(0, 1), flip=st.booleans())
def test_whatever_a_crash_tears_off_the_frames_before_it_are_whole(texts: list[str], cut: float, flip: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Spool(Path(folder)).open(ATTEMPT, 1)
        sent = lines(*(t.encode("utf-8", "replace").decode() for t in texts))
        for frame in sent:
            journal.append(frame)
        journal.close()
        path = Path(folder) / str(ATTEMPT) / "frames.jsonl"
        content = bytearray(path.read_bytes())
        head = content.index(b"\n") + 1
        position = head + int(cut * (len(content) - head))
        if flip and position < len(content):
            content[position] ^= 0x01
        else:
            del content[position:]
        path.write_bytes(content)
        again = Spool(Path(folder)).get(ATTEMPT)
        assert again is not None
        kept = again.unacknowledged()
        assert kept == [f.key for f in sent][: len(kept)]
        assert [again.frame(k, NONE) for k in kept] == sent[: len(kept)]
        # And the journal goes on from there.
        rest = sent[len(kept) :]
        assert all(again.append(f) for f in rest)
        assert again.unacknowledged() == [f.key for f in sent]
        again.close()


@pytest.mark.parametrize("size", [0, 1, 5])
def test_bytes_lie_beside_their_frames_until_dropped(tmp_path: Path, size: int) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    journal.blob("ab").write_bytes(b"x" * size)
    journal.drop_blob("ab")
    journal.drop_blob("ab")
    assert not journal.blob("ab").exists()


def test_on_a_full_disk_no_frame_is_torn_and_the_end_has_room_that_was_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Spool(tmp_path).open(ATTEMPT, 1)
    journal.append(line(0, "a"))
    aside = journal.folder / "aside"
    assert aside.stat().st_blocks * 512 >= spool.END_BYTES

    def full(fd: int, data: memoryview) -> int:
        if aside.exists() and os.write(fd, data[: len(data) // 2]):
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(fd, data)

    monkeypatch.setattr(spool, "_append", full)
    with pytest.raises(OSError, match="No space"):
        journal.append(line(1, "b"))
    journal.acknowledge(line(0, "a").key)
    journal.append(finished())
    again = Spool(tmp_path).get(ATTEMPT)
    assert again is not None
    assert again.unacknowledged() == [line(0, "a").key, finished().key], "what could not be noted as acknowledged is sent once more"
    assert again.finished

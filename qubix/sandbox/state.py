"""The folders of one agent's sandboxes, and what is written down so that another process can stop or clean one.

<base>/seccomp/                 compiled filters        <base>/slots/<n>      one lock per user id (root)
<base>/attempts/<id>/state.json the processes and groups of an attempt
<base>/attempts/<id>/stop       somebody asked to stop it
<base>/attempts/<id>/output     what the job writes     <base>/attempts/<id>/checkpoints
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from qubix.sandbox.cgroup import Group
from qubix.sandbox.processes import Process, boot_id

DEPTH_TRIES: Final = 20
"""Each try opens at least one more level of folders without permissions."""


@dataclass(frozen=True)
class Folder:
    """The folder of one attempt."""

    path: Path

    @classmethod
    def of(cls, base: Path, attempt: UUID) -> Folder:
        """Where that attempt lies or would lie."""
        return cls(base / "attempts" / str(attempt))

    @property
    def output(self) -> Path:
        """Becomes /out."""
        return self.path / "output"

    @property
    def checkpoints(self) -> Path:
        """Becomes /checkpoints."""
        return self.path / "checkpoints"

    @property
    def stop_mark(self) -> Path:
        """Exists once somebody asked to stop the attempt."""
        return self.path / "stop"

    @property
    def state_file(self) -> Path:
        """What `State` reads."""
        return self.path / "state.json"

    def remove(self) -> None:
        """Remove all of it, also what a job made unreadable to its own user."""

        def open_and_retry(_function: object, failed: str, _error: object) -> None:
            with contextlib.suppress(OSError):
                os.chmod(os.path.dirname(failed), 0o700)
            with contextlib.suppress(OSError):
                if not os.path.islink(failed):
                    os.chmod(failed, 0o700)

        for _ in range(DEPTH_TRIES):
            if not self.path.exists():
                return
            shutil.rmtree(self.path, onerror=open_and_retry)


@dataclass(frozen=True)
class State:
    """The processes of an attempt: runner (the caller of run), monitor (bubblewrap outside), inside (process 1 of the sandbox)."""

    runner: Process
    monitor: Process
    inside: Process
    group: Group

    def write(self, folder: Folder) -> None:
        """Store it in one step."""
        content = {
            "boot": boot_id(),
            **{name: [p.pid, p.started] for name, p in (("runner", self.runner), ("monitor", self.monitor), ("inside", self.inside))},
            "limits": self.group.kind,
            "groups": [str(path) for path in self.group.folders],
        }
        part = folder.path / "state.part"
        part.write_text(json.dumps(content))
        part.rename(folder.state_file)

    @classmethod
    def read(cls, folder: Folder) -> State | None:
        """What was stored; None: never started, of an earlier boot, or not readable."""
        try:
            content = json.loads(folder.state_file.read_text())
            if content["boot"] != boot_id():
                return None
            runner, monitor, inside = (Process(*content[name]) for name in ("runner", "monitor", "inside"))
            return cls(runner, monitor, inside, Group(content["limits"], tuple(map(Path, content["groups"]))))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def left(self) -> int:
        """How many processes of the sandbox are alive; 1 stands for "some" where no cgroup counts them.

        The kernel ends process 1 of a namespace only after all others in it, so its death proves theirs.
        """
        return len(self.group.pids()) or int(self.inside.alive()) or int(self.monitor.alive())

"""Run a command as the user nobody, who sees this installation even if it lies in root's home: `as_nobody.py SOURCE … -- COMMAND …`.

For tests only. Each SOURCE appears at its own path, inside a mount namespace of the command; no mode of any folder changes.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "qubix" / "sandbox"))

import stage

NOBODY = 65534


def closed_ancestor(path: Path) -> Path | None:
    """The topmost folder on the way that nobody cannot enter."""
    for ancestor in reversed(path.parents):
        if not ancestor.stat().st_mode & 0o001:
            return ancestor
    return None


def main() -> None:
    split = sys.argv.index("--")
    sources, command = [Path(word) for word in sys.argv[1:split]], sys.argv[split + 1 :]
    stage.check(stage.LIBC.unshare(stage.CLONE_NEWNS), "unshare")
    stage.mount("none", "/", None, stage.MS_REC | stage.MS_PRIVATE)
    hidden = [(source, closed_ancestor(source), os.open(source, os.O_PATH)) for source in sources]
    for ancestor in {found for _, found, _ in hidden if found is not None}:
        stage.mount("tmpfs", str(ancestor), "tmpfs", stage.MS_NOSUID, "size=1m,mode=755")
    for source, ancestor, descriptor in hidden:
        if ancestor is not None:
            source.mkdir(parents=True, exist_ok=True)
            stage.mount(f"/proc/self/fd/{descriptor}", str(source), None, stage.MS_BIND | stage.MS_REC)
        os.close(descriptor)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.execv(command[0], command)  # noqa: S606  (no shell in between)


main()

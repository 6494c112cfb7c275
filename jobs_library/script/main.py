"""Run the consumer's own script, as `python main.py` would: same output, same exit code, same signals.

The sdk is importable as qubix_job; the working folder is the output folder, so files written there become artefacts.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import qubix_job


def main() -> None:
    """Entry point."""
    script = qubix_job.input_dir / qubix_job.params.get("entry", "main.py")
    if not script.is_file():
        sys.exit(f"there is no {script.name} among the inputs: send your script as the input {script.name}")
    sys.argv = [str(script), *qubix_job.params.get("arguments", "").split()]
    sys.path[0] = str(script.parent)
    sys.excepthook = lambda kind, error, trace: show(kind, error, own_frames(script, trace))
    code = compile(script.read_bytes(), str(script), "exec")
    module = types.ModuleType("__main__")
    module.__file__ = str(script)
    sys.modules["__main__"] = module
    exec(code, module.__dict__)  # noqa: S102  (running the consumer's code is what this job is for)


def show(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """Print an uncaught error. Its printer is loaded only then: it would double the time to a script's first line."""
    import traceback

    traceback.print_exception(kind, error, trace)


def own_frames(script: Path, trace: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback from the consumer's first frame on."""
    while trace is not None and trace.tb_frame.f_code.co_filename != str(script):
        trace = trace.tb_next
    return trace


main()

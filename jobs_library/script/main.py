"""Run the consumer's own script, as `python main.py` would: same output, same exit code, same signals.

The sdk is importable as qubix_job; the working folder is the output folder, so files written there become artefacts.
"""

from __future__ import annotations

import runpy
import sys

import qubix_job


def main() -> None:
    """Entry point."""
    script = qubix_job.input_dir / qubix_job.params.get("entry", "main.py")
    if not script.is_file():
        sys.exit(f"there is no {script.name} among the inputs: send your script as the input {script.name}")
    sys.argv = [str(script), *qubix_job.params.get("arguments", "").split()]
    sys.path[0] = str(script.parent)
    runpy.run_path(str(script), run_name="__main__")


main()

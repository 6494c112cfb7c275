"""`python -m qubix.chains.qubic.devnet`: the devnet for supervisors and tests. Its first line on stdout is a JSON object, once it listens."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from qubix.chains.qubic.devnet.running import HOST, PORT, TICK_S, Options, run
from qubix.kernel.errors import QubixError


def main() -> int:
    """Entry point. Returns: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m qubix.chains.qubic.devnet", description="A simulated Qubic network with test money.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--host", default=HOST)
    parser.add_argument("--port", type=int, default=PORT, help="0: any free one")
    parser.add_argument("--tick-s", type=float, default=TICK_S, help="seconds from tick to tick; 0: only when the admin steps")
    parser.add_argument("--admin-token-file", type=Path, help="mode 0600; default: admin-token in the data folder, made if missing")
    parser.add_argument("--seed", default="qubix", help="of the faults")
    parser.add_argument("--legacy", action="store_true", help="also the two paths that end with 2026")
    try:
        run(Options(**vars(parser.parse_args())), lambda running: print(json.dumps(dataclasses.asdict(running)), flush=True))
    except QubixError as error:
        print(f"error: {error.message}; {error.next_step}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

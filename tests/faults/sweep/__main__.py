"""`python -m tests.faults.sweep --seed 7 --runs 200`, also as `make faults SEED=7 RUNS=200`."""

from __future__ import annotations

import argparse

from tests.faults.sweep.schedule import deck
from tests.faults.sweep.sweep import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Break the whole product over and over, and see whether every promise holds.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=len(deck()), help="how many faults; default: every kind once")
    parser.add_argument("--only", default="", help="only faults whose name has this in it, of the same schedule")
    options = parser.parse_args()
    raise SystemExit(main(options.seed, options.runs, options.only))

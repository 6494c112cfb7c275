"""The attacks, how each of them has to end, and the script that is sent for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ATTACKS: Final = Path(__file__).parent / "attacks"
MiB: Final = 1 << 20
NEEDS: Final = {"memory_bytes": 512 * MiB, "disk_bytes": 48 * MiB}
SUCCEEDED, EXIT_CODE = frozenset({"succeeded"}), frozenset({"exit_code"})


@dataclass(frozen=True)
class Attack:
    """One script of attacks/.

    Args: reasons, for which its job may end; reaches_its_end, it prints "done" as its last word; needs, over NEEDS; duration, the longest paid run.
    """

    name: str
    reasons: frozenset[str] = SUCCEEDED
    reaches_its_end: bool = True
    needs: Mapping[str, Any] = field(default_factory=dict)
    duration: str = "600"


SUITE: Final = (
    # What the machine, the platform and others keep.
    Attack("read_the_machine"),
    Attack("environment_of_others"),
    Attack("inherited"),
    Attack("spy"),
    Attack("proc_doors"),
    # What answers.
    Attack("tcp_to_the_machine"),
    Attack("unix_sockets"),
    Attack("socket_families"),
    Attack("netlink"),
    # More rights.
    Attack("trace"),
    Attack("namespaces"),
    Attack("more_rights"),
    Attack("other_users"),
    Attack("kernel_doors"),
    Attack("other_instruction_set"),
    Attack("memory_programs"),
    Attack("devices"),
    Attack("cgroups"),
    Attack("clock"),
    Attack("priorities"),
    Attack("type_into_a_terminal"),
    Attack("core_dump"),
    # What others run, or will.
    Attack("write_outside"),
    Attack("rewrite_the_runtime"),
    Attack("own_program"),
    Attack("kill_everything"),
    Attack("daemon"),
    # More than was granted.
    Attack("fork_bomb"),
    Attack("zombies"),
    Attack("memory_bomb", frozenset({"out_of_memory", "exit_code"}), reaches_its_end=False),
    Attack("hidden_memory", frozenset({"out_of_memory", "succeeded"}), reaches_its_end=False),
    Attack("fill_disks"),
    Attack("fill_results", frozenset({"succeeded", "disk_limit"}), reaches_its_end=False),
    Attack("many_files", frozenset({"succeeded", "disk_limit"}), reaches_its_end=False),
    Attack("terminals"),
    Attack("busy", needs={"cpus": 0.5}),
    Attack("output_flood", frozenset({"output_flood"}), reaches_its_end=False),
    Attack("will_not_leave", frozenset({"time_limit"}), reaches_its_end=False, duration="3"),
    # What is said to the agent and shown to people.
    Attack("hostile_reports"),
    Attack("hostile_results"),
    Attack("artefact_names"),
    Attack("results_race"),
    Attack("checkpoint_race"),
    Attack("checkpoint_bomb", frozenset({"succeeded", "disk_limit"}), reaches_its_end=False),
    Attack("hidden_files", frozenset({"succeeded", "disk_limit"}), reaches_its_end=False),
    Attack("log_injection"),
    # Work that is not paid for.
    Attack("forged_end", EXIT_CODE),
    Attack("blame_by_signal", frozenset({"signal"})),
    Attack("blame_the_first_process", EXIT_CODE),
    Attack("blame_the_checkpoint", EXIT_CODE),
    Attack("blame_the_collector", EXIT_CODE),
)
CONTROLS: Final = ("read_the_machine", "environment_of_others", "inherited", "tcp_to_the_machine", "unix_sockets", "socket_families")
"""Those that only read, which run outside of any sandbox too, as nobody."""
BY_NAME: Final = {attack.name: attack for attack in SUITE}


def script(name: str, given: Mapping[str, Any]) -> str:
    """The text of an attack, behind what it shares with the others."""
    return preamble(given) + "\n" + (ATTACKS / f"{name}.py").read_text()


def preamble(given: Mapping[str, Any]) -> str:
    """The module `attack`, its guard first, and what the suite tells the script."""
    shared = (ATTACKS / "attack.py").read_text()
    lines = ["import sys, types", "attack = types.ModuleType('attack')", f"exec({shared!r}, attack.__dict__)"]
    return "\n".join([*lines, f"attack.given.update({dict(given)!r})", "sys.modules['attack'] = attack"])


def put(folder: Path, name: str, given: Mapping[str, Any], needs: Mapping[str, Any]) -> Path:
    """Write an attack's script and the job.toml beside it. Returns: the script."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "job.toml").write_text("[needs]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in {**NEEDS, **needs}.items()))
    path = place / f"{name}.py"
    path.write_text(script(name, given))
    return path

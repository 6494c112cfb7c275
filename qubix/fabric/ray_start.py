"""`ray start`, without what no node of ours uses, and with the dashboard last. Run as `python -m qubix.fabric.ray_start start …`.

A head that died takes Serve and the provider machines' agents with it: how soon another carries them is processor time of processes that
start, so what is not needed first comes last or not at all (docs/decisions/0014-what-ray-start-starts.md). It leans on names of Ray 2.60, which
tests/integration/fabric/test_ray_start.py looks after.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Final

_UNUSED_COMMANDS: Final = ("ray.serve.scripts", "ray.dashboard.modules.job.cli", "ray.util.state.state_cli")
"""Groups of Ray's command line that `ray start` does not need, and that Ray leaves out where they cannot be imported (ray/scripts/scripts.py, its end).
With them `ray start`, which stays for as long as its node, costs 2.5 times the processor time at its start and 60 MB more (Ray 2.60)."""
NICENESS: Final = 10
"""Of the dashboard and the autoscaler's monitor, above that of `ray start`. Where processors are short they get a tenth of what the web layer gets."""


def _raylet_first() -> None:
    """Start the head's raylet before its dashboard, which Ray 2.60 awaits first: Serve and the machines need the one and not the other.

    The dashboard is awaited on a thread, so that `ray start --block` watches GCS and raylet meanwhile, and ends where it does not come. There is no
    server for `ray.init("ray://…")`, 90 MB, which has no option of its own.
    """
    from ray._private import node

    ray_node: Any = node

    class Node(ray_node.Node):  # type: ignore[misc]
        all_processes: dict[str, Any]
        _monitored = False

        def start_ray_client_server(self) -> None:
            pass

        def start_monitor(self) -> None:
            self._monitored = True

        def start_api_server(self, **asked: Any) -> None:
            self._dashboard = asked

        def start_ray_processes(self) -> None:
            super().start_ray_processes()
            if not self.head:
                return
            self.all_processes = _Copied(self.all_processes)
            if self._monitored:
                super().start_monitor()
                (monitor,) = self.all_processes["monitor"]
                os.setpriority(os.PRIO_PROCESS, monitor.process.pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS))
            threading.Thread(target=self._await_dashboard, name="dashboard", daemon=True).start()

        def _await_dashboard(self) -> None:
            try:
                super().start_api_server(**self._dashboard)
            except BaseException:
                traceback.print_exc()
                os.kill(os.getpid(), signal.SIGTERM)
            # Ray lets its processes die with the thread that started them.
            threading.Event().wait()

    ray_node.Node = Node


class _Copied(dict[str, Any]):
    """Whoever looks through it may be overtaken by who adds to it."""

    def items(self) -> Any:
        return list(super().items())


def _dashboard_gives_way() -> None:
    """Make the dashboard's processes patient ones. Not each node's part of it: Ray's raylet awaits that."""
    from ray._private import services

    command_of: Callable[..., list[str]] = services._build_python_executable_command_memory_profileable
    nice = shutil.which("nice")

    def patient(component: str, *arguments: Any, **named: Any) -> list[str]:
        command = command_of(component, *arguments, **named)
        return [nice, "-n", str(NICENESS), *command] if nice and component == "dashboard" else command

    services._build_python_executable_command_memory_profileable = patient


def main() -> None:
    """Entry point."""
    for name in _UNUSED_COMMANDS:
        sys.modules[name] = None  # type: ignore[assignment]
    from ray.scripts import scripts

    _raylet_first()
    _dashboard_gives_way()
    command: Callable[[], None] = scripts.main
    command()


if __name__ == "__main__":
    main()

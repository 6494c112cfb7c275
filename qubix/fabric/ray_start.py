"""`ray start`, without what no node of ours uses, and with the dashboard last. Run as `python -m qubix.fabric.ray_start start …`.

A head that died takes Serve and the provider machines' agents with it: how soon another carries them is processor time of processes that
start, so what is not needed first comes last or not at all (docs/decisions/0014-what-ray-start-starts.md). It leans on names of Ray 2.60, which
tests/integration/fabric/test_ray_start.py looks after.
"""

from __future__ import annotations

import os
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

    Dashboard and monitor start, patiently, on a thread of their own, so that `ray start --block` watches GCS and raylet meanwhile, and ends where they do not
    come. Each node's own part of the dashboard is the raylet's to start, which awaits it: it has the raylet's priority. There is no
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
            threading.Thread(target=self._start_what_gives_way, name="dashboard", daemon=True).start()

        def _start_what_gives_way(self) -> None:
            try:
                # Of this thread alone, and of what it starts.
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
                if self._monitored:
                    super().start_monitor()
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


def main() -> None:
    """Entry point."""
    for name in _UNUSED_COMMANDS:
        sys.modules[name] = None  # type: ignore[assignment]
    from ray.scripts import scripts

    _raylet_first()
    command: Callable[[], None] = scripts.main
    command()


if __name__ == "__main__":
    main()

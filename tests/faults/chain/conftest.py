"""Worlds for these tests, which wait much and compute little: so several run at the same time, each thread with a world of its own.

All that were chosen begin when the first one's turn comes; where pytest then calls a test, only its end is waited for. Each begins and ends with
its world at rest; a world that does not come to rest is given up, and the thread's next test gets a new one.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.chain.world import World

AT_ONCE: Final = 4
HERE: Final = Path(__file__).parent


class Worlds:
    """One world per thread."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder
        self._mine = threading.local()
        self._all: list[tuple[World, Path]] = []

    def get(self) -> World:
        """This thread's world, at rest."""
        found: World | None = getattr(self._mine, "world", None)
        if found is None:
            runtime = Path(tempfile.mkdtemp(prefix="qf-", dir="/tmp"))
            found = self._mine.world = World(self._folder(), runtime)
            self._all.append((found, runtime))
            found.start()
        return found

    def look_after(self) -> None:
        """Give this thread's world up if the next test cannot use it."""
        found: World | None = getattr(self._mine, "world", None)
        if found is not None and not found.is_well():
            found.close()
            self._mine.world = None

    def close(self) -> None:
        """End all of them."""
        while self._all:
            world, runtime = self._all.pop()
            world.close()
            shutil.rmtree(runtime, ignore_errors=True)


class Running:
    """The tests of this folder, under way."""

    def __init__(self, worlds: Worlds, items: list[pytest.Function]) -> None:
        self._worlds = worlds
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._futures: dict[str, Future[None]] = {item.nodeid: self._pool.submit(self._run, item) for item in items}

    def _run(self, item: pytest.Function) -> None:
        callspec: Any = getattr(item, "callspec", None)
        try:
            item.obj(world=self._worlds.get(), **(callspec.params if callspec else {}))
        finally:
            self._worlds.look_after()

    def ended(self, item: pytest.Function) -> None:
        """Wait for it; the worlds end with the last. Raises: whatever it raised."""
        try:
            self._futures.pop(item.nodeid).result()
        finally:
            if not self._futures:
                self.close()

    def close(self) -> None:
        """Begin no other one, wait for those that run, and end their worlds."""
        self._pool.shutdown(cancel_futures=True)
        self._worlds.close()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Running]:
    """What a test gets under this name is its thread's world; here it is where to wait for the test."""
    base = tmp_path_factory.mktemp("chain")
    worlds = Worlds(lambda: Path(tempfile.mkdtemp(dir=base)))
    running = Running(worlds, [item for item in request.session.items if isinstance(item, pytest.Function) and _needs_world(item)])
    try:
        yield running
    finally:
        running.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Wait for a test that runs in a thread, instead of calling it."""
    if not _needs_world(pyfuncitem):
        return None
    running: Any = pyfuncitem.funcargs["world"]
    running.ended(pyfuncitem)
    return True


def _needs_world(item: pytest.Function) -> bool:
    return item.path.parent == HERE and "world" in item.fixturenames

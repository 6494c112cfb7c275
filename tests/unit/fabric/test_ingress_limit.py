"""HAProxy must find the open files that its connections may need: it does not start where the limit is too low for what it is told."""

from __future__ import annotations

import pytest

from qubix.fabric.head import CONNECTIONS_MAX, connections_max


@pytest.mark.parametrize("files", [1024, 4096, 20_000, 65_536, 131_072])
def test_the_ingress_never_promises_more_connections_than_it_has_files_for(files: int) -> None:
    connections = connections_max(files)
    # HAProxy's own sum: two sockets a connection, a pipe (two files) for every fourth one, and some of its own.
    assert 2 * connections + 2 * (connections // 4) + 100 <= files
    assert connections >= min(CONNECTIONS_MAX, files // 4)

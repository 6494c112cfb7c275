"""Where Prometheus finds what is not ours: Ray's machines, by the file that Ray keeps, and HAProxy. Our processes announce themselves (qubix.exporter)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Final

from qubix.exporter import clear_targets

_RAYS_FILE: Final = "prom_metrics_service_discovery.json"


class ScrapeTargets:
    """Args: folder, `prometheus` of the data folder; it stays where it is while ports and the runtime folder change at every start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ray = folder / "ray.json"
        self._haproxy = folder / "targets" / "haproxy.json"

    def announce_ray(self, temp_dir: Path, haproxy_metrics_port: int) -> None:
        """Point to the file that Ray writes every few seconds, and name HAProxy's port."""
        self._haproxy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ray.unlink(missing_ok=True)
        self._ray.symlink_to(temp_dir / _RAYS_FILE)
        target = {"targets": [f"127.0.0.1:{haproxy_metrics_port}"], "labels": {"job": "haproxy"}}
        self._haproxy.write_text(json.dumps([target]))

    def clear(self) -> None:
        """Nothing of this stack is to be asked any more."""
        with contextlib.suppress(OSError):
            for path in (self._ray, self._haproxy):
                path.unlink(missing_ok=True)
            clear_targets(self._haproxy.parent)

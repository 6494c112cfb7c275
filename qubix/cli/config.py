"""Who the command line speaks for, and where: one small file of mode 0600."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

from qubix.kernel.errors import Unauthenticated


@dataclasses.dataclass(frozen=True)
class Account:
    """A platform's address and a key for it."""

    url: str
    api_key: str


def config_path() -> Path:
    """QUBIX_CONFIG, or config.json in the user's configuration folder."""
    if given := os.environ.get("QUBIX_CONFIG"):
        return Path(given)
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "qubix" / "config.json"


def load() -> Account:
    """Read the file. Raises: Unauthenticated when there is none, or it cannot be read as one."""
    path = config_path()
    try:
        content = json.loads(path.read_text())
        return Account(url=str(content["url"]).rstrip("/"), api_key=str(content["api_key"]))
    except FileNotFoundError:
        raise Unauthenticated("nobody is logged in on this machine", next_step="qubix signup, or qubix login --url … --key …") from None
    except (ValueError, KeyError, TypeError):
        raise Unauthenticated(f"{path} is not a Qubix configuration", next_step="remove it, then qubix login") from None


def save(account: Account) -> Path:
    """Write the file, mode 0600, replacing it at once."""
    path = config_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        json.dump(dataclasses.asdict(account), file)
        file.write("\n")
    fresh.chmod(0o600)
    fresh.replace(path)
    return path


def forget() -> bool:
    """Remove the file. Returns: whether there was one."""
    path = config_path()
    existed = path.exists()
    path.unlink(missing_ok=True)
    return existed

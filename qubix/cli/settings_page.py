"""docs/settings.md from the settings tree: `python -m qubix.cli.settings_page` writes it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, get_args

import annotated_types
from pydantic.fields import FieldInfo

from qubix.settings import Settings

PAGE: Final = Path(__file__).parents[2] / "docs" / "settings.md"
_TOP: Final = """\
# Settings

Every process reads its settings from the environment, prefix `QUBIX_`, checks them at the start and never changes them. Secrets are never values here: a
setting names a file of mode 0600 that holds one. `qubix up --set name=value` sets one for the whole stack (`--set dispute_window_s=60`);
it gives the processes that it starts `data_dir`, `public_url`, `network` and the addresses of the database and of Ray itself.
This page is written by `python -m qubix.cli.settings_page`; a test keeps it equal to the program.

| name | default | meaning |
| --- | --- | --- |
"""
_DATA_DIR: Final = "`/var/lib/qubix` for root, `~/.local/share/qubix` for anybody else"
"""The same page whoever writes it."""


def page() -> str:
    """The whole page."""
    rows = [f"| `{name}` | {_default(name, field)} | {meaning(field)} |\n" for name, field in Settings.model_fields.items()]
    return _TOP + "".join(rows)


def _default(name: str, field: FieldInfo) -> str:
    if name == "data_dir":
        return _DATA_DIR
    value = field.default
    if value is None or value == ():
        return "none"
    if value == "":
        return "empty"
    return f"`{_written(value)}`"


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def meaning(field: FieldInfo) -> str:
    """What a setting is for and which values it takes."""
    choices = [str(choice) for choice in get_args(field.annotation) if isinstance(choice, str)]
    return " ".join(part for part in (field.description, f"One of {', '.join(choices)}." if choices else "", _bounds(field)) if part)


def _bounds(field: FieldInfo) -> str:
    told = []
    for bound in field.metadata:
        match bound:
            case annotated_types.Gt(least):
                told.append(f"more than {least}")
            case annotated_types.Ge(least):
                told.append(f"at least {least}")
            case annotated_types.Le(most):
                told.append(f"at most {most}")
    return f"{', '.join(told).capitalize()}." if told else ""


if __name__ == "__main__":
    PAGE.write_text(page())

"""The settings of `qubix up --set`, checked before anything is started."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, get_origin

from pydantic import ValidationError

from qubix.cli.output import WrongUsage
from qubix.cli.settings_page import meaning
from qubix.settings import Settings


def chosen_settings(given: Mapping[str, str]) -> Settings:
    """The settings as the processes will read them. Raises: WrongUsage with what is meant by a name, or allowed as a value."""
    for name in given:
        if name not in Settings.model_fields:
            raise _unknown(name)
    read = {name: _read(name, value) for name, value in given.items()}
    try:
        return Settings(**read)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise _refused(name, given.get(name, str(first["input"])), first["msg"]) from None


def _read(name: str, value: str) -> Any:
    if get_origin(Settings.model_fields[name].annotation) is not tuple:
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise _refused(name, value, "it is not a JSON list") from None


def _unknown(name: str) -> WrongUsage:
    close = difflib.get_close_matches(name.removeprefix("qubix_"), Settings.model_fields, n=3)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return WrongUsage(f"there is no setting {name}", next_step=f"{meant}docs/settings.md lists them all", field=name)


def _refused(name: str, value: str, why: str) -> WrongUsage:
    allowed = meaning(Settings.model_fields[name])
    return WrongUsage(f"{name} cannot be {value!r}: {why[:1].lower()}{why[1:]}", next_step=f"{name}: {allowed}", field=name)

"""The jobs that a consumer can run by name: `jobs_library/<name>/job.toml`, read once into frozen values.

title = "MNIST training"
description = "A small CNN on handwritten digits"

[needs]                    # as qubix.market.model.Needs
gpus = 1
vram_bytes = 2_000_000_000

[limits]                   # as qubix.agent.protocol.Limits; what is absent keeps its default
memory_bytes = 3_221_225_472

[params.epochs]            # type: int, float, bool, text, choice
type = "int"
default = 5                # absent: the parameter is required
min = 1
max = 100
help = "Passes over the training set"

[inputs.script]            # a file that the job sees as /job/<name>
required = true
size_max_bytes = 1_000_000

[more_inputs]              # optional: any further names are allowed, within these limits
count_max = 8
size_max_bytes = 500_000_000
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from qubix.agent.protocol import Limits
from qubix.kernel.errors import Invalid, NotFound
from qubix.market.model import Needs

ParamType = Literal["int", "float", "bool", "text", "choice"]
INPUT_NAME: Final = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}$")
TEXT_LENGTH_MAX: Final = 2000
PARAM_FIELDS: Final = frozenset({"type", "default", "min", "max", "choices", "length_max", "help"})


@dataclasses.dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a library job. Limits are inclusive; `length_max` counts characters."""

    name: str
    type: ParamType
    default: Any = None
    required: bool = False
    min: float | None = None
    max: float | None = None
    choices: tuple[str, ...] = ()
    length_max: int = TEXT_LENGTH_MAX
    help: str = ""

    def read(self, given: Any) -> str:
        """The value as the job receives it, a string. Raises: Invalid, naming the field and what is allowed."""
        if self.type == "bool":
            return self._bool(given)
        if self.type in ("int", "float"):
            return self._number(given)
        if not isinstance(given, str) or len(given) > self.length_max or "\0" in given:
            raise self._wrong(given)
        if self.type == "choice" and given not in self.choices:
            raise self._wrong(given)
        return given

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        if self.type == "choice":
            return f"one of {', '.join(self.choices)}"
        if self.type == "bool":
            return "true or false"
        if self.type == "text":
            return f"text of at most {self.length_max} characters"
        kind = "a whole number" if self.type == "int" else "a number"
        low = "" if self.min is None else f" from {self.min:g}"
        high = "" if self.max is None else f" up to {self.max:g}"
        return kind + low + high

    def _bool(self, given: Any) -> str:
        text = str(given).lower()
        if text not in ("true", "false"):
            raise self._wrong(given)
        return text

    def _number(self, given: Any) -> str:
        if isinstance(given, bool) or not isinstance(given, int | float | str) or len(str(given)) > 40:
            raise self._wrong(given)
        try:
            value = int(str(given)) if self.type == "int" else float(given)
        except ValueError:
            raise self._wrong(given) from None
        if not math.isfinite(value) or (self.min is not None and value < self.min) or (self.max is not None and value > self.max):
            raise self._wrong(given)
        return str(value)

    def _wrong(self, given: Any) -> Invalid:
        shown = repr(given)
        return Invalid(
            f"params.{self.name} is {shown if len(shown) <= 80 else shown[:77] + '…'}",
            next_step=f"give {self.allowed}",
            field=f"params.{self.name}",
            allowed=self.allowed,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class InputRule:
    """An input file that a library job knows by name."""

    name: str
    required: bool = False
    size_max_bytes: int = 500_000_000
    help: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class LibraryJob:
    """One job of the library. `more_inputs_max` further files of any name are allowed, each of `more_size_max_bytes`."""

    name: str
    title: str
    description: str
    needs: Needs
    limits: Limits
    params: tuple[Param, ...]
    inputs: tuple[InputRule, ...]
    more_inputs_max: int = 0
    more_size_max_bytes: int = 500_000_000

    def read_params(self, given: Mapping[str, Any]) -> dict[str, str]:
        """All parameters as strings, defaults filled in.

        Raises: Invalid with `field` and what is allowed: an unknown name, a missing one, a value outside its limits.
        """
        known = {param.name: param for param in self.params}
        for name in given:
            if name not in known:
                allowed = ", ".join(sorted(known)) or "none"
                raise Invalid(f"params.{name} is not a parameter of {self.name}", next_step=f"allowed: {allowed}", field=f"params.{name}")
        values: dict[str, str] = {}
        for param in self.params:
            if param.name in given and given[param.name] is not None:
                values[param.name] = param.read(given[param.name])
            elif param.required:
                raise Invalid(f"params.{param.name} is missing", next_step=f"give {param.allowed}", field=f"params.{param.name}")
            elif param.default is not None:
                values[param.name] = param.read(param.default)
        return values

    def check_inputs(self, given: Sequence[tuple[str, int]]) -> None:
        """Check (name, size in bytes) of the inputs. Raises: Invalid with the field."""
        names = [name for name, _ in given]
        if len(set(names)) != len(names):
            raise Invalid("two inputs have the same name", next_step="give each input a name of its own", field="inputs")
        rules = {rule.name: rule for rule in self.inputs}
        for rule in self.inputs:
            if rule.required and rule.name not in names:
                raise Invalid(f"inputs: {rule.name!r} is missing", next_step=rule.help or f"upload it as {rule.name!r}", field="inputs")
        more = [name for name in names if name not in rules]
        if len(more) > self.more_inputs_max:
            allowed = ", ".join(sorted(rules)) or "none"
            raise Invalid(f"inputs: {more[-1]!r} is not an input of {self.name}", next_step=f"allowed: {allowed}", field="inputs")
        for name, size in given:
            most = rules[name].size_max_bytes if name in rules else self.more_size_max_bytes
            if not INPUT_NAME.match(name):
                raise Invalid(f"inputs: {name!r} is not a file name", next_step="letters, digits, '_', '.', '-'", field="inputs")
            if size > most:
                raise Invalid(f"inputs: {name!r} has {size} bytes", next_step=f"at most {most} bytes", field="inputs")


class Catalogue:
    """The library's jobs by name."""

    def __init__(self, jobs: Sequence[LibraryJob]) -> None:
        self._jobs = {job.name: job for job in jobs}

    def __iter__(self) -> Any:
        return iter(sorted(self._jobs.values(), key=lambda job: job.name))

    def get(self, kind: str) -> LibraryJob:
        """The job named `kind`. Raises: NotFound, with the names that exist."""
        if kind not in self._jobs:
            raise NotFound(f"the library has no job {kind!r}", next_step=f"one of: {', '.join(sorted(self._jobs))}", field="kind")
        return self._jobs[kind]


def load(folder: Path) -> Catalogue:
    """Read `folder/*/job.toml`. Raises: Invalid, naming the file and the fault, so a broken library stops the start."""
    return Catalogue([read_job(path) for path in sorted(folder.glob("*/job.toml"))])


def read_job(path: Path) -> LibraryJob:
    """One job.toml. Raises: Invalid."""
    try:
        text = tomllib.loads(path.read_text())
        more = text.get("more_inputs", {})
        job = LibraryJob(
            name=path.parent.name,
            title=str(text["title"]),
            description=str(text.get("description", "")),
            needs=Needs.parse(text.get("needs", {})),
            limits=Limits(**text.get("limits", {})),
            params=tuple(_param(name, rule) for name, rule in text.get("params", {}).items()),
            inputs=tuple(InputRule(name=name, **rule) for name, rule in text.get("inputs", {}).items()),
            more_inputs_max=int(more.get("count_max", 0)),
            more_size_max_bytes=int(more.get("size_max_bytes", 500_000_000)),
        )
        for param in job.params:
            if param.default is not None:
                param.read(param.default)
    except (KeyError, TypeError, ValueError, Invalid) as error:
        raise Invalid(f"{path.parent.name}/job.toml: {error}", next_step="see qubix/jobs/catalogue.py for what it may hold") from error
    return job


def _param(name: str, rule: Mapping[str, Any]) -> Param:
    unknown = set(rule) - PARAM_FIELDS
    if unknown:
        raise ValueError(f"params.{name} has unknown members {sorted(unknown)}")
    if rule["type"] not in ("int", "float", "bool", "text", "choice"):
        raise ValueError(f"params.{name} has type {rule['type']!r}")
    values = dict(rule)
    values["choices"] = tuple(rule.get("choices", ()))
    return Param(name=name, required="default" not in rule, **values)

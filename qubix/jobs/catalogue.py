"""The jobs that a consumer can run by name: `jobs_library/<name>/job.toml`, read once into frozen values.

title = "MNIST training"
description = "A small CNN on handwritten digits"
entry = "main.py"

[params.epochs]            # type: integer, number, boolean, text, choice, input (the name of one of the job's inputs)
type = "integer"
default = "5"              # absent: not handed to the job unless given; `required = true` insists
min = 1
max = 100
description = "Passes over the training set"

[inputs.data]              # files that the job sees as /job/<name>
required = false           # at least one of them
names = ["*.gz", "*.zip"]  # which file names are taken
size_max_bytes = 500_000_000

[needs]                    # of the node and, memory, disk and cpus, as the sandbox's limits too
gpus = 1
vram_bytes = 1_000_000_000
memory_bytes = 2_000_000_000
disk_bytes = 1_000_000_000
cpus = 1.0

[duration]
default_max_s = 600        # the longest paid run where the consumer names none
seconds = { RTX_4090 = 120 }
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

from qubix.agent.protocol import Limits
from qubix.kernel.errors import Invalid
from qubix.market.model import Needs

ParamType = Literal["integer", "number", "boolean", "text", "choice", "input"]
INPUT_NAME: Final = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}$")
TEXT_LENGTH_MAX: Final = 2000
INPUTS_MAX: Final = 32
DURATION_DEFAULT_S: Final = 3600
LIMIT_NAMES: Final = frozenset({"memory_bytes", "disk_bytes", "cpus"})
LIMIT_MAX: Final = 1 << 50


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
    description: str = ""

    def read(self, given: Any) -> str:
        """The value as the job receives it, a string. Raises: Invalid, naming the field and what is allowed."""
        if self.type == "boolean":
            return self._bool(given)
        if self.type in ("integer", "number"):
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
        if self.type == "boolean":
            return "true or false"
        if self.type == "input":
            return "the name of one of the job's inputs"
        if self.type == "text":
            return f"text of at most {self.length_max} characters"
        kind = "a whole number" if self.type == "integer" else "a number"
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
            value = int(str(given)) if self.type == "integer" else float(given)
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
    """Input files that a library job takes. Args: names, patterns of which one must match; required, at least one file."""

    name: str
    names: tuple[str, ...]
    required: bool = False
    size_max_bytes: int = 500_000_000
    description: str = ""

    def takes(self, name: str) -> bool:
        """Whether a file of this name is one of them."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names)


@dataclasses.dataclass(frozen=True, slots=True)
class LibraryJob:
    """One job of the library. Args: needs of the node; limits of the sandbox; seconds, the first estimates by GPU model."""

    name: str
    title: str
    description: str
    needs: Needs
    limits: Limits
    params: tuple[Param, ...]
    inputs: tuple[InputRule, ...]
    duration_max_s: int = DURATION_DEFAULT_S
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def read_params(self, given: Mapping[str, Any], inputs: Collection[str] = ()) -> dict[str, str]:
        """All parameters as strings, defaults filled in.

        Args: inputs, the names of the job's input files.
        Raises: Invalid with `field` and what is allowed: an unknown name, a missing one, a value outside its limits.
        """
        known = {param.name: param for param in self.params}
        for name in given:
            if name not in known:
                allowed = ", ".join(sorted(known)) or "none"
                raise Invalid(
                    f"params.{name} is not a parameter of {self.name}",
                    next_step=f"allowed: {allowed}",
                    field=f"params.{name}",
                    allowed=sorted(known),
                )
        values: dict[str, str] = {}
        for param in self.params:
            if param.name in given and given[param.name] is not None:
                values[param.name] = param.read(given[param.name])
            elif param.required:
                raise Invalid(f"params.{param.name} is missing", next_step=f"give {param.allowed}", field=f"params.{param.name}")
            elif param.default is not None:
                values[param.name] = param.read(param.default)
            if param.type == "input" and values.get(param.name) and values[param.name] not in inputs:
                shown = ", ".join(sorted(inputs)) or "none"
                raise Invalid(
                    f"params.{param.name} names {values[param.name]!r}, which is not among the inputs",
                    next_step=f"upload it, or name one of: {shown}",
                    field=f"params.{param.name}",
                )
        return values

    def needs_with(self, given: Mapping[str, Any]) -> tuple[Needs, Limits]:
        """The needs and limits of this job with a consumer's wishes over them. Raises: Invalid."""
        wishes = {name: value for name, value in given.items() if value is not None}
        for name in LIMIT_NAMES & set(wishes):
            if isinstance(wishes[name], bool) or not isinstance(wishes[name], int | float) or not 0 < wishes[name] <= LIMIT_MAX:
                raise Invalid(f"needs.{name} is {wishes[name]!r}", next_step="give a positive number", field=f"needs.{name}")
        own = {**self.needs.as_json(), **{name: getattr(self.limits, name) for name in LIMIT_NAMES & set(wishes)}}
        if "memory_bytes" in wishes:
            own.pop("ram_bytes", None)
        needs, limits = _needs({**own, **wishes}, {})
        return needs, self.limits.model_copy(update={name: getattr(limits, name) for name in LIMIT_NAMES & set(wishes)})

    def check_inputs(self, given: Sequence[tuple[str, int]]) -> None:
        """Check (name, size in bytes) of the inputs. Raises: Invalid with the field."""
        names = [name for name, _ in given]
        if len(set(names)) != len(names) or len(names) > INPUTS_MAX:
            raise Invalid("two inputs have the same name, or there are too many", next_step=f"at most {INPUTS_MAX} names", field="inputs")
        for rule in self.inputs:
            if rule.required and not any(rule.takes(name) for name in names):
                raise Invalid(
                    f"an input is missing: {rule.description or rule.name}",
                    next_step=f"add one of: {', '.join(rule.names)}",
                    field="inputs",
                )
        for name, size in given:
            rule_of = next((rule for rule in self.inputs if rule.takes(name)), None)
            if not INPUT_NAME.match(name):
                raise Invalid(f"inputs: {name!r} is not a file name", next_step="letters, digits, '_', '.', '-'", field="inputs")
            if rule_of is None:
                allowed = ", ".join(pattern for rule in self.inputs for pattern in rule.names) or "none"
                raise Invalid(f"inputs: {self.name} takes no {name!r}", next_step=f"allowed: {allowed}", field="inputs")
            if size > rule_of.size_max_bytes:
                raise Invalid(f"inputs: {name!r} has {size} bytes", next_step=f"at most {rule_of.size_max_bytes} bytes", field="inputs")


class Catalogue:
    """The library's jobs by name."""

    def __init__(self, jobs: Sequence[LibraryJob]) -> None:
        self._jobs = {job.name: job for job in jobs}

    def __iter__(self) -> Iterator[LibraryJob]:
        return iter(sorted(self._jobs.values(), key=lambda job: job.name))

    def get(self, kind: str) -> LibraryJob:
        """The job named `kind`. Raises: Invalid, with the names that exist."""
        if kind not in self._jobs:
            raise Invalid(
                f"the library has no job {kind!r}",
                next_step=f"one of: {', '.join(sorted(self._jobs))}",
                field="kind",
                allowed=sorted(self._jobs),
            )
        return self._jobs[kind]


def load(folder: Path) -> Catalogue:
    """Read `folder/*/job.toml`. Raises: Invalid, naming the file and the fault, so a broken library stops the start."""
    return Catalogue([read_job(path) for path in sorted(folder.glob("*/job.toml"))])


def read_job(path: Path) -> LibraryJob:
    """One job.toml. Raises: Invalid."""
    try:
        text = tomllib.loads(path.read_text())
        needs, limits = _needs(text.get("needs", {}), text.get("limits", {}))
        duration = text.get("duration", {})
        job = LibraryJob(
            name=path.parent.name,
            title=str(text["title"]),
            description=str(text.get("description", "")),
            needs=needs,
            limits=limits,
            params=tuple(_param(name, rule) for name, rule in text.get("params", {}).items()),
            inputs=tuple(_input(name, rule) for name, rule in text.get("inputs", {}).items()),
            duration_max_s=int(duration.get("default_max_s", DURATION_DEFAULT_S)),
            seconds={str(model): float(seconds) for model, seconds in duration.get("seconds", {}).items()},
        )
        for param in job.params:
            if param.default is not None:
                param.read(param.default)
    except (KeyError, TypeError, ValueError, Invalid) as error:
        raise Invalid(f"{path.parent.name}/job.toml: {error}", next_step="see qubix/jobs/catalogue.py for what it may hold") from error
    return job


def _needs(given: Mapping[str, Any], limits: Mapping[str, Any]) -> tuple[Needs, Limits]:
    """Memory, disk and processors are a need of the node and a limit of the sandbox at once."""
    rest = dict(given)
    both: dict[str, Any] = {name: rest.pop(name) for name in ("memory_bytes", "disk_bytes", "cpus") if name in rest}
    if "memory_bytes" in both:
        rest.setdefault("ram_bytes", both["memory_bytes"])
    return Needs.parse(rest), Limits(**{**both, **limits})


def _param(name: str, rule: Mapping[str, Any]) -> Param:
    if rule["type"] not in get_args(ParamType):
        raise ValueError(f"params.{name} has type {rule['type']!r}; known: {', '.join(get_args(ParamType))}")
    return Param(name=name, **{**rule, "choices": tuple(rule.get("choices", ()))})


def _input(name: str, rule: Mapping[str, Any]) -> InputRule:
    return InputRule(name=name, **{**rule, "names": tuple(rule.get("names", (name,)))})

"""The one metadata that every noun's store declares its tables on, and the SQL files that stand beside them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sqlalchemy import MetaData

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


@dataclasses.dataclass(frozen=True, order=True)
class SqlFile:
    """Functions, triggers, views and grants that the metadata cannot say; executed in `order`, then by path."""

    order: int
    path: Path


_files: set[SqlFile] = set()


def declare_sql(beside: str, name: str, *, order: int) -> None:
    """Declare the SQL file `name` in the folder of `beside` (pass `__file__`) as part of the schema.

    Raises: FileNotFoundError when there is no such file.
    """
    path = Path(beside).with_name(name)
    if not path.is_file():
        raise FileNotFoundError(path)
    _files.add(SqlFile(order, path))


def sql_files() -> list[SqlFile]:
    """The declared SQL files in the order of execution."""
    return sorted(_files)

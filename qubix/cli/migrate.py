"""`qubix migrate`: a database at this release's schema, with its network and its first operator. `qubix up` does the same by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer

from qubix.cli.output import JsonFlag, Output
from qubix.kernel.errors import Invalid

OPERATOR_EMAIL: Final = "operator@qubix.example"


def register(app: typer.Typer) -> None:
    """Add this noun's commands."""
    app.command(rich_help_panel="This machine")(migrate)


def migrate(
    url_file: Annotated[Path, typer.Option(help="File of mode 0600 with the URL of the database's owner.")],
    network: Annotated[str, typer.Option(help="none, devnet or mainnet; written at the database's birth, and never changed.")] = "none",
    as_json: JsonFlag = False,
) -> None:
    """Bring a database of your own to this release's schema; makes the first operator, whose key is shown once."""
    from qubix.postgres.engine import read_url_file  # heavy: only where a database is touched

    out = Output(as_json)
    if network not in ("none", "devnet", "mainnet"):
        raise Invalid(f"there is no network {network!r}", next_step="none, devnet or mainnet")
    key = prepare(read_url_file(url_file), network)
    out.show("the database has this release's schema")
    if key:
        out.show(f"first operator's key, shown once: [bold]{key}[/bold]")
    out.finish({"migrated": True, **({"operator_key": key} if key else {})}, then=("qubix login --url … --key …", "qubix doctor"))


def prepare(owner_url: str, network: str) -> str | None:
    """Apply the migrations, write the network at the ledger's birth, make the first operator: each where it is not done yet.

    Returns: the operator's key, to be shown once, or None. Raises: WrongNetwork for a ledger of another network.
    """
    return asyncio.run(_prepare(owner_url, network))


def born_on(owner_url: str) -> str | None:
    """The network of the ledger in this database; None where there is no ledger yet."""
    return asyncio.run(_born_on(owner_url))


def has_seeds(owner_url: str) -> bool:
    """Whether the signer has made addresses in this database: only the key that it made them with opens their seeds."""
    return asyncio.run(_has_seeds(owner_url))


async def _has_seeds(owner_url: str) -> bool:
    import asyncpg

    connection = await asyncpg.connect(owner_url)
    try:
        return bool(await connection.fetchval("SELECT EXISTS (SELECT 1 FROM signer_keys)"))
    finally:
        await connection.close()


async def _born_on(owner_url: str) -> str | None:
    import asyncpg

    connection = await asyncpg.connect(owner_url)
    try:
        if await connection.fetchval("SELECT to_regclass('ledger_network')") is None:
            return None
        found: str | None = await connection.fetchval("SELECT network FROM ledger_network")
        return found
    finally:
        await connection.close()


async def _prepare(owner_url: str, network: str) -> str | None:
    from qubix.bootstrap import open_resources, scope
    from qubix.postgres.migrate import upgrade
    from qubix.settings import Settings

    await upgrade(owner_url)
    resources = open_resources(Settings(), url=owner_url, pool_size=1)
    try:
        async with scope(resources) as s:
            await s.ledger.found(network)
            made = await s.identity.first_operator(OPERATOR_EMAIL)
    finally:
        await resources.close()
    return None if made is None else made[1].secret

"""Who you are: `qubix signup`, `qubix login`, `qubix keys`."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from qubix.chains.qubic.login import Scheme
from qubix.cli import config, runfile
from qubix.cli.client import Client, connect
from qubix.cli.output import JsonFlag, Output, WrongUsage, YesFlag, ago, ask, table
from qubix.cli.wallet_login import by_wallet
from qubix.identity.model import Scope
from qubix.kernel.errors import Invalid

keys_app = typer.Typer(help="API keys of this account.", invoke_without_command=True)
UrlOption = Annotated[str | None, typer.Option("--url", help="The platform's address; default: the one that runs on this machine.")]


def register(app: typer.Typer) -> None:
    """Add this noun's commands."""
    app.command(rich_help_panel="Account")(signup)
    app.command(rich_help_panel="Account")(login)
    app.command(rich_help_panel="Account")(logout)
    app.add_typer(keys_app, name="keys", rich_help_panel="Account")


def signup(
    url: UrlOption = None,
    email: Annotated[str | None, typer.Option(help="Asked for at a terminal when it is not given.")] = None,
    password: Annotated[str | None, typer.Option(help="The same.")] = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Make an account and stay logged in on this machine (an API key in a file of mode 0600)."""
    out = Output(as_json)
    address = resolve_url(url)
    chosen, secret = ask(out, yes, email=(email, "Email"), password=(password, "Password"))
    if password is None and typer.prompt("Password again", hide_input=True, err=True) != secret:
        raise Invalid("the two passwords differ", next_step="qubix signup again")
    account, user = sign_up(address, chosen, secret)
    path = config.save(account)
    out.show(f"account {user['email']} made; its key is in {path}")
    out.finish({"user": user, "url": address, "config": str(path)}, then=("qubix wallet faucet 1000000", "qubix offers", "qubix run mnist"))


def login(
    url: UrlOption = None,
    email: Annotated[str | None, typer.Option(help="With a password instead of a key.")] = None,
    password: Annotated[str | None, typer.Option(help="Asked for when it is not given.")] = None,
    key: Annotated[str | None, typer.Option(help="An API key (qk_…).")] = None,
    wallet: Annotated[str | None, typer.Option(help="A Qubic identity: sign a text with its wallet instead.")] = None,
    scheme: Annotated[Scheme | None, typer.Option(help="How the wallet signs; default: as its answer tells, else manual.")] = None,
    nonce: Annotated[str | None, typer.Option(help="Of the text that was signed.")] = None,
    signature: Annotated[str | None, typer.Option(help="The signature, or the wallet's whole answer.")] = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Log in on this machine with an API key, or with email and password or a Qubic wallet (which makes a key)."""
    out = Output(as_json)
    if wallet is None and (scheme or nonce or signature):
        raise WrongUsage("--scheme, --nonce and --signature need --wallet", next_step="qubix login --wallet IDENTITY")
    if wallet is not None and (email or password or key):
        raise WrongUsage("--wallet is another way in than --key, --email and --password", next_step="choose one")
    address = resolve_url(url)
    if wallet is not None:
        with Client(address) as client:
            found = by_wallet(out, client, wallet, scheme=scheme, nonce=nonce, signed=signature, yes=yes)
        if found is None:
            return
        key = _new_key(address, found["access_token"])
    elif key is None:
        chosen, secret = ask(out, yes, email=(email, "Email"), password=(password, "Password"))
        key = key_for(address, chosen, secret)
    with Client(address, key) as client:
        user = client.get("/api/auth/me")
    path = config.save(config.Account(address, key))
    out.show(f"logged in as {called(user)} at {address}; the key is in {path}")
    out.finish({"user": user, "url": address, "config": str(path)}, then=("qubix wallet", "qubix offers", "qubix jobs"))


def logout(as_json: JsonFlag = False) -> None:
    """Forget the key on this machine (it stays valid until `qubix keys revoke`)."""
    out = Output(as_json)
    forgotten = config.forget()
    out.show("forgotten" if forgotten else "nobody was logged in")
    out.finish({"forgotten": forgotten}, then=("qubix login",))


@keys_app.callback()
def keys(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the keys of this account."""
    if context.invoked_subcommand is not None:
        return
    out = Output(as_json)
    with connect() as client:
        items = client.get("/api/auth/keys")["items"]
    if not items:
        out.show("this account has no API key")
        out.finish({"items": []}, then=("qubix keys create NAME",))
        return
    rows = [(item["id"], item.get("name"), item.get("prefix"), ago(item.get("last_used_at"))) for item in items]
    out.show(table("API keys", ("id", "name", "begins", "last used"), rows))
    out.finish({"items": items}, then=("qubix keys create NAME", "qubix keys revoke ID"))


@keys_app.command("create")
def keys_create(name: str, as_json: JsonFlag = False) -> None:
    """Make a key; it is shown once."""
    out = Output(as_json)
    with connect() as client:
        made = client.post("/api/auth/keys", {"name": name})
    out.show(f"[bold]{made['key']}[/bold]", "keep it: it is not shown again")
    out.finish(made, then=("qubix keys", f"qubix keys revoke {made['id']}"))


@keys_app.command("revoke")
def keys_revoke(key_id: str, yes: YesFlag = False, as_json: JsonFlag = False) -> None:
    """Make a key worthless, at once."""
    out = Output(as_json)
    out.confirm(f"Revoke {key_id}?", yes)
    with connect() as client:
        client.delete(f"/api/auth/keys/{key_id}")
    out.show("revoked")
    out.finish({"revoked": key_id}, then=("qubix keys",))


def called(user: Mapping[str, Any]) -> str:
    """What to call an account: its address, else its id (an account made by a wallet has no address at first)."""
    return str(user["email"] or user["id"])


def resolve_url(given: str | None) -> str:
    """The address to talk to: the one given, the configured one, or the platform that runs on this machine."""
    found = given.rstrip("/") if given else default_url()
    if found is None:
        raise Invalid("no platform is known on this machine", next_step="name one with --url, or start one with qubix up")
    return found


def default_url() -> str | None:
    """The configured address, else that of the platform in the default data folder, None when neither is there."""
    if config.config_path().exists():
        return config.load().url
    run = runfile.read(runfile.default_data_dir())
    return run.urls.get("application") if run is not None and run.live else None


def connect_as_anybody() -> Client:
    """A client for whoever is logged in, or for nobody: the market is open to all. Raises: Invalid without a known platform."""
    return connect() if config.config_path().exists() else Client(resolve_url(None))


def sign_up(url: str, email: str, password: str) -> tuple[config.Account, dict[str, Any]]:
    """Make an account and a key for it. Returns: both. Raises: ApiError."""
    with Client(url) as client:
        session = client.post("/api/auth/signup", {"email": email, "password": password})
    return config.Account(url, _new_key(url, session["access_token"])), session["user"]


def key_for(url: str, email: str, password: str) -> str:
    """A fresh API key for an account, by its password. Raises: ApiError."""
    with Client(url) as client:
        session = client.post("/api/auth/login", {"email": email, "password": password})
    return _new_key(url, session["access_token"])


def _new_key(url: str, token: str) -> str:
    with Client(url, token) as client:
        body = {"name": f"command line on {platform.node()}", "scopes": [scope.value for scope in Scope]}
        return str(client.post("/api/auth/keys", body)["key"])

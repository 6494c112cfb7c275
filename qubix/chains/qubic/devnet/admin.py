"""The admin's calls under /admin: steps, test money, skipped ticks, epochs, faults. Loopback and the bearer token only."""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from qubix.chains.qubic.devnet.faults import Area, Fault, Kind
from qubix.chains.qubic.devnet.network import STEPS_MAX, Network
from qubix.chains.qubic.devnet.queries import check_identity
from qubix.chains.qubic.devnet.refusal import Code, Refusal, bad
from qubix.chains.qubic.devnet.server import read_object
from qubix.kernel.errors import Invalid

TOKEN_FILE: Final = "admin-token"  # noqa: S105  (a file name)
_SKIP_MAX: Final = 10_000_000
_LAG_MAX: Final = 1_000_000
_FAULTS_MAX: Final = 64
_TOKEN_LETTERS_MIN: Final = 16


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


Model = TypeVar("Model", bound=_Asked)


class Steps(_Asked):
    """POST /admin/step."""

    ticks: int = Field(1, ge=1, le=STEPS_MAX)


class Skip(_Asked):
    """POST /admin/skip, POST /admin/epoch."""

    ticks: int = Field(1000, ge=0, le=_SKIP_MAX)


class Gift(_Asked):
    """POST /admin/faucet; amount in whole units."""

    identity: str
    amount: int = Field(gt=0)


class Lag(_Asked):
    """POST /admin/archive; ticks behind the current one, and of the event logs behind that."""

    lag: int = Field(ge=0, le=_LAG_MAX)
    log_lag: int = Field(0, ge=0, le=_LAG_MAX)


class Armed(_Asked):
    """POST /admin/faults; see `faults.Fault`. for_ticks counts from the current tick on."""

    kind: str
    next: int | None = Field(None, ge=1)
    p: float = Field(1.0, ge=0, le=1)
    for_ticks: int | None = Field(None, ge=1)
    door: Literal["a", "b"] | None = None
    area: Area = "all"
    answer: Literal["hang", "cut", "error"] = "hang"
    hang_s: float = Field(30.0, ge=0, le=600)
    retry_after_s: int = Field(1, ge=0, le=3600)
    ticks: int = Field(5, ge=1)
    mode: Literal["true", "false", "inverted", "missing"] = "inverted"
    sticky: bool = True


class Cleared(_Asked):
    """POST /admin/faults/clear; with a seed, chances begin anew from it."""

    seed: str | None = Field(None, max_length=100)


def token_of(path: Path, *, make: bool = False) -> str:
    """The admin's token, from a file of mode 0600.

    Args: path; make, whether to write a new one where there is none.
    Raises: Invalid if it is missing, open to others, or shorter than 16 letters.
    """
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    try:
        if path.stat().st_mode & 0o077:
            raise Invalid(f"{path} is open to others", next_step=f"chmod 600 {path}")
        token = path.read_text().strip()
    except OSError as error:
        raise Invalid(f"the admin's token cannot be read: {error}", next_step="name a file of mode 0600 that holds it") from error
    if len(token) < _TOKEN_LETTERS_MIN:
        raise Invalid(f"the admin's token in {path} has less than {_TOKEN_LETTERS_MIN} letters", next_step="write a longer one")
    return token


def routes(network: Network, token: str) -> list[BaseRoute]:
    """What is mounted at /admin."""

    def route(method: str, path: str, answer: Callable[[Mapping[str, Any]], Any]) -> Route:
        async def serve(request: Request) -> Response:
            _check(request, token)
            return JSONResponse(answer(await read_object(request)))

        return Route(path, serve, methods=[method])

    def step(body: Mapping[str, Any]) -> dict[str, Any]:
        return {"tick": network.step(_read(Steps, body).ticks)}

    def skip(body: Mapping[str, Any]) -> dict[str, Any]:
        return {"tick": network.skip(_read(Skip, body).ticks)}

    def epoch(body: Mapping[str, Any]) -> dict[str, Any]:
        return {"tick": network.change_epoch(_read(Skip, body).ticks), "epoch": network.ledger.epoch}

    def faucet(body: Mapping[str, Any]) -> dict[str, Any]:
        gift = _read(Gift, body)
        receipt = network.fund(check_identity(gift.identity), gift.amount)
        return {"transactionId": receipt.id, "tick": receipt.tick}

    def archive(body: Mapping[str, Any]) -> dict[str, Any]:
        asked = _read(Lag, body)
        network.set_lag(asked.lag, asked.log_lag)
        return {"archived": network.ledger.state.archived, "logged": network.ledger.state.logged}

    def faults(body: Mapping[str, Any]) -> dict[str, Any]:
        network.faults.arm(_fault(_read(Armed, body), network))
        return {"armed": [asdict(fault) for fault in network.faults.armed]}

    def clear(body: Mapping[str, Any]) -> dict[str, Any]:
        network.faults.clear(_read(Cleared, body).seed)
        return {"armed": []}

    return [
        route("GET", "/status", lambda _: network.status()),
        route("POST", "/step", step),
        route("POST", "/skip", skip),
        route("POST", "/epoch", epoch),
        route("POST", "/faucet", faucet),
        route("POST", "/archive", archive),
        route("POST", "/faults", faults),
        route("POST", "/faults/clear", clear),
    ]


def _check(request: Request, token: str) -> None:
    """Raises: Refusal, 404 from other machines, 401 without the token."""
    if request.client is None or not ipaddress.ip_address(request.client.host).is_loopback:
        raise Refusal(Code.NOT_FOUND, "Not Found")
    given = request.headers.get("authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        raise Refusal(Code.UNAUTHENTICATED, "the admin's token is needed: Authorization: Bearer …")


def _fault(asked: Armed, network: Network) -> Fault:
    if asked.kind not in [kind.value for kind in Kind]:
        raise bad(f"kind is one of {', '.join(kind.value for kind in Kind)}")
    if len(network.faults.armed) >= _FAULTS_MAX:
        raise bad(f"{_FAULTS_MAX} faults are armed: clear them first")
    options = asked.model_dump(exclude={"kind", "for_ticks"})
    until = None if asked.for_ticks is None else network.ledger.tick + asked.for_ticks - 1
    return Fault(Kind(asked.kind), until_tick=until, **options)


def _read(model: type[Model], body: Mapping[str, Any]) -> Model:
    try:
        return model.model_validate(dict(body))
    except ValidationError as error:
        first = error.errors()[0]
        raise bad(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from error

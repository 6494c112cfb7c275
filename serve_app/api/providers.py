"""Providers: join tokens, one's own machines, anybody's public face."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from qubix.bootstrap import Scope
from qubix.identity.model import Principal
from qubix.identity.model import Scope as Grant
from qubix.postgres import outbox
from serve_app.api.shapes import OPTIONAL_LOGIN, PROBLEMS, Body, View
from serve_app.calls import DefaultCall, SearchCall

router = APIRouter(prefix="/api/providers", tags=["providers"], responses=PROBLEMS)


class JoinTokenRequest(Body):
    """The provider's name, where the account is none yet; without one it is called `provider-` and six hexadecimal digits."""

    name: str | None = Field(None, min_length=1, max_length=100)


class JoinTokenView(View):
    """Lets one machine in, once; shown here and never again. The versions are the platform's: the machine must have the same."""

    token: str
    expires_at: dt.datetime
    qubix_version: str
    ray_version: str
    python_version: str


class DeviceView(View):
    """One GPU; `verified` only after a measured challenge, `declared` facts are the owner's word."""

    id: int
    uuid: str
    model: str
    vram_bytes: int
    detected_by: str
    verified: bool
    overheating: bool
    sample: dict[str, Any] | None
    sampled_at: dt.datetime | None


class WindowView(View):
    """A weekly span in UTC: weekday 0 is Monday, minutes of the day."""

    weekday: int
    opens: int
    closes: int


class NodeView(View):
    """A provider's machine."""

    id: UUID
    provider_id: UUID
    worker_id: str
    name: str
    region: str
    state: str
    presence: str
    paused: bool
    draining: bool
    qubix_version: str
    ray_version: str
    cpu_model: str
    cpu_cores: int
    ram_bytes: int
    disk_bytes: int
    sandbox: dict[str, str]
    last_status_at: dt.datetime | None
    metrics_at: dt.datetime | None
    availability: list[WindowView]
    devices: list[DeviceView]


class ReputationView(View):
    """How the attempts on this provider's machines ended; `share` without its fault, null where nothing has ended."""

    ended: int
    faulted: int
    share: float | None


class ProviderView(View):
    """A provider with its machines."""

    id: UUID
    name: str
    reputation: ReputationView
    created_at: dt.datetime
    nodes: list[NodeView]
    position: int = 0


@router.post("/join-tokens", status_code=201)
async def make_join_token(call: DefaultCall, body: JoinTokenRequest | None = None) -> JoinTokenView:
    """Make a token for `qubix provider join`; the account becomes a provider with the first."""

    async def work(s: Scope, caller: Principal) -> JoinTokenView:
        name = (body or JoinTokenRequest()).name
        return JoinTokenView.model_validate(await s.providers.join_token(caller.user_id, name))

    return await call.user(work, grant=Grant.PROVIDER)


@router.get("/me")
async def mine(call: DefaultCall) -> ProviderView:
    """My machines. 404 for who is no provider."""

    async def work(s: Scope, caller: Principal) -> ProviderView:
        position = await outbox.position(s.connection)
        view = ProviderView.model_validate(await s.providers.mine(caller.user_id))
        return view.model_copy(update={"position": position})

    return await call.user(work)


@router.get("/{provider_id}", openapi_extra=OPTIONAL_LOGIN)
async def provider(provider_id: UUID, call: SearchCall) -> ProviderView:
    """A provider, as anybody may see it."""

    async def work(s: Scope, caller: Principal | None) -> ProviderView:
        position = await outbox.position(s.connection)
        found = await s.providers.provider(provider_id)
        view = ProviderView.model_validate(found)
        if caller is None or found.owner_id != caller.user_id:
            view = view.model_copy(update={"nodes": [node.model_copy(update={"worker_id": ""}) for node in view.nodes]})
        return view.model_copy(update={"position": position})

    return await call.public(work)

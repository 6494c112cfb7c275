"""Joining a marketplace: the node's key is made here, its public half and the measured facts go to the platform, a token works once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import httpx

from qubix.agent.containment import Containment, SandboxContainment
from qubix.agent.devices import find_devices, read_facts
from qubix.agent.home import AgentConfig, Home
from qubix.agent.protocol import JoinAnswer, JoinRequest
from qubix.kernel.errors import Conflict, Invalid, Unavailable

TIMEOUT_S: Final = 30.0


class JoinRefused(Conflict):
    """The platform does not take this node; the message is the platform's."""

    code = "join_refused"


class NoDevices(Invalid):
    """There is nothing to share."""

    code = "no_devices"


def join(
    home: Home,
    server_url: str,
    token: str,
    *,
    worker_id: str,
    name: str,
    region: str,
    price_per_hour: int,
    declared_gpus: Sequence[str] = (),
    containment: Containment | None = None,
    transport: httpx.BaseTransport | None = None,
) -> JoinAnswer:
    """Register this node and remember where it belongs (agent.json). A repeat with a fresh token yields the same node.

    Args: token, a join token of the provider; worker_id, stable and unique in the marketplace; price_per_hour, whole units per
        GPU-hour; declared_gpus, `RTX_4090:24GB:1`, empty to ask NVML; containment and transport, for tests.
    Raises: BadDeclaration; NoDevices; JoinRefused; Unavailable when nothing answers.
    """
    devices = find_devices(declared_gpus, worker_id).devices()
    if not devices:
        raise NoDevices(
            "this machine has no GPU that NVML sees",
            next_step="install the NVIDIA driver; or, to try things, declare one: --declare-gpu RTX_4090:24GB",
        )
    sandbox = (containment or SandboxContainment(home.sandboxes)).probe()
    request = JoinRequest(
        token=token,
        worker_id=worker_id,
        public_key=home.public_key_hex(),
        name=name,
        region=region,
        price_per_hour=price_per_hour,
        facts=read_facts(devices, sandbox, home.folder),
    )
    answer = JoinAnswer.model_validate(_post(server_url, request, transport))
    home.write_config(
        AgentConfig(
            server_url=server_url,
            node_id=answer.node_id,
            provider_id=answer.provider_id,
            worker_id=worker_id,
            declared_gpus=tuple(declared_gpus),
        )
    )
    return answer


def _post(server_url: str, request: JoinRequest, transport: httpx.BaseTransport | None) -> Any:
    try:
        with httpx.Client(timeout=TIMEOUT_S, transport=transport) as client:
            answer = client.post(
                f"{server_url.rstrip('/')}/agent/v1/join", content=request.model_dump_json(), headers={"Content-Type": "application/json"}
            )
    except httpx.TransportError as error:
        raise Unavailable(
            f"the platform at {server_url} does not answer: {error}", next_step="Check the address, then join again."
        ) from error
    if answer.is_success:
        return answer.json()
    try:
        problem = answer.json()
    except ValueError:
        problem = {"detail": answer.text[:300]}
    raise JoinRefused(
        str(problem.get("detail") or f"the platform answered {answer.status_code}"),
        next_step=str(problem.get("next_step") or "Make a new join token and try again."),
        refused_as=problem.get("code", ""),
    )

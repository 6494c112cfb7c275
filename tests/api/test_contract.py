"""The OpenAPI document is the truth about the API: schemathesis sends what it allows and what it forbids, as everybody who has a login.

Bounded: CASES_MAX random cases for each route and role, and for one role also what schemathesis derives from each schema's limits. A bound in
seconds would do the opposite: with one, schemathesis goes on until they are over.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
import schemathesis
from schemathesis import Case, CheckContext, Response
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from qubix.identity.model import Scope as Grant
from serve_app import openapi
from tests.api.access import CONSUMER, OPERATOR, PROVIDER
from tests.api.cast import Cast, make_cast
from tests.api.conftest import World

SEED: Final = 4
CASES_MAX: Final = 4

_INSIDES: Final = re.compile(
    r"Traceback|File \\?\"|sqlalchemy|asyncpg|psycopg|\b(SELECT|INSERT INTO|UPDATE|DELETE FROM)\b [\w*\"]|relation \\?\"|qubix_web\b|/blobs/[0-9a-f]{2}/"
)


@schemathesis.check
def says_nothing_of_its_insides(ctx: CheckContext, response: Response, case: Case) -> None:
    """No stack trace, no SQL, no path of the server, whatever was asked."""
    found = _INSIDES.search(response.text) if case.path != "/api/docs" else None
    if found is not None:
        raise AssertionError(f"the answer shows {found.group()!r}")


@schemathesis.check
def refuses_in_one_shape(ctx: CheckContext, response: Response, case: Case) -> None:
    """Every refusal is problem+json with a code and with what to do next; none is our own failure."""
    if response.status_code < 400 or case.path == "/health/ready":
        return
    if response.status_code >= 500:
        raise AssertionError(f"{response.status_code}: {response.text[:300]}")
    if response.headers["content-type"] != ["application/problem+json"]:
        raise AssertionError(f"{response.status_code} as {response.headers['content-type']}")
    if not response.json()["next_step"]:
        raise AssertionError(f"no next step: {response.text[:300]}")


@pytest.fixture
async def cast(served: World) -> Cast:
    return await make_cast(served)


def contract(cast: Cast, key: str, *, derived: bool, ids: dict[str, str]) -> Any:
    """The document, and how it is to be tried. Args: derived, also the cases of each schema's limits; ids, known things."""
    config = {
        "seed": SEED,
        "base-url": cast.world.url,
        "headers": {"Authorization": f"Bearer {key}"},
        "continue-on-failure": True,
        "parameters": {f"path.{name}": value for name, value in ids.items()},
        "generation": {"max-examples": CASES_MAX, "no-shrink": True, "database": "none", "allow-x00": True},
        "phases": {"stateful": {"enabled": False}, "examples": {"enabled": False}, "coverage": {"enabled": derived}},
        "checks": {
            # What a schema allows may be wrong in itself (an empty address, a job that nobody knows) and is then told so.
            "positive_data_acceptance": {"enabled": False},
            "not_a_server_error": {"enabled": False},  # refuses_in_one_shape, which knows that one route may say 503
        },
        # Their unlisted GET is answered by the route of one offer, or provider, whose id is none.
        "operations": [
            *(
                {"include-path": path, "checks": {"unsupported_method": {"enabled": False}}}
                for path in ("/api/gpus/compare", "/api/providers/join-tokens", "/api/jobs/create")
            ),
            # Its words for true and false are more than the document lists.
            {"include-path": "/api/gpus/search", "checks": {"negative_data_rejection": {"enabled": False}}},
        ],
    }
    return schemathesis.openapi.from_dict(json.loads(openapi.document()), config=SchemathesisConfig.from_dict(config))


def faults(schema: Any) -> Iterator[str]:
    """Everything that an answer should not have been, and what the request was."""
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            for case_id, checks in event.recorder.checks.items():
                sent = event.recorder.interactions.get(case_id)
                for check in checks:
                    if check.failure_info is not None:
                        asked = f"{sent.request.uri[:300]} {str(sent.request.body)[:300]}" if sent else ""
                        answered = f"{sent.response.status_code} {sent.response.text[:300]}" if sent and sent.response else ""
                        yield f"{event.recorder.label} [{check.name}] {check.failure_info.failure}\n  {asked}\n  {answered}"
        elif isinstance(event, events.NonFatalError | events.FatalError):
            yield repr(event)
        elif isinstance(event, events.EngineFinished) and event.stop_reason.value != "completed":
            yield f"stopped: {event.stop_reason}"


@pytest.mark.parametrize("role", [CONSUMER, PROVIDER, OPERATOR])
async def test_every_answer_is_as_documented(cast: Cast, role: str) -> None:
    person = cast.people[role]
    key = await person.api_key(scopes=[grant.value for grant in Grant])
    known = {name: value for name, value in cast.ids.items() if name not in {"stranger", "other_offer_id"}}
    schema = contract(cast, key, derived=role == CONSUMER, ids={} if role == OPERATOR else known)
    found = await asyncio.to_thread(lambda: list(faults(schema)))
    assert not found, "\n".join(found[:20])

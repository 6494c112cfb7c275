"""Who may do what over HTTP and on the live view: one table, which the tests compare with the OpenAPI document and with the topics."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from qubix.identity.model import Scope as Grant
from qubix.live.topics import TopicKind

CONSUMER, OTHER_CONSUMER = "consumer", "other consumer"
PROVIDER, OTHER_PROVIDER = "provider", "other provider"
ARBITER, OPERATOR, NOBODY = "arbiter", "operator", "nobody"
USERS: Final = frozenset({CONSUMER, OTHER_CONSUMER, PROVIDER, OTHER_PROVIDER, ARBITER, OPERATOR})
EVERYBODY: Final = USERS | {NOBODY}


@dataclasses.dataclass(frozen=True)
class Rule:
    """Who may use a route, and how it is asked.

    Args: may, the roles that get `status`; everybody else is told 404, nobody 401. grant, which scope a key needs, None for none.
        body and query, sent with it; {names} in them are ids. reads, whether the route looks at the credential at all: where it does, one
        that is no longer good is refused even if nobody may come.
    """

    may: frozenset[str]
    status: int
    grant: Grant | None = None
    body: Any = None
    query: str = ""
    reads: bool = True


def _only(*roles: str, status: int = 200, grant: Grant | None = Grant.READ, body: Any = None, query: str = "") -> Rule:
    return Rule(frozenset(roles), status, grant, body, query)


def _users(status: int = 200, grant: Grant | None = Grant.READ, body: Any = None, query: str = "") -> Rule:
    return Rule(USERS, status, grant, body, query)


def _open(status: int = 200, body: Any = None, *, reads: bool = True) -> Rule:
    return Rule(EVERYBODY, status, body=body, reads=reads)


_AGENT: Final = Rule(frozenset(), 204)
_PASSWORD: Final = "correct horse battery"
_LOGIN: Final = {"email": "consumer@example.com", "password": _PASSWORD}

RULES: Final[dict[tuple[str, str], Rule]] = {
    ("get", "/health/live"): _open(reads=False),
    ("get", "/health/ready"): _open(503, reads=False),
    ("post", "/api/auth/signup"): _open(201, {"email": "{random}@example.com", "password": _PASSWORD}, reads=False),
    ("post", "/api/auth/login"): _open(200, _LOGIN, reads=False),
    ("post", "/api/wallet/challenge"): _open(201, {"identity": "{stranger}"}, reads=False),
    ("post", "/api/wallet/connect"): _open(409, {"nonce": "0" * 32, "scheme": "manual", "signature": "A"}, reads=False),
    ("post", "/agent/v1/join"): _open(401, "{join}", reads=False),
    ("get", "/api/gpus/search"): _open(),
    ("get", "/api/gpus/models"): _open(),
    ("get", "/api/gpus/providers"): _open(),
    ("get", "/api/gpus/{offer_id}"): _open(),
    ("post", "/api/gpus/compare"): _open(200, {"ids": ["{offer_id}", "{other_offer_id}"]}),
    ("get", "/api/jobs/catalogue"): _open(),
    ("get", "/api/providers/{provider_id}"): _open(),
    ("get", "/api/auth/me"): _users(),
    ("patch", "/api/auth/me"): _users(grant=Grant.ACCOUNT, body={"name": "me"}),
    ("get", "/api/auth/keys"): _users(),
    ("post", "/api/auth/keys"): _users(201, Grant.ACCOUNT, {"scopes": ["account"]}),
    ("get", "/api/wallet/identities"): _users(),
    ("get", "/api/wallets/balance"): _users(),
    ("get", "/api/wallets/transactions"): _users(),
    ("get", "/api/wallets/analytics"): _users(),
    ("post", "/api/wallets/deposit"): _users(409, Grant.MONEY),
    ("post", "/api/wallets/faucet"): _users(grant=Grant.MONEY, body={"amount": 1}),
    ("post", "/api/wallets/withdraw"): _users(409, Grant.MONEY, {"address": "{stranger}", "amount": 1}),
    ("get", "/api/earnings"): _users(),
    ("get", "/api/uploads"): _users(),
    ("post", "/api/uploads"): _users(201, Grant.JOBS, query="?filename=a.py"),
    ("put", "/api/uploads"): _users(201, Grant.JOBS, query="?filename=b.py"),
    ("get", "/api/jobs"): _users(),
    ("post", "/api/jobs/create"): _users(201, Grant.JOBS, {"kind": "mnist", "budget": 100}),
    ("post", "/api/quotes"): _users(200, Grant.JOBS, {"kind": "mnist"}),
    ("get", "/api/providers/me"): _only(PROVIDER, OTHER_PROVIDER),
    ("post", "/api/providers/join-tokens"): _users(201, Grant.PROVIDER),
    ("get", "/api/audit"): _only(OPERATOR),
    ("get", "/metrics"): _only(OPERATOR),
    ("get", "/api/wallet/{address}/balance"): _only(CONSUMER, status=409),
    ("get", "/api/wallets/transactions/{transaction_id}"): _only(CONSUMER),
    ("get", "/api/quotes/{quote_id}"): _only(CONSUMER),
    ("get", "/api/jobs/{job_id}"): _only(CONSUMER),
    ("get", "/api/jobs/{job_id}/logs"): _only(CONSUMER),
    ("get", "/api/jobs/{job_id}/timeline"): _only(CONSUMER),
    ("get", "/api/jobs/{job_id}/payment"): _only(),
    ("get", "/api/jobs/{job_id}/artefacts"): _only(CONSUMER),
    ("get", "/api/jobs/{job_id}/artefacts/{name}"): _only(),
    ("get", "/api/escrows/{escrow_id}"): _only(CONSUMER, ARBITER, OPERATOR),
    ("get", "/api/nodes/{node_id}"): _only(PROVIDER),
    ("patch", "/api/nodes/{node_id}"): _only(PROVIDER, grant=Grant.PROVIDER, body={"paused": False}),
    ("post", "/api/nodes/{node_id}/drain"): _only(PROVIDER, grant=Grant.PROVIDER, body={"draining": False}),
    ("put", "/agent/v1/attempts/{attempt_id}/{fence}/blobs/{sha256}"): _AGENT,
    ("get", "/agent/v1/attempts/{attempt_id}/{fence}/inputs/{name}"): _AGENT,
    ("get", "/agent/v1/attempts/{attempt_id}/{fence}/checkpoint"): _AGENT,
    ("delete", "/api/wallets/withdrawals/{withdrawal_id}"): _only(grant=Grant.MONEY),
    # What ends things comes last: the tests ask in this order.
    ("delete", "/api/uploads/{upload_id}"): _only(CONSUMER, status=204, grant=Grant.JOBS),
    ("delete", "/api/quotes/{quote_id}"): _only(CONSUMER, status=204, grant=Grant.JOBS),
    ("post", "/api/escrows/{escrow_id}/dispute"): _only(CONSUMER, grant=Grant.MONEY, body={"evidence": "it is wrong"}),
    ("post", "/api/escrows/{escrow_id}/resolve"): _only(ARBITER, status=409, grant=Grant.MONEY, body={"to_payee": 0, "reason": "so"}),
    ("post", "/api/jobs/{job_id}/cancel"): _only(CONSUMER, grant=Grant.JOBS),
    ("delete", "/api/auth/keys/{key_id}"): _only(CONSUMER, status=204, grant=Grant.ACCOUNT),
    ("post", "/api/nodes/{node_id}/leave"): _only(PROVIDER, status=409, grant=Grant.PROVIDER),
    ("delete", "/api/wallet/identities/{identity}"): _only(CONSUMER, status=204, grant=Grant.ACCOUNT),
    ("post", "/api/auth/logout"): Rule(EVERYBODY, 200),
}
"""Neither chain nor controller is here, so a request that was let in may end in a conflict. No payment was asked for this job
(test_paid_on_chain has one that was), nothing ran, no network has withdrawals (test_chain_money). The agents' routes take the token of
an agent's session and nothing else (test_access_topics)."""

TOPICS: Final[dict[TopicKind, tuple[str, frozenset[str]]]] = {
    TopicKind.MARKETPLACE: ("marketplace", EVERYBODY),
    TopicKind.PROVIDER: ("provider:{provider_id}", frozenset({PROVIDER})),
    TopicKind.JOB: ("job:{job_id}", frozenset({CONSUMER})),
    TopicKind.ESCROW: ("escrow:{escrow_id}", frozenset({CONSUMER})),
    TopicKind.EARNINGS: ("earnings", USERS),
    TopicKind.WALLET: ("wallet", USERS),
}
"""Each topic's name, and who may follow it."""

"""What a live platform shows to whoever looks at its processes, logs, answers, tables and files, or asks Ray: no secret.

A secret is planted in every place where somebody can give one. A job's parameters are its owner's secret: stored, since they are what
runs, and shown to the owner alone.
"""

from __future__ import annotations

import contextlib
import json
import secrets as random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from qubix.cli import runfile
from qubix.postgres.embedded import EmbeddedServer
from tests.planted import files_of, lines_and_environments, logs_of, secrets_of, told
from tests.whole import PASSWORD, Consumer, Whole

pytestmark = pytest.mark.cluster
WRONG = "WRONG-" + random.token_hex(12)
"""A secret that fits nowhere; an answer that repeats it would repeat a real one that was mistyped by a letter, or sent to the wrong place."""
HAVE_PARAMETERS = ("public.jobs", "public.attempts", "public.idempotency_keys")
"""The job, what was sent to a node, and the answer to the request that made it, for whoever sends that again."""


@dataclass(frozen=True)
class Planted:
    """The platform with a job under way, and the secrets that were given to it. Args: stored, those that a table has to hold as they are."""

    whole: Whole
    consumer: Consumer
    job: str
    secrets: Mapping[str, bytes]
    stored: Mapping[str, bytes]

    def found_in(self, content: bytes, *, also_stored: bool = True) -> list[str]:
        """The names of the secrets in `content`."""
        looked = {**self.secrets, **(self.stored if also_stored else {})}
        return [name for name, secret in looked.items() if secret in content]


@pytest.fixture(scope="module")
def planted(whole: Whole) -> Iterator[Planted]:
    """Secrets in every place, while a job runs that has some too."""
    consumer = Consumer(whole)
    parameter = random.token_hex(16)
    script = "import sys, time\nprint('works', flush=True)\ntime.sleep(200)"
    job = consumer.run(script, f"--token {parameter}")
    who = {"email": f"s{random.token_hex(6)}@qubix.example", "password": PASSWORD + random.token_hex(8)}
    httpx.post(f"{whole.url}/api/auth/signup", json=who, timeout=20).raise_for_status()
    with httpx.Client(base_url=whole.url, timeout=20) as browser:
        token = browser.post("/api/auth/login", json=who).raise_for_status().json()["access_token"]
        [cookie] = [cookie.value for cookie in browser.cookies.jar if cookie.value]
    key = consumer.client.http.headers["Authorization"].removeprefix("Bearer ")
    repeated = {"Authorization": f"Bearer {token}", "Idempotency-Key": random.token_hex(8)}
    another = httpx.post(f"{whole.url}/api/auth/keys", json={"name": "kept"}, headers=repeated, timeout=20).raise_for_status().json()["key"]
    join_token = whole.provider.post("/api/providers/join-tokens")["token"]
    given = {
        "API key": key,
        "API key made under an Idempotency-Key": another,
        "provider's key": str(whole.provider.http.headers["Authorization"]).removeprefix("Bearer "),
        "access token": token,
        "session cookie": cookie,
        "join token": join_token,
        "password": who["password"],
        "everybody's password": PASSWORD,
    }
    for name, machine in whole.machines.items():
        given[f"{name}'s key"] = (machine.home / "key.pem").read_text().splitlines()[1]
    consumer.until(job, lambda seen: seen["state"] == "RUNNING", 60)
    known = {**secrets_of(whole), **{name: secret.encode() for name, secret in given.items()}}
    yield Planted(whole, consumer, job, known, {"job's parameter": parameter.encode()})
    consumer.client.post(f"/api/jobs/{job}/cancel", {})
    consumer.ended(job)


def test_no_command_line_and_no_environment_tells_a_secret_while_a_job_runs(planted: Planted) -> None:
    found: list[tuple[str, bytes]] = []
    sandboxed = 0
    for line, environment in lines_and_environments(planted.whole):
        inside = b"/opt/qubix/init.py" in line
        sandboxed += inside
        # Inside, the job's own environment has the job's own parameters, and nothing else.
        found += [(name, line[:80]) for name in planted.found_in(line)]
        found += [(name, line[:80]) for name in planted.found_in(environment, also_stored=not inside)]
    assert found == []
    assert sandboxed


def test_no_refusal_repeats_a_secret_that_came_to_the_wrong_place(planted: Planted) -> None:
    """Runs before the logs are looked at: they must not repeat it either."""
    answers = list(refusals(planted))
    repeating = [(answer.request.method, answer.request.url.path) for answer in answers if WRONG in answer.text + str(answer.headers)]
    assert repeating == []
    accepted = [(answer.request.url.path, answer.text) for answer in answers if answer.is_success]
    assert accepted == []


def refusals(planted: Planted) -> Iterator[httpx.Response]:
    """Answers to requests that carry WRONG where a secret belongs, and where none does."""
    bearer = {"Authorization": planted.consumer.client.http.headers["Authorization"]}
    email = f"u{random.token_hex(6)}@qubix.example"
    with httpx.Client(base_url=planted.whole.url, timeout=20) as http:
        for path in ("/api/auth/login", "/api/auth/signup"):
            yield http.post(path, json={"email": 5, "password": WRONG})
            yield http.post(path, json={"email": email, "password": [WRONG]})
            yield http.post(path, json={"email": email, "password": WRONG * 80})
            yield http.post(path, json={"email": email, "password": {"x": WRONG}, "secret": WRONG})
            yield http.post(path, content=f'{{"email": "{email}", "password": "{WRONG}"', headers={"Content-Type": "application/json"})
            yield http.post(path, content=f'"{WRONG}"', headers={"Content-Type": "application/json"})
        yield http.post("/api/auth/login", json={"email": email, "password": WRONG})
        yield http.post("/api/auth/login", data={"username": email, "password": WRONG})
        yield http.patch("/api/auth/me", json={"password": "x", "current_password": WRONG}, headers=bearer)
        yield http.patch("/api/auth/me", json={"password": {"x": WRONG}, "current_password": [WRONG]}, headers=bearer)
        for path in ("/api/auth/me", "/api/jobs", "/api/wallets/balance", "/api/audit", "/agent/v1/attempts/x/1/checkpoint"):
            yield http.get(path, headers={"Authorization": f"Bearer {WRONG}"})
            yield http.get(path, headers={"Authorization": f"Bearer qk_{WRONG}"})
            yield http.get(path, headers={"Authorization": WRONG})
            yield http.get(path, auth=("user", WRONG))
            yield http.get(path, headers={"Cookie": f"session={WRONG}; __Host-session={WRONG}; qubix_session={WRONG}"})
        yield http.post("/agent/v1/join", json={"token": WRONG, "worker_id": "x"})
        yield http.post("/agent/v1/join", json={"token": [WRONG]})
        yield http.put(f"/agent/v1/attempts/{planted.job}/1/blobs/{'0' * 64}", content=b"x", headers={"Authorization": f"Bearer {WRONG}"})
        yield http.post("/api/wallets/withdraw", json={"amount": 1, "address": WRONG.lower()}, headers=bearer)
        yield http.post("/api/jobs/create", json={"kind": "script", "params": {"arguments": {"token": WRONG}}}, headers=bearer)
        yield http.get("/api/nowhere", params={"api_key": WRONG})


def test_no_log_tells_a_secret(planted: Planted) -> None:
    secrets = {**planted.secrets, **planted.stored, "wrong": WRONG.encode()}
    assert told(secrets, logs_of(planted.whole)) == []


def test_no_metric_of_any_process_and_of_ray_tells_a_secret(planted: Planted) -> None:
    folder = planted.whole.data_dir / "prometheus"
    files = [*(folder / "targets").glob("*.json"), folder / "ray.json"]
    targets = [target for file in files for group in json.loads(file.read_text()) for target in group["targets"]]
    shown = []
    for target in targets:
        with contextlib.suppress(httpx.ConnectError):  # a machine or replica that another test has ended
            shown.append((target, httpx.get(f"http://{target}/metrics", timeout=20).raise_for_status().content))
    assert len(shown) > 5
    operator = {"Authorization": f"Bearer {planted.whole.operator_key}"}
    shown.append(("web layer", httpx.get(f"{planted.whole.url}/metrics", headers=operator, timeout=20).raise_for_status().content))
    assert told({**planted.secrets, **planted.stored}, shown) == []


def test_what_ray_tells_of_itself_has_no_secret_and_is_told_to_nobody_without_its_token(planted: Planted) -> None:
    """Whoever holds the token owns the cluster; still its state must not hold what belongs to users."""
    run = runfile.read(planted.whole.data_dir)
    assert run is not None
    token = {"Authorization": f"Bearer {Path(run.facts['ray_token_file']).read_text().strip()}"}
    paths = [f"/api/v0/{kind}?detail=1&limit=1000" for kind in ("actors", "tasks", "workers", "nodes", "jobs", "runtime_envs", "objects")]
    paths += [
        "/api/jobs/",
        "/api/serve/applications/",
        "/nodes?view=details",
        "/logical/actors",
        "/api/v0/logs",
        "/events",
        "/api/cluster_status",
    ]
    asked = 0
    with httpx.Client(base_url=run.urls["ray_dashboard"], timeout=30) as http:
        for path in paths:
            answer = http.get(path, headers=token)
            asked += answer.is_success
            assert planted.found_in(answer.content) == [], path
            bare = http.get(path)
            assert bare.status_code in (401, 403, 404, 405), (path, bare.status_code)
    assert asked > 8


def test_no_other_user_is_told_of_a_jobs_parameters(planted: Planted) -> None:
    stranger = planted.whole.account()
    paths = ["/api/jobs", "/api/gpus", "/api/providers/me", f"/api/jobs/{planted.job}", f"/api/jobs/{planted.job}/logs"]
    for client in (stranger, planted.whole.provider):
        for path in [*paths, *(f"/api/nodes/{machine.node_id}" for machine in planted.whole.machines.values())]:
            assert planted.found_in(client.http.get(path).content) == [], path


async def test_every_table_keeps_a_hash_or_nothing_of_every_secret(planted: Planted) -> None:
    run = runfile.read(planted.whole.data_dir)
    assert run is not None
    server = EmbeddedServer(planted.whole.data_dir, Path(run.runtime_dir), port=run.ports["postgres"])
    connection = await asyncpg.connect(server.url())
    try:
        tables = [
            row["name"]
            for row in await connection.fetch(
                "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public'"
            )
        ]
        assert len(tables) > 30
        for table in tables:
            rows = "\n".join(str(row[0]) for row in await connection.fetch(f"SELECT t::text FROM {table} t"))
            assert planted.found_in(rows.encode(), also_stored=table not in HAVE_PARAMETERS) == [], table
            for hexadecimal in (bytes(secret).hex() for secret in planted.secrets.values()):
                assert hexadecimal not in rows, table
    finally:
        await connection.close()


def test_secrets_lie_in_files_that_their_owner_alone_reads_and_in_no_other_file(planted: Planted) -> None:
    """PostgreSQL's own folder aside: what is in it, the tables told."""
    data = planted.whole.data_dir
    aside = {data / "secrets", data / "pg"}
    found: list[Any] = []
    looked = 0
    for path in (data / "secrets").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    for path, content in files_of(data):
        if not aside & set(path.parents):
            looked += 1
            found += [(name, str(path)) for name in planted.found_in(content)]
    assert looked > 5
    assert found == []
    for folder in (data, data / "secrets", *(machine.home for machine in planted.whole.machines.values())):
        assert folder.stat().st_mode & 0o077 == 0, folder

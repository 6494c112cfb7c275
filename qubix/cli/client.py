"""The platform over HTTP, as the command line sees it: one call per request, retried only where a repeat is harmless."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import httpx
import stamina

from qubix.cli import config
from qubix.cli.output import ExitCode
from qubix.kernel.errors import QubixError

TIMEOUT_S: Final = 30.0
ATTEMPTS_MAX: Final = 4
CHUNK_BYTES: Final = 1 << 20
PAGE_LIMIT: Final = 100
_AWAY: Final = frozenset({502, 503, 504})

stamina.instrumentation.set_on_retry_hooks([])  # its default logs to stdout, which belongs to the command's answer


class ApiError(QubixError):
    """The platform refused: a problem+json answer.

    Args: status, the HTTP status; code, the stable error code; the rest as in the kernel's errors.
    """

    def __init__(self, status: int, code: str, message: str, *, next_step: str = "", **extra: Any) -> None:
        super().__init__(message, next_step=next_step, **extra)
        self.status = status
        self.problem = code

    @property
    def exit_code(self) -> ExitCode:
        """404 has a code of its own; every other refusal is an error."""
        return ExitCode.NOT_FOUND if self.status == 404 else ExitCode.ERROR


class _Away(Exception):
    """Worth another try: nothing answered, or the answer was `not now`."""


class Client:
    """A platform's API.

    Args: url, the platform's address without /api; api_key, a bearer token or key, None for the routes that need none;
        transport, for tests.
    """

    def __init__(self, url: str, api_key: str | None = None, *, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.url = url.rstrip("/")
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT_S, transport=transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, path: str, **params: Any) -> Any:
        """GET, retried. Raises: ApiError; httpx.TransportError when nothing answers at all."""
        given = {name: value for name, value in params.items() if value is not None}
        return self._retried("GET", path, params=given)

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None) -> Any:
        """POST under an Idempotency-Key, which makes the retry harmless. Raises: as get."""
        return self._retried("POST", path, json=dict(body or {}), headers={"Idempotency-Key": key or uuid.uuid4().hex})

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """PATCH sets values, so a repeat changes nothing. Raises: as get."""
        return self._retried("PATCH", path, json=dict(body))

    def delete(self, path: str) -> Any:
        """DELETE, retried. Raises: as get."""
        return self._retried("DELETE", path)

    def pages(self, path: str, *, items_max: int, **params: Any) -> list[Any]:
        """The items of a paged list, at most `items_max`."""
        items: list[Any] = []
        cursor = None
        while len(items) < items_max:
            page = self.get(path, limit=min(PAGE_LIMIT, items_max - len(items)), cursor=cursor, **params)
            items += page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                break
        return items

    def upload(self, file: Path, name: str | None = None) -> Any:
        """Stream a file up. Returns: its id, name, sha256 and size. Raises: as get."""
        with file.open("rb") as source:
            answer = self.http.post(
                "/api/uploads",
                params={"filename": name or file.name},
                content=_chunks(source),
                headers={"Content-Length": str(file.stat().st_size), "Idempotency-Key": uuid.uuid4().hex},
                timeout=httpx.Timeout(TIMEOUT_S, write=None),
            )
        return _read(answer)

    @contextlib.contextmanager
    def download(self, path: str) -> Iterator[Iterator[bytes]]:
        """The bytes behind a path, in chunks. Raises: as get."""
        with self.http.stream("GET", path, follow_redirects=True) as answer:
            if answer.is_error:
                answer.read()
                _read(answer)
            yield answer.iter_bytes(CHUNK_BYTES)

    def _retried(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            for attempt in stamina.retry_context(on=(_Away, httpx.TransportError), attempts=ATTEMPTS_MAX, wait_initial=0.2, wait_max=2.0):
                with attempt:
                    answer = self.http.request(method, path, **arguments)
                    if answer.status_code in _AWAY:
                        raise _Away from _refusal(answer)
                    return _read(answer)
        except _Away as away:
            raise away.__cause__ or away from None
        raise AssertionError("the last attempt returns or raises")


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    while chunk := source.read(CHUNK_BYTES):
        yield chunk


def _read(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise _refusal(answer)
    return answer.json() if answer.content else None


def _refusal(answer: httpx.Response) -> ApiError:
    try:
        problem = answer.json()
        members = {key: value for key, value in problem.items() if key not in {"type", "title", "status", "code", "detail", "next_step"}}
        message = problem.get("detail") or problem.get("title") or answer.reason_phrase
        return ApiError(answer.status_code, problem.get("code", "error"), str(message), next_step=problem.get("next_step", ""), **members)
    except (json.JSONDecodeError, AttributeError, TypeError):
        return ApiError(answer.status_code, "error", f"{answer.status_code} {answer.reason_phrase}: {answer.text[:200]}")


def connect() -> Client:
    """A client for whoever is logged in here. Raises: Unauthenticated when nobody is."""
    account = config.load()
    return Client(account.url, account.api_key)

"""The search: one prepared statement answers a page as finished JSON, read outside any transaction of ours.

A request's answer is always read after the request came; nothing is kept for the next one. Requests that ask the same
while a read is under way share the read that starts after it (natural batching), so a crowd on the marketplace costs the
database as much as a few.
"""

from __future__ import annotations

import asyncio
import dataclasses
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

import asyncpg

from qubix.kernel.errors import Invalid, Unavailable
from qubix.market import filters as filtering
from qubix.market.filters import Availability, Filters, Sort
from qubix.market.query import NEGATIONS, Condition, Op

CONNECTIONS_MAX: Final = 2
PLANS_MAX: Final = 512
QUERY_STRING_MAX: Final = 4000
TIMEOUT_S: Final = 5.0

_COLUMNS: Final = {
    "gpu": ("o.model_key", "text"),
    "vram": ("o.vram_bytes", "bigint"),
    "price": ("o.price_per_hour", "bigint"),
    "gpus": ("{free}", "bigint"),
    "reliability": ("o.reliability", "float8"),
    "verified": ("o.verified", "boolean"),
    "detected": ("o.detected_by", "text"),
    "cpu_cores": ("o.cpu_cores", "bigint"),
    "ram": ("o.ram_bytes", "bigint"),
    "tflops": ("o.tflops", "float8"),
}
# Sort columns, all ascending; float8 keeps every price of the language exactly (it is below 2^53).
_ORDER: Final = {
    Sort.PRICE: "o.price_per_hour",
    Sort.PRICE_DESC: "-o.price_per_hour",
    Sort.PERFORMANCE: "-o.tflops",
    Sort.AVAILABILITY: "-o.gpus_free",
    Sort.COST_BENEFIT: "o.cost_per_tflop",
}
# A cursor as the sort column's index has it; a price is below 2^53, whatever somebody writes into a cursor.
_EDGE: Final = {
    Sort.PRICE: "least(greatest({at}, -9e15), 9e15)::bigint",
    Sort.PRICE_DESC: "least(greatest({at}, -9e15), 9e15)::bigint",
    Sort.PERFORMANCE: "{at}",
    Sort.AVAILABILITY: "least(greatest({at}, -1e9), 1e9)::integer",
    Sort.COST_BENEFIT: "{at}",
}
# A lease that ended, or a window that opened, since the row was written: count again, for such a row only.
_FREE: Final = "CASE WHEN o.recount_at <= now() THEN (SELECT l.gpus_free FROM offer_live(o.node_id, o.model) AS l) ELSE o.gpus_free END"
_AVAILABLE: Final = "o.listed AND o.fresh_until > now() AND {free} > 0"
_STATUS: Final = """CASE WHEN o.status <> 'available' THEN o.status WHEN o.fresh_until <= now() THEN 'stale' WHEN {free} = 0 THEN 'busy' ELSE 'available' END"""

_PAGE: Final = """
SELECT convert_to('{{"items":[' || coalesce(string_agg(s.item, ','), '') || '],"next_cursor":' ||
    CASE WHEN count(*) = {limit} THEN '"' || max(s.key) || '~' || (array_agg(s.id))[{limit}] || '"' ELSE 'null' END || ',"position":' ||
    (SELECT coalesce(max(position), 0) FROM events WHERE position IS NOT NULL) || '}}', 'UTF8')
FROM ({rows}) s
"""
_ROWS: Final = """
SELECT o.card || ',"gpus_free":' || {free} || ',"status":"' || {status} || '"}}' AS item, ({key})::float8 AS key, o.id
FROM offers o WHERE {where} ORDER BY {key}, o.id LIMIT {limit}"""
# By free GPUs: most rows from the index, and the few that are due to be counted again beside them, counted.
_COUNTED: Final = "(o.recount_at IS NULL OR o.recount_at > now())"
_DUE: Final = "o.recount_at <= now()"
_BOTH: Final = "SELECT * FROM ({}) a UNION ALL SELECT * FROM ({}) b ORDER BY key, id LIMIT {}"


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A search as SQL and its values; equal plans ask the same."""

    sql: str
    values: tuple[Any, ...]


def compile_where(filters: Filters, *, free: str = _FREE) -> tuple[list[str], list[Any]]:
    """The WHERE terms of a search over `offers o`, and the values of their $n."""
    values: list[Any] = []
    terms = [
        {
            Availability.AVAILABLE: _AVAILABLE,
            Availability.UNAVAILABLE: f"o.status <> 'left' AND NOT ({_AVAILABLE})",
            Availability.ANY: "o.status <> 'left'",
        }[filters.availability].format(free=free)
    ]
    for condition in filters.conditions:
        terms.append(_term(condition, values, free))
    for word in filters.words:
        values.append(word)
        terms.append(f"strpos(o.search, ${len(values)}::text) > 0")
    return terms, values


def _term(condition: Condition, values: list[Any], free: str) -> str:
    wanted = list(condition.values)
    if condition.field in ("region", "provider"):
        values.append([str(value) for value in wanted])
        n = len(values)
        term = (
            f"EXISTS (SELECT FROM unnest(${n}::text[]) v WHERE o.region = v OR starts_with(o.region, v || '-'))"
            if condition.field == "region"
            else f"(lower(o.provider) = ANY (${n}::text[]) OR o.provider_id::text = ANY (${n}::text[]))"
        )
        return f"NOT {term}" if condition.op in NEGATIONS else term
    column, kind = _COLUMNS[condition.field]
    column = column.format(free=free)
    if condition.upto:
        values += [wanted, list(condition.upto)]
        spans = f"unnest(${len(values) - 1}::bigint[], ${len(values)}::bigint[]) v(least, most)"
        term = f"EXISTS (SELECT FROM {spans} WHERE {column} BETWEEN v.least AND v.most)"
        return f"NOT {term}" if condition.op in NEGATIONS else term
    if condition.field == "gpu" and condition.op in (Op.EQ, Op.IN) and len(wanted) == 1:
        values.append(wanted[0])  # not a list of one: only an equality lets the index of models give its offers by price
        return f"{column} = ${len(values)}::{kind}"
    if condition.op in (Op.EQ, Op.NE, Op.IN, Op.NOT_IN):
        values.append(wanted)
        term = f"{column} = ANY (${len(values)}::{kind}[])"
        return f"NOT ({term})" if condition.op in NEGATIONS else term
    values.append(wanted[0])
    return f"{column} {condition.op.value} ${len(values)}::{kind}"


def compile_page(filters: Filters) -> Plan:
    """The one statement of a page."""
    terms, values = compile_where(filters)
    if filters.cursor is not None:
        values += [filters.cursor.value, filters.cursor.offer_id]
    key, edge, last = _ORDER[filters.sort], _EDGE[filters.sort], len(values)
    if filters.sort is Sort.AVAILABILITY:
        rows = _BOTH.format(
            _rows(filters, [*terms, _COUNTED], key, edge, last), _rows(filters, [*terms, _DUE], f"-({_FREE})", edge, last), filters.limit
        )
    else:
        rows = _rows(filters, terms, key, edge, last)
    sql = _PAGE.format(rows=rows, limit=filters.limit)
    return Plan(sql, tuple(tuple(value) if isinstance(value, list) else value for value in values))


def _rows(filters: Filters, terms: list[str], key: str, edge: str, last: int) -> str:
    """A page's rows in the order of `key`. Args: last, the number of the last parameter, the cursor's id where there is one."""
    if filters.cursor is not None:
        at = f"${last - 1}::float8"
        # The second says nothing new, but in the index's own type: the scan begins at the cursor, not at the first page.
        terms = [*terms, f"(({key})::float8, o.id) > ({at}, ${last}::uuid)", f"({key}) >= {edge.format(at=at)}"]
    status = "'available'" if filters.availability is Availability.AVAILABLE else f"({_STATUS.format(free=_FREE)})"
    return _ROWS.format(where=" AND ".join(terms), key=key, limit=filters.limit, free=_FREE, status=status)


@lru_cache(maxsize=PLANS_MAX)
def plan_of(query_string: str) -> Plan:
    """The plan of a URL's query string; what is kept is the translation, never an answer.

    Raises: Invalid.
    """
    if len(query_string) > QUERY_STRING_MAX:
        raise Invalid("This search is too long.", next_step=f"Keep it below {QUERY_STRING_MAX} characters.", field="query")
    return compile_page(filtering.parse(dict(parse_qsl(query_string, keep_blank_values=True))))


class _Read:
    """One read that has not started: who waits for it."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()


class OfferSearch:
    """Searches over its own few connections; one per process.

    Args: url, of this process's database role; connections_max, reads at once.
    """

    def __init__(self, url: str, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self._url = url
        self._idle: list[asyncpg.Connection] = []
        self._room = asyncio.Semaphore(connections_max)
        self._waiting: dict[Plan, _Read] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def page(self, query_string: str) -> bytes:
        """A page of offers for a URL's query string: `{"items":[…],"next_cursor":…,"position":…}` as UTF-8.

        Raises: Invalid (QueryError) for a search that cannot be read; Unavailable when the database is away.
        """
        return await self.run(plan_of(query_string))

    async def search_json(self, filters: Filters) -> bytes:
        """The same for filters that were parsed already."""
        return await self.run(compile_page(filters))

    async def run(self, plan: Plan) -> bytes:
        """Read a page. Callers with an equal plan whose read has not started yet share it."""
        read = self._waiting.get(plan)
        if read is None:
            read = self._waiting[plan] = _Read()
            task = asyncio.create_task(self._serve(plan, read), name="offer search")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(read.answer)

    async def close(self) -> None:
        """Finish what runs and close the connections."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._idle:
            await self._idle.pop().close()

    async def _serve(self, plan: Plan, read: _Read) -> None:
        async with self._room:
            # From here on nobody may join: a request that comes later must be answered by a later read.
            del self._waiting[plan]
            try:
                answer = await self._fetch(plan)
            except Exception as error:
                if not read.answer.done():
                    read.answer.set_exception(error)
                    read.answer.exception()
                return
        if not read.answer.done():
            read.answer.set_result(answer)

    async def _fetch(self, plan: Plan) -> bytes:
        values = [list(value) if isinstance(value, tuple) else value for value in plan.values]
        connection: asyncpg.Connection | None = None
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
            answer: bytes = await connection.fetchval(plan.sql, *values)
        except (asyncpg.DataError, UnicodeEncodeError) as error:
            if connection is not None:
                self._idle.append(connection)
            raise Invalid("The search holds characters that no offer has.", next_step="Remove control characters.") from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            for broken in (connection, *self._idle):
                if broken is not None:
                    broken.terminate()
            self._idle.clear()
            raise Unavailable("The marketplace cannot be read for now.", next_step="Try again in a few seconds.") from error
        self._idle.append(connection)
        return answer

    async def _connect(self) -> asyncpg.Connection:
        settings = {
            "application_name": "qubix search",
            "jit": "off",
            "default_transaction_read_only": "on",
            "plan_cache_mode": "force_generic_plan",
        }
        return await asyncpg.connect(self._url, server_settings=settings, command_timeout=TIMEOUT_S, statement_cache_size=PLANS_MAX)

"""Whether every promise was kept, by nobody's word but the database's rows and what the clients were told.

It shares no code with the product: plain SQL as the owner, in one snapshot. What it cannot know from there (whether chain and ledger
agree) the oracle of tests/faults/chain asks the network itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Final

import asyncpg

from tests.faults.chain.oracle import Found, Withdrawal
from tests.faults.chain.oracle import Oracle as ChainOracle
from tests.faults.sweep.record import Record

ENDED: Final = {"COMPLETED", "FAILED", "CANCELLED"}
LIVE: Final = {"CREATED", "ACCEPTED", "RUNNING"}
CLOSED: Final = {"RELEASED", "REFUNDED", "SPLIT"}
HOUR_MS: Final = 3_600_000
QUESTIONS: Final = {
    "audit": "SELECT rule, n, example FROM audit() WHERE n > 0",
    "jobs": "SELECT id::text, owner_id::text, state, fence, ceiling FROM jobs",
    "attempts": """SELECT id::text, job_id::text, number, fence, state, rate, metered_ms, charge, created_at, accepted_at, running_at, ended_at,
        counted, fault, limit_ms FROM attempts ORDER BY number""",
    "escrows": """SELECT id::text, state, funded, paid, refunded, account_id,
        (SELECT min(created_at) FROM transfers WHERE credit_id = account_id AND act = 'fund') AS funded_at FROM escrows""",
    "earnings": "SELECT escrow_id::text, line, gross, state FROM earnings",
    "out": "SELECT debit_id, act, amount FROM transfers WHERE act IN ('pay', 'rest', 'back')",
    "checkpoints": "SELECT attempt_id::text, max(ran_ms) AS ran_ms FROM checkpoints GROUP BY 1",
    "leases": """SELECT l.holder_id::text, a.state FROM device_leases l JOIN attempts a ON a.id = l.holder_id
        WHERE l.purpose = 'job' AND upper(l.during) > clock_timestamp()""",
    "wallets": "SELECT owner_id::text, posted, held FROM accounts WHERE kind = 'wallet' AND asset = 1",
    "deposits": """SELECT a.user_id::text, sum(r.amount)::bigint AS amount FROM chain_rows r JOIN chain_addresses a ON a.identity = r.address
        WHERE r.kind = 'deposit' AND a.user_id IS NOT NULL GROUP BY 1""",
    "holds": "SELECT h.id, h.state, h.amount, h.address, a.owner_id::text FROM holds h JOIN accounts a ON a.id = h.account_id",
    "events": "SELECT position, type, topics, payload->>'job_id' AS job_id FROM events ORDER BY position",
}


class Oracle:
    """Args: database, the owner's URL; devnet, its base URL; record, what was acknowledged; provider, whose machines they are."""

    def __init__(self, database: str, devnet: str, record: Record, provider: str) -> None:
        self._database, self._record, self._provider = database, record, provider
        self._chain = ChainOracle(database, devnet)
        self._wrong: list[str] = []

    def look(self, *, at_rest: bool) -> list[str]:
        """What is wrong now. Args: at_rest, nothing is under way any more, so that everything must have its end."""
        self._wrong = []
        self._acknowledged = list(self._record.jobs)  # before the snapshot: what is acknowledged meanwhile need not be in it
        self._ended = {one.id: one.last["state"] for one in self._acknowledged if one.ended}
        rows = asyncio.run(self._rows())
        self._claim(not rows["audit"], f"the audit: {[dict(row) for row in rows['audit']]}")
        self._jobs(rows, at_rest)
        self._money(rows)
        if at_rest:
            self._rest(rows)
            self._paid_out(rows)
        return self._wrong

    # -- jobs --

    def _jobs(self, rows: dict[str, list[Any]], at_rest: bool) -> None:
        """None is lost, none is there twice, none ran without its money."""
        jobs = {row["id"]: row for row in rows["jobs"]}
        acknowledged = {one.id: one for one in self._acknowledged}
        for missing in acknowledged.keys() - jobs.keys():
            self._claim(False, f"job {missing} was acknowledged and is not there")
        later = {one.id for one in self._record.jobs}
        begun = Counter(row["owner_id"] for row in rows["jobs"] if row["id"] not in later)
        for owner, count in begun.items():
            self._claim(not at_rest and count <= 1, f"{count} jobs of {owner} were never acknowledged")
        attempts = _by(rows["attempts"], "job_id")
        escrows = {row["id"]: row for row in rows["escrows"]}
        for job_id, job in jobs.items():
            self._attempts(job, attempts[job_id], escrows[job_id])
            if job_id in acknowledged:
                self._claim(job["owner_id"] == acknowledged[job_id].owner, f"job {job_id} belongs to another")
                seen = self._ended.get(job_id, job["state"])
                self._claim(job["state"] == seen, f"job {job_id} was {seen} for its owner and is {job['state']}")
            self._claim(
                (job["state"] in ENDED) == (escrows[job_id]["state"] in CLOSED), f"{job_id} {job['state']} {escrows[job_id]['state']}"
            )

    def _attempts(self, job: Any, attempts: list[Any], escrow: Any) -> None:
        name = f"job {job['id']}"
        self._claim([row["number"] for row in attempts] == list(range(1, len(attempts) + 1)), f"{name} has gaps in its attempts")
        fences = [row["fence"] for row in attempts]
        self._claim(fences == sorted(set(fences)), f"{name} has the fences {fences}")
        live = [row for row in attempts if row["state"] in LIVE]
        self._claim(len(live) <= (job["state"] not in ENDED), f"{name} is {job['state']} with {len(live)} live attempts")
        for row in attempts:
            self._claim(
                escrow["funded_at"] is not None and escrow["funded_at"] <= row["created_at"], f"{name} had an attempt before its money"
            )
        states = [row["state"] for row in attempts]
        wanted = ["SUCCEEDED"] if job["state"] == "COMPLETED" else []
        self._claim([state for state in states if state == "SUCCEEDED"] == wanted, f"{name} is {job['state']} with {states}")
        self._claim(not wanted or states[-1] == "SUCCEEDED", f"{name} had an attempt after its success")

    # -- money --

    def _money(self, rows: dict[str, list[Any]]) -> None:
        """Each escrow went once, to whom it belongs, by what was metered."""
        earnings, out = _by(rows["earnings"], "escrow_id"), _by(rows["out"], "debit_id")
        attempts = _by(rows["attempts"], "job_id")
        checkpoints = {row["attempt_id"]: row["ran_ms"] for row in rows["checkpoints"]}
        for escrow in rows["escrows"]:
            left = out[escrow["account_id"]]
            if escrow["state"] not in CLOSED:
                self._claim(not left and not earnings[escrow["id"]], f"escrow {escrow['id']} is {escrow['state']} and paid already")
                continue
            name = f"escrow {escrow['id']}"
            self._claim(sum(row["amount"] for row in left) == escrow["funded"], f"{name} was funded by {escrow['funded']}: {left}")
            self._claim(sum(row["act"] == "rest" for row in left) <= 1, f"{name} was given back twice")
            lines = {row["line"]: row["gross"] for row in earnings[escrow["id"]]}
            charges = {row["id"]: row["charge"] for row in attempts[escrow["id"]] if row["charge"]}
            self._claim(lines == charges, f"{name} paid {lines}, its attempts cost {charges}")
            self._claim(len(lines) == len(earnings[escrow["id"]]), f"{name} paid a line twice")
            self._claim(sum(lines.values()) == escrow["paid"], f"{name} says {escrow['paid']}, not {sum(lines.values())}")
            for row in attempts[escrow["id"]]:
                self._metered(row, checkpoints.get(row["id"], 0))

    def _metered(self, row: Any, saved_ms: int) -> None:
        """Nobody is paid for more than a clock of ours saw; for a lost attempt, for no more than what it saved."""
        if not row["charge"]:
            return
        name = f"attempt {row['id']}"
        self._claim(row["charge"] <= row["rate"] * row["metered_ms"] // HOUR_MS, f"{name} costs {row['charge']} for {row['metered_ms']} ms")
        self._claim(row["running_at"] is not None, f"{name} never ran and costs {row['charge']}")
        if row["running_at"] is not None:
            ran_ms = (row["ended_at"] - row["running_at"]).total_seconds() * 1000 + 1
            self._claim(row["metered_ms"] <= min(ran_ms, row["limit_ms"]), f"{name} ran {ran_ms:.0f} ms, metered {row['metered_ms']}")
        if row["state"] == "LOST" or row["fault"] in ("provider", "platform"):
            self._claim(
                row["charge"] <= row["rate"] * saved_ms // HOUR_MS, f"{name} was lost after saving {saved_ms} ms, costs {row['charge']}"
            )

    # -- when all is at rest --

    def _rest(self, rows: dict[str, list[Any]]) -> None:
        """Everything has its end, and nothing is held any more."""
        states = {row["id"]: row["state"] for row in rows["jobs"]}
        for one in self._record.jobs:
            self._claim(states.get(one.id) in ENDED, f"job {one.id} ({one.kind}) is {states.get(one.id)}")
        self._claim(all(row["state"] == "PAID" for row in rows["earnings"]), "an earning is not paid")
        self._claim(all(row["state"] in LIVE for row in rows["leases"]), f"leases of ended attempts: {rows['leases']}")
        positions = [row["position"] for row in rows["events"]]
        self._claim(None not in positions, "events are not published")
        numbered = [position for position in positions if position is not None]
        self._claim(numbered == list(range(1, len(numbered) + 1)), "the events have gaps")
        ends = Counter(row["job_id"] for row in rows["events"] if row["type"] == "JOB_COMPLETED")
        for one in self._record.jobs:
            self._claim(ends[one.id] == 1, f"the end of job {one.id} was told {ends[one.id]} times")
        charged = {row["id"]: 0 for row in rows["jobs"]}
        for row in rows["attempts"]:
            charged[row["job_id"]] += row["charge"] or 0
        came = {row["user_id"]: row["amount"] for row in rows["deposits"]}
        cost: Counter[str] = Counter()
        for row in rows["jobs"]:
            cost[row["owner_id"]] += charged[row["id"]]
        for row in rows["holds"]:
            cost[row["owner_id"]] += row["amount"] if row["state"] == "CAPTURED" else 0
        for row in rows["wallets"]:
            owner, posted = row["owner_id"], row["posted"]
            if owner in self._record.consumers:
                self._claim(
                    posted == came.get(owner, 0) - cost[owner], f"{owner} has {posted}, had {came.get(owner, 0)}, spent {cost[owner]}"
                )
            elif owner == self._provider:
                self._claim(posted == sum(charged.values()), f"the provider has {posted} of {sum(charged.values())}")

    def _paid_out(self, rows: dict[str, list[Any]]) -> None:
        """Each withdrawal got exactly its amount, once; and the chain has what the ledger says."""
        holds = {row["address"]: row["id"] for row in rows["holds"]}
        lost = [one for one in self._record.withdrawals if one.destination not in holds]
        self._claim(not lost, f"withdrawals were granted and are not there: {lost}")
        granted = [
            Withdrawal(holds[one.destination], one.destination, one.amount) for one in self._record.withdrawals if one.destination in holds
        ]
        try:
            self.found: Found = self._chain.check(granted)
        except AssertionError as error:
            self._claim(False, f"on the chain: {error}")

    def missed(self, told: Iterable[int], topics: list[str]) -> list[int]:
        """Positions of events of these topics, as they are stored, that somebody who listened all the time was not told."""
        rows = asyncio.run(self._rows())
        return sorted({row["position"] for row in rows["events"] if set(topics) & set(row["topics"])} - set(told))

    def _claim(self, holds: bool, else_: str) -> None:
        if not holds:
            self._wrong.append(else_)

    async def _rows(self) -> dict[str, list[Any]]:
        connection = await asyncpg.connect(self._database)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return {name: await connection.fetch(question) for name, question in QUESTIONS.items()}
        finally:
            await connection.close()


def _by(rows: list[Any], column: str) -> defaultdict[Any, list[Any]]:
    found: defaultdict[Any, list[Any]] = defaultdict(list)
    for row in rows:
        found[row[column]].append(row)
    return found

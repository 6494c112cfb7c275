"""The ledger's audit, for operators."""

from __future__ import annotations

from fastapi import APIRouter

from qubix.bootstrap import Scope
from qubix.identity.model import Principal, Role
from serve_app.api.shapes import PROBLEMS, View
from serve_app.calls import DefaultCall

router = APIRouter(prefix="/api/audit", tags=["audit"], responses=PROBLEMS)


class Finding(View):
    """A broken rule, by how many rows, and the first of them."""

    rule: str
    count: int
    example: str


class Audit(View):
    """Empty is health."""

    ok: bool
    problems: list[Finding]


@router.get("")
async def audit(call: DefaultCall) -> Audit:
    """Check every rule of the ledger."""

    async def work(s: Scope, _: Principal) -> Audit:
        problems = [Finding.model_validate(problem) for problem in await s.ledger.audit()]
        return Audit(ok=not problems, problems=problems)

    return await call.role(Role.OPERATOR, work)

"""What one of my Qubic addresses holds, by the chain itself."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from qubix.bootstrap import Scope
from qubix.chains.qubic import identity
from qubix.chains.qubic.explorer import Explorer
from qubix.identity.model import Principal
from qubix.kernel.errors import NotFound
from qubix.ledger.model import WrongNetwork
from serve_app.api.shapes import PROBLEMS, View
from serve_app.calls import DefaultCall
from serve_app.chain import ask_chain

router = APIRouter(prefix="/api/wallet", tags=["wallet"], responses=PROBLEMS)


class ChainBalanceView(View):
    """What an address holds after all ticks up to `valid_for_tick`; we asked `age_s` seconds ago, at most 30."""

    address: str
    network: str
    asset: str
    balance: int
    valid_for_tick: int
    age_s: float
    explorer_url: str


@router.get("/{address}/balance")
async def chain_balance(address: Annotated[str, Path(max_length=200)], call: DefaultCall) -> ChainBalanceView:
    """What my deposit address, or a wallet that logs in to my account, holds on the chain. To all others the address does not exist."""
    resources = call.web.resources

    async def work(s: Scope, caller: Principal) -> None:
        identity.decode(address)
        linked = {wallet.identity for wallet in await s.wallet_logins.wallets(caller.user_id)}
        if address not in linked and not await s.treasury.owns(caller.user_id, address):
            raise NotFound(
                "this is no address of yours", next_step="ask for your deposit address, or for a wallet that logs in to your account"
            )
        if resources.settings.network == "none":
            raise WrongNetwork("this platform runs without a chain", next_step="GET /api/wallets/balance shows my test money")

    await call.user(work)
    found = await ask_chain(resources.qubic.balance(address))
    return ChainBalanceView(
        address=address,
        network=resources.settings.network,
        asset="QUBIC",
        balance=found.amount,
        valid_for_tick=found.valid_for_tick,
        age_s=round(found.age_s, 1),
        explorer_url=Explorer(resources.settings.qubic_explorer_url.rstrip("/")).address(address),
    )

"""Keeps a node's offers: one per GPU model, made when the node joins, priced by its owner."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from qubix.kernel.ids import new_id

if TYPE_CHECKING:
    from qubix.market.store import MarketStore


class Listings:
    """What providers call when a node joins, or says something new of itself.

    Args: store; tflops, the catalogue's figure for a GPU model, 0 for one that it does not know.
    """

    def __init__(self, store: MarketStore, *, tflops: Callable[[str], float]) -> None:
        self._store = store
        self._tflops = tflops

    async def list_node(self, node_id: UUID, price_per_hour: int) -> None:
        """Make the offers that the node lacks and bring all of its offers up to date.

        Args: price_per_hour, of new offers; 0 takes the price that the node's other offers have (none: no new offer).
        An offer that exists keeps its price: the owner set it.
        """
        for model in await self._store.unlisted_models(node_id):
            price = price_per_hour or await self._store.usual_price(node_id)
            if price:
                await self._store.add_offer(new_id(), node_id, model, price, self._tflops(model))
        await self._store.refresh([node_id])

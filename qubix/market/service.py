"""The market: prices, quotes, and what a consumer compares. Pages of the search come from qubix.market.search."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from qubix.kernel.clock import Clock
from qubix.kernel.errors import Invalid, NotFound
from qubix.kernel.ids import NodeId, OfferId, QuoteId, UserId, new_id
from qubix.kernel.money import Qu, written
from qubix.market import matching, ranking
from qubix.market.matching import NoMatch
from qubix.market.model import (
    COMPARE_MAX,
    COMPARE_MIN,
    PRICE_MAX,
    QUOTE_TTL_S,
    Needs,
    NoSuchOffer,
    NothingMatches,
    Offer,
    OfferTaken,
    Quote,
    QuoteGone,
    QuoteState,
    terms,
)
from qubix.market.ranking import By, Duration, Ranked

if TYPE_CHECKING:
    from qubix.market.store import MarketStore

REFRESH_BATCH_MAX = 500
SWEEP_BATCH_MAX = 500


class Leases(Protocol):
    """What the market needs of capacity (qubix.capacity.service.CapacityService)."""

    async def lease_for_quote(
        self, quote_id: UUID, *, node_id: UUID, model: str, gpus: int, ttl_s: float, vram_bytes: int = 0
    ) -> tuple[int, ...] | None: ...
    async def release(self, holder_id: UUID) -> tuple[int, ...]: ...
    async def extend(self, holder_id: UUID, *, ttl_s: float) -> bool: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Offers of one GPU model or provider, with the range of their prices."""

    key: str
    offers: int
    gpus: int
    gpus_free: int
    price_min: Qu
    price_max: Qu
    vram_bytes: int
    members: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Detail:
    """An offer with the latest samples of its devices."""

    offer: Offer
    devices: tuple[dict[str, Any], ...]


def _unknown(_model: str) -> float | None:
    return None


class MarketService:
    """Offers and quotes in one transaction.

    Args: store; clock; leases, capacity; wake(channel, payload), as the offers' own news is written by the database; quote_ttl_s, how long a quote holds its devices.
    """

    def __init__(
        self, store: MarketStore, *, clock: Clock, leases: Leases, wake: Callable[[str, str], None], quote_ttl_s: int = QUOTE_TTL_S
    ) -> None:
        self._store = store
        self._clock = clock
        self._leases = leases
        self._wake = wake
        self._quote_ttl_s = quote_ttl_s

    # -- the owner's side --

    async def set_price(self, user_id: UserId, node_id: UUID, price_per_hour: int, *, model: str | None = None) -> list[Offer]:
        """Change the price per GPU-hour of a node's offers; quotes and jobs that exist keep theirs.

        Raises: Invalid; NotFound for somebody else's node, or a model that it does not have.
        """
        if not 0 < price_per_hour <= PRICE_MAX:
            raise Invalid(
                f"A price is between 1 QU and {written(PRICE_MAX)} per GPU-hour.", next_step="Correct it.", field="price_per_hour"
            )
        if await self._store.set_price(user_id, node_id, price_per_hour, model) == 0:
            raise NotFound("You have no such node, or it has no such GPU.", next_step="List your nodes: qubix provider status.")
        self._wake("outbox", "")
        return await self._store.offers(node_id=node_id)

    # -- looking --

    async def offers_of(self, node_id: UUID) -> list[Offer]:
        """The offers of one node."""
        return await self._store.offers(node_id=node_id)

    async def detail(self, offer_id: UUID) -> Detail:
        """One offer with its devices' latest samples. Raises: NoSuchOffer."""
        offer = await self.offer(offer_id)
        rows = await self._store.samples(offer.node_id, offer.model)
        return Detail(offer, tuple(dict(row._mapping) for row in rows))

    async def offer(self, offer_id: UUID) -> Offer:
        """One offer as it is now. Raises: NoSuchOffer."""
        found = await self._store.offers([offer_id])
        if not found:
            raise NoSuchOffer("There is no such offer.", next_step="Search again: qubix offers.")
        return found[0]

    async def compare(self, ids: Sequence[UUID]) -> list[Offer]:
        """Two or three offers, in the order asked. Raises: Invalid; NoSuchOffer."""
        if not COMPARE_MIN <= len(set(ids)) <= COMPARE_MAX or len(set(ids)) != len(ids):
            raise Invalid(f"Compare {COMPARE_MIN} or {COMPARE_MAX} different offers.", next_step="Choose them from the list.", field="ids")
        found = {offer.id: offer for offer in await self._store.offers(ids)}
        if len(found) != len(ids):
            raise NoSuchOffer("One of these offers does not exist.", next_step="Search again: qubix offers.")
        return [found[OfferId(offer_id)] for offer_id in ids]

    async def models(self) -> list[Group]:
        """GPU models on offer, with counts and price ranges, by name."""
        return group(await self._store.offers(), lambda offer: offer.model, lambda offer: offer.provider)

    async def providers(self) -> list[Group]:
        """Providers with offers; `key` is the provider's name, a slash and its id; `members` are its GPU models."""
        return group(await self._store.offers(), lambda offer: f"{offer.provider}/{offer.provider_id}", lambda offer: offer.model)

    # -- choosing --

    async def ranked(self, needs: Needs, *, duration: Duration = _unknown, by: By = By.COST_BENEFIT) -> list[Ranked]:
        """The offers that fit now, best first."""
        return ranking.rank(needs, matching.matching(needs, await self._store.offers()), duration, by=by)

    async def explain(self, needs: Needs) -> NoMatch | None:
        """Why nothing fits now, with the smallest relaxation; None where something does."""
        return matching.explain(needs, await self._store.offers())

    async def quote(
        self,
        user_id: UserId,
        needs: Needs,
        *,
        duration_max_s: int,
        offer_id: UUID | None = None,
        budget: int | None = None,
        price_max: int | None = None,
        duration: Duration = _unknown,
        by: By = By.COST_BENEFIT,
    ) -> Quote:
        """Hold the best fitting offer, or the one named, for QUOTE_TTL_S: its devices are leased to the quote.

        One open quote per user: an older one ends here, its devices are free again for this one.
        Args: needs.gpus devices on one node; price_max, the most per GPU-hour that a retry elsewhere may cost (also a need);
            budget, the ceiling of the whole job; duration, the expected seconds by GPU model, for the ranking.
        Raises: OfferTaken, with `next_best`, when the named offer cannot be had; NothingMatches, with the funnel and the
            smallest relaxation; Invalid; NoSuchOffer.
        """
        if price_max is not None and needs.price_max is None:
            needs = dataclasses.replace(needs, price_max=price_max)
        terms(1, needs.gpus, duration_max_s, budget=budget)
        await self._store.lock_user(user_id)
        for old in await self._store.expire_open(user_id):
            await self._leases.release(old)
        offers = await self._store.offers()
        ranked = ranking.rank(needs, matching.matching(needs, offers), duration, by=by)
        if offer_id is not None:
            return await self._quote_named(user_id, needs, offer_id, offers, ranked, duration_max_s, budget)
        for choice in ranked:
            quote = await self._hold(user_id, needs, choice.offer, duration_max_s, budget)
            if quote is not None:
                return quote
        raise _nothing(matching.explain(needs, offers) or NoMatch("all_busy", "The matching GPUs were taken a moment ago.", (), None))

    async def use_quote(self, quote_id: UUID, user_id: UserId) -> Quote:
        """Take an open quote for a job; its leases stay until the job's first attempt takes them over.

        Raises: NotFound for somebody else's; QuoteGone when it was used, replaced or ran out.
        """
        row = await self._store.quote(quote_id, user_id, lock=True)
        quote = _quote(row)
        if quote.state is not QuoteState.OPEN:
            raise _gone(quote, in_time=row is not None and row.in_time)
        await self._store.set_quote_state(quote_id, QuoteState.USED.value)
        return quote

    async def keep_quote(self, quote_id: UUID, *, ttl_s: float) -> bool:
        """Let a used quote's devices stay with it until `ttl_s` from now, never shorter than they would. Returns whether it had them still."""
        kept = await self._leases.extend(quote_id, ttl_s=ttl_s)
        if kept:
            await self._store.extend_quote(quote_id, ttl_s)
        return kept

    async def get_quote(self, quote_id: UUID, user_id: UserId | None = None) -> Quote:
        """A quote (of this user). Raises: NotFound."""
        return _quote(await self._store.quote(quote_id, user_id))

    async def drop_quote(self, quote_id: UUID, user_id: UserId) -> None:
        """Give a quote's devices back before its time. A repeat is harmless. Raises: NotFound."""
        quote = _quote(await self._store.quote(quote_id, user_id, lock=True))
        if quote.state is QuoteState.OPEN:
            await self._store.set_quote_state(quote_id, QuoteState.EXPIRED.value)
            await self._leases.release(quote_id)
            self._wake("outbox", "")

    # -- what passes with time --

    async def refresh_due(self) -> int:
        """Tell open pages what time alone changed (leases that ended, nodes that grew stale). Run about once a second."""
        changed = await self._store.refresh_due(REFRESH_BATCH_MAX)
        if changed:
            self._wake("outbox", "")
        return changed

    async def sweep(self) -> int:
        """Mark quotes that ran out. Returns how many."""
        return await self._store.sweep_quotes(SWEEP_BATCH_MAX)

    # -- inside --

    async def _quote_named(
        self,
        user_id: UserId,
        needs: Needs,
        offer_id: UUID,
        offers: Sequence[Offer],
        ranked: Sequence[Ranked],
        duration_max_s: int,
        budget: int | None,
    ) -> Quote:
        wanted = next((offer for offer in offers if offer.id == offer_id), None)
        if wanted is None and not await self._store.offers([offer_id]):
            raise NoSuchOffer("There is no such offer.", next_step="Search again: qubix offers.")
        if wanted is not None and matching.fits(needs, wanted):
            quote = await self._hold(user_id, needs, wanted, duration_max_s, budget)
            if quote is not None:
                return quote
        elif wanted is not None and wanted.rentable and wanted.gpus_free >= needs.gpus:
            raise _nothing(matching.explain(needs, [wanted]) or NoMatch("no_match", "This offer does not fit.", (), None))
        best = next((choice.offer for choice in ranked if choice.offer.id != offer_id), None)
        raise OfferTaken(
            "This offer cannot be had any more.",
            next_step="Take the next best one, or search again." if best else "No other offer fits now; try again in a minute.",
            next_best=None if best is None else offer_json(best),
        )

    async def _hold(self, user_id: UserId, needs: Needs, offer: Offer, duration_max_s: int, budget: int | None) -> Quote | None:
        fixed = terms(offer.price_per_hour, needs.gpus, duration_max_s, budget=budget, price_max=needs.price_max)
        quote_id = new_id()
        devices = await self._leases.lease_for_quote(
            quote_id, node_id=offer.node_id, model=offer.model, gpus=needs.gpus, ttl_s=self._quote_ttl_s, vram_bytes=needs.vram_bytes
        )
        if devices is None:
            return None
        expires_at = await self._store.add_quote(
            quote_id,
            user_id,
            offer,
            devices,
            rate=fixed.rate_max,
            ceiling=fixed.ceiling,
            duration_s=duration_max_s,
            ttl_s=self._quote_ttl_s,
        )
        self._wake("outbox", "")
        return Quote(
            id=QuoteId(quote_id),
            user_id=user_id,
            offer_id=offer.id,
            node_id=offer.node_id,
            model=offer.model,
            gpus=needs.gpus,
            device_ids=tuple(devices),
            price_per_hour=offer.price_per_hour,
            rate_max=fixed.rate_max,
            ceiling=fixed.ceiling,
            duration_max_s=duration_max_s,
            expires_at=expires_at,
            state=QuoteState.OPEN,
        )


def offer_json(offer: Offer) -> dict[str, Any]:
    """An offer as the API shows it: the members of a search's item."""
    shown = dataclasses.asdict(offer)
    return {**shown, "id": str(offer.id), "node_id": str(offer.node_id), "provider_id": str(offer.provider_id), "asset": "QUBIC"}


def group(offers: Iterable[Offer], key: Callable[[Offer], str], member: Callable[[Offer], str]) -> list[Group]:
    """Offers by `key`, each group with its counts, price range and distinct members, ordered by key."""
    grouped: dict[str, list[Offer]] = {}
    for offer in offers:
        grouped.setdefault(key(offer), []).append(offer)
    return [
        Group(
            key=name,
            offers=len(group_offers),
            gpus=sum(offer.gpus for offer in group_offers),
            gpus_free=sum(offer.gpus_free for offer in group_offers if offer.rentable),
            price_min=min(offer.price_per_hour for offer in group_offers),
            price_max=max(offer.price_per_hour for offer in group_offers),
            vram_bytes=max(offer.vram_bytes for offer in group_offers),
            members=tuple(sorted({member(offer) for offer in group_offers})),
        )
        for name, group_offers in sorted(grouped.items())
    ]


def _nothing(why: NoMatch) -> NothingMatches:
    body = why.as_json()
    hint = "Try again in a minute." if why.relaxation is None else why.relaxation.message
    return NothingMatches(why.message, next_step=hint, reason=why.code, funnel=body["funnel"], relaxation=body["relaxation"])


def _gone(quote: Quote, *, in_time: bool) -> QuoteGone:
    """Why a quote cannot be used any more. Args: in_time, before its time is over."""
    offer = str(quote.offer_id)
    if quote.state is QuoteState.USED:
        return QuoteGone(
            "A job was made of this quote already.", next_step="Look for it among your jobs; another one needs a new quote.", offer_id=offer
        )
    if in_time:
        return QuoteGone(
            "An account holds one quote at a time, and this account asked for another one meanwhile (another `qubix run`, another tab), "
            "or gave this one back. Nothing was made, and nothing was taken.",
            next_step="Run it again once the other job is made, or use one account for each.",
            offer_id=offer,
        )
    return QuoteGone("This quote has run out: its devices are free for others again.", next_step="Ask for a new one.", offer_id=offer)


def _quote(row: Any) -> Quote:
    if row is None:
        raise NotFound("You have no such quote.", next_step="Ask for a new one.")
    return Quote(
        id=QuoteId(row.id),
        user_id=UserId(row.user_id),
        offer_id=OfferId(row.offer_id),
        node_id=NodeId(row.node_id),
        model=row.model,
        gpus=row.gpus,
        device_ids=tuple(row.device_ids),
        price_per_hour=Qu(row.price_per_hour),
        rate_max=Qu(row.rate_max),
        ceiling=Qu(row.ceiling),
        duration_max_s=row.duration_max_s,
        expires_at=row.expires_at,
        state=QuoteState(row.state),
    )

"""Whether payments that a restored backup does not know have paid: the Payer's own verdict (rules S3 to S5), pure.

That verdict needs the wallet's counters from before the payment, and nobody here saw this one being signed. They follow from the last payment
that the books know the end of, and from what was sent since: only where all of it adds up to what the wallet shows now is any of it proved. An
archive's word alone proves nothing, neither that money moved nor that it did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from qubix.chains.qubic import identity, qutil
from qubix.chains.qubic.answers import QuTransfer
from qubix.chains.qubic.errors import InvalidTransaction
from qubix.chains.qubic.transaction import Transaction
from qubix.treasury.sending import Counters, Dead, Observed, Pending, Rules, Settled, Signed, Unknown, gave_back, net_of_refund, verdict

NEVER_SENT: Final = Counters(0, 0)


@dataclass(frozen=True, slots=True)
class Link:
    """A lost payment among those of its address. Args: raised, whether it is taken to have raised its counters; paid, None: not proved."""

    tx_id: str
    source: str
    destination: str
    amount: int
    tick: int
    input_type: int
    payload: bytes
    raised: bool
    paid: bool | None


@dataclass(frozen=True, slots=True)
class Chain:
    """What one of our addresses has sent since its last payment that the books know the end of.

    Args: base, its counters after that one; base_tick, that one's tick; undecided, a payment here that has not ended (""); links, by tick.
    """

    base: Counters
    base_tick: int
    undecided: str
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """Whether a lost payment has paid. Args: paid, None: not proved; raised, whether it raised the wallet's counters."""

    tx_id: str
    paid: bool | None
    raised: bool
    reason: str


def signed(chain: Chain, link: Link) -> Signed:
    """A lost payment as if the books knew it: with the wallet's counters from before it."""
    before = _sum(chain.base, [one for one in _counted(chain) if _place(one) < _place(link)])
    return Signed(link.tx_id, link.source, link.destination, link.amount, link.tick, before, link.input_type, link.payload, _payments(link))


def judged(chain: Chain, link: Link, seen: Observed, rules: Rules | None = None) -> Judged:
    """What became of a lost payment, by all that was seen of it."""
    one = signed(chain, link)
    flown = any(sighting.found and sighting.found.money_flew for sighting in seen.sightings)
    raised = flown or bool(gave_back(one, seen, rules))
    if link.tick <= chain.base_tick:
        return Judged(link.tx_id, None, raised, "its address has sent since what the books know: its counters prove nothing any more")
    if chain.undecided:
        return Judged(link.tx_id, None, raised, f"payment {chain.undecided} of its address is not decided: qubix treasury decide")
    later = _sum(NEVER_SENT, [other for other in _counted(chain) if _place(other) > _place(link)])
    then = tuple(replace(out, counters=_less(out.counters, later)) for out in seen.outgoing)
    match verdict(one, net_of_refund(one, replace(seen, outgoing=then), rules), rules):
        case Settled(proof=proof):
            # Two payments of one amount, of which the archive mistakes each for the other, leave the counters right.
            if not one.payments and not _is_logged(one, seen):
                return Judged(link.tx_id, None, raised, "no event log shows that its money moved")
            return Judged(link.tx_id, True, True, proof)
        case Dead(cause=cause, proof=proof):
            return Judged(link.tx_id, False, raised, f"{cause}: {proof}")
        case Unknown(reason=reason) | Pending(reason=reason):
            return Judged(link.tx_id, None, raised, reason)


def _counted(chain: Chain) -> list[Link]:
    return [link for link in chain.links if link.raised and link.tick > chain.base_tick]


def _place(link: Link) -> tuple[int, str]:
    return link.tick, link.tx_id


def _sum(first: Counters, links: Sequence[Link]) -> Counters:
    return Counters(first.transfers + len(links), first.amount + sum(link.amount for link in links))


def _less(counters: Counters, later: Counters) -> Counters:
    return Counters(counters.transfers - later.transfers, counters.amount - later.amount)


def _is_logged(one: Signed, seen: Observed) -> bool:
    return any(QuTransfer(one.source, one.destination, one.amount) in moved.transfers for moved in seen.moved)


def _payments(link: Link) -> tuple[tuple[str, int], ...]:
    transaction = Transaction(
        identity.decode(link.source), identity.decode(link.destination), link.amount, link.tick, link.input_type, link.payload
    )
    try:
        return tuple((identity.encode(one.destination), one.amount) for one in qutil.parse_send_many(transaction).payments)
    except InvalidTransaction:
        return ()

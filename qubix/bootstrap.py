"""The composition root: what a process holds (Resources), and what one transaction sees (Scope).

`async with scope(resources) as s:` is the only place that commits. Services are made when first asked for, over the
scope's one connection; wakes are sent after the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
from collections.abc import AsyncIterator
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import qubix
from qubix.capacity.service import CapacityService
from qubix.capacity.store import CapacityStore
from qubix.chains.qubic.pace import RpcLimits
from qubix.chains.qubic.rpc import QubicRpc, Wire
from qubix.escrow.service import EscrowService
from qubix.escrow.store import EscrowStore
from qubix.estimates.service import EstimatesService
from qubix.identity.passwords import Passwords
from qubix.identity.service import IdentityService
from qubix.identity.store import IdentityStore
from qubix.identity.wallet_store import WalletStore
from qubix.identity.wallets import WalletLogins
from qubix.intake.service import IntakeService
from qubix.intake.store import IntakeStore
from qubix.jobs.blobs import Blob, BlobStore
from qubix.jobs.catalogue import Catalogue, load
from qubix.jobs.funding import FundingService
from qubix.jobs.funding_store import FundingStore
from qubix.jobs.service import JobService
from qubix.jobs.service import Limits as JobLimits
from qubix.jobs.store import JobStore
from qubix.kernel.clock import Clock, SystemClock
from qubix.kernel.errors import Invalid
from qubix.kernel.failpoints import reach
from qubix.ledger.service import LedgerService
from qubix.ledger.store import LedgerStore
from qubix.market.listings import Listings
from qubix.market.search import OfferSearch
from qubix.market.service import MarketService
from qubix.market.store import MarketStore
from qubix.postgres import leader
from qubix.postgres.engine import POOL_SIZE, Listener, Wakes, dispose, make_engine, read_url_file
from qubix.postgres.outbox import Outbox
from qubix.providers.service import ProvidersService
from qubix.providers.store import ProvidersStore
from qubix.scheduling.beats import BeatsService
from qubix.scheduling.conclude import EndService
from qubix.scheduling.frames import FramesService
from qubix.scheduling.model import Rules
from qubix.scheduling.placing import Pace, PlacingService
from qubix.scheduling.sessions import SessionsService
from qubix.scheduling.store import BeatStore, EndStore, FrameStore, PlacementStore
from qubix.settings import Settings
from qubix.treasury.arrivals_store import ArrivalsStore
from qubix.treasury.reading import ChainReader
from qubix.treasury.service import TreasuryService
from qubix.treasury.store import TreasuryStore

RAY_VERSION: Final = version("ray")


@dataclasses.dataclass(frozen=True)
class Resources:
    """What lives as long as the process. Entry points pass in what only they can make (a Ray hub, a fabric)."""

    settings: Settings
    engine: AsyncEngine
    wakes: Wakes
    clock: Clock = dataclasses.field(default_factory=SystemClock)
    hub: Any = None

    @cached_property
    def blobs(self) -> BlobStore:
        """Bytes by their hash, below the data folder."""
        return BlobStore(self.settings.data_dir / "blobs")

    @cached_property
    def catalogue(self) -> Catalogue:
        """The jobs of the installed library."""
        found = importlib.util.find_spec("jobs_library")
        if found is None or not found.submodule_search_locations:
            raise Invalid("the job library is not installed", next_step="install Qubix with its jobs_library folder")
        return load(Path(found.submodule_search_locations[0]))

    @cached_property
    def rules(self) -> Rules:
        """The scheduler's deadlines."""
        given = self.settings
        return Rules(
            lease_ttl_s=given.lease_ttl_s,
            start_deadline_s=given.start_deadline_s,
            cancel_deadline_s=given.cancel_deadline_s,
            declines_max=given.declines_max,
            node_silence_s=given.metrics_stale_s,
            full_refund_on_failure=given.full_refund_on_failure,
        )

    @cached_property
    def pace(self) -> Pace:
        """How often placement looks through the whole market."""
        return Pace()

    @cached_property
    def passwords(self) -> Passwords:
        """The password hasher."""
        return Passwords()

    @cached_property
    def qubic(self) -> QubicRpc:
        """The Qubic network, by the configured endpoints."""
        limits = RpcLimits(requests_per_s=self.settings.qubic_requests_per_s)
        return QubicRpc(Wire(self.settings.qubic_rpc_urls, clock=self.clock, limits=limits))

    @cached_property
    def search(self) -> OfferSearch:
        """The marketplace's search, over connections of its own."""
        return OfferSearch(self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False))

    def listen(self, channel: str, *, idle_s: float = 1.0) -> Listener:
        """Hear the wakes of `channel` ("jobs", "nodes", "outbox", "events")."""
        return Listener(self.engine, channel, idle_s=idle_s)

    async def close(self) -> None:
        """Send what is queued and close the pool; bounded, also where the database does not answer."""
        await self.wakes.flush()
        if "search" in self.__dict__:
            await self.search.close()
        if "qubic" in self.__dict__:
            await self.qubic.close()
        await dispose(self.engine)


def open_resources(
    settings: Settings, *, url: str | None = None, clock: Clock | None = None, hub: Any = None, pool_size: int = POOL_SIZE
) -> Resources:
    """Resources for this process's database role.

    Args: url overrides the URL file (tests). Raises: Invalid without a usable URL file.
    """
    if url is None:
        if settings.database_url_file is None:
            raise Invalid(
                "no database is configured", next_step="set QUBIX_DATABASE_URL_FILE to a file of mode 0600, or start with `qubix up`"
            )
        url = read_url_file(settings.database_url_file)
    engine = make_engine(url, pool_size=pool_size)
    return Resources(settings=settings, engine=engine, wakes=Wakes(engine), clock=clock or SystemClock(), hub=hub)


class Scope:
    """One transaction and the services over it."""

    def __init__(self, resources: Resources, connection: AsyncConnection) -> None:
        self.resources = resources
        self.connection = connection
        self.clock = resources.clock
        self.outbox = Outbox(connection)
        self.wakes: set[tuple[str, str]] = set()

    def wake(self, channel: str, payload: str = "") -> None:
        """After the commit, wake whoever listens on `channel`."""
        self.wakes.add((channel, payload))

    @cached_property
    def _settings(self) -> Settings:
        return self.resources.settings

    @cached_property
    def ledger(self) -> LedgerService:
        return LedgerService(LedgerStore(self.connection), tell=self.outbox.add)

    @cached_property
    def treasury(self) -> TreasuryService:
        """Chain money as the web role may move it."""
        return TreasuryService(
            TreasuryStore(self.connection),
            ChainReader(self.connection),
            self.ledger,
            clock=self.clock,
            tell=self.outbox.add,
            wake=self.wake,
        )

    @cached_property
    def escrow(self) -> EscrowService:
        return EscrowService(
            EscrowStore(self.connection),
            self.ledger,
            tell=self.outbox.add,
            fee_bps=self._settings.fee_bps,
            window_s=self._settings.dispute_window_s,
            decision_s=self._settings.dispute_decision_s,
        )

    @cached_property
    def identity(self) -> IdentityService:
        return IdentityService(
            IdentityStore(self.connection), clock=self.clock, passwords=self.resources.passwords, open_wallets=self.ledger.open_wallets
        )

    @cached_property
    def wallet_logins(self) -> WalletLogins:
        return WalletLogins(WalletStore(self.connection), self.identity, public_url=self._settings.public_url)

    @cached_property
    def capacity(self) -> CapacityService:
        return CapacityService(CapacityStore(self.connection))

    @cached_property
    def estimates(self) -> EstimatesService:
        return EstimatesService(fee_bps=self._settings.fee_bps)

    @cached_property
    def providers(self) -> ProvidersService:
        return ProvidersService(
            ProvidersStore(self.connection),
            clock=self.clock,
            outbox=self.outbox,
            wake=self.wake,
            listings=Listings(MarketStore(self.connection), tflops=EstimatesService.tflops),
            qubix_version=qubix.__version__,
            qubix_before=qubix.RELEASE_BEFORE,
            ray_version=RAY_VERSION,
        )

    @cached_property
    def market(self) -> MarketService:
        return MarketService(
            MarketStore(self.connection), clock=self.clock, leases=self.capacity, wake=self.wake, quote_ttl_s=self._settings.quote_lease_s
        )

    @cached_property
    def intake(self) -> IntakeService:
        return IntakeService(
            IntakeStore(self.connection),
            keep_blob=self.keep_blob,
            size_max_bytes=self._settings.upload_size_max_bytes,
            quota_bytes=self._settings.upload_quota_bytes,
        )

    @cached_property
    def jobs(self) -> JobService:
        given = self._settings
        return JobService(
            JobStore(self.connection),
            clock=self.clock,
            catalogue=self.resources.catalogue,
            market=self.market,
            escrow=self.escrow,
            funding=self.funding,
            uploads=self.intake,
            keep_blob=self.keep_blob,
            tell=self.outbox.add,
            wake=self.wake,
            limits=JobLimits(attempts_max=given.attempts_max, wait_s=given.wait_for_match_s, duration_max_s=given.duration_max_s),
        )

    @cached_property
    def funding(self) -> FundingService:
        return FundingService(
            FundingStore(self.connection),
            JobStore(self.connection),
            ArrivalsStore(self.connection),
            treasury=self.treasury,
            wallets=self.ledger,
            quotes=self.market,
            escrow=self.escrow,
            tell=self.outbox.add,
            wake=self.wake,
            now=self.clock.now,
            quote_s=self._settings.chain_quote_s,
        )

    @cached_property
    def blob_rows(self) -> JobStore:
        """Which bytes are stored and referred to."""
        return JobStore(self.connection)

    async def keep_blob(self, blob: Blob) -> None:
        """Note bytes that were just put, under their row's lock. Raises: Unavailable when they were collected meanwhile."""
        await self.blob_rows.keep_blob(blob)
        self.resources.blobs.confirm(blob.sha256)

    async def drop_blob(self, blob: Blob) -> None:
        """Remove bytes that were put and could not be recorded, unless a row knows them."""
        async with self.connection.begin_nested() as claim:
            if await self.blob_rows.claim_blob(blob):
                await asyncio.to_thread(self.resources.blobs.remove, blob.sha256)
            await claim.rollback()

    @cached_property
    def placing(self) -> PlacingService:
        return PlacingService(
            PlacementStore(self.connection),
            capacity=self.capacity,
            tell=self.outbox.add,
            wake=self.wake,
            rules=self.resources.rules,
            pace=self.resources.pace,
            monotonic=self.clock.monotonic,
        )

    @cached_property
    def ends(self) -> EndService:
        return EndService(
            EndStore(self.connection),
            capacity=self.capacity,
            escrow=self.escrow,
            tell=self.outbox.add,
            wake=self.wake,
            rules=self.resources.rules,
        )

    @cached_property
    def sessions(self) -> SessionsService:
        return SessionsService(
            FrameStore(self.connection),
            providers=self.providers,
            wake=self.wake,
            lease_ttl_s=self.resources.rules.lease_ttl_s,
        )

    @cached_property
    def beats(self) -> BeatsService:
        return BeatsService(
            BeatStore(self.connection),
            desired=FrameStore(self.connection).desired,
            providers=self.providers,
            capacity=self.capacity,
            clock=self.clock,
            tell=self.outbox.add,
            wake=self.wake,
        )

    @cached_property
    def frames(self) -> FramesService:
        return FramesService(
            FrameStore(self.connection),
            sessions=self.sessions,
            beats=self.beats,
            capacity=self.capacity,
            keep_blob=self.keep_blob,
            clock=self.clock,
            tell=self.outbox.add,
            wake=self.wake,
            rules=self.resources.rules,
        )


@contextlib.asynccontextmanager
async def scope(resources: Resources, *, leads: tuple[str, int] | None = None) -> AsyncIterator[Scope]:
    """One transaction: committed at a clean exit, rolled back by an exception.

    Args: leads, (name, epoch) of a leader whose transactions hold only while it leads.
    Raises: NotLeader when `leads` is given and somebody else leads.
    """
    async with resources.engine.connect() as connection:
        async with connection.begin():
            if leads is not None:
                await leader.hold(connection, *leads)
            s = Scope(resources, connection)
            yield s
            if await s.outbox.write():
                s.wake("outbox")
            reach("scope.written")
        reach("scope.committed")
        resources.wakes.send(s.wakes)


@contextlib.asynccontextmanager
async def recording(resources: Resources, blob: Blob) -> AsyncIterator[None]:
    """Around the transaction that records bytes just put: when it fails they are removed again, as far as that is possible now.

    What stays behind (the database is away, the process dies) is found by the controller's collection.
    """
    try:
        yield
    except Exception:
        with contextlib.suppress(Exception):
            async with scope(resources) as s:
                await s.drop_blob(blob)
        raise


async def database_time_ms(connection: AsyncConnection) -> int:
    """The database's clock, in Unix milliseconds."""
    return int(await connection.scalar(sa.text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")) or 0)

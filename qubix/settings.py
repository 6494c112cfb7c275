"""Configuration: one frozen tree, read from the environment (prefix QUBIX_) in entry points only, validated at start.

Secrets are never values here: a setting names a file of mode 0600 that holds one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from qubix.kernel.places import default_data_dir


class Settings(BaseSettings):
    """Everything that a deployment may choose; defaults fit a laptop."""

    model_config = SettingsConfigDict(env_prefix="QUBIX_", frozen=True, extra="ignore", use_attribute_docstrings=True)

    database_url_file: Path | None = None
    """File with the URL of this process's database role."""
    data_dir: Path = Field(default_factory=default_data_dir)
    """Blobs, logs, the embedded server."""
    network: Literal["none", "devnet", "mainnet"] = "none"
    """Stored at the database's birth; must agree with it at every start."""
    qubic_rpc_urls: tuple[str, ...] = ("https://rpc.qubic.org",)
    """Endpoints of Qubic's RPC, as a JSON list; with two or more, every verdict on a payment needs two of them."""
    qubic_requests_per_s: float = Field(5.0, gt=0)
    """Requests that one process sends to all endpoints together; the public ones publish no limit."""
    qubic_explorer_url: str = Field("https://explorer.qubic.org/network", pattern=r"^https?://[^\s/]+")
    """Where links to transactions lead; the devnet's own pages are under `/network` of its URL."""
    devnet_tick_s: float = Field(1.0, gt=0)
    """Seconds from tick to tick of the devnet that `qubix up` starts."""
    signer_key_file: Path | None = None
    """File of mode 0600 with the key under which the signer's seeds are encrypted; only the signer reads it."""
    sweep_min: int = Field(1, gt=0)
    """The least that is moved from a deposit address to the paying one."""
    public_url: str = "http://127.0.0.1:8080"
    """Where clients reach the web layer; cookies are Secure when it is https."""
    cors_origins: tuple[str, ...] = ()
    """Other origins whose pages may call the API from a browser, as a JSON list."""
    forwarded_hops: int = Field(0, ge=0, le=10)
    """Proxies in front of us that append to X-Forwarded-For; 0: the peer is the client."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    metrics_host: str = "127.0.0.1"
    """Where each process answers Prometheus, on a port of its own; empty: nowhere. Who can connect there reads money totals."""
    metrics_port: int = Field(0, ge=0, le=65_535)
    """That port; 0: a free one, named in `prometheus/targets/` of the data folder. Fix one only in the environment of a single process."""
    prometheus_url: str = ""
    """Where Ray's dashboard reaches your Prometheus."""
    grafana_url: str = ""
    """Your Grafana, whose panels Ray's dashboard then shows; empty: it shows none."""
    ray_address: str = ""
    """`host:port` of the Ray cluster's head, which readiness asks; empty: no Ray."""
    live_hub: Literal["local", "ray"] = "local"
    """Where metrics and log lines meet: in the process, or in an actor of the web layer's cluster (several replicas)."""

    dispute_window_s: int = Field(600, ge=0, le=90 * 86_400)
    """How long earnings stay pending after a job, and how long it can be disputed."""
    dispute_decision_s: int = Field(14 * 86_400, gt=0)
    """How long an arbiter has; then a disputed escrow settles as metered."""
    fee_bps: int = Field(0, ge=0, le=10_000)
    """The platform's part of an earning, in basis points."""
    full_refund_on_failure: bool = False
    """Whether a job that ended FAILED costs nothing, instead of its metered part."""

    quote_lease_s: int = Field(60, gt=0, le=600)
    """How long a quote holds its GPUs."""
    chain_quote_s: int = Field(180, gt=0, le=600)
    """How long a quote holds its GPUs for a payment on the chain; once, five minutes more from when it is seen."""
    wait_for_match_s: int = Field(600, ge=0)
    """How long a job waits for a node that fits, unless it says otherwise."""
    attempts_max: int = Field(3, ge=1, le=20)
    """Tries of a job that lost its node, the first included."""
    declines_max: int = Field(5, ge=1, le=50)
    """Times that nodes may refuse a job before it fails."""
    lease_ttl_s: float = Field(20.0, gt=0)
    """Silence of a node after which its running attempts are lost."""
    start_deadline_s: float = Field(10.0, gt=0)
    """How long a node has to accept an attempt."""
    cancel_deadline_s: float = Field(10.0, gt=0)
    """How long a node has to report the end of a cancelled attempt."""
    sweep_interval_s: float = Field(1.0, gt=0)
    """The controller's longest pause between two looks at what is due."""
    metrics_stale_s: float = Field(60.0, gt=0)
    """Silence of a node after which it gets no new attempts."""
    duration_max_s: int = Field(7 * 86_400, gt=0)
    """The longest paid run that a job may ask for."""

    upload_size_max_bytes: int = Field(500 * 1000 * 1000, gt=0)
    """One uploaded file."""
    upload_quota_bytes: int = Field(5 * 1000 * 1000 * 1000, gt=0)
    """All uploads of one account."""
    artefact_size_max_bytes: int = Field(2 * 1000 * 1000 * 1000, gt=0)
    """One artefact or checkpoint of a job."""
    rate_limits: bool = True
    """Whether the limits below apply."""
    login_per_minute: int = Field(10, gt=0)
    """Sign-ups, logins and joins, per address."""
    money_per_minute: int = Field(60, gt=0)
    """Requests that move money, per account."""
    upload_per_minute: int = Field(30, gt=0)
    """Uploads, per account."""
    search_per_minute: int = Field(600, gt=0)
    """Searches of the market, per account or address."""
    default_per_minute: int = Field(1200, gt=0)
    """Everything else, per account."""

    @property
    def https(self) -> bool:
        """Whether clients reach us by https."""
        return self.public_url.startswith("https:")

"""Configuration: one frozen tree, read from the environment (prefix QUBIX_) in entry points only, validated at start.

Secrets are never values here: a setting names a file of mode 0600 that holds one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything that a deployment may choose; defaults fit a laptop."""

    model_config = SettingsConfigDict(env_prefix="QUBIX_", frozen=True, extra="ignore")

    database_url_file: Path | None = None
    """File with the URL of this process's database role."""
    data_dir: Path = Path(".qubix")
    """Blobs, logs, the embedded server."""
    network: Literal["none", "devnet", "mainnet"] = "none"
    """Stored at the database's birth; must agree with it at every start."""
    public_url: str = "http://127.0.0.1:8080"
    """Where clients reach the web layer; cookies are Secure when it is https."""
    cors_origins: tuple[str, ...] = ()
    forwarded_hops: int = Field(0, ge=0, le=10)
    """Proxies in front of us that append to X-Forwarded-For; 0: the peer is the client."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    ray_address: str = ""
    ray_dashboard_url: str = ""
    live_hub: Literal["local", "ray"] = "local"
    """Where metrics and log lines meet: in the process, or in an actor of the web layer's cluster (several replicas)."""

    dispute_window_s: int = Field(600, ge=0, le=90 * 86_400)
    dispute_decision_s: int = Field(14 * 86_400, gt=0)
    fee_bps: int = Field(0, ge=0, le=10_000)
    full_refund_on_failure: bool = False

    quote_lease_s: int = Field(60, gt=0, le=600)
    wait_for_match_s: int = Field(600, ge=0)
    attempts_max: int = Field(3, ge=1, le=20)
    declines_max: int = Field(5, ge=1, le=50)
    lease_ttl_s: float = Field(20.0, gt=0)
    start_deadline_s: float = Field(10.0, gt=0)
    cancel_deadline_s: float = Field(10.0, gt=0)
    sweep_interval_s: float = Field(1.0, gt=0)
    metrics_stale_s: float = Field(60.0, gt=0)
    node_offline_s: float = Field(90.0, gt=0)
    duration_max_s: int = Field(7 * 86_400, gt=0)
    faucet_amount_max: int = Field(1_000_000_000_000, gt=0)

    upload_size_max_bytes: int = Field(500 * 1000 * 1000, gt=0)
    upload_quota_bytes: int = Field(5 * 1000 * 1000 * 1000, gt=0)
    artefact_size_max_bytes: int = Field(2 * 1000 * 1000 * 1000, gt=0)
    rate_limits: bool = True
    login_per_minute: int = Field(10, gt=0)
    money_per_minute: int = Field(60, gt=0)
    upload_per_minute: int = Field(30, gt=0)
    search_per_minute: int = Field(600, gt=0)
    default_per_minute: int = Field(1200, gt=0)

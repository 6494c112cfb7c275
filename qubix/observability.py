"""Structured logs: one JSON object a line, with request and job ids, never a secret."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

_SECRET_NAME: Final = re.compile(r"(password|secret|token|authorization|cookie|api_key|seed|private)", re.IGNORECASE)
_SECRET_VALUE: Final = re.compile(r"(q[ksj]_[A-Za-z0-9_\-]{8,}|Bearer\s+\S+|postgres(?:ql)?(?:\+\w+)?://[^@\s]+@)")
REDACTED: Final = "[redacted]"


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank members whose name says secret, and anything that looks like a key, a bearer token or a database URL."""
    for name, value in event.items():
        if _SECRET_NAME.search(name) and name != "event":
            event[name] = REDACTED
        elif isinstance(value, str):
            event[name] = _SECRET_VALUE.sub(REDACTED, value)
    return event


def configure(*, level: str = "info", json: bool = True) -> None:
    """Set up structlog for this process; call once, in an entry point."""
    renderer: Any = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger that names its part of the program."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger(part=name)
    return bound

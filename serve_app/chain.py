"""Asking the Qubic network within a request: for a bounded time, outside of any transaction, and with a clear answer when it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from qubix.chains.qubic.errors import RpcUnavailable

ANSWER_S: Final = 8.0
"""How long the network may take; then it is away."""
RETRY_S: Final = 10

T = TypeVar("T")


async def ask_chain(question: Awaitable[T]) -> T:
    """The network's answer. Raises: RpcUnavailable, with when to try again."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await question
    except (RpcUnavailable, TimeoutError) as error:
        wait_s = error.extra.get("retry_after_s", RETRY_S) if isinstance(error, RpcUnavailable) else RETRY_S
        raise RpcUnavailable(
            "the Qubic network does not answer now; no money is touched by that",
            next_step=f"try again in {wait_s:.0f} s",
            retry_after_s=wait_s,
        ) from error

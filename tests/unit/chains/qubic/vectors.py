"""The test vectors of vectors.json.

They were made on 2026-11-22 by three independent implementations that agree on them (qubipy 0.4.1, @qubic-lib/qubic-ts-library 0.1.6,
@qubic.ts/core 1.9.0; which one could not check what stands under `oracles`). The seeds are public: never fund them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ALL: dict[str, Any] = json.loads((Path(__file__).parent / "vectors.json").read_text())
KEYS: list[dict[str, Any]] = ALL["vectors"]
TRANSACTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [(key, found) for key in KEYS for found in key["transactions"]]
REFUSED: list[dict[str, Any]] = ALL["negative"]
BAD_IDENTITIES: list[str] = ALL["bad_identities"]
CONTRACTS: dict[int, str] = {int(index): found for index, found in ALL["constants"]["contract_identities"].items()}

SUBSEED, PUBLIC_KEY = bytes.fromhex(KEYS[0]["subseed"]), bytes.fromhex(KEYS[0]["public_key"])
DIGEST, SIGNATURE = (bytes.fromhex(KEYS[0]["digest_sign"][name]) for name in ("digest", "signature"))

"""`python -m serve_app.openapi` writes the contract, serve_app/openapi.json, which is committed and tested fresh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from serve_app.app import create_app

PATH: Final = Path(__file__).parent / "openapi.json"


def document() -> str:
    """The contract of the application as it is now."""
    return json.dumps(create_app(None).openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(document())

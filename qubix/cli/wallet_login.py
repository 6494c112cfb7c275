"""`qubix login --wallet IDENTITY`: a text to sign in the wallet, and what the wallet made of it.

At a terminal in one go. Elsewhere in two: without a signature the challenge is printed, with --nonce and --signature it is answered.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import typer

from qubix.chains.qubic.login import Scheme
from qubix.cli.client import Client
from qubix.cli.output import Output, WrongUsage, bare
from qubix.kernel.errors import Invalid

LINES_MAX: Final = 100
_MEMBERS: Final = ((Scheme.EXTENSION, "signatureHex"), (Scheme.WALLETCONNECT, "signedData"))
"""What only that scheme's answer has."""


def by_wallet(
    out: Output, client: Client, wallet: str, *, scheme: Scheme | None, nonce: str | None, signed: str | None, yes: bool
) -> dict[str, Any] | None:
    """Log in with a wallet.

    Args: nonce and signed, of the second of two steps; scheme, None: as the wallet's answer tells, else manual.
    Returns: what the platform answered to the login; None when there is only a challenge so far, which is printed.
    Raises: WrongUsage for half of a second step; Invalid for an answer of another wallet, or about another text; ApiError.
    """
    if (nonce is None) is not (signed is None):
        raise WrongUsage("--nonce and --signature belong together", next_step="qubix login --wallet IDENTITY prints a text and its nonce")
    if nonce is not None and signed is not None:
        return _connect(client, nonce, *read_signed(signed, wallet=wallet, scheme=scheme))
    asked = client.post("/api/wallet/challenge", {"identity": wallet})
    if out.as_json or yes or not sys.stdin.isatty():
        if not out.as_json:
            typer.echo(bare(asked["text"]))
        answer = f"qubix login --url {client.url} --wallet {asked['identity']} --nonce {asked['nonce']} --signature …"
        out.finish({"challenge": asked}, then=(answer,))
        return None
    out.note('Sign exactly the text between the lines with "Sign message" of your wallet, within five minutes:')
    out.note("-" * 40)
    typer.echo(bare(asked["text"]))  # never wrapped: what is copied must be what is signed
    out.note("-" * 40)
    given = _paste()
    return _connect(client, asked["nonce"], *read_signed(given, wallet=wallet, scheme=scheme, text=asked["text"]))


def read_signed(given: str, *, wallet: str, scheme: Scheme | None, text: str | None = None) -> tuple[Scheme, str]:
    """The scheme and the signature in what a wallet gave: the signature alone, or the wallet's JSON.

    Args: scheme, where it was named; text, what was to be signed, where it is known.
    Raises: Invalid for JSON without a signature, of another wallet, or about another text.
    """
    given = given.strip()
    if not given.startswith("{"):
        return scheme or Scheme.MANUAL, given
    try:
        found = json.loads(given)
    except ValueError:
        raise Invalid("this is not the wallet's whole answer", next_step="copy it again, from the first brace to the last") from None
    told = next((name for name, member in _MEMBERS if member in found), Scheme.MANUAL)
    signature = found.get("signatureHex" if told is Scheme.EXTENSION else "signature")
    if not isinstance(signature, str):
        raise Invalid("the wallet's answer has no signature", next_step='sign the text with "Sign message" and copy the whole answer')
    if found.get("identity", wallet) != wallet:
        raise Invalid(
            f"this was signed by another wallet: {found['identity']}", next_step=f"choose {wallet} in the wallet, or log in as it"
        )
    if text is not None and found.get("message", text) != text:
        raise Invalid("the wallet signed another text", next_step="copy the text again, without a blank line at its end, and sign that")
    return scheme or told, signature.strip()


def _connect(client: Client, nonce: str, scheme: Scheme, signature: str) -> dict[str, Any]:
    found: dict[str, Any] = client.post("/api/wallet/connect", {"nonce": nonce, "scheme": scheme.value, "signature": signature})
    return found


def _paste() -> str:
    """A line, or as many as the wallet's JSON has."""
    given = str(typer.prompt("The signature, or the wallet's whole answer", err=True))
    for _ in range(LINES_MAX):
        if not given.lstrip().startswith("{") or _is_json(given):
            break
        line = sys.stdin.readline()
        if not line:
            break
        given += "\n" + line.rstrip("\n")
    return given


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True

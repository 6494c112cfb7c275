"""The payment that a job waits for, in tables and sentences. Text from elsewhere comes out bare."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Mapping
from typing import Any

from qubix.cli.output import Output, amount, table
from qubix.cli.quantities import spoken


def payment_table(payment: Mapping[str, Any]) -> Any:
    """What to pay and where, or what was paid."""
    state = payment["state"]
    rows = [("pay" if state == "waiting" else "asked for", amount(payment["amount"])), ("to", payment["address"])]
    if state == "waiting":
        rows += [("memo, where the wallet takes one", payment["memo"]), ("the memo as bytes", payment["payload_hex"])]
        rows.append(("until", f"{left(payment)}; five minutes from when it is first seen"))
    rows += [("received", amount(payment["received"]))]
    if state == "waiting":
        rows += [("missing", amount(payment["missing"]))]
    rows += [("confirmations", counted(payment))]
    rows += [("transaction", item["explorer_url"]) for item in payment["payments"]]
    return table("Payment", ("what", ""), rows)


def counted(payment: Mapping[str, Any]) -> str:
    """`1/3, about 12 s more`."""
    count = f"{payment['confirmations']}/{payment['confirmations_needed']}"
    wait = payment["expected_wait_s"]
    if payment["delayed"]:
        return f"{count}, delayed: the network or a proof takes longer than usual; nothing is lost"
    if wait is None or payment["state"] != "waiting":
        return count
    return f"{count}, about {spoken(wait)} more" if payment["tx_ids"] else f"{count}, about {spoken(wait)} after it is sent"


def news_of(payment: Mapping[str, Any]) -> str:
    """What has come for a waiting job, in a sentence; nothing yet: that it waits."""
    missing = f"{amount(payment['missing'])} missing"
    if not payment["tx_ids"]:
        return f"waiting for the payment, {missing}: {counted(payment)}"
    came = amount(payment["received"]) + " received"
    return f"payment {counted(payment)}" + (f": {came}, {missing}" if payment["missing"] else "")


def left(payment: Mapping[str, Any]) -> str:
    """How long the request still lives."""
    if payment["expires_at"] is None:
        return "-"
    seconds = (dt.datetime.fromisoformat(payment["expires_at"]) - dt.datetime.now(dt.UTC)).total_seconds()
    return f"{spoken(max(0, int(seconds)))} from now"


def ask_for(out: Output, payment: Mapping[str, Any]) -> None:
    """Show what to pay; with --json as one line on stderr, since stdout is for the document at the end."""
    if out.as_json:
        sys.stderr.write(json.dumps({"payment": payment}) + "\n")
        sys.stderr.flush()
        return
    out.show(payment_table(payment))

"""One JSON line per benchmark case, the same for every program here."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence


def report(
    benchmark: str,
    case: str,
    value: float,
    unit: str,
    *,
    against: str,
    against_value: float,
    reach: float | None = None,
    aim: float | None = None,
    ratio: float | None = None,
    extra_ok: bool = True,
    must: bool = True,
    **extra: object,
) -> dict[str, object]:
    """Print one case. Both sides must have been measured in this run.

    Args: value and against_value, in `unit`; ratio, higher is better, value ÷ against_value where not given; reach and aim,
        ratios (None: the case only prints); extra_ok, False when a side condition of the aim failed (it is then a reach at
        most); must, False when a condition of the reach itself failed (missed, whatever the ratio); extra, further members.
    """
    found = ratio if ratio is not None else (value / against_value if against_value else 0.0)
    met = None
    if not must:
        met = "missed"
    elif aim is not None and found >= aim and extra_ok:
        met = "aim"
    elif reach is not None:
        met = "reach" if found >= reach else "missed"
    line: dict[str, object] = {
        "benchmark": benchmark,
        "case": case,
        "value": round(value, 3),
        "unit": unit,
        "against": against,
        "against_value": round(against_value, 3),
        "ratio": round(found, 3),
        "reach": reach,
        "aim": aim,
        "met": met,
        "peak_rss_mb": peak_rss_mb(),
        **extra,
    }
    print(json.dumps(line), flush=True)
    return line


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed, 0 where there is none."""
    return sorted(values)[max(0, -(-int(len(values) * share * 1000) // 1000) - 1)] if values else 0.0


def peak_rss_mb() -> float:
    """The largest resident size of this process and of its waited-for children, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(peak * unit / 2**20, 1)

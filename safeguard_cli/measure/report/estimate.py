"""What a report says about shares: an audit's estimate at its head, and of every output its slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safeguard_cli.audit.estimate import Estimate, OfPolicy, Share, Slice
from safeguard_cli.audit.shares import Counted
from safeguard_cli.audit.shown import AS_READ, MOST_SLICES, notes

_ENDS = (0.01, 0.02, 0.05, *(tenth / 10 for tenth in range(1, 11)))  # of a chart's axis


def drawn_text(found: Estimate) -> str:
    """Return a sentence on which rows of the file an audit has labelled."""
    if found.kind == "all rows":
        return f"all {found.total:,} rows of the file"
    return f"{found.rows:,} of the file's {found.total:,} rows, drawn at random (seed {found.seed})"


def lead(found: Estimate | Counted) -> dict[str, Any] | None:
    """Return what stands at the head of an audit's report; None for another output."""
    if isinstance(found, Counted):
        return None
    return {"drawn": drawn_text(found), "finished": found.finished, "notes": [*notes(found)]}


def of_policy(policy: OfPolicy, found: Estimate | Counted) -> dict[str, Any]:
    """Return what the page shows of a policy's shares: in all, by label and by slice."""
    sampled = isinstance(found, Estimate) and found.kind != "all rows"
    return {
        "sampled": sampled,
        "bounds": "95 % interval" if sampled else "bounds" if policy.in_error else "",
        "in_error": policy.in_error,
        "rows": found.rows,
        "violates": policy.violates,
        "labels": policy.labels,
        "slices": {field: _shown(field, parts) for field, parts in policy.slices.items()},
        "left_out": {field: max(0, len(parts) - MOST_SLICES) for field, parts in policy.slices.items()},
        "axis": _axis([policy.violates, *(part.violates for parts in policy.slices.values() for part in parts)]),
        "note": AS_READ if isinstance(found, Estimate) else found.which,
    }


def _shown(field: str, parts: Sequence[Slice]) -> Sequence[Slice]:
    """Return the slices that are shown: those with the most rows, dates in their order."""
    most = parts[:MOST_SLICES]
    return sorted(most, key=lambda part: part.value) if ":" in field else most


def _axis(shares: Sequence[Share | None]) -> float:
    """Return where the axis of a policy's charts ends, one for all of them: they are there to be compared."""
    highest = max((share.high for share in shares if share), default=1.0)
    return next((end for end in _ENDS if highest <= end), 1.0)


def bounds_text(share: Share) -> str:
    """Return a share's bounds in per cent, a dash if there is no room between them."""
    digits = 1 if share.high >= 0.02 or not share.high else 2
    return "–" if share.low == share.high else f"{100 * share.low:.{digits}f} to {100 * share.high:.{digits}f} %"


def rows_text(share: Share) -> str:
    """Return how many rows of the file a share may be."""
    low, high = share.rows or (share.count, share.count)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"

"""What a run must say of its own results: reasoning that the budget cut, labels of the demo model that mean nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from safeguard_cli.model import kept
from safeguard_cli.model.gguf import Header
from safeguard_cli.model.names import DEFAULT, DEMO_NOTICE
from safeguard_cli.policy.policy import Policy, builtin_policies, load_policy
from safeguard_cli.run.progress import Counts
from safeguard_cli.terminal import note

MANY = 0.05  # of the labelled rows, from which on rows that were cut are no exception
FEW = 3
STAMP = "demo-notice"  # in the cache folder; its time is that of the last notice
DAY = 86_400.0
_TRAINED = "safeguard.policy."  # in the metadata of the demo model, see demo/export.py


def cut_advice(counts: Counts, budget: int, effort: str) -> str:
    """Say what helps where the budget cut more than a few rows; empty where it did not."""
    labelled = counts.rows - counts.rows_in_error - counts.blank
    if counts.cut <= FEW or counts.cut <= MANY * labelled:
        return ""
    less = "--effort low reasons less" if effort in ("medium", "high") else "--effort none decides without reasoning"
    return (
        f"{counts.cut:,} of {labelled:,} rows were decided in the middle of their reasoning, at {budget:,} tokens:"
        f" {less}, and --max-reasoning {4 * budget} gives it room"
    )


def trained_on(header: Header) -> dict[str, str]:
    """Return the policies that a model says it was trained on alone, by name with their hashes; real ones name none."""
    found = ((key.removeprefix(_TRAINED), value) for key, value in header.metadata.items() if key.startswith(_TRAINED))
    return {name: str(value) for name, value in found}


def untrained(policies: Sequence[Policy], header: Header) -> tuple[str, ...]:
    """Return the names of the policies under which the model's labels mean nothing: all that it was not trained on,
    word for word and with their own labels, where it was trained on a few alone."""
    trained = trained_on(header)
    shipped = [load_policy(name) for name in trained if name in builtin_policies()]
    violates = {policy.sha256: set(policy.violates) for policy in shipped}
    hashes = set(trained.values())
    return tuple(
        policy.name
        for policy in policies
        if trained
        and (policy.sha256 not in hashes or set(policy.violates) != violates.get(policy.sha256, set(policy.violates)))
    )


def untrained_warning(names: Sequence[str], header: Header) -> str:
    """Say the same before the work begins, and what to do."""
    return (
        f"the labels under {' and '.join(names)} mean nothing: this is the demonstration model, trained on the shipped"
        f" policies {', '.join(trained_on(header))} alone, as they are; for real use: safeguard pull {DEFAULT}"
    )


def introduce_demo() -> None:
    """Print what the demo model is, once a day."""
    folder = kept.private_folder(make=True)
    with suppress(OSError):
        if folder and 0 <= time.time() - (folder / STAMP).stat().st_mtime < DAY:
            return
    note(DEMO_NOTICE)
    with suppress(OSError):  # where nothing can be kept it is said again
        if folder:
            (folder / STAMP).touch(kept.MODE)

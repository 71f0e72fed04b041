"""What a run must report: reasoning that the budget cut, demo-model labels that mean nothing, how to resume it."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from safeguard_cli.address import shown_command
from safeguard_cli.model import kept
from safeguard_cli.model.gguf import Header
from safeguard_cli.model.names import DEFAULT, DEMO_NOTICE
from safeguard_cli.policy.policy import Policy, builtin_policies, load_policy
from safeguard_cli.run.progress import Counts
from safeguard_cli.terminal import note, shell_line

MANY = 0.05  # share of the labelled rows above which cut rows are no longer exceptions
FEW = 3
STAMP = "demo-notice"  # in the cache folder; its modification time is that of the last notice
DAY = 86_400.0
_TRAINED = "safeguard.policy."  # in the metadata of the demo model, see demo/export.py


def cut_advice(counts: Counts, budget: int, effort: str) -> str:
    """Return advice if the budget cut the reasoning of more than a few rows, else an empty string."""
    labelled = counts.rows - counts.rows_in_error - counts.blank
    if counts.cut <= FEW or counts.cut <= MANY * labelled:
        return ""
    less = "--effort low reasons less" if effort in ("medium", "high") else "--effort none decides without reasoning"
    return (
        f"{counts.cut:,} of {labelled:,} rows were decided before their reasoning had ended, at {budget:,} tokens:"
        f" {less}, and --max-reasoning {4 * budget} gives it room"
    )


def trained_on(header: Header) -> dict[str, str]:
    """Return the names and hashes of the only policies that a model was trained on; real models name none."""
    found = ((key.removeprefix(_TRAINED), value) for key, value in header.metadata.items() if key.startswith(_TRAINED))
    return {name: str(value) for name, value in found}


def untrained(policies: Sequence[Policy], header: Header) -> tuple[str, ...]:
    """Return the names of the policies under which the model's labels mean nothing.

    If a model was trained on a few policies only, these are all others: a policy counts as trained on only with the
    same text and the same violating labels.
    """
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
    """Return a warning, for before the work begins, that the labels under these policies mean nothing."""
    return (
        f"the labels under {' and '.join(names)} mean nothing: this is the demonstration model, trained on the shipped"
        f" policies {', '.join(trained_on(header))} only, unchanged; for real use: safeguard pull {DEFAULT}"
    )


def introduce_demo() -> None:
    """Print what the demo model is, once a day."""
    folder = kept.private_folder(make=True)
    with suppress(OSError):
        if folder and 0 <= time.time() - (folder / STAMP).stat().st_mtime < DAY:
            return
    note(DEMO_NOTICE)
    with suppress(OSError):  # if the stamp cannot be kept, the notice is printed again
        if folder:
            (folder / STAMP).touch(kept.MODE)


def same_command() -> str:
    """Return the command that resumes this run: as it was called, without --overwrite."""
    program, *arguments = sys.argv
    found = shutil.which(Path(program).name)
    name = [Path(program).name if found and Path(found).resolve() == Path(program).resolve() else program]
    if Path(program).name == "__main__.py":
        name = [sys.executable, "-m", "safeguard_cli"]
    shown = shown_command(arguments)
    command = shell_line([*name, *(argument for argument in shown if argument != "--overwrite")])
    return command if shown == arguments else f"{command} (with what is secret in its URLs put back)"

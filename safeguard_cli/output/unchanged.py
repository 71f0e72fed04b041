"""Check that an input is still what a run has read: hours pass in which others may write to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice

from safeguard_cli.errors import SafeguardError
from safeguard_cli.output.resume import InputHash
from safeguard_cli.rows.source import Source

_LEFT = "restore it and run the same command to resume, or start over with --overwrite"


def check_unchanged(
    name: str,
    before: os.stat_result,
    now: Callable[[], os.stat_result],
    reopen: Callable[[], Source],
    rows: int,
    digest: str,
) -> str:
    """Check an input against `digest`, the hash over the first `rows` rows that were read of it.

    Read them again only if the file is another one by now, or its size or times have changed. Return what to tell the
    user about further rows, empty if there are none. Raise SafeguardError if the rows have changed.
    """
    try:
        after = now()
    except OSError as problem:
        raise SafeguardError(
            f"{name} was moved or deleted while it was read ({problem.strerror}); {_LEFT}"
        ) from problem
    if marks(before) == marks(after):
        return ""
    found, count = InputHash(), 0
    try:
        with reopen() as source:
            records = iter(source)
            for record in islice(records, rows):
                found.add(record)
                count += 1
            more = next(records, None) is not None
    except SafeguardError as problem:
        raise SafeguardError(f"{name} was changed while it was read: {problem}; {_LEFT}") from problem
    if count < rows:
        raise SafeguardError(
            f"{name} has become shorter while it was read: it has {count:,} of the {rows:,} rows labelled; {_LEFT}"
        )
    if found.value() != digest:
        raise SafeguardError(
            f"{name} was changed while it was read: its first {rows:,} rows are not those that were labelled; {_LEFT}"
        )
    added = after.st_size - before.st_size
    return (f"{added:,} bytes more" if added > 0 else "more rows") if more else ""


def marks(state: os.stat_result) -> tuple[int, ...]:
    """Return what of a file's state changes when its content does."""
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns

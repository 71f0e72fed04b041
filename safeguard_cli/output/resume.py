"""The checks before a run is resumed: the output is of the same run, and the input has the rows that were read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

from safeguard_cli.output.manifest import START_OVER, Manifest, Refused, changes
from safeguard_cli.output.written import Written
from safeguard_cli.rows.records import Record
from safeguard_cli.rows.verdict import Verdict


def check_same(old: Manifest, new: Manifest, output: Path) -> list[str]:
    """Raise Refused if anything differs that can change a label; return what else differs, for warnings."""
    if different := changes(old.identity.record, new.identity.record):
        raise Refused(f"{output} was labelled differently; -o names another output, {START_OVER}:", *different)
    different = changes(old.machine.record, new.machine.record)
    if different and old.identity.deterministic:
        raise Refused(f"{output} is a --deterministic run on another machine setup, {START_OVER}:", *different)
    return different


class InputHash:
    """A running hash over the bytes of the rows that were read."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, record: Record) -> None:
        self._hash.update(b"%d\n" % len(record.raw))
        self._hash.update(record.raw)

    def value(self) -> str:
        """Return the hash over all rows so far."""
        return self._hash.hexdigest()

    def copy(self) -> InputHash:
        other = InputHash()
        other._hash = self._hash.copy()
        return other


def check_input(
    records: Iterator[Record],
    again: Iterator[Record],
    written: Iterator[Written],
    rows: int,
    manifest: Manifest,
    beginning: Callable[[Record], bytes],
    count: Callable[[Mapping[str, Verdict]], None],
) -> InputHash:
    """Take the first `rows` rows, those that are done, out of `records`; raise Refused if they are not what they were.

    The manifest's hash checks as many rows as it knew of. The output's own row checks each one, by how it must begin;
    `written` is empty if not every row comes out. `again` are the same records. `count` is called with each row's
    Verdicts.
    """
    digest = InputHash()
    known, ahead = manifest.progress.rows, InputHash()
    if known > rows:  # the hash also covers rows that the output has lost at its end
        for record in _first(again, known):
            ahead.add(record)
    for number, record in enumerate(_first(records, rows), 1):
        digest.add(record)
        row = next(written, None)
        if row and not row.raw.startswith(beginning(record)):
            raise Refused(f"row {number:,} of the input is not the one that was labelled before; {START_OVER}")
        if row:
            count(_blank(row.verdicts) if record.blank else row.verdicts)
        if number == known:
            ahead = digest.copy()
    if known and ahead.value() != manifest.progress.input_sha256:
        raise Refused(f"the first {known:,} rows of the input are not those that were labelled before; {START_OVER}")
    return digest


def _blank(verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """Return the Verdicts of a blank row, marked as blank: an output does not tell its errors from others."""
    return {
        name: replace(verdict, error=replace(verdict.error, blank=True)) if verdict.error else verdict
        for name, verdict in verdicts.items()
    }


def _first(records: Iterator[Record], count: int) -> Iterator[Record]:
    taken = 0
    for record in islice(records, count):
        yield record
        taken += 1
    if taken < count:
        raise Refused(f"the input has only {taken:,} rows where it had {count:,} before; {START_OVER}")


def truncate(path: Path, offset: int) -> None:
    """Cut off what follows `offset`, and sync the cut to disk before anything is appended."""
    with path.open("r+b") as file:
        file.truncate(offset)
        os.fsync(file.fileno())

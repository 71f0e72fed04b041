"""The record of a set of files that one command labels: each file with its output, its state and its counts.

It stands beside the outputs and tells a person how far the set is. The manifest of each output stays what its run is
resumed from. The record only spares finished files from being read again: those that have the size and times of
change that they had when they were labelled.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli import files
from safeguard_cli.errors import SafeguardError
from safeguard_cli.model.checks import (
    Misshapen,
    by_name,
    each,
    filled,
    flag,
    integer,
    maybe,
    one_of,
    sha256,
    table,
    text,
)
from safeguard_cli.output.manifest import MOST_BYTES, Foreign, locked_beside, now, run_path
from safeguard_cli.output.manifest_shape import Member, Part
from safeguard_cli.terminal import json_bytes

VERSION = 1
STATES = ("waiting", "begun", "finished", "failed")

_count = integer()
_marks = maybe(each(integer(most=(1 << 63) - 1), 1))


class FileOnRecord(Part):
    """A file of a set. `read` and `wrote` are the marks of the input as it was labelled, and of its finished output.

    `asked` is a hash of all that decided its labels, `error` the sentence of a file that failed.
    """

    input = Member[str](filled)
    output = Member[str](filled)
    state = Member[str](one_of(*STATES))
    exit_code = Member[int | None](maybe(integer(most=255)), default=None)
    rows = Member[int](_count, default=0)
    rows_in_error = Member[int](_count, default=0)
    blank = Member[int](_count, default=0)
    labels = Member[dict[str, dict[str, int]]](by_name(by_name(_count)), default={})
    violating = Member[dict[str, int]](by_name(_count), default={})
    text_fields = Member[tuple[str, ...]](each(text), tuple, default=())
    error = Member[str](text, default="")
    asked = Member[str](sha256, default="")
    read = Member[list[int] | None](_marks, default=None)
    wrote = Member[list[int] | None](_marks, default=None)


_shape = table({"version": one_of(VERSION), "set": flag, "files": each(FileOnRecord.check)})


class SetRecord:
    """The record at `path`, which is written when it changes; `files` are by output."""

    def __init__(self, path: Path, found: Iterable[FileOnRecord] = (), started: str = "") -> None:
        self.path, self.started = path, started or now()
        self.files = {file.output: file for file in found}

    def put(self, **members: Any) -> None:
        """Put a file on record, in the place of what was there about its output."""
        self.files[members["output"]] = FileOnRecord(members)

    def save(self, command: Sequence[str]) -> None:
        """Write the record atomically."""
        states = [file.state for file in self.files.values()]
        record = {
            "version": VERSION,
            "set": True,
            "started": self.started,
            "saved": now(),
            "command": command,
            "states": {state: states.count(state) for state in STATES},
            "rows": sum(file.rows for file in self.files.values()),
            "rows_in_error": sum(file.rows_in_error for file in self.files.values()),
            "files": [file.record for file in self.files.values()],
        }
        try:
            files.write(self.path, json_bytes(record, indent=True) + b"\n")
        except OSError as error:
            raise SafeguardError(f"{self.path}: cannot be written: {error.strerror}") from None


@contextmanager
def open_record(path: Path) -> Iterator[SetRecord]:
    """Open the record at `path`, or begin one, and hold it against other runs.

    Raise Foreign if the file there is not ours. A damaged record counts as none: files are then read again.
    """
    with locked_beside(path, run_path(path)):
        files.sweep(path)
        yield load_record(path)


def load_record(path: Path) -> SetRecord:
    """Return the record at `path`, an empty one if there is none or it is damaged; raise Foreign if it is not ours."""
    try:
        found = orjson.loads(files.read_small(path, MOST_BYTES))
    except FileNotFoundError:
        if path.is_symlink():
            raise Foreign(path) from None
        return SetRecord(path)
    except OSError as error:
        raise Foreign(path, error.strerror or str(error)) from None
    except ValueError:
        raise Foreign(path) from None
    if not isinstance(found, dict) or found.get("set") is not True:
        raise Foreign(path)
    try:
        _shape(found, "")
    except Misshapen:
        return SetRecord(path)
    return SetRecord(path, map(FileOnRecord, found["files"]), str(found.get("started", "")))


def marks(state: os.stat_result | None) -> list[int] | None:
    """Return what tells whether a file has been changed since: which file it is, its size, and its times of change."""
    if state is None:
        return None
    return [state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def same_file(path: Path, before: Sequence[int] | None) -> bool:
    """Return whether a file is there and has the marks that it had."""
    try:
        return before is not None and marks(path.stat()) == list(before)
    except OSError:
        return False


def tallies(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a run's counts those that the record has."""
    return {name: counts[name] for name in ("rows", "rows_in_error", "blank", "labels", "violating") if name in counts}

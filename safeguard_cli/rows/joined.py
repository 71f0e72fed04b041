"""Several files read as one input, one after the other; each row tells its file in a field `_file`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.rows.records import Record
from safeguard_cli.rows.source import Source
from safeguard_cli.rows.verdict import RowError

FILE = "_file"
Named = tuple[str, str, int]  # a file's path, what `_file` says of it, and how many rows it has


@dataclass(frozen=True, slots=True)
class Filed(Record):
    """A record with the field `_file`; `empty` tells whether it was blank without."""

    empty: bool = False

    @property
    def blank(self) -> bool:
        return self.empty


class Joined(Source):
    """Files as one Source, `path` being that of their list.

    Its format is CSV if all are CSV with the same columns, else JSON lines, with the rows of a CSV as objects. Raise
    UsageError if a file cannot be opened, or has a field `_file` already.
    """

    def __init__(self, files: Sequence[Named], path: Path, opened: Callable[[str], Source], limit: int) -> None:
        self.name, self.path = f"the {len(files):,} files", path
        self.total_bytes = self.state = None
        self._files, self._open, self._limit = files, opened, limit
        self._ahead: deque[Record] = deque()
        self._sample: list[Record] = []
        self._ahead_rows = self._ahead_bytes = 0
        self._taken = False
        self._instead, self.sample_columns = None, ()
        self.marked, self.remark = False, ""
        self._now: Source | None = None  # the file that is being read
        first = self._look_at_all()
        self.line_ending, self.delimiter = first.line_ending, first.delimiter
        self.header = (FILE, *first.header) if self.format == "csv" else ()
        self.names = (FILE, *first.names) if self.format == "csv" else ()
        self._rows = self._records()

    def _look_at_all(self) -> Source:
        """Open each file for its format and columns, and return the first one."""
        heads: list[Source] = []
        for path, name, _ in self._files:
            with self._open(path) as source:
                fields = source.names or (source.first() or Record(0, 0, b"", {})).fields or ()
                if FILE in fields:
                    raise UsageError(
                        f"{name}: it has a field {FILE!r} already: label it into a folder (-o DIR/), or by itself"
                    )
                heads.append(source)
        self.tables = {head.names for head in heads if head.format == "csv"}  # their columns
        same = len(self.tables) == 1 and all(head.format == "csv" for head in heads)
        self.format = "csv" if same else "jsonl"
        return heads[0]

    def __iter__(self) -> Iterator[Record]:
        return self._all()

    def close(self) -> None:
        """Close the file that is being read."""
        if self._now:
            self._now.close()

    def counts(self) -> Iterator[int]:
        """Yield how many rows there are, as counted before."""
        yield sum(rows for *_, rows in self._files)

    def _records(self) -> Iterator[Record]:
        index = 0
        for path, name, rows in self._files:
            with self._open(path) as source:
                self._now = source
                here = 0
                for record in source:
                    yield replace(self._filed(record, name, source), index=index)
                    index, here = index + 1, here + 1
            if here != rows:
                raise SafeguardError(
                    f"{name} was changed while it was read: it has {here:,} rows where it had {rows:,}"
                )

    def _filed(self, record: Record, name: str, source: Source) -> Filed:
        """Return a record that tells its file."""
        error = record.error and RowError(record.error.code, f"{name}, {record.error.message}", record.error.blank)
        if record.fields is None:
            return Filed(record.index, record.line, record.raw, None, error, record.cells)
        fields: dict[str, Any] = {**record.fields, FILE: name}
        if self.format == "csv":
            cells = (name, *record.cells)  # first: what is too much in a row belongs to its last cell
            return Filed(record.index, record.line, record.raw, fields, error, cells, empty=record.blank)
        if source.format == "csv":
            own: dict[str, Any] = {**dict.fromkeys(source.names, ""), **record.fields}
            if any(surplus := record.cells[len(source.names) :]):
                own["_extra"] = surplus
            raw, fields = orjson.dumps(own), {**own, FILE: name}
        else:
            raw = record.raw
        head = raw.rstrip()[:-1].rstrip()
        raw = head + b"," * (not head.endswith(b"{")) + orjson.dumps(FILE) + b":" + orjson.dumps(name) + b"}"
        return Filed(record.index, record.line, raw, fields, error, (), empty=record.blank)

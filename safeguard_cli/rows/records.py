"""A row of an input in any format: a Record, with the error that it has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from safeguard_cli.rows.formats import Format
from safeguard_cli.rows.verdict import ErrorCode, RowError

Shard = tuple[int, int]  # (k, n): the k-th of every n rows, k from 1

MAX_ROW_BYTES = 64 << 20
SAMPLE = "_sample"  # the field with a Record's `sample`; in a CSV, columns that begin with it


@dataclass(frozen=True, slots=True)
class Record:
    """One input row.

    `raw` is UTF-8, without line end and byte order mark; of a row over the limit it holds only the first part.
    `fields` is None if the row could not be read. A row can have both fields and an error: a CSV row with too many
    cells, or with invalid bytes, shown as U+FFFD. `cells` are a CSV row's cells as read; JSONL has none. `sample` is
    how a row of a sample came into it: it is written beside the row's own fields, whatever these are.
    """

    index: int
    line: int
    raw: bytes
    fields: Mapping[str, Any] | None
    error: RowError | None = None
    cells: tuple[str, ...] = ()
    sample: Mapping[str, Any] | None = None

    @property
    def blank(self) -> bool:
        """Whether the row was read and every value is empty, white space or null."""
        return self.error is None and self.fields is not None and all(map(is_blank, self.fields.values()))


class Rows(Protocol):
    """The rows of one format, to be iterated once for their Records, or counted with as little parsing as possible.

    `format` says whether a row is an object or cells under a header. `header` and `names` are those of a table:
    `header` has its columns as written, `names` has them made unique, as the keys of `fields`.
    """

    format: Format
    header: tuple[str, ...]
    names: tuple[str, ...]
    delimiter: str
    line_ending: str

    @property
    def failure(self) -> str:
        """Why reading has failed, empty if it has not."""

    @property
    def reached(self) -> int:
        """The last line that was read."""

    def __iter__(self) -> Iterator[Record]: ...

    def unparsed(self) -> Iterator[object]:
        """Yield something for each row, as cheaply as it can be found; this uses up the rows."""


def json_text(value: Any) -> str:
    """Return a value of a row as JSON; integers beyond 64 bits keep all their digits.

    Raise ValueError if the value is nested too deep to be written.
    """
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:  # long integers, or nested deeper than orjson writes
        with suppress(RecursionError):
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
        raise ValueError("nested too deep") from None


def in_shard(rows: int, shard: Shard) -> int:
    """Return how many of `rows` rows belong to the shard."""
    return len(range(shard[0] - 1, rows, shard[1]))


def is_blank(value: Any) -> bool:
    """Return whether a value holds nothing: null or white space."""
    return value is None or (isinstance(value, str) and not value.strip())


def row_error(code: ErrorCode, line: int, message: str) -> RowError:
    """Return the error of the row that begins on a line."""
    return RowError(code, f"line {line}: {message}")


def too_big(line: int, limit: int) -> RowError:
    """Return the error of a row of more than `limit` bytes."""
    return row_error("row_too_big", line, f"more than {limit} bytes (--max-row-bytes)")


def bad_encoding(raw: bytes | bytearray, line: int) -> RowError | None:
    """Return the error of a row with bytes that are not UTF-8; None if all of them are."""
    try:
        raw.decode()
    except UnicodeDecodeError as problem:
        return row_error(
            "bad_encoding", line, f"a byte at column {problem.start + 1} is not valid in the input's encoding"
        )
    return None

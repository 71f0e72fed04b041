"""What a row of an input is, whatever its format: a Record, with what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from safeguard_cli.rows.verdict import ErrorCode, RowError

Shard = tuple[int, int]  # (k, n): of every n rows the k-th, k from 1

MAX_ROW_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One input row.

    `raw` is UTF-8, without line end and byte order mark, and holds only a first part of a row over the limit. `fields`
    is None when the row could not be read; a row can also have both fields and an error (a CSV row with too many
    cells, or with invalid bytes, shown as U+FFFD). `cells` are a CSV row's cells as read; JSONL has none.
    """

    index: int
    line: int
    raw: bytes
    fields: Mapping[str, Any] | None
    error: RowError | None = None
    cells: tuple[str, ...] = ()

    @property
    def blank(self) -> bool:
        """Whether the row was read and holds nothing: every value is empty, white space or null."""
        return self.error is None and self.fields is not None and all(map(is_blank, self.fields.values()))


class Rows(Protocol):
    """The rows of one format: iterated once for their Records, or counted without parsing them more than needed.

    `header` and `names` are a CSV's: its columns as written, and made unique, which are the keys of `fields`.
    """

    header: tuple[str, ...]
    names: tuple[str, ...]
    delimiter: str
    line_ending: str

    def __iter__(self) -> Iterator[Record]: ...

    def count(self) -> int: ...


def json_text(value: Any) -> str:
    """Return a value of a row as JSON; integers beyond 64 bits keep all their digits.

    Raises ValueError for a value that is nested too deep to be written.
    """
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:  # long integers, or nested deeper than orjson writes
        with suppress(RecursionError):
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
        raise ValueError("nested too deep") from None


def in_shard(rows: int, shard: Shard) -> int:
    """How many of so many rows are the shard's."""
    return len(range(shard[0] - 1, rows, shard[1]))


def is_blank(value: Any) -> bool:
    """Return whether a value holds nothing: null or white space."""
    return value is None or (isinstance(value, str) and not value.strip())


def row_error(code: ErrorCode, line: int, message: str) -> RowError:
    """Return what is wrong with the row that begins in a line."""
    return RowError(code, f"line {line}: {message}")


def too_big(line: int, limit: int) -> RowError:
    """Return the error of a row of more than `limit` bytes."""
    return row_error("row_too_big", line, f"more than {limit} bytes (--max-row-bytes)")


def bad_encoding(raw: bytes | bytearray, line: int) -> RowError | None:
    """Return the error of a row whose bytes are no UTF-8, None where they are."""
    try:
        raw.decode()
    except UnicodeDecodeError as problem:
        return row_error(
            "bad_encoding", line, f"a byte at column {problem.start + 1} is not valid in the input's encoding"
        )
    return None

"""Reads JSONL, CSV and Parquet as a stream of Records: one for every row, good or bad, in order."""

from __future__ import annotations

import codecs
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from operator import contains
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import orjson

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.rows.cells import chomp, is_sentence, split_cells, unique_names
from safeguard_cli.rows.lines import READ_ERRORS, File, Lines, Stream, utf8_chunks
from safeguard_cli.rows.parquet import count_parquet, open_parquet, parquet_lines
from safeguard_cli.rows.sniff import (
    BARE_CR,
    delimiter_of,
    refuse_csv_in_tsv,
    refuse_json_in_csv,
    refuse_json_values,
    refuse_lines_without_header,
    refuse_printed_table,
    refuse_title,
    sep_delimiter,
)
from safeguard_cli.rows.verdict import ErrorCode, RowError

Format = Literal["jsonl", "csv"]
Shard = tuple[int, int]  # (k, n): of every n rows the k-th, k from 1

MAX_ROW_BYTES = 64 << 20
SAMPLE_ROWS, SAMPLE_BYTES = 100, 4 << 20  # what is looked at of an input before it is read: the last of both
_SEEN_LINES = 11  # lines that are looked at to tell what a header is
_LISTED = 40  # names of fields in an error
_AHEAD_ROWS = 1000  # how many rows are read for that, unreadable ones among them
FORMATS: Mapping[str, tuple[Format, str | None]] = {
    "jsonl": ("jsonl", None),
    "ndjson": ("jsonl", None),
    "csv": ("csv", None),
    "tsv": ("csv", "\t"),
    "parquet": ("jsonl", None),  # its rows come as JSON lines
}
_NO_FLOATS = frozenset({str, int, bool, type(None)})  # and what can hold none
_LONG_NUMBER = re.compile(rb"\d{19}")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")


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


class Source:
    """An open input: iterate it once for its Records, in a `with` block. Made by `open_source`.

    When reading fails on the way (a gzip file cut short, a disk error), every whole row before comes out first, and
    then the iteration raises a SafeguardError.
    """

    def __init__(
        self,
        file: File,
        chunks: Iterator[bytes],
        limit: int,
        format: str | None,
        shard: Shard = (1, 1),
        *,
        by_name: bool = False,
        above: int = 0,
    ) -> None:
        self.name = file.name
        self.path = file.path  # None for a pipe or a stream
        self.total_bytes = file.size  # None for a pipe
        self.state = file.state  # of a file, when it was opened
        self.now, self.again = file.now, file.again
        self.line_ending = "\n"
        self.delimiter = ","
        self.header: tuple[str, ...] = ()  # a CSV's column names as written, duplicates included
        self.names: tuple[str, ...] = ()  # the same made unique (name, name_2): the keys of `fields`
        self._file = file
        self._stream = Stream(chunks)
        self._lines = Lines(self._stream, limit)
        self._limit = limit
        self._shard = shard
        self._ahead: deque[Record] = deque()  # read for the sample, and still to come out
        self._sample: list[Record] = []
        self._ahead_rows = self._ahead_bytes = 0
        self._taken = False  # the first row has come out: the sample is what it is
        self._reached = 0  # the last line that a quoted CSV cell took in
        self._doomed = 0  # up to this line, a line that begins inside quotes is known to lead nowhere
        for _ in range(above):
            self._lines.next()
        first = next(iter(self._lines.peek()), b"").removeprefix(codecs.BOM_UTF8)
        if self._lines.broke_off(first):  # half a line tells nothing
            first = b""
        sniffed = format is None
        if format is None:
            start = first.lstrip()
            format = "jsonl" if start[:1] in (b"{", b"[") else "tsv" if _more_tabs(first) else "csv"
        self.format, delimiter = FORMATS[format]
        if self.format == "csv":
            self._read_header(first, delimiter, sniffed, by_name)
        elif first:
            refuse_json_values(self.name, first, self._second)
        self._rows = self._jsonl() if self.format == "jsonl" else self._csv()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Record]:
        part, parts = self._shard
        for record in self._all():
            if record.index % parts == part - 1:
                yield record
        if self._stream.failure:
            raise SafeguardError(f"{self.name}: reading failed after line {self._lines.number}: {self._stream.failure}")

    def _all(self) -> Iterator[Record]:
        self._taken = True
        while (record := self._ahead.popleft() if self._ahead else next(self._rows, None)) is not None:
            yield record

    def close(self) -> None:
        """Closes the file; standard input and a stream of the caller's stay open."""
        self._file.close()

    @property
    def bytes_read(self) -> int:
        """Bytes taken from the file itself, compressed if it is: with `total_bytes`, how far the reading is."""
        return self._file.bytes_read

    def first(self) -> Record | None:
        """Return the first row without an error, of all shards, or None. Those read to find it still come out."""
        return next(self.sample(), None)

    def sample(self) -> Iterator[Record]:
        """Yield the first SAMPLE_ROWS rows without an error, of all shards, all of which still come out.

        No more rows are read than are asked for, so that a slow pipe is not waited for in vain. Rows beyond
        SAMPLE_BYTES, and what a reader has not left, are no part of it.
        """
        at = 0
        while at < len(self._sample) or self._look():
            yield self._sample[at]
            at += 1

    def lacks(self, names: Iterable[str], has: Callable[[Mapping[str, Any], str], bool] = contains) -> list[str]:
        """Return which of `names` are no fields of the sample's rows; none where it has no fields to check against."""
        missing = list(dict.fromkeys(names))
        if self.format == "csv":
            return [name for name in missing if name not in self.names] if self.names else []
        known = False
        for record in self.sample() if missing else ():
            known = known or bool(record.fields)
            missing = [name for name in missing if not has(record.fields or {}, name)]
            if not missing:
                break
        return missing if known else []

    def fields(self) -> tuple[str, ...]:
        """Return the names of all fields in the sample's rows, in the order in which they come."""
        if self.format == "csv":
            return self.names
        return tuple(dict.fromkeys(name for record in self.sample() for name in record.fields or ()))

    def _look(self) -> bool:
        """Read on to the next row of the sample."""
        while not self._taken and len(self._sample) < SAMPLE_ROWS and self._ahead_rows < _AHEAD_ROWS:
            if self._ahead_bytes > (SAMPLE_BYTES if self._sample else self._limit):
                break
            record = next(self._rows, None)
            if record is None:
                break
            self._ahead.append(record)
            self._ahead_rows, self._ahead_bytes = self._ahead_rows + 1, self._ahead_bytes + len(record.raw)
            if record.error is None:
                self._sample.append(record)
                return True
        return False

    def count(self) -> int:
        """Reads to the end and counts the rows, without parsing JSON; the source is used up then."""
        return in_shard(sum(1 for _ in (self._jsonl_lines() if self.format == "jsonl" else self._rows)), self._shard)

    def _jsonl_lines(self) -> Iterator[bytes]:
        while line := self._lines.next():
            if self._lines.torn:
                return self._break_off(self._lines.number)
            line = line.removeprefix(codecs.BOM_UTF8)  # files put together have marks in the middle
            if line.strip():
                yield line.rstrip(b"\r\n")
            else:
                self._lines.skip_blank(b" \t\r\n\v\f")

    def _jsonl(self) -> Iterator[Record]:
        for index, raw in enumerate(self._jsonl_lines()):
            line = self._lines.number
            if self._lines.too_big:
                yield Record(index, line, raw, None, _too_big(line, self._limit))
                continue
            try:
                fields = orjson.loads(raw)
            except orjson.JSONDecodeError as problem:
                yield Record(index, line, raw, None, _bad_encoding(raw, line) or _bad_json(problem, line))
                continue
            if type(fields) is not dict:
                yield Record(index, line, raw, None, _error("bad_row", line, "the JSON value is no object"))
                continue
            # orjson makes a float of an integer beyond 64 bits.
            if not _NO_FLOATS.issuperset(map(type, fields.values())) and _LONG_NUMBER.search(raw):
                with suppress(ValueError, RecursionError):
                    fields = json.loads(raw)
            yield Record(index, line, raw, fields)

    def _second(self) -> bytes:
        """The second line that is not blank, waited for."""
        return [*self._lines.peek(2), b"", b""][1]

    def _following(self) -> list[bytes]:
        """The lines after the first, as far as they are looked at."""
        return self._lines.peek(_SEEN_LINES)[1:]

    def _read_header(self, line: bytes, delimiter: str | None, sniffed: bool, by_name: bool) -> None:
        if hint := sep_delimiter(line):
            while not self._lines.next().strip(codecs.BOM_UTF8 + b" \t\r\n"):
                pass
            line, delimiter = next(iter(self._lines.peek()), b""), hint
        refuse_json_in_csv(self.name, line, self._second)
        if delimiter == "\t" and by_name:
            refuse_csv_in_tsv(self.name, line)
        self.line_ending = "\r\n" if line.endswith(b"\r\n") else "\n"
        self.delimiter = delimiter or delimiter_of(line, self._following)
        rows = self._csv()
        header = next(rows, None)
        while header is not None and header.error is None and not any(cell.strip() for cell in header.cells):
            header = next(rows, None)  # rows of commas that a spreadsheet left above its header
        if header is None:
            return
        if header.error is not None:
            hint = "; is there another --encoding, such as cp1252?" if header.error.code == "bad_encoding" else ""
            raise UsageError(f"{self.name}: the header cannot be read: {header.error.message}{hint}")
        if any("\r" in name for name in header.cells):
            raise UsageError(f"{self.name}: {BARE_CR}")
        if any(_CONTROL.search(name) for name in header.cells):
            hint = "is there another --encoding, such as utf-16-le or utf-16-be?"
            raise UsageError(f"{self.name}: the header holds control characters; {hint}")
        refuse_printed_table(self.name, [line, *self._lines.peek()])
        refuse_title(self.name, header.cells, lambda: self._lines.peek(2))
        if sniffed and not hint:
            refuse_lines_without_header(self.name, header.cells, line, lambda: self._lines.peek(_SEEN_LINES))
        self.header, self.names = header.cells, unique_names(header.cells)

    def _csv(self) -> Iterator[Record]:
        index = -1
        while first := self._lines.next():
            first = first.removeprefix(codecs.BOM_UTF8)  # files put together have marks in the middle
            if not first.strip(b"\r\n"):
                self._lines.skip_blank(b"\r\n")
                continue
            index, line = index + 1, self._lines.number
            if self._lines.torn:
                return self._break_off(line)
            if self._lines.too_big:
                yield Record(index, line, first, None, _too_big(line, self._limit))
                continue
            self._reached, taken = line, bytearray(first)
            text = first.decode("utf-8", "replace")
            if len(self.names) == 1 and is_sentence(text, self.delimiter):
                cells: list[str] | None = [chomp(text)]
            else:
                cells = split_cells(text, self.delimiter, partial(self._next_line, taken))
            if len(taken) <= self._limit and (self._lines.broke_off(taken) or (cells is None and self._no_more())):
                return self._break_off(line)
            if cells is None:
                # Only this line is in error: the lines that the quote took in are read again, as rows of their own.
                self._doomed = max(self._doomed, self._reached)
                self._lines.push(bytes(taken[len(first) :]))
                error = _bad_encoding(first, line) or _error("bad_row", line, "a quote is opened and never closed")
                yield Record(index, line, chomp(first), None, error)
                continue
            self._lines.number = self._reached
            yield Record(
                index,
                line,
                chomp(bytes(taken)),
                dict(zip(self.names, cells, strict=False)),
                _bad_encoding(taken, line) or self._bad_cells(cells, line),
                tuple(cells),
            )

    def _next_line(self, taken: bytearray) -> str:
        """The line that a quoted cell goes on with; empty at the end, over the limit, or where it is hopeless.

        A quoted cell goes on in the same way whoever opened it, so where one attempt failed, the next would too:
        without `_doomed`, a file with a stray quote in every line would take quadratic time.
        """
        self._reached += 1
        if self._reached <= self._doomed:
            return ""
        piece = self._lines.read(self._limit - len(taken))
        taken += piece
        return piece.decode("utf-8", "replace") if len(taken) <= self._limit else ""

    def _no_more(self) -> bool:
        """Whether reading has failed, and nothing is left of what was read before: an open quote may go on there."""
        return bool(self._stream.failure) and not self._lines.peek_any()

    def _break_off(self, line: int) -> None:
        """Reading failed in the row that begins there: it is none, and comes whole when the input is whole again."""
        self._lines.number = line - 1

    def _bad_cells(self, cells: list[str], line: int) -> RowError | None:
        if self.names and any(cells[len(self.names) :]):
            # Most often a delimiter that was not quoted: the text may be cut or shifted, so its label would mislead.
            return _error("bad_row", line, f"{len(cells)} cells where the header has {len(self.names)}")
        return None


def open_source(
    path: str | Path | BinaryIO,
    *,
    format: str | None = None,
    encoding: str = "utf-8",
    max_row_bytes: int = MAX_ROW_BYTES,
    shard: Shard = (1, 1),
    above: int = 0,
) -> Source:
    """Opens a file, `-` (standard input) or a binary stream that the caller owns; with `shard` for its rows only.

    `format` is jsonl, ndjson, csv, tsv or parquet; without it a file's extension decides, and a pipe's first bytes.
    Gzip is known by its first bytes. `above` lines stand above a CSV's header. UsageError when the input cannot be
    opened or is not what its name says.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"unknown format {format!r}: one of {', '.join(FORMATS)}")
    file = File(path)
    by_name = format is None and file.path is not None
    try:
        if by_name:
            assert file.path is not None
            format = extension(file.path)
        if format == "parquet":
            if file.path is None:
                raise UsageError(f"{file.name}: Parquet has its index at the end and needs a file; save it to one")
            parquet = open_parquet(file.path)
            chunks = parquet_lines(parquet, unique_names(parquet.schema_arrow.names))
        else:
            chunks = utf8_chunks(file, encoding)
            if by_name and format not in FORMATS:
                raise _unknown_extension(file.name, Lines(Stream(chunks), max_row_bytes))
        return Source(file, chunks, max_row_bytes, format, shard, by_name=by_name, above=above)
    except BaseException as problem:
        file.close()
        if isinstance(problem, READ_ERRORS):
            raise SafeguardError(f"{file.name}: cannot be read: {problem}") from problem
        raise


def _unknown_extension(name: str, lines: Lines) -> UsageError:
    line, following = [*lines.peek(2), b"", b""][:2]
    refuse_json_values(name, line, lambda: following)
    if line.lstrip().startswith(b"{"):
        return UsageError(f"{name}: unknown extension; it looks like JSON lines: say --format jsonl")
    plain = "plain lines become rows with jq -cR '{text: .}'"
    return UsageError(f"{name}: unknown extension; --format says what it is: {', '.join(FORMATS)}; {plain}")


def first_lines(path: Path, count: int, *, encoding: str = "utf-8") -> list[str]:
    """Return the first physical lines of a file, blank ones included, unpacked and decoded."""
    file = File(path)
    try:
        lines = Lines(Stream(utf8_chunks(file, encoding)), MAX_ROW_BYTES)
        return [line.decode("utf-8", "replace") for _ in range(count) if (line := lines.next())]
    except READ_ERRORS as problem:
        raise SafeguardError(f"{file.name}: cannot be read: {problem}") from problem
    finally:
        file.close()


def count_rows(
    path: Path,
    *,
    format: str | None = None,
    encoding: str = "utf-8",
    max_row_bytes: int = MAX_ROW_BYTES,
    shard: Shard = (1, 1),
) -> int:
    """How many Records a file has, exactly, in bounded memory: for a progress bar."""
    if (format or extension(path)) == "parquet":
        return in_shard(count_parquet(path), shard)
    with open_source(path, format=format, encoding=encoding, max_row_bytes=max_row_bytes, shard=shard) as source:
        return source.count()


def check_fields(source: Source, option: str, names: Iterable[str]) -> None:
    """Raise UsageError, with the fields that there are, when one of `names` is in no row of the sample."""
    if missing := source.lacks(names):
        raise no_field(source.name, option, missing[0], source.fields())


def no_field(file: str, option: str, name: str, fields: Sequence[str]) -> UsageError:
    """Return the UsageError for a field that an option names and a file does not have."""
    plain = {field.strip().casefold(): field for field in reversed(fields)}
    near = get_close_matches(name.strip().casefold(), plain, n=1)
    hint = f"did you mean {plain[near[0]]!r}? " if near else ""
    listed = ", ".join(map(repr, fields[:_LISTED])) + f" and {len(fields) - _LISTED:,} more" * (len(fields) > _LISTED)
    return UsageError(
        f"{file}: no field {name!r} for {option} in its first rows; {hint}its fields are {listed or 'none'}"
    )


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


def extension(path: Path) -> str:
    """What a file is by its name: `csv` for `a.CSV.gz`."""
    return Path(path.name.lower().removesuffix(".gz")).suffix[1:]


def in_shard(rows: int, shard: Shard) -> int:
    """How many of so many rows are the shard's."""
    return len(range(shard[0] - 1, rows, shard[1]))


def _more_tabs(line: bytes) -> bool:
    return line.count(b"\t") > line.count(b",")


def is_blank(value: Any) -> bool:
    """Return whether a value holds nothing: null or white space."""
    return value is None or (isinstance(value, str) and not value.strip())


def _error(code: ErrorCode, line: int, message: str) -> RowError:
    return RowError(code, f"line {line}: {message}")


def _bad_json(problem: orjson.JSONDecodeError, line: int) -> RowError:
    """What is wrong with a line; to orjson NaN, Infinity and lone surrogates are no JSON.

    A number beyond a double and very deep nesting are JSON, but no reader of the output would take them either.
    """
    at = f"(column {problem.colno})"
    if "infinity" in problem.msg:
        return _error("bad_row", line, f"a number is beyond 1.8e308, the largest that can be read {at}")
    if "depth" in problem.msg or "ecursion" in problem.msg:
        return _error("bad_row", line, f"the JSON is nested deeper than 1,024 levels, the most that can be read {at}")
    return _error("bad_json", line, f"{problem.msg} {at}")


def _too_big(line: int, limit: int) -> RowError:
    return _error("row_too_big", line, f"more than {limit} bytes (--max-row-bytes)")


def _bad_encoding(raw: bytes | bytearray, line: int) -> RowError | None:
    try:
        raw.decode()
    except UnicodeDecodeError as problem:
        return _error(
            "bad_encoding", line, f"a byte at column {problem.start + 1} is not valid in the input's encoding"
        )
    return None

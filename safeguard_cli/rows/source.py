"""Opens an input of any format as a stream of Records: one for every row, good or bad, in order."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import contains
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from safeguard_cli.errors import SafeguardError, UsageError, nearest, quoted
from safeguard_cli.rows.cells import unique_names
from safeguard_cli.rows.csv import CsvRows
from safeguard_cli.rows.formats import FORMATS, extension, is_sheet
from safeguard_cli.rows.json import JsonValues
from safeguard_cli.rows.jsonl import JsonRows, LineRows
from safeguard_cli.rows.lines import READ_ERRORS, File, Lines, Stream, utf8_chunks
from safeguard_cli.rows.parquet import count_parquet, open_parquet, parquet_lines
from safeguard_cli.rows.records import MAX_ROW_BYTES, Record, Rows, Shard, in_shard
from safeguard_cli.rows.sheets import SheetRows, csv_lines
from safeguard_cli.rows.sniff import is_json_line, is_json_value, refuse_json_values, refuse_rows_in_text

SAMPLE_ROWS, SAMPLE_BYTES = 100, 4 << 20  # looked at before an input is read: whichever limit comes first
_LISTED = 40  # the most field names in an error
_AHEAD_ROWS = 1000  # the most rows read for the sample, unreadable ones included
_SEEN_LINES = 11  # of plain text, to see whether it is another format


class Source:
    """An open input, made by `open_source`: iterate it once for its Records, in a `with` block.

    If reading fails on the way (a gzip file cut short, a disk error), the iteration yields every whole row before that
    and then raises SafeguardError.
    """

    def __init__(self, file: File, rows: Rows, limit: int, shard: Shard = (1, 1)) -> None:
        self.name = file.name
        self.path = file.path  # None for a pipe or a stream
        self.total_bytes = file.size  # None for a pipe
        self.state = file.state  # a file's state when it was opened
        self.now, self.again = file.now, file.again
        self.marked = file.marked  # it begins with a byte order mark
        self._file = file
        self._limit = limit
        self._shard = shard
        self._ahead: deque[Record] = deque()  # read for the sample, and still to come out
        self._sample: list[Record] = []
        self._ahead_rows = self._ahead_bytes = 0
        self._taken = False  # the first row has come out: the sample grows no more
        self._instead: Callable[[], Iterator[Record]] | None = None
        self.sample_columns: tuple[str, ...] = ()  # of a CSV output, for the `sample` of each Record
        self.format = rows.format
        self.line_ending, self.delimiter = rows.line_ending, rows.delimiter
        self.header = rows.header  # a table's column names as written, duplicates included
        self.names = rows.names  # the same, made unique (name, name_2): the keys of `fields`
        self.remark = rows.sheet if isinstance(rows, SheetRows) else ""  # which of several sheets it is
        self._opened, self._rows = rows, iter(rows)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Record]:
        return self._instead() if self._instead else self._in_order()

    def give_instead(self, records: Callable[[], Iterator[Record]], columns: Sequence[str]) -> None:
        """Have the iteration yield these records, which have a `sample` with these parts; all else stays as it is."""
        self._instead, self.sample_columns = records, tuple(columns)

    def _in_order(self) -> Iterator[Record]:
        part, parts = self._shard
        for record in self._all():
            if record.index % parts == part - 1:
                yield record
        if self._opened.failure:
            raise SafeguardError(
                f"{self.name}: reading failed after line {self._opened.reached}: {self._opened.failure}"
            )

    def _all(self) -> Iterator[Record]:
        self._taken = True
        while (record := self._ahead.popleft() if self._ahead else next(self._rows, None)) is not None:
            yield record

    def close(self) -> None:
        """Close the file; standard input and a stream that the caller owns stay open."""
        self._file.close()

    @property
    def bytes_read(self) -> int:
        """Bytes read from the file itself, before decompression; `total_bytes` is the size of the same file."""
        return self._file.bytes_read

    def first(self) -> Record | None:
        """Return the first row without an error, of all shards, or None; the rows read to find it still come out."""
        return next(self.sample(), None)

    def sample(self) -> Iterator[Record]:
        """Yield the first SAMPLE_ROWS rows without an error, of all shards; all of them still come out.

        Only as many rows are read as the caller takes, so that nobody waits for a slow pipe in vain. Rows beyond
        SAMPLE_BYTES are not part of the sample, nor are rows not yet read once the iteration has begun.
        """
        at = 0
        while at < len(self._sample) or self._look():
            yield self._sample[at]
            at += 1

    def lacks(self, names: Iterable[str], has: Callable[[Mapping[str, Any], str], bool] = contains) -> list[str]:
        """Return which of `names` no row of the sample has; none of them if the sample has no fields at all."""
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
        """Read on to the next row of the sample; return False if there is none."""
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

    def counts(self) -> Iterator[int]:
        """Read to the end and yield after each row how many there are so far, without parsing JSON; uses it up."""
        for rows, _ in enumerate(self._opened.unparsed(), 1):
            yield in_shard(rows, self._shard)


def open_source(
    path: str | Path | BinaryIO,
    *,
    format: str | None = None,
    encoding: str = "utf-8",
    max_row_bytes: int = MAX_ROW_BYTES,
    shard: Shard = (1, 1),
    above: int = 0,
    sheet: str | None = None,
) -> Source:
    """Open a file, `-` (standard input) or a binary stream that the caller owns, for the rows of one `shard` only.

    `format` is one of FORMATS; without it, a file's extension or a pipe's first bytes decide. A packing is recognised
    by its first bytes. `above` lines stand above a table's header. `sheet` names a spreadsheet's sheet, or is its
    number. Raise UsageError if the input cannot be opened or is not what its name says.
    """
    if format is not None and format not in FORMATS:
        near = nearest(format, FORMATS)
        hint = f"; did you mean {near!r}?" if near else f": one of {', '.join(FORMATS)}"
        raise UsageError(f"unknown format {quoted(format)}{hint}")
    file = File(path)
    name = format or (extension(file.path) if file.path is not None else None)
    kind = FORMATS.get(name or "")
    try:
        if sheet is not None and not (kind and kind.is_sheet):
            raise UsageError(f"{file.name}: --sheet is for spreadsheets, and this is none by its name or --format")
        rows: Rows
        if kind and kind.whole and file.path is None:
            what = "a spreadsheet" if kind.is_sheet else kind.what
            raise UsageError(f"{file.name}: {what} has its index at the end and needs a file; save it to one")
        if kind and kind.is_sheet:
            assert file.path is not None
            rows = SheetRows(file.path, above=above, sheet=sheet, limit=max_row_bytes)
        elif name == "parquet":
            assert file.path is not None
            parquet = open_parquet(file.path)
            columns = unique_names(parquet.schema_arrow.names)
            rows = JsonRows(Lines(Stream(parquet_lines(parquet, columns)), max_row_bytes))
        else:
            chunks = utf8_chunks(file, encoding, markup=format == "lines")
            lines = Lines(Stream(chunks), max_row_bytes)
            if name is not None and kind is None:
                raise _unknown_extension(file.name, lines)
            for _ in range(above):
                lines.next()
            rows = text_rows(file.name, lines, name, by_name=name is not None and format is None)
        if above and rows.format != "csv":
            raise UsageError(f"{file.name}: --skip-rows is for tables, and no header stands above these rows")
        if above and not rows.header:
            raise UsageError(f"{file.name}: no header is left below the {above:,} lines that --skip-rows leaves out")
        return Source(file, rows, max_row_bytes, shard)
    except BaseException as problem:
        file.close()
        if isinstance(problem, READ_ERRORS):
            raise SafeguardError(f"{file.name}: cannot be read: {problem}") from problem
        raise


def text_rows(name: str, lines: Lines, format: str | None, *, by_name: bool) -> Rows:
    """Return the rows of a file of text in a format, or in the one that the first lines show if it is None.

    `by_name` means that only the file's name says which format it is. Raise UsageError if the lines show another.
    """
    first = next(iter(lines.peek()), b"").removeprefix(codecs.BOM_UTF8)
    if lines.broke_off(first):  # half a line shows nothing
        first = b""
    sniffed = format is None

    def second() -> bytes:
        return [*lines.peek(2), b"", b""][1]

    if format is None:
        start = first.lstrip()[:1]
        format = "json" if is_json_value(first, second) else "jsonl" if start in (b"{", b"[") else "csv"
        format = "tsv" if format == "csv" and _more_tabs(first) else format
    if format == "lines":
        if by_name:
            refuse_rows_in_text(name, first, lambda: lines.peek(_SEEN_LINES)[1:])
        return LineRows(lines)
    if format == "json" and not (is_json_line(first) and second()):
        if first.lstrip()[:1] not in (b"{", b"[", b""):
            raise UsageError(
                f"{name}: this is not JSON: it begins with neither {{ nor [; name its format with --format"
            )
        return JsonValues(name, lines)
    if FORMATS[format].headed:
        return CsvRows(name, lines, first, FORMATS[format].delimiter, sniffed=sniffed, by_name=by_name)
    if first and format != "json":
        refuse_json_values(name, first, second)
    return JsonRows(lines)


def _unknown_extension(name: str, lines: Lines) -> UsageError:
    line, following = [*lines.peek(2), b"", b""][:2]
    refuse_json_values(name, line, lambda: following)
    if line.lstrip().startswith(b"{"):
        return UsageError(f"{name}: unknown extension; it looks like JSON lines: use --format jsonl")
    return UsageError(f"{name}: unknown extension; name its format with --format: {', '.join(FORMATS)}")


def first_lines(
    path: Path, count: int, *, encoding: str = "utf-8", format: str | None = None, sheet: str | None = None
) -> list[str]:
    """Return the first physical lines of a file, blank ones included, unpacked and decoded; a sheet's rows as CSV."""
    if is_sheet(format, path):
        return list(islice(csv_lines(path, sheet), count))
    file = File(path)
    try:
        lines = Lines(Stream(utf8_chunks(file, encoding)), MAX_ROW_BYTES)
        return [line.decode("utf-8", "replace") for _ in range(count) if (line := lines.next())]
    except READ_ERRORS as problem:
        raise SafeguardError(f"{file.name}: cannot be read: {problem}") from problem
    finally:
        file.close()


def row_counts(
    path: Path,
    *,
    format: str | None = None,
    encoding: str = "utf-8",
    max_row_bytes: int = MAX_ROW_BYTES,
    shard: Shard = (1, 1),
    above: int = 0,
    sheet: str | None = None,
) -> Iterator[int]:
    """Yield how many Records of a file have been counted so far, at last exactly all, in bounded memory."""
    if (format or extension(path)) == "parquet":
        yield in_shard(count_parquet(path), shard)
        return
    how: dict[str, Any] = {"format": format, "encoding": encoding, "max_row_bytes": max_row_bytes, "shard": shard}
    with open_source(path, **how, above=above, sheet=sheet) as source:
        yield from source.counts()


def count_rows(path: Path, **how: Any) -> int:
    """Return exactly how many Records a file has; `how` it is read is as for `row_counts`."""
    return deque(chain((0,), row_counts(path, **how)), maxlen=1)[0]


def check_fields(source: Source, option: str, names: Iterable[str]) -> None:
    """Raise UsageError, with the fields that there are, if one of `names` is in no row of the sample."""
    if missing := source.lacks(names):
        raise no_field(source.name, option, missing[0], source.fields())


def no_field(file: str, option: str, name: str, fields: Sequence[str]) -> UsageError:
    """Return the UsageError for a field that an option names and a file does not have."""
    near = nearest(name, fields)
    hint = f"did you mean {quoted(near)}? " if near else ""
    listed = ", ".join(map(quoted, fields[:_LISTED])) + f" and {len(fields) - _LISTED:,} more" * (len(fields) > _LISTED)
    return UsageError(
        f"{file}: no field {quoted(name)} for {option} in its first rows; {hint}its fields are {listed or 'none'}"
    )


def _more_tabs(line: bytes) -> bool:
    return line.count(b"\t") > line.count(b",")

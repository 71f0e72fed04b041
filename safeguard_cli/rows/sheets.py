"""Reads spreadsheets: one sheet's rows, every cell as a text, as in CSV.

python-calamine loads a sheet whole, with a place for every cell of the rectangle that is in use, empty or not. So the
rectangle is bounded before that (MOST_CELLS), and so is what the file unpacks to (MOST_UNPACKED).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.errors import Interrupted, UsageError, missing_extra, nearest, quoted
from safeguard_cli.rows.cells import unique_names
from safeguard_cli.rows.formats import Format
from safeguard_cli.rows.lines import SHOWN_BYTES
from safeguard_cli.rows.records import Record, too_big
from safeguard_cli.rows.sniff import HEAD_BYTES, refuse_other_kinds, refuse_title

MOST_CELLS = 50_000_000  # about 1.5 GB
MOST_UNPACKED = 4 << 30  # bytes
_CHUNK = 1 << 20
_LISTED = 20  # names of sheets in a message
_LOOKED_AT = 10  # rows below the header
_WHOLE = 1e15  # below it, a whole number is written without a fraction and without rounding
_SPECIAL = re.compile('[,"\r\n]')
_PLACE = re.compile(rb"""\br\s*=\s*["']([A-Z]{2,3})(\d{1,7})["']""")  # a cell beyond column Z
_ROW = re.compile(rb"""<(?:\w+:)?row\b[^>]{0,500}?\br\s*=\s*["'](\d{1,7})["']""")
_OVERLAP = 600  # bytes of a chunk in which a match may begin that ends in the next one
_MAGIC = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


@dataclass(frozen=True, slots=True)
class Table:
    """One sheet as a table: its header, and the rows below it with the values and the numbers that the sheet has.

    `remark` says which sheet of several it is, empty if there is one.
    """

    remark: str
    header: tuple[str, ...]
    rows: Iterator[tuple[int, list[Any]]]


class SheetRows:
    """The records.Rows of one sheet: cells under a header."""

    format: Format = "csv"
    delimiter, line_ending, failure = ",", "\n", ""

    def __init__(self, path: Path, *, above: int = 0, sheet: str | None = None, limit: int) -> None:
        table = open_table(path, above=above, sheet=sheet)
        self.header, self.names = table.header, unique_names(table.header)
        self.sheet = table.remark
        self.reached = 0
        self._rows, self._limit = table.rows, limit

    def unparsed(self) -> Iterator[object]:
        return self._rows

    def __iter__(self) -> Iterator[Record]:
        for index, (line, values) in enumerate(self._rows):
            self.reached = line
            cells = tuple(map(cell_text, values))
            raw = orjson.dumps(cells)
            if len(raw) > self._limit:
                yield Record(index, line, raw[:SHOWN_BYTES], None, too_big(line, self._limit))
            else:
                yield Record(index, line, raw, dict(zip(self.names, cells, strict=False)), None, cells)


def calamine() -> Any:
    """Return the package python_calamine; raise SafeguardError, naming the extra, if it is missing."""
    try:
        import python_calamine
    except ImportError:
        raise missing_extra("spreadsheets need python-calamine", "excel") from None
    return python_calamine


def open_table(path: Path, *, above: int = 0, sheet: str | None = None) -> Table:
    """Read a sheet: its header is the first row after `above` in which anything stands.

    Empty rows at the end are no rows. Raise UsageError if the file is no spreadsheet, or has no such sheet.
    """
    remark, found = _open(path, sheet)
    rows = _rows(found)
    tops = ([*map(cell_text, values)] for line, values in rows if line > above)
    header = next((cells for cells in tops if any(cell.strip() for cell in cells)), [])
    below = [*islice(rows, _LOOKED_AT)]
    refuse_title(str(path), header, lambda: [csv_line([*map(cell_text, row)]).encode() for _, row in below])
    return Table(remark, tuple(header), chain(below, rows))


def csv_lines(path: Path, sheet: str | None) -> Iterator[str]:
    """Yield all rows of a sheet as lines of CSV, for those who look for a header among them."""
    for _, values in _rows(_open(path, sheet)[1]):
        yield csv_line([*map(cell_text, values)])


def csv_line(cells: Sequence[str]) -> str:
    """Return cells as a line of CSV."""
    return ",".join('"' + cell.replace('"', '""') + '"' if _SPECIAL.search(cell) else cell for cell in cells)


def cell_text(value: Any) -> str:
    """Return a cell's value as text: whole numbers without a fraction, dates and times as ISO 8601 has them."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _WHOLE else repr(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        seconds = round(value.total_seconds())
        return f"{'-' * (seconds < 0)}{abs(seconds) // 3600}:{abs(seconds) // 60 % 60:02}:{abs(seconds) % 60:02}"
    return "" if value is None else str(value)


def _rows(sheet: Any) -> Iterator[tuple[int, list[Any]]]:
    """Yield the rows of a sheet up to the last one in which anything stands, each with its number from 1 on.

    A cell that was merged with cells below it counts in their rows too, unless nothing else stands there.
    """
    left = sheet.start[1] if sheet.start else 0
    merged: dict[int, list[tuple[int, int]]] = {}  # by first row: the column, and the last row
    for (top, column, *_), (bottom, *_) in sheet.merged_cell_ranges or ():
        if bottom > top and column >= left:
            merged.setdefault(top, []).append((column - left, bottom))
    going_on: dict[int, tuple[int, Any]] = {}
    empty: list[int] = []
    for row, values in enumerate(sheet.iter_rows()):
        if all(value == "" for value in values):
            empty.append(row + 1)
        else:
            yield from ((line, [""] * len(values)) for line in empty)
            empty.clear()
            for column, (bottom, value) in [*going_on.items()]:
                if row > bottom:
                    del going_on[column]
                elif values[column] == "":
                    values[column] = value
        going_on.update({column: (bottom, values[column]) for column, bottom in merged.get(row, ())})
        if not empty:
            yield row + 1, values


def _open(path: Path, wanted: str | None) -> tuple[str, Any]:
    """Return a remark on which sheet it is, and the sheet itself."""
    package = calamine()
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if not head.startswith(_MAGIC):
            refuse_other_kinds(str(path), head)
            raise UsageError(f"{path}: not a spreadsheet; if it is JSON lines or CSV, use --format jsonl or csv")
        _check_size(path)
        book = _load(package, path)
        sheets = [
            each.name
            for each in book.sheets_metadata
            if each.typ == package.SheetTypeEnum.WorkSheet
            and (wanted is not None or each.visible == package.SheetVisibleEnum.Visible)
        ]
        name = _choose(path, sheets, wanted)
        sheet = book.get_sheet_by_name(name)
    except UsageError:
        raise
    except package.PasswordError:
        raise UsageError(f"{path}: this is protected by a password: save a copy without one") from None
    except OSError as problem:
        raise UsageError(f"{path}: {problem.strerror or problem}") from None
    except BaseException as problem:  # calamine's own errors; one that panics raises no Exception
        if isinstance(problem, (KeyboardInterrupt, SystemExit, Interrupted, MemoryError)):
            raise
        why = next(iter(str(problem).splitlines()), "") or type(problem).__name__
        raise UsageError(f"{path}: not a spreadsheet that can be read: {why}") from None
    others = [each for each in sheets if each != name]
    remark = f"{name}, of {len(sheets)}; --sheet names another: {', '.join(others[:_LISTED])}"
    return remark if others and wanted is None else "", sheet


def _load(package: Any, path: Path) -> Any:
    """Return the workbook, which may be of another kind of spreadsheet than its name says."""
    try:
        return package.CalamineWorkbook.from_path(str(path))
    except (OSError, package.PasswordError):
        raise
    except package.CalamineError as problem:
        with path.open("rb") as file:
            try:
                return package.CalamineWorkbook.from_filelike(file)
            except package.CalamineError:
                raise problem from None  # of the kind that it is called


def _choose(path: Path, sheets: Sequence[str], wanted: str | None) -> str:
    """Return the sheet of that name, or of that number from 1 on; by default the first."""
    if wanted is None and sheets:
        return sheets[0]
    if wanted in sheets:
        return str(wanted)
    if wanted and wanted.isascii() and wanted.isdecimal() and 0 < int(wanted) <= len(sheets):
        return sheets[int(wanted) - 1]
    if wanted is None:
        raise UsageError(f"{path}: no sheet is to be seen in it; --sheet can name a hidden one")
    near = nearest(wanted, sheets)
    hint = f"did you mean {quoted(near)}? " if near else ""
    raise UsageError(
        f"{path}: no sheet {quoted(wanted)}; {hint}its sheets are {', '.join(map(quoted, sheets[:_LISTED])) or 'none'}"
    )


def _check_size(path: Path) -> None:
    """Raise UsageError if a workbook of zipped XML would take too much memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        parts = file.infolist()
        if (size := sum(part.file_size for part in parts)) > MOST_UNPACKED:
            raise UsageError(
                f"{path}: it unpacks to {size:,} bytes, more than is read of a spreadsheet: save it as CSV"
            )
        for part in parts:
            if part.filename.startswith("xl/worksheets/") and part.filename.endswith(".xml"):
                with file.open(part) as stream:
                    cells = _cells(iter(lambda stream=stream: stream.read(_CHUNK), b""))  # type: ignore[misc]
                if cells > MOST_CELLS:
                    raise UsageError(
                        f"{path}: the used part of {part.filename} spans {cells:,} cells, more than the {MOST_CELLS:,}"
                        " that are read of a sheet: delete the empty rows and columns, or save it as CSV"
                    )


def _cells(chunks: Iterator[bytes]) -> int:
    """Return how many cells the rectangle has that a sheet's XML fills; narrow sheets count as 26 columns wide."""
    rows, columns, kept = 1, 26, b""
    for chunk in chunks:
        data = kept + chunk
        for found in _PLACE.finditer(data):
            columns = max(columns, _column(found[1]))
            rows = max(rows, int(found[2]))
        rows = max([rows, *(int(found[1]) for found in _ROW.finditer(data))])
        kept = data[-_OVERLAP:]
    return rows * columns


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - ord("A") + 1
    return number

"""Excel outputs, made of a run's journal: see run/made.py. Own cells keep the values that a spreadsheet's sheet has.

Texts are written as texts, so none is taken for a formula. A number that Excel's 15 digits would round is written as
text. A text that is longer than a cell holds is cut, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime, time, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.errors import SafeguardError, missing_extra
from safeguard_cli.output.manifest import Manifest
from safeguard_cli.rows.cells import unique_names
from safeguard_cli.rows.formats import Written
from safeguard_cli.rows.layouts import as_object
from safeguard_cli.rows.sheets import open_table
from safeguard_cli.run.made import EXTRA, filled, journal_rows, own_fields, rereads, verdict_members
from safeguard_cli.run.settings import Settings

MOST_ROWS = 1_048_576  # of a sheet, its header too
MOST_COLUMNS = 16_384
MOST_CHARACTERS = 32_767  # of a cell, as UTF-16 counts them
_LEFT = 32_700  # of a cell that is cut
_FORMATS = {
    datetime: "yyyy-mm-dd hh:mm:ss",
    date: "yyyy-mm-dd",
    time: "hh:mm:ss",
    timedelta: "[h]:mm:ss",
}

_Row = list[Any]  # the values of a row's cells, None where there is nothing


def xlsxwriter() -> Any:
    """Return the package xlsxwriter; raise SafeguardError, naming the extra, if it is missing."""
    try:
        import xlsxwriter
        import xlsxwriter.exceptions
    except ImportError:
        raise missing_extra("an Excel output needs xlsxwriter", "excel") from None
    return xlsxwriter


class SheetMaker:
    """The made.Maker of Excel workbooks of one sheet."""

    format: Written = "xlsx"
    rereads = True

    def check(self, settings: Settings, keep: Sequence[str] | None) -> None:
        """Raise SafeguardError if xlsxwriter is missing."""
        xlsxwriter()

    def most_rows(self) -> int | None:
        """Return how many rows a sheet holds below its header."""
        return MOST_ROWS - 1

    def write(self, settings: Settings, done: Manifest, journal: Path, part: Path) -> str:
        """Write the file; return how many cells were cut, if any."""
        if done.progress.rows > MOST_ROWS - 1:
            raise SafeguardError(
                f"a sheet of Excel holds {MOST_ROWS - 1:,} rows below its header, and there are"
                f" {done.progress.rows:,}: the labels are in {journal}, which is an output of JSON lines"
            )
        policies = tuple(done.identity.policies)
        if rereads(self, settings):
            titles, own = _from_sheet(settings, done.identity.output.keep)
        else:
            titles, own = _from_journal(journal, policies)
        parts = verdict_members(done.identity)
        titles += [f"{name}_{each}" for name in policies for each in parts]
        if len(titles) > MOST_COLUMNS:
            raise SafeguardError(
                f"a sheet of Excel holds {MOST_COLUMNS:,} columns, and there are {len(titles):,}: leave some out with"
                f" --keep; the labels are in {journal}, which is an output of JSON lines"
            )
        rows = (verdicts for _, verdicts in journal_rows(journal, policies))
        cells = (
            [*row, *(cell for name in policies for cell in _verdict(verdicts[name], parts))]
            for row, verdicts in zip(own, rows, strict=False)
        )
        with closing(_Sheet(part)) as sheet:
            for row in chain([titles], cells):
                sheet.add(row)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        if not sheet.cut:
            return ""
        return (
            f"{sheet.cut:,} {'cell holds' if sheet.cut == 1 else 'cells hold'} more than the {MOST_CHARACTERS:,}"
            " characters that Excel allows: each is cut and says so; an output of JSON lines or CSV has all of them"
        )

    def verdicts(self, output: Path, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Yield the verdicts of each row."""
        table = open_table(output)
        for _, values in table.rows:
            row = {title: value for title, value in zip(table.header, values, strict=True) if value != ""}
            yield {
                name: {title.removeprefix(f"{name}_"): row[title] for title in row if title.startswith(f"{name}_")}
                for name in names
            }

    def failures(self) -> tuple[type[Exception], ...]:
        """Return xlsxwriter's errors."""
        return (xlsxwriter().exceptions.XlsxWriterException,)


class _Sheet:
    """A workbook of one sheet that is written row by row, in bounded memory; `cut` counts cells that were too long."""

    def __init__(self, path: Path) -> None:
        self._book = xlsxwriter().Workbook(str(path), {"constant_memory": True, "tmpdir": str(path.parent)})
        self._sheet = self._book.add_worksheet("labels")
        self._sheet.freeze_panes(1, 0)
        self._looks = {kind: self._book.add_format({"num_format": look}) for kind, look in _FORMATS.items()}
        self._row = 0
        self.cut = 0

    def add(self, cells: _Row) -> None:
        """Add a row."""
        for column, value in enumerate(cells):
            if value is not None and value != "":
                self._write(column, value)
        self._row += 1

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._book.close()

    def _write(self, column: int, value: Any) -> None:
        place = self._row, column
        if isinstance(value, bool):
            self._sheet.write_boolean(*place, value)
        elif isinstance(value, (int, float)):
            self._sheet.write_number(*place, value)
        elif type(value) in self._looks:
            try:
                self._sheet.write_datetime(*place, value, self._looks[type(value)])
            except (ValueError, OverflowError):  # before 1900
                self._sheet.write_string(*place, str(value))
        else:
            self._sheet.write_string(*place, self._fitting(str(value)))

    def _fitting(self, text: str) -> str:
        size = len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
        if size <= MOST_CHARACTERS:
            return text
        self.cut += 1
        kept = text.encode("utf-16-le")[: 2 * _LEFT].decode("utf-16-le", "ignore")
        return f"{kept}… [cut: {len(text):,} characters]"


def _from_sheet(settings: Settings, keep: Sequence[str] | None) -> tuple[list[str], Iterator[_Row]]:
    """Return the titles and the rows of the input's own columns, with the values that the sheet has."""
    table = open_table(Path(settings.input), above=settings.skip_rows or 0, sheet=settings.sheet)
    kept = [at for at, name in enumerate(unique_names(table.header)) if keep is None or name in keep]
    part, parts = settings.shard
    rows = ([values[at] for at in kept] for at, (_, values) in enumerate(table.rows) if at % parts == part - 1)
    return [table.header[at] for at in kept], rows


def _from_journal(journal: Path, policies: Sequence[str]) -> tuple[list[str], Iterator[_Row]]:
    """Return the own fields of the first readable row as columns.

    Fields that this row lacks go into `_extra` as JSON, and so does a line that could not be read.
    """
    names: tuple[str, ...] = ()
    extra = False
    for row, _ in journal_rows(journal, policies):
        names = names or own_fields(row, policies)
        extra = extra or not set(row) <= set(names)

    def rows() -> Iterator[_Row]:
        for row, _ in journal_rows(journal, policies):
            more = {name: value for name, value in row.items() if name not in names}
            yield [*(_cell(row.get(name)) for name in names), *[as_object(more)] * extra]

    return [*names, *[unique_names([*names, *policies, EXTRA])[-1]] * extra], rows()


def _cell(value: bytes | None) -> Any:
    """Return the value of JSON that a cell holds unchanged, else the JSON itself."""
    if value is None or value == b"null":
        return None
    if value[:1] in b'"tf':
        return orjson.loads(value)
    if value[:1] in b"{[":
        return value.decode()
    number = float(value)
    exact = abs(number) < 1e300 and float(f"{number:.16G}") == number
    digits = value.lstrip(b"-").isdigit()
    return number if exact and not (digits and int(value) != number) else value.decode()


def _verdict(verdict: Mapping[str, Any], parts: Sequence[str]) -> Iterator[Any]:
    values = filled(verdict)
    shown: Mapping[str, Callable[[Any], str]] = {
        "scores": lambda scores: orjson.dumps(scores).decode(),
        "error": lambda error: f"{error['code']}: {error['message']}",
    }
    for part in parts:
        value = values.get(part)
        yield shown[part](value) if part in shown and value is not None else value

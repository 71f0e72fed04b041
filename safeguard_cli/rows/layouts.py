"""Writes a row and its Verdicts as the bytes of one JSON object or one CSV record.

What becomes of a row in the other format, or of a broken row:
- A line that could not be read has no fields. In JSONL it is `{"_line": 12, "_raw": "…"}` with the verdicts. From JSONL
  to CSV, that object stands in `_extra`. From CSV to CSV, its text stands in the first column.
- A CSV row with too many cells is in error. In JSONL, the surplus is a list under `_extra`. In CSV, it follows the
  last cell's value within that cell.
- A later JSONL row that already has a policy's name as a field keeps that field. The verdict stands after it, and
  readers of JSON take the last.
- `--keep` leaves out `_raw`, `_extra` and the surplus too, because they may hold what is sensitive.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from safeguard_cli.rows.lines import SHOWN_BYTES
from safeguard_cli.rows.records import SAMPLE, Record
from safeguard_cli.rows.source import Source
from safeguard_cli.rows.verdict import Verdict

_MEMBER_GAP = re.compile(rb"[\s,:]*")
_SCALAR = re.compile(rb"[^\s,}\]]+")
# What spreadsheets take for the beginning of a formula; East Asian versions take the full-width forms too. See OWASP's
# "CSV Injection". Quotes before it match too, so that `unguard` can tell what `guard` added from what was there.
_FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")
_NESTING = re.compile(rb'["{}\[\]]')


class JsonlLayout:
    """Rows as JSON objects: the verdicts go in before the last brace."""

    def __init__(self, source: Source, keep: Sequence[str] | None) -> None:
        self._jsonl_in = source.format == "jsonl"
        self._width = len(source.names)
        self._extra = _free("_extra", source.names)
        self._keep = None if keep is None else frozenset(keep)

    def header(self) -> bytes:
        return b""

    def row(self, record: Record, verdicts: Mapping[str, Verdict]) -> bytes:
        added = [orjson.dumps(name) + b":" + orjson.dumps(verdict.as_dict()) for name, verdict in verdicts.items()]
        return self.beginning(record) + b",".join(added) + b"}\n"

    def beginning(self, record: Record) -> bytes:
        """Return what comes before the first verdict."""
        head = self._own(record)
        head = head if head.endswith(b"{") else head + b","
        return head if record.sample is None else head + sample_member(record.sample) + b","

    def _own(self, record: Record) -> bytes:
        """Return the row's own object without its last brace; a JSONL row keeps its bytes, so `1.10` stays `1.10`."""
        if record.fields is None:
            return orjson.dumps(_unreadable(record, self._keep is None))[:-1]
        if self._jsonl_in:
            if self._keep is None:
                return record.raw.rstrip()[:-1].rstrip()
            return b"{" + b",".join(text for key, text, _ in members(record.raw) if key in self._keep)
        fields: dict[str, Any] = dict(record.fields)
        if self._keep is not None:
            fields = {name: value for name, value in fields.items() if name in self._keep}
        elif any(surplus := record.cells[self._width :]):
            fields[self._extra] = surplus
        return orjson.dumps(fields)[:-1]


class CsvLayout:
    """Rows as cells under a header that is fixed from the start."""

    def __init__(
        self,
        source: Source,
        keep: Sequence[str] | None,
        names: Sequence[str],
        columns: Sequence[str],
        delimiter: str,
        safe: bool,
        bom: bool = False,
    ) -> None:
        fields = field_names(source)
        self._jsonl_in = source.format == "jsonl"
        self._fields = [name for name in fields if keep is None or name in keep]
        self._kept = [at for at, name in enumerate(fields) if keep is None or name in keep]
        self._all = keep is None
        self._titles = [source.header[at] for at in self._kept] if source.header else list(self._fields)
        if self._jsonl_in and self._all:
            self._titles.append(_free("_extra", fields))
        self._width = len(fields)
        self._names = names
        self._columns = columns
        self._delimiter = delimiter
        self._line_ending = source.line_ending
        self._safe = safe
        self._sample = source.sample_columns
        self._mark = codecs.BOM_UTF8 if bom else b""

    def header(self) -> bytes:
        ours = [f"{name}_{column}" for name in self._names for column in self._columns]
        return self._mark + self._line(self._titles, [*(f"{SAMPLE}_{part}" for part in self._sample), *ours])

    def row(self, record: Record, verdicts: Mapping[str, Verdict]) -> bytes:
        ours = [cell for name in self._names for cell in self._verdict(verdicts[name])]
        return self._line(self._own(record), [*self._drawn(record), *ours])

    def beginning(self, record: Record) -> bytes:
        """Return what comes before the first verdict."""
        return self._line(self._own(record), [*self._drawn(record), ""]).removesuffix(self._line_ending.encode())

    def _drawn(self, record: Record) -> list[str]:
        return [str((record.sample or {}).get(part, "")) for part in self._sample]

    def _own(self, record: Record) -> list[str]:
        return self._from_jsonl(record) if self._jsonl_in else self._from_csv(record)

    def _from_jsonl(self, record: Record) -> list[str]:
        """Return a JSONL row's cells.

        Strings stay as they are, null becomes empty, and anything else its JSON text. Fields that the header lacks go
        to `_extra`.
        """
        if record.fields is None:
            extra = orjson.dumps(_unreadable(record, self._all)).decode()
            return [""] * len(self._fields) + [extra] * self._all
        values = {key: value for key, _, value in members(record.raw)}
        own = [_cell(values.pop(name, b"null"), record.fields.get(name)) for name in self._fields]
        if self._all:
            own.append(as_object(values))
        return own

    def _from_csv(self, record: Record) -> list[str]:
        cells = list(record.cells)
        if record.fields is None:
            cells = [_unreadable(record, True)["_raw"]] if self._all else []
        if any(surplus := cells[self._width :]) and self._all:
            last = self._width - 1
            cells[last:] = [self._delimiter.join(quote_cell(cell, self._delimiter) for cell in (cells[last], *surplus))]
        cells += [""] * (self._width - len(cells))
        return [cells[at] for at in self._kept]

    def _verdict(self, verdict: Verdict) -> Iterator[str]:
        values = verdict.as_dict()
        for column in self._columns:
            value = values.get(column)
            if column == "error" and verdict.error is not None:
                yield f"{verdict.error.code}: {verdict.error.message}"
            elif column == "windows" and verdict.error is None:
                yield str(verdict.windows)
            elif value is None or isinstance(value, str):
                yield value or ""
            else:
                yield orjson.dumps(value).decode()

    def _line(self, own: list[str], ours: list[str]) -> bytes:
        return csv_line(
            [*(map(guard, own) if self._safe else own), *map(guard, ours)], self._delimiter, self._line_ending
        )


def csv_line(cells: Iterable[str], delimiter: str, line_ending: str) -> bytes:
    """Return cells as one record of a CSV."""
    return (delimiter.join(quote_cell(cell, delimiter) for cell in cells) + line_ending).encode()


def quote_cell(cell: str, delimiter: str) -> str:
    """Return a cell as a CSV holds it: in quotes where it needs them."""
    return '"' + cell.replace('"', '""') + '"' if any(mark in cell for mark in (delimiter, '"', "\r", "\n")) else cell


def sample_member(sample: Mapping[str, Any]) -> bytes:
    """Return the member of a row's object that says how the row came into a sample."""
    return orjson.dumps(SAMPLE) + b":" + orjson.dumps(sample)


def guard(cell: str) -> str:
    """Return the cell so that no spreadsheet takes it for a formula; a guarded cell gets another `'`."""
    return "'" + cell if _FORMULA.match(cell) else cell


def unguard(cell: str) -> str:
    """Return the cell that `guard` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def field_names(source: Source) -> tuple[str, ...]:
    """Return the fields' names, from a CSV's header or from the first readable JSONL row."""
    first = source.first() if source.format == "jsonl" else None
    return source.names if first is None else tuple(first.fields or ())


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _unreadable(record: Record, raw: bool) -> dict[str, Any]:
    """Return the object that replaces a line without fields; invalid bytes show as U+FFFD."""
    out: dict[str, Any] = {"_line": record.line}
    if raw:
        cut = record.error is not None and record.error.code == "row_too_big"
        shown = record.raw[:SHOWN_BYTES] if cut else record.raw
        out["_raw"] = shown.decode("utf-8", "replace") + "…" * cut
    return out


def _cell(raw: bytes, value: Any) -> str:
    return value if isinstance(value, str) else "" if raw == b"null" else raw.decode()


def as_object(values: Mapping[str, bytes]) -> str:
    """Return fields, given with the JSON text of each, as one object; an empty string if there are none."""
    made = b",".join(orjson.dumps(key) + b":" + value for key, value in values.items())
    return (b"{" + made + b"}").decode() if values else ""


def members(raw: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield each member of a valid JSON object: its key, its bytes `"key": value`, and its value's bytes."""
    at = raw.index(b"{") + 1
    while raw[at := _after(_MEMBER_GAP, raw, at)] != ord("}"):
        start, at = at, _string_end(raw, at)
        key = orjson.loads(raw[start:at])
        value = at = _after(_MEMBER_GAP, raw, at)
        at = _value_end(raw, at)
        yield key, raw[start:at], raw[value:at]


def _after(pattern: re.Pattern[bytes], raw: bytes, at: int) -> int:
    match = pattern.match(raw, at)
    return at if match is None else match.end()


def _string_end(raw: bytes, at: int) -> int:
    """Return the place after the string that begins at `at`."""
    while True:
        at = raw.index(b'"', at + 1)
        before = at
        while raw[before - 1] == ord("\\"):
            before -= 1
        if (at - before) % 2 == 0:
            return at + 1


def _value_end(raw: bytes, at: int) -> int:
    if raw[at] == ord('"'):
        return _string_end(raw, at)
    if raw[at] not in b"{[":
        return _after(_SCALAR, raw, at)
    depth = 0
    while match := _NESTING.search(raw, at):
        at = match.end()
        if match[0] == b'"':
            at = _string_end(raw, at - 1)
        else:
            depth += 1 if match[0] in b"{[" else -1
            if depth == 0:
                break
    return at

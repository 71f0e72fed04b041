"""Reads the rows of JSON lines, and of plain text."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import suppress

import orjson

from safeguard_cli.rows.formats import Format
from safeguard_cli.rows.lines import OfLines
from safeguard_cli.rows.records import Record, bad_encoding, row_error, too_big
from safeguard_cli.rows.verdict import RowError

LINE_FIELD = "text"  # that holds a line of plain text
_NO_FLOATS = frozenset({str, int, bool, type(None)})  # types that are no float and hold none
_LONG_NUMBER = re.compile(rb"\d{19}")


class JsonRows(OfLines):
    """The records.Rows of JSON lines: an object on each line that is not blank."""

    format: Format = "jsonl"

    def unparsed(self) -> Iterator[object]:
        return self._raw()

    def _raw(self) -> Iterator[bytes]:
        while line := self._lines.next():
            if self._lines.torn:
                return self._lines.go_back()
            line = line.removeprefix(codecs.BOM_UTF8)  # concatenated files have more of them
            if line.strip():
                yield line.rstrip(b"\r\n")
            else:
                self._lines.skip_blank(b" \t\r\n\v\f")

    def __iter__(self) -> Iterator[Record]:
        for index, raw in enumerate(self._raw()):
            line = self._lines.number
            if self._lines.too_big:
                yield Record(index, line, raw, None, too_big(line, self._lines.limit))
            else:
                yield self._record(index, line, raw)

    def _record(self, index: int, line: int, raw: bytes) -> Record:
        return json_record(index, line, raw)


class LineRows(JsonRows):
    """The records.Rows of plain text: each line that is not blank becomes the object `{"text": line}`."""

    def _record(self, index: int, line: int, raw: bytes) -> Record:
        if error := bad_encoding(raw, line):
            return Record(index, line, raw, None, error)
        fields = {LINE_FIELD: raw.decode()}
        return Record(index, line, orjson.dumps(fields), fields)


def json_record(index: int, line: int, raw: bytes) -> Record:
    """Return the Record of an object's text, or one with an error."""
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as problem:
        return Record(index, line, raw, None, bad_encoding(raw, line) or _bad_json(problem, line))
    if type(fields) is not dict:
        return Record(index, line, raw, None, row_error("bad_row", line, "the JSON value is not an object"))
    # orjson turns an integer beyond 64 bits into a float.
    if not _NO_FLOATS.issuperset(map(type, fields.values())) and _LONG_NUMBER.search(raw):
        with suppress(ValueError, RecursionError):
            fields = json.loads(raw)
    return Record(index, line, raw, fields)


def _bad_json(problem: orjson.JSONDecodeError, line: int) -> RowError:
    """Return the error of a line that orjson refuses: to it, NaN, Infinity and lone surrogates are not JSON.

    A number beyond a double and very deep nesting are JSON, but readers of the output would refuse them too.
    """
    at = f"(column {problem.colno})"
    if "infinity" in problem.msg:
        return row_error("bad_row", line, f"a number is beyond 1.8e308, the largest that can be read {at}")
    if "depth" in problem.msg or "ecursion" in problem.msg:
        return row_error(
            "bad_row", line, f"the JSON is nested deeper than 1,024 levels, the most that can be read {at}"
        )
    return row_error("bad_json", line, f"{problem.msg} {at}")

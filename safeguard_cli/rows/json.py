"""Reads the rows of a JSON file: the objects of an array, or objects one after another, however spread over lines.

An object's own bytes are its row, as in JSON lines; only line breaks between its tokens are left out, so that it fits
on a line. The objects are found by their brackets and quotes, one at a time, so a file of any size or depth is read in
bounded memory. Where the brackets do not fit, no one can say where the next row begins, and reading ends there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from safeguard_cli.rows.formats import Format
from safeguard_cli.rows.jsonl import json_record
from safeguard_cli.rows.lines import SHOWN_BYTES, Lines, OfLines
from safeguard_cli.rows.records import Record, too_big
from safeguard_cli.rows.sniff import refuse_columns

_PIECE = 1 << 16
_GAP = re.compile(rb"(?:[\s,]|\xef\xbb\xbf)*")
_MARK = re.compile(rb'["{}\[\]]')
_BARE = re.compile(rb'[^\s,"{}\[\]]*')
_CLOSING = {ord("{"): ord("}"), ord("["): ord("]")}


class JsonValues(OfLines):
    """The records.Rows of a JSON file, which goes by the name `file`."""

    format: Format = "jsonl"

    def __init__(self, file: str, lines: Lines) -> None:
        super().__init__(lines)
        self._file = file

    def unparsed(self) -> Iterator[object]:
        return self._values()

    def __iter__(self) -> Iterator[Record]:
        for index, (line, raw) in enumerate(self._values()):
            if len(raw) > self._lines.limit:
                yield Record(index, line, raw[:SHOWN_BYTES], None, too_big(line, self._lines.limit))
                continue
            record = json_record(index, line, raw)
            if index == 0:
                refuse_columns(self._file, record.fields)
            if record.fields is not None and (b"\n" in raw or b"\r" in raw):
                record = Record(index, line, _one_line(raw), record.fields)
            yield record

    def _values(self) -> Iterator[tuple[int, bytes]]:
        """Yield the first line and the bytes of each value; of one over the limit, a little more than the limit."""
        in_array = False
        lines, value = self._lines, _Value(self._lines)
        while piece := lines.read(_PIECE):
            at = 0
            while at < len(piece):
                if not value.open:
                    gap = _GAP.match(piece, at)
                    at = gap.end() if gap else at
                    if at == len(piece):
                        break
                    if piece[at] in b"[]" and in_array == (piece[at] == ord("]")):
                        in_array = not in_array
                        at += 1
                        continue
                    if piece[at] in b"}]" or (piece[at] not in b'{["' and not in_array):
                        lines.fail(f"on line {lines.number + 1}, there is neither an object nor an array of objects")
                        return
                    value.begin()
                at = value.take(piece, at)
                if value.problem:
                    lines.fail(value.problem)
                    return
                if not value.open:
                    yield value.line, bytes(value.bytes)
            lines.number += piece.endswith(b"\n")
        if value.bare and not lines.failed:
            yield value.line, bytes(value.bytes)
        elif value.open or in_array:
            begun = f"within the value that begins on line {value.line}" if value.open else "before the array does"
            lines.fail(f"the file ends {begun}")


class _Value:
    """One value that is being read piece by piece."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.open = False
        self.problem = ""
        self.line = 0
        self.bytes = bytearray()
        self._closing = bytearray()  # the brackets that are still to come, the next one last
        self._quoted = self._escaped = False

    @property
    def bare(self) -> bool:
        """Return whether the open value is a number or a word, which only what follows it ends."""
        return self.open and not self._closing and not self._quoted

    def begin(self) -> None:
        self.open, self.line = True, self._lines.number + 1
        self.bytes.clear()

    def take(self, piece: bytes, at: int) -> int:
        """Take what belongs to the value, from `at` on; return where that ends."""
        begun, at = at, self._end(piece, at)
        room = self._lines.limit + 1 - len(self.bytes)
        self.bytes += piece[begun : min(at, begun + max(0, room))]
        if self._quoted and at == len(piece) and piece.endswith(b"\n"):
            self.problem = f"on line {self._lines.number + 1}, a quote is opened and never closed"
        return at

    def _end(self, piece: bytes, at: int) -> int:
        """Return where the value ends, at most the piece's end."""
        if not self._closing and not self._quoted and piece[at] not in b'"{[':
            found = _BARE.match(piece, at)
            at = found.end() if found else at
            self.open = at == len(piece)
            return at
        while at < len(piece):
            if self._quoted:
                at = self._quote_end(piece, at)
            elif found := _MARK.search(piece, at):
                at = found.end()
                self._mark(piece[at - 1])
            else:
                return len(piece)
            if self.problem:
                return at
            if not self._closing and not self._quoted:
                self.open = False
                return at
        return at

    def _mark(self, mark: int) -> None:
        if mark == ord('"'):
            self._quoted = True
        elif mark in _CLOSING:
            self._closing.append(_CLOSING[mark])
        elif self._closing.pop() != mark:
            self.problem = f"on line {self._lines.number + 1}, {chr(mark)!r} closes what another bracket opened"

    def _quote_end(self, piece: bytes, at: int) -> int:
        """Return the place after the quote that closes the open string, or the piece's end if it is not there."""
        while True:
            end = piece.find(b'"', at)
            stop = len(piece) if end < 0 else end
            first = stop
            while first > at and piece[first - 1] == ord("\\"):
                first -= 1
            odd = (stop - first) % 2 == 1
            escaped = odd != self._escaped if first == at else odd
            if end < 0:
                self._escaped = escaped
                return len(piece)
            self._escaped = False
            at = end + 1
            if not escaped:
                self._quoted = False
                return at


def _one_line(raw: bytes) -> bytes:
    """Return valid JSON without its line breaks and the white space around them: no string holds such bytes."""
    return b"".join(line.strip(b" \t\r") for line in raw.replace(b"\r", b"\n").split(b"\n"))


def write_array(path: Path, lines: Iterable[bytes]) -> None:
    """Write objects, each given as a line, to a file and to disk as a JSON array with an object in each line."""
    with path.open("wb") as file:
        before = b"[\n"
        for line in lines:
            file.write(before + line.rstrip(b"\n"))
            before = b",\n"
        file.write(b"\n]\n" if before == b",\n" else b"[]\n")
        file.flush()
        os.fsync(file.fileno())


def array_lines(path: Path) -> Iterator[bytes]:
    """Yield the objects of an array that `write_array` wrote, each as a line."""
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b"{"):
                yield line.rstrip(b"\n").removesuffix(b",") + b"\n"

"""The rows of an audit's output, put from the order in which they were asked about into the input's, and back.

The journal of an audit has its rows in the order of their ranks, so that its beginning is a random sample wherever it
ends. The output has them in the input's order, each with the probability with which it was drawn, which is known only
at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from safeguard_cli.files import Draft
from safeguard_cli.output.written import OutputShape, whole_lines
from safeguard_cli.rows.cells import chomp, split_cells
from safeguard_cli.rows.layouts import csv_line, members, sample_member
from safeguard_cli.rows.records import SAMPLE

Mark = Mapping[str, Any]  # the `_sample` of a row
PROBABILITY = "probability"


class Lines:
    """Reads and writes the `_sample` of lines of a shape; a CSV has it in `columns`."""

    def __init__(self, shape: OutputShape, columns: tuple[str, ...]) -> None:
        self._csv, self._delimiter, self._columns = shape.format == "csv", shape.delimiter, columns
        self._verdicts, self._verdict_cells = len(shape.labels), len(shape.labels) * len(shape.columns)

    def sample(self, line: bytes) -> Mark:
        """Return the `_sample` of a row."""
        if not self._csv:
            found: Mark = orjson.loads(line)[SAMPLE]
            return found
        cells = self._cells(line)
        first = len(cells) - self._verdict_cells - len(self._columns)
        values = zip(self._columns, cells[first : first + len(self._columns)], strict=True)
        return {part: orjson.loads(cell) if cell[:1].isdigit() else cell for part, cell in values if cell}

    def with_sample(self, line: bytes, sample: Mark) -> bytes:
        """Return a row's line with another `_sample`."""
        if not self._csv:
            found, *verdicts = [text for _, text, _ in members(line)][-1 - self._verdicts :]
            behind = b"".join(b"," + verdict for verdict in verdicts) + b"}\n"
            return line[: len(line) - len(behind) - len(found)] + sample_member(sample) + behind
        cells = self._cells(line)
        first = len(cells) - self._verdict_cells - len(self._columns)
        cells[first : first + len(self._columns)] = [str(sample.get(part, "")) for part in self._columns]
        return csv_line(cells, self._delimiter, line[len(chomp(line)) :].decode())

    def _cells(self, line: bytes) -> list[str]:
        cells = split_cells(line.decode(), self._delimiter, str)
        assert cells is not None, "a line that this program wrote"
        return cells


def rewrite(
    path: Path,
    target: Draft,
    shape: OutputShape,
    columns: tuple[str, ...],
    key: Callable[[Mark], int],
    change: Callable[[Mark], Mark],
) -> list[int]:
    """Write the rows of a file in the order of `key`, each with a changed `_sample`; return their keys in that order.

    Memory holds three numbers for each row.
    """
    reading, places, at = Lines(shape, columns), [], 0
    header = b""
    for number, line in enumerate(whole_lines(path, shape.format)):
        if shape.format == "csv" and not number:
            header = line
        else:
            places.append((key(reading.sample(line)), at, len(line)))
        at += len(line)
    places.sort()
    target.write(header)
    with path.open("rb") as file:
        for piece in _pieces(file, places):
            target.write(reading.with_sample(piece, change(reading.sample(piece))))
    return [found for found, _, _ in places]


def _pieces(file: BinaryIO, places: list[tuple[int, int, int]]) -> Iterator[bytes]:
    for _, at, size in places:
        file.seek(at)
        yield file.read(size)

"""The whole rows of an output, and their verdicts."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.output.manifest import START_OVER, Manifest, Refused
from safeguard_cli.output.manifest_shape import Done
from safeguard_cli.output.readback import BadPart, verdict_as_written, verdict_of_cells_as_written
from safeguard_cli.rows.cells import split_cells
from safeguard_cli.rows.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Written:
    """One whole row of an output: its bytes, and its verdicts by name as far as a tally needs them."""

    raw: bytes
    verdicts: dict[str, Verdict]

    @property
    def in_error(self) -> bool:
        return any(verdict.error is not None for verdict in self.verdicts.values())


@dataclass(frozen=True, slots=True)
class OutputShape:
    """How an output is written, as needed to read it again; `labels` are those of each policy, by its name."""

    format: str
    delimiter: str
    labels: Mapping[str, Sequence[str]]
    columns: Sequence[str]
    every_row: bool  # one row out for every row in, so that the output itself says how many rows are done


def read_output(path: Path, shape: OutputShape) -> Iterator[Written]:
    """Yield the whole rows of an output, without a torn last one; a CSV's header comes first, without verdicts.

    Raise Refused if a row is not one of ours, or is not as we wrote it.
    """
    ours = [f"{name}_{column}" for name in shape.labels for column in shape.columns]
    width = 0
    for number, raw in enumerate(whole_lines(path, shape.format), 1):
        where = f"{path}, row {number}"
        try:
            if shape.format == "jsonl":
                row = orjson.loads(raw)
                yield Written(raw, {name: _verdict(row[name], name, shape, where) for name in shape.labels})
                continue
            text = raw.removeprefix(codecs.BOM_UTF8).decode() if not width else raw.decode()
            cells = split_cells(text, shape.delimiter, str) or []
            if not width:
                width = len(cells)
                yield Written(raw, {})
                continue
            if len(cells) != width:
                raise ValueError
            row = dict(zip(ours, cells[-len(ours) :], strict=True))
            parts = {name: {column: row[f"{name}_{column}"] for column in shape.columns} for name in shape.labels}
            yield Written(raw, {name: _verdict(parts[name], name, shape, where) for name in shape.labels})
        except (ValueError, KeyError, TypeError):
            raise Refused(f"{where}: not a row that this run would write; {START_OVER}") from None


def _verdict(parts: Any, name: str, shape: OutputShape, where: str) -> Verdict:
    read = verdict_as_written if shape.format == "jsonl" else verdict_of_cells_as_written
    try:
        return read(parts, shape.labels[name])
    except BadPart as problem:
        part = f"{name}_{problem.part}" if shape.format == "csv" else f"{name}.{problem.part}"
        raise Refused(f"{where}, {part.rstrip('.')}: {problem.sentence}; {START_OVER}") from None


def whole_lines(path: Path, format: str) -> Iterator[bytes]:
    """Yield whole rows with their line ends.

    A line end inside a CSV cell's quotes ends no row. Quotes within cells are doubled, so the parity of all quotes so
    far tells whether a cell is open.
    """
    pieces: list[bytes] = []
    quotes = 0
    with path.open("rb") as file:
        for line in file:
            pieces.append(line)
            quotes += line.count(b'"')
            if line.endswith(b"\n") and (format == "jsonl" or quotes % 2 == 0):
                yield b"".join(pieces)
                pieces, quotes = [], 0


def whole_rows(path: Path, shape: OutputShape, manifest: Manifest) -> tuple[int, int]:
    """Return how many input rows an output answers, and at which byte these end; nothing is touched.

    In a deterministic run, count only up to where the slots were last drained. If not every row comes out, the last
    saved manifest gives the count, as long as the output has not become shorter.
    """
    if not shape.every_row:
        done = manifest.progress
        if path.stat().st_size >= done.output_bytes:
            if not _fits(path, shape, done):
                raise Refused(f"{path} does not match what is on record about it; {START_OVER}")
            return done.rows, done.output_bytes
        return 0, len(next(whole_lines(path, shape.format), b"")) if shape.format == "csv" else 0
    every = manifest.identity.deterministic or 1
    rows, offset, end = 0, 0, 0
    for written in read_output(path, shape):
        end += len(written.raw)
        rows += bool(written.verdicts)  # a CSV's header has none
        if rows % every == 0:
            offset = end
    return rows - rows % every, offset


def _fits(path: Path, shape: OutputShape, done: Done) -> bool:
    """Return whether an output of --only has the rows that its manifest counted, up to the bytes that it knew of."""
    lines = end = 0
    for line in whole_lines(path, shape.format):
        if end >= done.output_bytes:
            break
        lines, end = lines + 1, end + len(line)
    if end != done.output_bytes:
        return False
    rows = max(0, lines - (shape.format == "csv"))  # without the header
    if done.counts is None:
        return done.rows == rows == 0
    counts = done.counts
    kept = [counts.rows_in_error, *counts.violating.values()]  # a row can be among several of them
    return counts.rows == done.rows and max(kept) <= rows <= sum(kept) + counts.blank

"""Where an output stands: its whole rows, what they say, and what of it a further run may build on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.cells import split_cells
from safeguard_cli.files import sha256
from safeguard_cli.manifest import Foreign, Manifest, Refused, changes, load
from safeguard_cli.readback import BadPart, verdict_as_written, verdict_of_cells_as_written
from safeguard_cli.records import Record
from safeguard_cli.verdict import Verdict

START_OVER = "--overwrite starts over"


@dataclass(frozen=True, slots=True)
class Written:
    """One whole row of an output: its bytes, and its verdicts by name as far as a tally needs them."""

    raw: bytes
    verdicts: dict[str, Verdict]

    @property
    def in_error(self) -> bool:
        return any(verdict.error is not None for verdict in self.verdicts.values())


@dataclass(frozen=True, slots=True)
class Shape:
    """How an output is written: what it takes to read it again. `labels` are those of each policy, by its name."""

    format: str
    delimiter: str
    labels: Mapping[str, Sequence[str]]
    columns: Sequence[str]
    every_row: bool  # one row out for every row in, so that the output itself says how many rows are done


def run_path(output: Path) -> Path:
    """The manifest of an unfinished output."""
    return output.with_name(output.name + ".run.json")


def manifest_path(output: Path) -> Path:
    """The manifest of a finished output."""
    return output.with_name(output.name + ".manifest.json")


def journal_path(output: Path) -> Path:
    """The JSONL output that a Parquet output is made from."""
    return output.with_name(output.name + ".rows.jsonl")


def beside(output: Path, format: str) -> tuple[Path, ...]:
    """The files that stand beside an output of this format, while a run writes it or afterwards."""
    if not output.name:
        return ()
    ours = (output, journal_path(output)) if format == "parquet" else (output,)
    return (*ours[1:], *(path(each) for each in ours for path in (run_path, manifest_path)))


def not_ours(output: Path) -> str:
    """What is said of a file that no run of ours wrote."""
    return (
        f"{output} exists and is not an output of safeguard: name another file with -o"
        " (--overwrite would delete what is in it)"
    )


def find_manifest(output: Path) -> Manifest | None:
    """The manifest that belongs to an output; that of a finished run first.

    Where --retry-errors was killed both can be of a finished one: that counts which fits the output.
    """
    finished, begun = load(manifest_path(output)), load(run_path(output))
    if finished and begun and begun.result and output.is_file():
        size, digest = output.stat().st_size, begun.result["output_sha256"]
        if size == begun.output_bytes and sha256(output) == digest:
            return begun
    return finished or begun


def check_beside(output: Path) -> None:
    """Raise Foreign where a file that is none of ours has the name of a record of this output.

    `--overwrite` is for the output and what is ours beside it.
    """
    for path in (run_path(output), manifest_path(output)):
        try:
            load(path)
        except Foreign:
            raise
        except Refused:
            pass  # ours, and damaged


def check_same(old: Manifest, new: Manifest, output: Path) -> list[str]:
    """Refuse when anything differs that can change a label; returns what else differs, as warnings."""
    if different := changes(old.decides, new.decides):
        raise Refused(f"{output} was labelled differently; -o names another output, {START_OVER}:", *different)
    different = changes(old.machine, new.machine)
    if different and old.decides["deterministic"]:
        raise Refused(f"{output} is a --deterministic run on another footing, {START_OVER}:", *different)
    return different


def read_output(path: Path, shape: Shape) -> Iterator[Written]:
    """The whole rows of an output; a torn last one is left out. A CSV's header comes first, without verdicts.

    Raises Refused when a row is not one of ours, or is not as we wrote it.
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
            cells = split_cells(raw.decode(), shape.delimiter, str) or []
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
            raise Refused(f"{where}: not a row of such a run; {START_OVER}") from None


def _verdict(parts: Any, name: str, shape: Shape, where: str) -> Verdict:
    read = verdict_as_written if shape.format == "jsonl" else verdict_of_cells_as_written
    try:
        return read(parts, shape.labels[name])
    except BadPart as problem:
        part = f"{name}_{problem.part}" if shape.format == "csv" else f"{name}.{problem.part}"
        raise Refused(f"{where}, {part.rstrip('.')}: {problem.sentence}; {START_OVER}") from None


def whole_lines(path: Path, format: str) -> Iterator[bytes]:
    """Rows with their line ends. In CSV one inside quotes is none: every quote is doubled, so their parity tells."""
    pieces: list[bytes] = []
    quotes = 0
    with path.open("rb") as file:
        for line in file:
            pieces.append(line)
            quotes += line.count(b'"')
            if line.endswith(b"\n") and (format == "jsonl" or quotes % 2 == 0):
                yield b"".join(pieces)
                pieces, quotes = [], 0


def whole_rows(path: Path, shape: Shape, manifest: Manifest) -> tuple[int, int]:
    """How many input rows an output answers, and where these end in bytes; nothing is touched.

    In a deterministic run only up to where the slots were last drained. Where not every row comes out, the manifest's
    last word counts if the output is still that long.
    """
    if not shape.every_row:
        if path.stat().st_size >= manifest.output_bytes:
            if not _fits(path, shape, manifest):
                raise Refused(f"{path} and what is on record about it do not fit each other; {START_OVER}")
            return manifest.rows, manifest.output_bytes
        return 0, len(next(whole_lines(path, shape.format), b"")) if shape.format == "csv" else 0
    every = manifest.decides["deterministic"] or 1
    rows, offset, end = 0, 0, 0
    for written in read_output(path, shape):
        end += len(written.raw)
        rows += bool(written.verdicts)  # a CSV's header has none
        if rows % every == 0:
            offset = end
    return rows - rows % every, offset


def _fits(path: Path, shape: Shape, manifest: Manifest) -> bool:
    """Whether an output without every row has, up to where its manifest knows of it, the rows that were counted."""
    lines = end = 0
    for line in whole_lines(path, shape.format):
        if end >= manifest.output_bytes:
            break
        lines, end = lines + 1, end + len(line)
    if end != manifest.output_bytes:
        return False
    counts = manifest.counts or dict.fromkeys(("rows", "rows_in_error"), 0)
    kept = [counts["rows_in_error"], *counts.get("violating", {}).values()]  # a row can be among several of them
    rows = max(0, lines - (shape.format == "csv"))  # without the header
    return bool(counts["rows"] == manifest.rows and max(kept) <= rows <= sum(kept) + counts.get("blank", 0))


class InputHash:
    """A running hash over the bytes of the rows that were consumed."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, record: Record) -> None:
        self._hash.update(b"%d\n" % len(record.raw))
        self._hash.update(record.raw)

    def value(self) -> str:
        """The hash over all so far."""
        return self._hash.hexdigest()

    def copy(self) -> InputHash:
        other = InputHash()
        other._hash = self._hash.copy()
        return other


def check_input(
    records: Iterator[Record],
    again: Iterator[Record],
    written: Iterator[Written],
    rows: int,
    manifest: Manifest,
    beginning: Callable[[Record], bytes],
    count: Callable[[Mapping[str, Verdict]], None],
) -> InputHash:
    """Take the first `rows` rows, those that are done, out of `records`: are they still what they were?

    The manifest's hash tells for as many as it knew of, and the output's own row for each (`written` is empty where
    not every row comes out). `again` are the same records. Calls `count` with each row's verdicts.
    """
    digest = InputHash()
    known, ahead = manifest.rows, InputHash()
    if known > rows:  # what the output has lost at its end is known as well
        for record in _first(again, known):
            ahead.add(record)
    for number, record in enumerate(_first(records, rows), 1):
        digest.add(record)
        row = next(written, None)
        if row and not row.raw.startswith(beginning(record)):
            raise Refused(f"row {number:,} of the input is not the one that was labelled before; {START_OVER}")
        if row:
            count(_blank(row.verdicts) if record.blank else row.verdicts)
        if number == known:
            ahead = digest.copy()
    if known and ahead.value() != manifest.input_sha256:
        raise Refused(f"the first {known:,} rows of the input are not those that were labelled before; {START_OVER}")
    return digest


def _blank(verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """The Verdicts of a blank row: an output does not tell its errors from others."""
    return {
        name: replace(verdict, error=replace(verdict.error, blank=True)) if verdict.error else verdict
        for name, verdict in verdicts.items()
    }


def _first(records: Iterator[Record], count: int) -> Iterator[Record]:
    taken = 0
    for record in islice(records, count):
        yield record
        taken += 1
    if taken < count:
        raise Refused(f"the input has only {taken:,} rows where it had {count:,} before; {START_OVER}")


def truncate(path: Path, offset: int) -> None:
    """Cut off what follows `offset`, on disk before anything is appended."""
    with path.open("r+b") as file:
        file.truncate(offset)
        os.fsync(file.fileno())

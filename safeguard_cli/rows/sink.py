"""Writes rows with their Verdicts to a file or a pipe, in input order, each row whole or not at all."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.rows.as_api import Service, ServiceLayout
from safeguard_cli.rows.formats import FORMATS, PACKED, WRITTEN, Format, Written, extension, unpacked_name
from safeguard_cli.rows.layouts import CsvLayout, JsonlLayout, field_names
from safeguard_cli.rows.records import SAMPLE, Record
from safeguard_cli.rows.samples import is_sample
from safeguard_cli.rows.source import Source, check_fields
from safeguard_cli.rows.verdict import COLUMNS, Verdict
from safeguard_cli.rows.writable import descriptor
from safeguard_cli.signals import UNBROKEN

_ATOMIC = 4096  # bytes that a pipe with room takes at once, so that a write never waits
_COMPRESSED = (*(ending[1:] for ending in PACKED), "zip")
_STALLED = 0.5  # seconds between two checks for a signal while a reader takes nothing


def verdict_columns(
    *,
    calibrated: bool = False,
    windows: bool = False,
    truncated: bool = False,
    turns: bool = False,
    votes: bool = False,
    p_votes: bool = False,
    rationale: bool = False,
    reasoning: bool = False,
) -> tuple[str, ...]:
    """Return the parts of a verdict that get a CSV column, in order, without the policy's name before them."""
    asked = {
        "p_calibrated": calibrated,
        "windows": windows,
        "truncated": truncated,
        "turns_left_out": turns,
        "votes": votes,
        "p_votes": p_votes,
        "rationale": rationale,
        "reasoning": reasoning,
    }
    return tuple(column for column in COLUMNS if asked.get(column, True))


def output_format(out: Path | None, source_format: Written) -> Written:
    """Return OUT's format by its extension, else the input's; raise UsageError for a format that is never written."""
    ending = _ending(out)
    if not ending:
        return source_format
    if format := WRITTEN.get(ending):
        return format
    kind = f".{ending}" if ending.isalnum() else "this extension"  # the end of a URL can be secret
    why = "output is never compressed" if ending in _COMPRESSED else f"{kind} is not written"
    raise UsageError(f"{out}: {why}; name the output {', '.join(f'*.{each}' for each in WRITTEN)}")


def stream_format(name: Path | None, source_format: Format) -> Format:
    """Return the format of what goes into a device or a named pipe: by its name, else the input's."""
    format = WRITTEN.get(_ending(name), source_format)
    if format != "jsonl" and format != "csv":
        raise UsageError(f"{name}: a file of {format} is made when all rows are there: it must be a regular file")
    return format


def output_delimiter(out: Path | None, source: Source) -> str:
    """Return what separates the cells of a CSV output: a tab in .tsv, never one in .csv, else the input's delimiter."""
    ending = _ending(out)
    if ending == "tsv":
        return "\t"
    return "," if ending == "csv" and source.delimiter == "\t" else source.delimiter


def _ending(out: Path | None) -> str:
    """Return what follows the last dot of a name, even of `.csv`."""
    return out.name.lower().rpartition(".")[2] if out is not None and "." in out.name else ""


def name_of(target: Path | BinaryIO) -> Path | None:
    """Return the path of a file, a device or a named pipe; None for another stream."""
    name = target if isinstance(target, Path) else getattr(target, "name", None)
    return Path(name) if isinstance(name, (str, Path)) and name != "<stdout>" else None


def default_output(source: Source) -> Path:
    """Return where labels go at a terminal: INPUT-stem.labels.jsonl (.csv, .tsv) beside the input, a sample's here."""
    path = source.path if source.path is not None and descriptor(source.path) is None else Path("stdin")
    suffix = "jsonl" if source.format == "jsonl" else "tsv" if source.delimiter == "\t" else "csv"
    return labels_path(path, suffix)


def labels_path(path: Path, suffix: str) -> Path:
    """Return the name of labels beside an input; those of a sample or of pulled data, in the working folder."""
    path = Path(path.name) if is_sample(path) or _is_pulled(path) else path
    return path.with_name(f"{Path(unpacked_name(path.name)).stem}.labels.{suffix}")


def _is_pulled(path: Path) -> bool:
    """Return whether a file is data in the hub's cache."""
    return "snapshots" in path.parts and any(part.startswith("datasets--") for part in path.parts)


def written_name(path: Path) -> str:
    """Return the name of an input's output in another folder: `a.csv` for `a.csv.gz`, `a.txt.jsonl` for `a.txt`."""
    name = unpacked_name(path.name)
    kind = FORMATS.get(extension(path))
    return f"{name}.{kind.written}" if kind and _ending(Path(name)) not in WRITTEN else name


def check_names(
    source: Source, format: Format, names: Sequence[str], columns: Sequence[str], keep: Sequence[str] | None = None
) -> None:
    """Raise UsageError if the input's header or first row already has a name that the verdicts need.

    Raise it too if two policies need the same column, or if `--keep` names a field that is in none of the first rows.
    """
    fields = field_names(source)
    ours = list(names) if format == "jsonl" else [f"{name}_{column}" for name in names for column in columns]
    taken = [name for name in ours if name in fields and (keep is None or name in keep)]
    of_sample = [SAMPLE] if format == "jsonl" else [f"{SAMPLE}_{part}" for part in source.sample_columns]
    if source.sample_columns and (drawn := [name for name in of_sample if name in fields]):
        raise UsageError(f"{source.name}: the input already has {drawn[0]!r}: is it the output of an audit?")
    if taken:
        raise UsageError(f"{source.name}: the input already has {taken[0]!r}; --as NAME gives the labels another name")
    if len(set(ours)) < len(ours):
        raise UsageError(f"the policies' names give two columns the same name: {max(ours, key=ours.count)!r}")
    check_fields(source, "--keep", keep or ())


class Disturbed(SafeguardError):
    """The output no longer holds what was written to it."""


class Sink:
    """An open output, made by `open_sink`: `write` each row in input order, in a `with` block.

    Each row is one write to the system, so that a killed run leaves whole rows. A write that fails removes the part
    of the row that it wrote. `size` is the file's size in bytes.
    """

    def __init__(
        self, target: Path | BinaryIO, layout: JsonlLayout | CsvLayout, *, only_violating: bool, append: bool
    ) -> None:
        self._path = target if isinstance(target, Path) else None
        self.name = str(target if isinstance(target, Path) else getattr(target, "name", target))
        self.name = "standard output" if self.name == "<stdout>" else self.name
        self._layout = layout
        self._only_violating = only_violating
        try:
            self._stream = _open(target, append) if isinstance(target, Path) else target
        except OSError as problem:
            raise SafeguardError(f"{self.name}: cannot be written: {problem.strerror}") from problem
        self._descriptor: int | None = None
        with suppress(OSError, AttributeError):  # a stream in memory has none
            self._stream.flush()
            self._descriptor = self._stream.fileno()
        state = None if self._descriptor is None else os.fstat(self._descriptor)
        self._pipe = state is not None and stat.S_ISFIFO(state.st_mode)
        self.size = state.st_size if append and state is not None else 0
        if not append:
            try:
                with UNBROKEN:
                    self._put(layout.header())
            except BaseException:
                self._abandon()
                raise

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon()

    def wait(self) -> None:
        """Wait until a pipe takes more, so that a signal comes here: a row that is begun must be finished."""
        if self._pipe and self._descriptor is not None:
            select.select([], [self._descriptor], [])

    def write(self, record: Record, verdicts: Mapping[str, Verdict]) -> bool:
        """Write the row with its verdict under each policy's name; return False if `--only violates` leaves it out.

        Raise BrokenPipeError if the reader has gone, SafeguardError if the row cannot be written.
        """
        if self._only_violating and not any(verdict.error or verdict.violates for verdict in verdicts.values()):
            return False
        self._put(self._layout.row(record, verdicts))
        return True

    def copy(self, row: bytes) -> None:
        """Write a row of an earlier output as it is."""
        self._put(row)

    def sync(self) -> None:
        """Have the system put everything on disk, if the output is a file; raise Disturbed if it is not there then."""
        if self._path is None or self._descriptor is None:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as problem:
            if problem.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # file systems without it
                raise SafeguardError(f"{self.name}: writing failed: {problem.strerror}") from problem
        state = os.fstat(self._descriptor)
        try:
            there = os.path.samestat(state, self._path.stat())
        except OSError:
            there = False
        if not there:
            raise Disturbed(f"{self.name} was moved, replaced or deleted while it was being written")
        if state.st_size != self.size:
            raise Disturbed(
                f"{self.name} was changed while it was being written: it should have {self.size:,} bytes, but has"
                f" {state.st_size:,}"
            )

    def close(self) -> None:
        """Put everything on disk and close the file; standard output stays open."""
        if self._path is not None and not self._stream.closed:
            try:
                self.sync()
            finally:
                self._stream.close()

    def _abandon(self) -> None:
        """Close the file after a failure; report that failure, not one from closing."""
        if self._path is not None:
            with suppress(OSError):
                self._stream.close()

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                # Not through the stream's buffer, which could hold part of a row at any time.
                if self._descriptor is None:
                    rest = rest[self._stream.write(rest) :]
                    continue
                if self._pipe and len(rest) < len(data):
                    _wait_for_a_slow_reader(self._descriptor)
                rest = rest[os.write(self._descriptor, rest[:_ATOMIC] if self._pipe else rest) :]
        except BrokenPipeError:
            raise
        except OSError as problem:
            if self._descriptor is not None and len(rest) < len(data):
                with suppress(OSError):  # a full disk may have taken part of the row: cut it off again
                    start = os.lseek(self._descriptor, len(rest) - len(data), os.SEEK_CUR)
                    os.ftruncate(self._descriptor, start)
            raise SafeguardError(f"{self.name}: writing failed: {problem.strerror or problem}") from problem
        self.size += len(data)


def _open(path: Path, append: bool) -> BinaryIO:
    """Open an output with O_APPEND, so that its size shows whether another process writes to it too.

    No row overwrites another's, and none leaves a hole.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
    return os.fdopen(os.open(path, flags if append else flags | os.O_TRUNC, 0o666), "ab", 0)


def _wait_for_a_slow_reader(pipe: int) -> None:
    while not select.select([], [pipe], [], _STALLED)[1]:
        UNBROKEN.give_up()  # a reader that takes nothing must not keep the run from ending


def open_sink(
    target: Path | BinaryIO,
    *,
    source: Source,
    format: Format,
    names: Sequence[str],
    columns: Sequence[str],
    keep: Sequence[str] | None = None,
    only_violating: bool = False,
    csv_safe: bool = False,
    service: Service | None = None,
    bom: bool = False,
    append: bool = False,
) -> Sink:
    """Open OUT, or a binary stream that the caller owns, and write a CSV's header unless appending.

    `names` are the verdicts' names, `columns` those from `verdict_columns`, `keep` the fields to keep (None: all),
    `service` the one whose answers JSONL rows have too (None: none). With `bom`, a byte order mark stands before the
    header. Call `writable.check_output` and `check_names` first.
    """
    delimiter = output_delimiter(name_of(target), source)
    layout = make_layout(source, format, names, columns, keep, delimiter, csv_safe, service, bom)
    return Sink(target, layout, only_violating=only_violating, append=append)


def make_layout(
    source: Source,
    format: Format,
    names: Sequence[str],
    columns: Sequence[str],
    keep: Sequence[str] | None,
    delimiter: str,
    csv_safe: bool,
    service: Service | None = None,
    bom: bool = False,
) -> JsonlLayout | CsvLayout:
    """Return the layout that makes bytes of rows; the arguments are those of `open_sink`."""
    if format == "jsonl":
        return ServiceLayout(source, keep, service) if service else JsonlLayout(source, keep)
    return CsvLayout(source, keep, names, columns, delimiter, csv_safe, bom)

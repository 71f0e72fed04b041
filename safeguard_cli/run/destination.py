"""Where a run's output goes and what it holds, checked before anything is loaded.

A Destination is a Stream, a File, a Scratch file that is deleted when the command ends, or a MadeFile.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.files import sweep
from safeguard_cli.model.config import PROJECT_FILES, configured_model, user_file
from safeguard_cli.model.find import find_model
from safeguard_cli.model.gguf import model_parts
from safeguard_cli.output.journal import Journal
from safeguard_cli.output.manifest import (
    Foreign,
    Manifest,
    beside,
    check_beside,
    find_manifest,
    journal_path,
    load_finished,
    locked_beside,
    manifest_path,
    rows_path,
    run_path,
)
from safeguard_cli.output.written import OutputShape
from safeguard_cli.policy.packs import expand
from safeguard_cli.policy.policy import Policy, builtin_policies
from safeguard_cli.rows.as_api import Service, check_member
from safeguard_cli.rows.formats import Format
from safeguard_cli.rows.sink import (
    Sink,
    check_names,
    default_output,
    labels_path,
    name_of,
    open_sink,
    output_delimiter,
    output_format,
    stream_format,
    verdict_columns,
)
from safeguard_cli.rows.source import Source, check_fields
from safeguard_cli.rows.writable import Used, check_output, is_stream, open_stream, real, used
from safeguard_cli.run.made import Maker, is_made_from, make_file, remove, rereads, unpack, written_of
from safeguard_cli.run.settings import Settings
from safeguard_cli.run.to_json import JsonMaker
from safeguard_cli.run.to_parquet import ParquetMaker
from safeguard_cli.run.to_sheet import SheetMaker
from safeguard_cli.terminal import data_output, note, warn

MAKERS: dict[str | None, Maker] = {maker.format: maker for maker in (ParquetMaker(), JsonMaker(), SheetMaker())}


class Output(TypedDict):
    """What an output holds."""

    format: Format
    names: list[str]
    columns: tuple[str, ...]
    keep: list[str] | None
    only_violating: bool
    csv_safe: bool
    service: Service | None
    bom: bool


@dataclass(frozen=True, slots=True)
class Stream:
    """Standard output, a device or a named pipe: its rows cannot be read back, so the run cannot be resumed."""

    source: Source
    target: BinaryIO
    output: Output
    last: Manifest | None = None

    def check_rows(self, count: Callable[[], int | None]) -> None:
        """Raise UsageError if the output cannot have as many rows as there are; it may take long to count them."""

    def open_sink(self) -> Sink:
        """Open the stream to write rows to it."""
        return open_sink(self.target, source=self.source, **self.output)

    def complete(self) -> None:
        """Do what is left to do when the rows are written."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of rows with its manifest beside it; `last` is the manifest that an earlier session left."""

    source: Source
    path: Path
    output: Output
    labels: Mapping[str, Sequence[str]]  # by policy
    last: Manifest | None

    @property
    def shape(self) -> OutputShape:
        """Return what is needed to read the file again."""
        return OutputShape(
            self.output["format"],
            output_delimiter(self.path, self.source),
            self.labels,
            self.output["columns"],
            every_row=not self.output["only_violating"],
        )

    def check_rows(self, count: Callable[[], int | None]) -> None:
        """Raise UsageError if the output cannot have as many rows as there are; it may take long to count them."""

    def open_sink(self, *, append: bool, instead: Path | None = None) -> Sink:
        """Open the file, or the one that is to take its place, to write rows to it."""
        return open_sink(instead or self.path, source=self.source, append=append, **self.output)

    def what_is_left(self, rows: int, command: str) -> str:
        """Return a sentence on where a stopped run's rows are; `command`, if there is one, resumes the run."""
        return f"{rows:,} rows are in {self.path}" + (f"; to go on: {command}" if command else "")

    def take_up(self, journal: Journal) -> None:
        """Take note of what earlier sessions did, before this one begins."""

    def complete(self) -> None:
        """Do what is left to do when the rows are written."""


@dataclass(frozen=True, slots=True)
class Scratch(File):
    """A file in a folder that is deleted when the command ends: its rows are only measured."""

    def what_is_left(self, rows: int, command: str) -> str:
        return f"{rows:,} rows were labelled, and none is kept: run the command again"


@dataclass(frozen=True, slots=True)
class Held:
    """An output that is made at the end, which no other run can write, with the journal that the run resumes.

    `before` is the state of an input that is read once more at the end. `undo` removes a journal that was made from a
    finished file, until a session begins with it.
    """

    maker: Maker
    path: Path
    before: os.stat_result | None
    undo: ExitStack


@dataclass(frozen=True, slots=True)
class MadeFile(File):
    """A file that is made from the rows in `path`, its journal, once they are all there."""

    held: Held
    settings: Settings

    def check_rows(self, count: Callable[[], int | None]) -> None:
        """Raise UsageError if the file cannot have as many rows as there are."""
        most, kind = self.held.maker.most_rows(), self.held.maker.format
        if most is not None and (rows := count()) is not None and rows > most:
            raise UsageError(
                f"{self.held.path}: there are {rows:,} rows, and a .{kind} holds {most:,}: name the output *.csv or"
                " *.jsonl"
            )

    def complete(self) -> None:
        """Turn the journal into the file, unless the file was made from it already."""
        self.held.undo.pop_all()
        out, (done, result) = self.held.path, load_finished(self.path)
        if not is_made_from(out, result):
            remark = make_file(self.held.maker, self.settings, done, result, self.path, out, self.held.before)
            if remark:
                warn(f"{out}: {remark}")
        remove(self.path)
        if not self.settings.quiet:
            note(f"{done.progress.rows:,} rows are in {out}")


Destination = Stream | File


def last_machine(destination: Destination) -> Mapping[str, Any]:
    """Return what an earlier session recorded of its machine, empty if there was none."""
    return destination.last.machine.record if destination.last else {}


@contextmanager
def open_destination(
    settings: Settings, source: Source, policies: Sequence[Policy], read: Sequence[Used], held: Held | None
) -> Iterator[Destination]:
    """Open the destination of the output: the file that is made at the end and held, a stream or a file.

    Raise SafeguardError if it cannot be written or is one of the files that are `read`.
    """
    if held is not None:
        journal = journal_path(held.path)
        check_output(journal, read, beside(journal, "jsonl"))
        if held.maker.format == "xlsx":  # the journal has objects, but the file will have columns
            columns = (*_describe(settings, source, "csv", policies)["columns"], "cut")
            check_names(source, "csv", [policy.name for policy in policies], columns, kept_fields(settings))
        yield MadeFile(*fields_of_file(settings, source, journal, policies), held, settings)
        return
    if settings.output == "-" or (settings.output is None and not sys.stdout.isatty()):
        yield _stream(settings, source, data_output(), policies)
        return
    path = Path(settings.output) if settings.output is not None else default_output(source)
    if is_stream(path):
        with open_stream(path, read) as stream:
            yield _stream(settings, source, stream, policies)
        return
    check_output(path, read, beside(path, "jsonl"))
    if settings.output is None and not settings.quiet and not settings.dry_run:
        note(f"writing to {path}")
    yield (Scratch if settings.scratch else File)(*fields_of_file(settings, source, path, policies))


def _stream(settings: Settings, source: Source, stream: BinaryIO, policies: Sequence[Policy]) -> Stream:
    format = stream_format(name_of(stream), source.format)
    return Stream(source, stream, _describe(settings, source, format, policies))


OfFile = tuple[Source, Path, Output, dict[str, tuple[str, ...]], Manifest | None]


def fields_of_file(settings: Settings, source: Source, path: Path, policies: Sequence[Policy]) -> OfFile:
    """Return the fields of a File."""
    check_beside(path)
    format: Format = "csv" if output_format(path, source.format) == "csv" else "jsonl"
    output = _describe(settings, source, format, policies)
    last = None if settings.overwrite else find_manifest(path)
    return source, path, output, {policy.name: policy.labels for policy in policies}, last


def _made_output(settings: Settings) -> tuple[Maker, Path] | None:
    """Return the file that is to be made at the end of a run and what makes it, None for an output of rows.

    OUT's extension decides, else the input's format.
    """
    comes = written_of(settings)
    if settings.output is None:
        if comes is None or comes not in MAKERS or not sys.stdout.isatty():
            return None
        return MAKERS[comes], labels_path(Path(settings.input), comes)
    out = Path(settings.output)
    if settings.output == "-" or is_stream(out):
        return None
    maker = MAKERS.get(output_format(out, comes or "jsonl"))
    return (maker, out) if maker else None


@contextmanager
def hold_made(settings: Settings, read: Sequence[Used]) -> Iterator[Held | None]:
    """Hold an output that is made at the end, with an earlier session's journal or one made from the finished file.

    Yield None if the output is one of rows: open_journal holds those.
    """
    if (found := _made_output(settings)) is None:
        yield None
        return
    maker, out = found
    if settings.only:
        raise UsageError(
            f"--only leaves rows out, but a {maker.format} output has every row: filter it when you read it"
        )
    check_output(out, read, beside(out, maker.format))
    for option, given in (("--csv-safe", settings.csv_safe), ("--bom", settings.bom)):
        if given:
            raise UsageError(f"{option} has no effect: the output is not CSV")
    if settings.layout != "verdicts":
        raise UsageError(f"--layout {settings.layout} is for JSONL outputs: name one with -o")
    maker.check(settings, kept_fields(settings))
    journal, before = journal_path(out), None
    if rereads(maker, settings):
        before = Path(settings.input).stat()
    with ExitStack() as stack, ExitStack() as undo:
        if not settings.dry_run:
            check_beside_both(out, journal)
            stack.enter_context(locked_beside(real(out), run_path(journal)))
            sweep(real(out), manifest_path(out))
            if not (journal.exists() or settings.overwrite or not out.exists()):
                unpack(maker, settings, out, journal)
                undo.callback(remove_unbegun, journal)
        yield Held(maker, out, before, undo)


def check_beside_both(out: Path, journal: Path) -> None:
    """Raise Foreign if a file that the run would write beside the output is not ours, even with --overwrite."""
    check_beside(out)
    check_beside(journal)
    records = (run_path(journal), manifest_path(journal))
    empty = journal.is_file() and not journal.stat().st_size  # a run that was killed at once
    if os.path.lexists(journal) and not empty and not any(path.exists() for path in records):
        raise Foreign(journal)


def remove_unbegun(journal: Path) -> None:
    """Remove a journal that no session has begun with."""
    if manifest_path(journal).exists():
        remove(journal)


def kept_fields(settings: Settings) -> list[str] | None:
    """Return the row's own fields that are written, None for all of them."""
    if settings.keep is None:
        return None
    fields = [] if settings.keep == "none" else [name.strip() for name in settings.keep.split(",")]
    return [settings.id_field, *fields] if settings.id_field is not None else fields


def _describe(settings: Settings, source: Source, format: Format, policies: Sequence[Policy]) -> Output:
    """Return what the output holds, checked against the input's fields before anything is loaded."""
    for option, given in (("--csv-safe", settings.csv_safe), ("--bom", settings.bom)):
        if given and format != "csv":
            raise UsageError(f"{option} has no effect: the output is not CSV")
    if settings.id_field is not None:
        check_fields(source, "--id-field", [settings.id_field])
    if settings.layout != "verdicts" and format != "jsonl":
        raise UsageError(f"--layout {settings.layout} is for JSONL outputs: name one with -o")
    names = [policy.name for policy in policies]
    columns = verdict_columns(
        calibrated=settings.calibration is not None,
        windows=settings.long == "split",
        truncated=settings.long == "truncate",
        turns=settings.group is not None and settings.verdict_per == "turn",
        votes=settings.votes is not None,
        p_votes=settings.votes is not None and not settings.until_decided,
        rationale=settings.rationale,
        reasoning=settings.reasoning,
    )
    keep = kept_fields(settings)
    check_names(source, format, names, columns, keep)
    service = None if settings.layout == "verdicts" else settings.layout
    if service is not None:
        check_member(source, service, names, keep)
    return Output(
        format=format,
        names=names,
        columns=columns,
        keep=keep,
        only_violating=settings.only is not None,
        csv_safe=settings.csv_safe,
        service=service,
        bom=format == "csv" and (settings.bom or source.marked),
    )


def used_by(settings: Settings) -> list[Used]:
    """Return all files that a command with these settings reads; each file's reader reports what is wrong with it."""
    builtin = builtin_policies()
    found = used("the input", *([path for path, *_ in settings.joined] or [settings.input]))
    for name in settings.reuse:
        found += used("the reused output", name, rows_path(Path(name)))
    found += used("the policy", *(builtin.get(name, name) for name in expand(settings.policies)))
    with suppress(SafeguardError):
        found += used("the model", *model_parts(find_model(settings.model or configured_model())))
    if settings.tokenizer is not None:
        found += used("the tokenizer", settings.tokenizer)
    if settings.calibration is not None:
        found += used("the calibration", settings.calibration)
    settings_files = (*PROJECT_FILES, user_file())
    return found + used("the file of settings", *(file for file in settings_files if file is not None))

"""Where the rows of an audit go: a journal in the order of their ranks, of which OUT is made when the audit ends.

The journal, `OUT.rows.jsonl` (or `.csv`, `.tsv`), is an output like any other, with all that is promised of one. OUT
appears whole or not at all. To go on from a finished OUT, its journal is made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from safeguard_cli.audit.estimate import estimate, read_audit
from safeguard_cli.audit.ordering import Mark, rewrite
from safeguard_cli.audit.slices import By
from safeguard_cli.errors import SafeguardError, UsageError, sentences
from safeguard_cli.files import draft, sha256, sweep
from safeguard_cli.output.journal import Journal
from safeguard_cli.output.labelled import LabeledFile
from safeguard_cli.output.manifest import (
    START_OVER,
    Manifest,
    Refused,
    beside,
    find_manifest,
    is_what_was_written,
    journal_path,
    load_finished,
    locked_beside,
    manifest_path,
    not_ours,
    run_path,
)
from safeguard_cli.output.manifest_shape import Result
from safeguard_cli.output.readback import verdict_of
from safeguard_cli.output.written import OutputShape, whole_lines
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.parquet import open_parquet, pyarrow, read_batches
from safeguard_cli.rows.records import SAMPLE, Record
from safeguard_cli.rows.samples import is_sample
from safeguard_cli.rows.sink import open_sink, output_format
from safeguard_cli.rows.source import Source, extension
from safeguard_cli.rows.writable import Used, check_output, is_stream, real
from safeguard_cli.run.destination import (
    File,
    check_beside_both,
    fields_of_file,
    kept_fields,
    remove_unbegun,
)
from safeguard_cli.run.settings import Settings
from safeguard_cli.run.to_parquet import check_types, convert, described, from_file_of_parquet, is_made_from, remove
from safeguard_cli.terminal import note


class Drawing(Protocol):
    """What an audit's output must know of its sample; audit/sample.py has it."""

    how: str
    columns: tuple[str, ...]
    by: tuple[By, ...]

    def expect(self, rows: int) -> None: ...

    def take_up(self, journal: Journal) -> None: ...

    def open(self, settings: Settings) -> Source: ...

    def draw_for(self, settings: Settings, drawn: Sequence[Mark]) -> Iterator[Record]: ...

    def place(self, mark: Mark) -> int: ...

    def at_end(self, mark: Mark, rows: int) -> Mark: ...

    def in_journal(self, mark: Mark) -> Mark: ...

    def settle(self, labels: LabeledFile) -> LabeledFile: ...

    def further(self, labels: LabeledFile) -> dict[str, Any]: ...


def default_output(settings: Settings) -> Path:
    """Return where the rows of an audit go by default: INPUT-stem.audit.jsonl (.csv, .tsv, .parquet) beside the input.

    Those of a sample of ours go into the working folder.
    """
    path = Path(settings.input)
    path = Path(path.name) if is_sample(path) else path
    return path.with_name(f"{Path(path.name.removesuffix('.gz')).stem}.audit{_suffix(settings)}")


def _suffix(settings: Settings) -> str:
    kind = settings.format or extension(Path(settings.input))
    return f".{kind}" if kind in ("csv", "tsv", "parquet") else ".jsonl"


def journal_of(out: Path, settings: Settings) -> Path:
    """Return the path of the journal that an audit's output is made of."""
    if _is_parquet(out, settings):
        return journal_path(out)
    return out.with_name(f"{out.name}.rows{out.suffix or _suffix(settings)}")


def _is_parquet(out: Path, settings: Settings) -> bool:
    return output_format(out, "parquet" if from_file_of_parquet(settings) else "jsonl") == "parquet"


@dataclass(frozen=True, slots=True)
class Held:
    """An audit's output and its journal, which no other run can write; see run/destination.HeldParquet."""

    path: Path
    journal: Path
    undo: ExitStack


@dataclass(frozen=True, slots=True)
class AuditFile(File):
    """An audit's output, made of the rows in `path`, its journal, once they are all there."""

    held: Held
    sample: Drawing
    settings: Settings

    def take_up(self, journal: Journal) -> None:
        """Take note of what earlier sessions did."""
        self.sample.take_up(journal)

    def complete(self) -> None:
        """Turn the journal into the output, unless that was done already."""
        self.held.undo.pop_all()
        out, (done, result) = self.held.path, load_finished(self.path)
        if not is_made_from(out, result):
            with sentences(out):
                self._make(out, done, result)
        remove(self.path)
        if not self.settings.quiet:
            note(f"{done.progress.rows:,} rows are in {out}")

    def _make(self, out: Path, done: Manifest, result: Result) -> None:
        found, rows = None, done.progress.rows
        with suppress(UsageError):  # fields of the input pass for damaged verdicts: the rows are still to be kept
            labels = self.sample.settle(read_audit(self.path))
            estimated = estimate(labels, self.sample.by)
            found, rows = {**estimated.record(), **self.sample.further(labels)}, estimated.rows
        columns = self.sample.columns

        def at_end(mark: Mark) -> Mark:
            return self.sample.at_end(mark, rows)

        with draft(real(out)) as new:
            if _is_parquet(out, self.settings):
                with draft(self.path) as ordered:
                    numbers = rewrite(self.path, ordered, self.shape, columns, _number, at_end)
                    places = [number - 1 for number in numbers]
                    convert(self.settings, done, ordered.path, new.path, places)
            else:
                rewrite(self.path, new, self.shape, columns, _number, at_end)
            new.publish()
        hashes = {"output_sha256": sha256(out), "rows_sha256": result.output_sha256}
        format = "parquet" if _is_parquet(out, self.settings) else self.shape.format
        described(done, result, format, out, estimate=found, **hashes).save(manifest_path(out))


def _number(sample: Mapping[str, Any]) -> int:
    return int(sample["row"])


@contextmanager
def hold(sample: Drawing, settings: Settings, read: Sequence[Used]) -> Iterator[Held]:
    """Hold an audit's output, with the journal that an earlier session left or one made from the finished output."""
    out = Path(settings.output or "")
    if settings.output == "-" or is_stream(out):
        raise UsageError(f"-o {settings.output}: an audit prints figures there, and needs a file for its rows")
    journal = journal_of(out, settings)
    check_output(out, read, (*beside(out, "jsonl"), journal, *beside(journal, "jsonl")))
    if _is_parquet(out, settings):
        pyarrow()
        if settings.csv_safe:
            raise UsageError("--csv-safe has no effect: the output is not CSV")
        if from_file_of_parquet(settings):
            check_types(settings, kept_fields(settings))
    with ExitStack() as stack, ExitStack() as undo:
        if not settings.dry_run:
            check_beside_both(out, journal)
            stack.enter_context(locked_beside(real(out), run_path(journal)))
            sweep(real(out), manifest_path(out))
            if not (journal.exists() or settings.overwrite or not out.exists() or not out.stat().st_size):
                _unpack(sample, settings, out, journal)
                undo.callback(remove_unbegun, journal)
        yield Held(out, journal, undo)


@contextmanager
def open_audit(
    sample: Drawing, settings: Settings, source: Source, policies: Sequence[Policy], read: Sequence[Used], held: Held
) -> Iterator[AuditFile]:
    """Open the journal that is held."""
    if not settings.quiet and not settings.dry_run:
        note(f"the drawn rows go to {held.path}")
    made = AuditFile(*fields_of_file(settings, source, held.journal, policies), held, sample, settings)
    if made.last:
        sample.expect(made.last.progress.rows)
    yield made


def _unpack(sample: Drawing, settings: Settings, out: Path, journal: Path) -> None:
    """Make the journal of a finished output again; raise Refused if the output is not as an audit of ours wrote it."""
    found = find_manifest(out)
    if found is None:
        raise Refused(not_ours(out))
    if found.identity.sample is None:
        raise Refused(f"{out} is the output of another command, not of an audit: name another file with -o")
    if found.identity.sample.draw != sample.how:
        other = "without" if sample.how == "find" else "with"
        raise Refused(f"{out} is the output of an audit {other} --find: name another file with -o; {START_OVER}")
    done, result = load_finished(out)
    if not is_what_was_written(out, done, result):
        raise Refused(
            f"{out} was changed after it was finished; to keep it, write to another file with -o; {START_OVER}"
        )
    with draft(journal) as new:
        if done.identity.output.format == "parquet":
            _from_parquet(sample, settings, done, out, new.path)
        else:
            rewrite(out, new, _shape(done, out), sample.columns, sample.place, sample.in_journal)
        format = "csv" if done.identity.output.format == "csv" else "jsonl"
        members = {"output_sha256": sha256(new.path), "estimate": None}
        described(done, result, format, new.path, **members).save(manifest_path(journal))
        new.publish()


def _shape(done: Manifest, out: Path) -> OutputShape:
    labels = {name: policy.labels for name, policy in done.identity.policies.items()}
    output = done.identity.output
    return OutputShape(output.format, _delimiter(out, output.format), labels, output.columns, every_row=True)


def _delimiter(out: Path, format: str) -> str:
    """Return what separates the cells of an output of ours."""
    if format != "csv":
        return ","
    head = next(whole_lines(out, format), b"").decode()
    # The header ends in names of ours, which hold no delimiter.
    at = head.find(f"{SAMPLE}_row")
    return head[at - 1] if at > 0 else ","


def _from_parquet(sample: Drawing, settings: Settings, done: Manifest, out: Path, target: Path) -> None:
    """Make the journal of a Parquet output again, from its verdicts and the input's rows."""
    names, verdicts = list(done.identity.policies), {}
    marks: dict[int, Mark] = {}
    with open_parquet(out) as file:
        for batch in read_batches(file):
            for row in batch.select([SAMPLE, *names]).to_pylist():
                mark = {part: value for part, value in row[SAMPLE].items() if value is not None}
                verdicts[place := sample.place(mark)] = {name: verdict_of(row[name]) for name in names}
                marks[place] = mark
    keep = done.identity.output.keep
    with (
        sample.open(settings) as source,
        open_sink(target, source=source, format="jsonl", names=names, columns=(), keep=keep) as sink,
    ):
        drawn = sample.draw_for(settings, [marks[place] for place in sorted(marks)])
        for place, record in enumerate(islice(drawn, len(verdicts)), 1):
            if place not in verdicts:
                raise SafeguardError(f"{out} lacks a row that was drawn, number {place:,}; {START_OVER}")
            sink.write(record, verdicts[place])

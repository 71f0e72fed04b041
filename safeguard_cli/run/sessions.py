"""One session of a run: which records it must label, where it begins, and what it leaves, stopped or finished.

A run has one session or more. `open_session` decides which kind this one is: Piped, New, Continued, Retried or
Finished. `Session` itself is the session of a run in memory, which leaves nothing.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import orjson

from safeguard_cli import errors
from safeguard_cli.address import shown_command
from safeguard_cli.engine.engine import Spent
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.files import Draft, draft, sha256
from safeguard_cli.output.journal import Journal, open_journal
from safeguard_cli.output.manifest import START_OVER, Refused
from safeguard_cli.output.manifest_shape import Footing, Identity
from safeguard_cli.output.resume import InputHash, check_input
from safeguard_cli.output.written import Written, read_output
from safeguard_cli.rows.records import Record
from safeguard_cli.rows.sink import Disturbed, Sink, make_layout
from safeguard_cli.rows.writable import real
from safeguard_cli.run.destination import Destination, File, Stream
from safeguard_cli.run.identity import footing, identity, model_used
from safeguard_cli.run.remarks import same_command
from safeguard_cli.run.work import Job
from safeguard_cli.terminal import note, warn


class Session:
    """A session over rows in memory, which leaves nothing behind.

    `written` counts the input rows whose output is written, `digest` is a hash over them. `kept` are the rows of a
    finished output of which only the error rows are to be labelled again.
    """

    kept: Iterator[Written] = iter(())

    def __init__(self) -> None:
        self.written, self.digest = 0, InputHash()

    def count_tokens(self, prompt: int, generated: int) -> None:
        """Count the tokens of a prompt that is decided."""

    def count_repeated(self) -> None:
        """Count a row that has the text of an earlier one."""

    def round_end(self, rows: int) -> int | None:
        """Return after how many rows all must be written before more are begun, None if they need not."""
        return None

    def row_written(self, record: Record, sink: Sink) -> None:
        """Count a row that is in the sink, whole."""
        self.written += 1
        self.digest.add(record)

    def save_now_and_then(self, sink: Sink) -> None:
        """Save how far the output is, if a save is due."""


class SessionOfRun(Session, ABC):
    """A session of `safeguard label`, which reads an input; each kind below defines what it leaves."""

    lasting = False  # whether a further session could resume from what this one leaves

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job, self.all_records = job, iter(job.source)

    def records(self) -> Iterator[Record]:
        """Yield the records that are still to be labelled."""
        limit = self.job.settings.limit
        return self.all_records if limit is None else islice(self.all_records, max(0, limit - self.written))

    def round_end(self, rows: int) -> int | None:
        """Return after how many rows all must be written before more are begun, None if they need not."""
        return self.job.work.round_end(rows)

    @abstractmethod
    def open_sink(self) -> Sink:
        """Open the sink for the rows; until then, nothing on disk is touched."""

    def check_input(self) -> None:
        """Raise SafeguardError if the input is no longer what was read of it; warn if it has only grown."""
        more, settings = self._grown(), self.job.settings
        if more and (settings.limit is None or self.written < settings.limit):
            then = "--append-input labels what is new" if self.lasting else "the new rows are not labelled"
            warn(f"{self.job.source.name} has grown while it was read ({more}): {then}")

    def _grown(self) -> str:
        """Return by how much the input has grown since it was opened, empty if it has not."""
        return self.job.work.grown(self.job.settings, self.job.source, self.written, self.digest.value())

    def stopped(self, sink: Sink, engine: Spent, stop: BaseException) -> str:
        """Save what a session that ends early has done, and return how to resume, empty if it cannot be resumed."""
        return ""

    def finish(self, engine: Spent) -> None:
        """Leave the record of the finished run, whose output is complete and on disk."""

    @property
    def exit_code(self) -> int:
        """The exit code of the run when it is finished."""
        return errors.ROWS_IN_ERROR if self.job.progress.written.rows_in_error else errors.OK


class Piped(SessionOfRun):
    """A session that writes its rows into a stream, where they cannot be read back."""

    def __init__(self, job: Job, destination: Stream) -> None:
        super().__init__(job)
        self.destination = destination

    def open_sink(self) -> Sink:
        """Open the stream."""
        return self.destination.open_sink()


class New(SessionOfRun):
    """The first session of a run that writes a file, and the base of all sessions that write one."""

    def __init__(self, job: Job, destination: File, journal: Journal) -> None:
        super().__init__(job)
        self.destination, self.journal = destination, journal
        self.lasting = job.source.path is not None
        if job.reuse:
            journal.manifest.progress.reused = job.reuse.take_up(journal.manifest.progress.reused)

    def open_sink(self) -> Sink:
        """Open the file at the end of the rows that are done."""
        self.journal.begin()
        return self.destination.open_sink(append=self.journal.offset > 0)

    def count_tokens(self, prompt: int, generated: int) -> None:
        """Count the tokens of a prompt that is decided."""
        done = self.journal.manifest.progress
        done.prompt_tokens += prompt
        done.generated_tokens += generated

    def count_repeated(self) -> None:
        """Count a row that has the text of an earlier one."""
        self.journal.manifest.progress.repeated_rows += 1

    def row_written(self, record: Record, sink: Sink) -> None:
        """Count a row that is in the sink, whole, and note how far the output is."""
        super().row_written(record, sink)
        counts = self.job.progress.written
        self.journal.written(self.written, self.digest, sink.size, counts.cut, counts.as_dict)

    def save_now_and_then(self, sink: Sink) -> None:
        """Save what was noted, if a save is due."""
        self.journal.save_now_and_then(sink.sync)

    def stopped(self, sink: Sink, engine: Spent, stop: BaseException) -> str:
        """Save what a session that ends early has done, and return how to resume.

        Report the original failure, not one from saving.
        """
        self.journal.manifest.progress.policy_tokens += engine.policy_tokens
        try:
            self.journal.save(sink.sync)
        except SafeguardError as problem:
            if not isinstance(stop, SafeguardError):
                raise
            if isinstance(problem, Disturbed):
                return ""
        return self.destination.what_is_left(self.written, same_command() if self.lasting else "")

    def finish(self, engine: Spent) -> None:
        """Leave the record of the finished run, whose output is complete and on disk."""
        self.journal.count_time()  # before a large model is hashed for the first time, which is not labeling time
        exhausted = self.job.work.exhausted(self.job.settings, self.written)
        self._finish(engine, self.journal.output, exhausted, None)

    def _finish(self, engine: Spent, rows: Path, exhausted: bool, instead: Draft | None) -> None:
        settings, prepared, source, progress = self.job.settings, self.job.prepared, self.job.source, self.job.progress
        manifest = self.journal.manifest
        done, served = manifest.progress, manifest.identity.model.served
        hashing = partial(progress.does, "hashing the model file")
        done.rows, done.input_sha256 = self.written, self.digest.value()
        done.policy_tokens += engine.policy_tokens
        done.cut_rows = progress.written.cut
        self.journal.finish(
            {
                "exit_code": self.exit_code,
                **progress.written.as_dict(),
                **({"untrained": prepared.untrained} if prepared.untrained else {}),
                "rows": self.written,
                "input_exhausted": exhausted,
                "engine_deaths": engine.deaths,
                "command": shown_command(sys.argv),
                "input": str(Path(source.path).absolute()) if source.path else source.name,
                "input_format": settings.format,
                **model_used(prepared, served, hashing),
                "output_sha256": sha256(rows),
            },
            instead,
        )


class Continued(New):
    """A session that resumes after the rows of earlier ones, once these are checked against the input."""

    def __init__(self, job: Job, destination: File, journal: Journal) -> None:
        super().__init__(job, destination, journal)
        _restore_cut(job, journal)
        _check_can_be_read_again(job, journal)
        self._take_up()
        if not job.settings.quiet:
            note(f"{destination.path}: resuming after row {journal.rows:,}")

    def _take_up(self) -> None:
        """Take the finished rows out of the records, checking that they are those of the earlier sessions."""
        journal, output, progress = self.journal, self.destination.output, self.job.progress
        shape = journal.shape
        fields = (
            output["names"],
            output["columns"],
            output["keep"],
            shape.delimiter,
            output["csv_safe"],
            output["service"],
        )
        layout = make_layout(self.job.source, output["format"], *fields)
        mark = orjson.dumps(output["names"][0]) + b":" if shape.format == "jsonl" else b""
        written = (row for row in read_output(journal.output, shape) if row.verdicts)
        with self.job.work.open(self.job.settings) as again:
            self.digest = check_input(
                self._counting_reused(self.all_records),
                iter(again),
                written if shape.every_row else iter(()),
                journal.rows,
                journal.manifest,
                lambda record: layout.beginning(record) + mark,
                progress.row_before,
            )
        self.written = journal.rows
        if journal.rows and (counts := journal.manifest.progress.counts):
            progress.restore(counts.record)
        if self.job.reuse:  # what it has counted and the rows on record go together
            journal.written(self.written, self.digest, journal.offset, progress.written.cut, progress.written.as_dict)

    def _counting_reused(self, records: Iterator[Record]) -> Iterator[Record]:
        """Yield the records; count those whose verdicts were copied after the manifest had last been saved."""
        reuse, saved = self.job.reuse, self.journal.manifest.progress.rows
        for number, record in enumerate(records):
            if reuse and number >= saved and isinstance(text := self.job.selector.select(record), str):
                reuse.count(reuse.of(text))
            yield record


class Retried(New):
    """A session that labels the error rows of a finished output again, in a draft that then replaces it."""

    def __init__(self, job: Job, destination: File, journal: Journal, instead: Draft) -> None:
        super().__init__(job, destination, journal)
        self.instead, self.result = instead, journal.result
        self.kept = (row for row in read_output(destination.path, journal.shape) if row.verdicts)

    @staticmethod
    def check(job: Job, journal: Journal) -> None:
        """Raise SafeguardError if the error rows of the finished output cannot be labelled again."""
        _restore_cut(job, journal)
        _check_can_be_read_again(job, journal)
        settings, rows = job.settings, journal.manifest.progress.rows
        if settings.only:
            raise UsageError("--retry-errors cannot find a row's place in an output made with --only")
        if settings.limit is not None and settings.limit < rows:
            raise UsageError(f"--limit has no effect with --retry-errors: {journal.output} has more rows already")

    def records(self) -> Iterator[Record]:
        """Yield the records of all rows of the output; rows without an error are copied."""
        return islice(self.all_records, self.journal.manifest.progress.rows)

    def open_sink(self) -> Sink:
        """Open the draft."""
        self.journal.begin()
        return self.destination.open_sink(append=False, instead=self.instead.path)

    def row_written(self, record: Record, sink: Sink) -> None:
        """Count a row that is in the draft; the output's own record stays as it is."""
        Session.row_written(self, record, sink)

    def check_input(self) -> None:
        """Raise SafeguardError if the input is no longer what was read of it."""
        self._grown()

    def stopped(self, sink: Sink, engine: Spent, stop: BaseException) -> str:
        """Leave the finished output as it was."""
        return ""

    def finish(self, engine: Spent) -> None:
        """Put the draft in the output's place, with the record of the run."""
        self.journal.count_time()
        done = self.journal.manifest.progress
        if (done.rows, done.input_sha256) != (self.written, self.digest.value()):
            raise Refused(f"the input is not the one that {self.journal.output} was made from; {START_OVER}")
        self._finish(engine, self.instead.path, self.result.input_exhausted, self.instead)


class Finished:
    """No session at all: the output is finished, and the input is still the one that it was made from."""

    def __init__(self, job: Job, journal: Journal) -> None:
        settings, output, done, records = job.settings, journal.output, journal.manifest.progress, iter(job.source)
        self.exit_code = journal.result.exit_code
        digest, rows = InputHash(), 0
        for record in islice(records, done.rows):
            digest.add(record)
            rows += 1
        if (rows, digest.value()) != (done.rows, done.input_sha256):
            raise Refused(f"{output} is finished, but the input is not the one that it was made from; {START_OVER}")
        if journal.result.input_exhausted and settings.limit is None and next(records, None) is not None:
            raise Refused(
                f"{output} is finished, but the input has grown since: --append-input labels what is new; {START_OVER}"
            )
        if not settings.quiet:
            note(f"{output} is already finished: {rows:,} rows; {START_OVER}")


@contextmanager
def open_session(job: Job, destination: Destination) -> Iterator[SessionOfRun | Finished]:
    """Open the session that does what is left to do, holding the output's lock.

    Raise Refused, touching nothing, if an output cannot be resumed.
    """
    if isinstance(destination, Stream):
        yield Piped(job, destination)
        return
    settings, output = job.settings, destination.output
    reused = job.reuse.hashes if job.reuse else ()
    with open_journal(
        destination.path,
        destination.shape,
        Identity(
            {
                **identity(
                    settings, job.prepared, job.source.format, job.text_fields, job.selector.turns, output, reused
                ),
                **job.work.on_record(),
            }
        ),
        Footing(footing(job.prepared)),
        limit=settings.limit,
        overwrite=settings.overwrite,
        append_input=settings.append_input,
        retry_errors=settings.retry_errors,
        warn=warn,
    ) as journal:
        destination.take_up(journal)
        if journal.start == "retry":
            Retried.check(job, journal)
            with draft(real(destination.path)) as instead:
                yield Retried(job, destination, journal, instead)
        elif journal.start == "finished":
            yield Finished(job, journal)
        else:
            yield (Continued if journal.start == "continue" else New)(job, destination, journal)


def _restore_cut(job: Job, journal: Journal) -> None:
    """Take the number of rows that the budget cut from the manifest, if the rows themselves do not have it."""
    if journal.shape.format == "csv" and journal.shape.every_row:
        job.progress.restore_cut(journal.manifest.progress.cut_rows)


def _check_can_be_read_again(job: Job, journal: Journal) -> None:
    if job.source.path is None:
        raise Refused(f"{journal.output} was made from a pipe, which cannot be read again; {START_OVER}")

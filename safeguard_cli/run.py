"""One labeling run, from Records to a finished output."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypedDict

import orjson

from safeguard_cli import errors
from safeguard_cli.content import Selector, make_selector
from safeguard_cli.dryrun import dry_run
from safeguard_cli.engine.process import Engine, EngineSpec
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.journal import Journal, open_journal
from safeguard_cli.labeling import Row
from safeguard_cli.manifest import Refused, model_fingerprint, model_sha256, sha256, sync_folder, versions
from safeguard_cli.outputs import (
    Sink,
    check_names,
    check_output,
    default_output,
    make_layout,
    open_sink,
    output_delimiter,
    output_format,
    verdict_columns,
)
from safeguard_cli.policy import Policy
from safeguard_cli.progress import Progress, make_progress
from safeguard_cli.prompt import Feed, Prompt, layout_hash
from safeguard_cli.records import Record, Source, count_rows, open_source
from safeguard_cli.resume import START_OVER, InputHash, Shape, Written, check_input, find_manifest, read_output
from safeguard_cli.setup import Prepared, Settings, load_policies, prepare
from safeguard_cli.signals import UNBROKEN
from safeguard_cli.terminal import note, warn

WAITING = 8  # rows that may wait, for each slot, for an earlier one to finish
COUNTABLE_BYTES = 256 << 20  # larger files are not read twice only to know their number of rows
LONG_RUN = 1000  # rows from which on it is said that a pipe cannot be continued

EngineMaker = Callable[[EngineSpec, Callable[[str], None]], Engine]


def label(settings: Settings, make_engine: EngineMaker = Engine) -> int:
    """Run `safeguard label`. Returns the exit code; raises SafeguardError with a sentence for the user."""
    policies = load_policies(settings)
    with _sentences(), ExitStack() as stack:
        reopen = partial(
            open_source,
            settings.input,
            format=settings.format,
            encoding=settings.encoding,
            max_row_bytes=settings.max_row_bytes,
        )
        source = stack.enter_context(reopen())
        selector = make_selector(source, text_fields=settings.text_fields, template=settings.template)
        target = _target(settings, source, stack)
        output = _output(settings, source, target, policies)
        previous = find_manifest(target) if isinstance(target, Path) and not settings.overwrite else None
        prepared = prepare(settings, policies, previous.machine if previous else {})
        if settings.dry_run:
            return dry_run(settings, prepared, source, selector)
        total = None if settings.quiet else _total(settings, source)
        progress = make_progress(settings.progress, policies, total, quiet=settings.quiet)
        run = Run(settings, prepared, selector, progress)
        records = iter(source)
        lasting = isinstance(target, Path) and source.path is not None
        if not lasting and not settings.quiet and (total is None or total > LONG_RUN):
            note("a pipe cannot be taken up again if this run is stopped; files can: safeguard label INPUT -o OUT")
        if isinstance(target, Path):
            shape = Shape(
                output["format"],
                output_delimiter(target, source),
                output["names"],
                output["columns"],
                every_row=not output["only_violating"],
            )
            decides, machine = _decides(settings, prepared, source, output), _machine(prepared)
            journal = run.journal = stack.enter_context(
                open_journal(
                    target,
                    shape,
                    decides,
                    machine,
                    limit=settings.limit,
                    overwrite=settings.overwrite,
                    append_input=settings.append_input,
                    retry_errors=settings.retry_errors,
                    warn=warn,
                )
            )
            if journal.start in ("continue", "retry") and source.path is None:
                raise Refused(f"{target} was made from a pipe, which cannot be read again; {START_OVER}")
            if journal.start == "finished":
                return _finished(settings, journal, records)
            if journal.start == "continue":
                with reopen() as again:
                    _check_input(journal, records, iter(again), source, output, run)
                if not settings.quiet:
                    note(f"{target}: going on after {journal.rows:,} rows")
            if journal.start == "retry":
                if settings.only:
                    raise UsageError("--retry-errors cannot find a row's place in an output of --only")
                run.kept = (row for row in read_output(target, shape) if row.verdicts)
                records = islice(records, journal.manifest.rows)
                target = target.with_name(f"{target.name}.retry{target.suffix}")
        if settings.limit is not None and run.kept is None:
            records = islice(records, max(0, settings.limit - run.written))
        with make_engine(_spec(settings, prepared), note) as engine:
            if run.journal:
                run.journal.begin()
            append = run.journal is not None and run.journal.offset > 0
            with open_sink(target, source=source, append=append, **output) as sink:
                try:
                    with progress:
                        run.label(records, engine, sink)
                except BaseException as stop:
                    _stopped(run, sink, stop, target, lasting)
                    raise
            if run.journal:
                _finish(settings, prepared, run.journal, run, engine, source, target)
        progress.finish()
    if run.truncated:
        warn(f"{run.truncated:,} rows were longer than --ctx allows and were labelled by their beginning")
    return errors.ROWS_IN_ERROR if progress.rows_in_error else errors.OK


@contextmanager
def _sentences() -> Iterator[None]:
    """What the system refuses as a sentence, wherever it does."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SafeguardError(f"{error.filename or 'the disk'}: {error.strerror or error}") from error


class Run:
    """The rows under way: they enter in order, are decided as slots allow, and leave in order.

    `written` counts input rows whose output is written, `digest` is a hash over them, `truncated` counts those that
    were cut. `kept` are the rows of a finished output whose error rows alone are to be labelled again.
    """

    def __init__(self, settings: Settings, prepared: Prepared, selector: Selector, progress: Progress) -> None:
        self.settings, self.prepared, self.selector, self.progress = settings, prepared, selector, progress
        self.journal: Journal | None = None
        self.kept: Iterator[Written] | None = None
        self.digest = InputHash()
        self.written = self.truncated = 0
        self.broken: SafeguardError | None = None
        self._rows: deque[Row] = deque()  # in input order; the first is number `written`
        self._most = WAITING * prepared.shape.plan.slots

    def label(self, records: Iterator[Record], engine: Engine, sink: Sink) -> None:
        """Label all records, the first of which is number `written`. Raises SafeguardError when the input breaks off
        or the output cannot be written."""
        labeling = self.prepared.labeling
        for completion in engine.complete(self._prompts(self._readable(records), sink)):
            labeling.finish(self._rows[completion.prompt.row - self.written], completion)
            self.progress.tokens(len(completion.prompt.ids), completion.generated)
            if self.journal:
                self.journal.manifest.prompt_tokens += len(completion.prompt.ids)
                self.journal.manifest.generated_tokens += completion.generated
            self._write_done(sink)
        self._write_done(sink)
        if self.broken:
            raise self.broken

    def counts(self) -> dict[str, Any]:
        """What came out so far, as the manifest says it."""
        progress = self.progress
        return {
            "rows": progress.rows,
            "rows_in_error": progress.rows_in_error,
            "errors": dict(progress.errors),
            "labels": {name: dict(counts) for name, counts in progress.tally.items()},
            "violating": dict(progress.violating),
        }

    def _readable(self, records: Iterator[Record]) -> Iterator[Record]:
        """The records up to where the input breaks off: rows in flight are finished before that is said."""
        try:
            yield from records
        except SafeguardError as error:
            self.broken = error

    def _prompts(self, records: Iterator[Record], sink: Sink) -> Iterator[Prompt | Feed]:
        every = self.prepared.drain
        group = self._most // 2 if _prefixes_compete(self.prepared) else 1
        number = self.written
        if every:
            yield Feed.RESET
        while batch := list(islice(records, min(group, every - number % every) if every else group)):
            # Rows that wait for an earlier one are bounded: then something has to finish first.
            while len(self._rows) + len(batch) > self._most:
                yield Feed.HOLD
            started = []
            for record in batch:
                started.append(self._start(record, number))
                number += 1
            self._write_done(sink)
            # One row under all its policies, then the next; whole groups by policy when not all prefixes fit at once.
            for index in range(len(self.prepared.overheads)):
                for by_policy in started:
                    yield from by_policy[index]
            if every and number % every == 0:
                while self._rows:
                    yield Feed.HOLD
                yield Feed.RESET

    def _start(self, record: Record, number: int) -> list[list[Prompt]]:
        """Begin a row; its prompts by policy."""
        known = next(self.kept, None) if self.kept is not None else None
        if known is not None and not known.in_error:
            row = Row(record, dict(known.verdicts), kept=known.raw)
            prompts: list[list[Prompt]] = [[] for _ in self.prepared.overheads]
        else:
            text = record.error or self.selector.select(record)
            row, prompts = self.prepared.labeling.start(record, text, number)
        self._rows.append(row)
        return prompts

    def _write_done(self, sink: Sink) -> None:
        """Write the rows at the head that are decided."""
        while self._rows and self._rows[0].done:
            row = self._rows[0]
            failed = next((v.error for v in row.verdicts.values() if v.error), None)
            if failed and self.settings.on_error == "stop":
                raise SafeguardError(f"row {self.written + 1}: {failed.code}: {failed.message}; stopped, as asked for")
            sink.wait()
            with UNBROKEN:
                if row.kept is not None:
                    sink.copy(row.kept)
                else:
                    sink.write(row.record, row.verdicts)
                self._rows.popleft()
                self.written += 1
                self.truncated += bool(row.truncated)
                self.progress.row(row.verdicts)
                if self.journal:
                    self.digest.add(row.record)
                    if self.kept is None:
                        self.journal.written(self.written, self.digest, sink.size, self.counts)
            if self.journal:
                self.journal.save_now_and_then(sink.sync)


def _check_input(
    journal: Journal, records: Iterator[Record], again: Iterator[Record], source: Source, output: _Output, run: Run
) -> None:
    """Take the rows that are done out of `records`, making sure that they are those of the earlier session."""
    shape, progress = journal.shape, run.progress
    fields = (output["names"], output["columns"], output["keep"], shape.delimiter, output["csv_safe"])
    layout = make_layout(source, output["format"], *fields)
    mark = orjson.dumps(shape.names[0]) + b":" if shape.format == "jsonl" else b""
    written = (row for row in read_output(journal.output, shape) if row.verdicts)
    run.digest = check_input(
        records,
        again,
        written if shape.every_row else iter(()),
        journal.rows,
        journal.manifest,
        lambda record: layout.beginning(record) + mark,
        progress.row,
    )
    run.written = journal.rows
    if journal.rows and (counts := journal.manifest.counts):
        progress.rows, progress.rows_in_error = counts["rows"], counts["rows_in_error"]
        progress.errors.update(counts["errors"])
        progress.violating.update(counts["violating"])
        for name, labels in counts["labels"].items():
            progress.tally[name].update(labels)


def _stopped(run: Run, sink: Sink, stop: BaseException, target: Path | BinaryIO, lasting: bool) -> None:
    """Save what a run that ends early has, and say how to go on. What ended it is the failure to tell of."""
    if run.kept is not None and isinstance(target, Path):
        with suppress(OSError):
            target.unlink()
        return
    if run.journal is None:
        return
    try:
        run.journal.save(sink.sync)
    except SafeguardError:
        if not isinstance(stop, SafeguardError):
            raise
    if lasting:
        note(f"{run.written:,} rows are in {target}; to go on: {_same_command()}")
    else:
        note(f"{run.written:,} rows are in {target}")


def _same_command() -> str:
    """The command that goes on with this run: as it was called, but not over again from the start."""
    program, *arguments = sys.argv
    found = shutil.which(Path(program).name)
    name = Path(program).name if found and Path(found).resolve() == Path(program).resolve() else program
    return shlex.join([name, *(argument for argument in arguments if argument != "--overwrite")])


def _prefixes_compete(prepared: Prepared) -> bool:
    """Whether the cache cannot hold all policies beside the largest row."""
    prefixes = [len(prefix.ids) for prefix in prepared.labeling.rules.prefixes]
    return sum(prefixes) - min(prefixes) + prepared.shape.context > prepared.shape.plan.cells


def _finished(settings: Settings, journal: Journal, records: Iterator[Record]) -> int:
    """The output is finished already: say so, if the input is still the one that it was made from."""
    digest, rows, done = InputHash(), 0, journal.manifest
    for record in islice(records, done.rows):
        digest.add(record)
        rows += 1
    if (rows, digest.value()) != (done.rows, done.input_sha256):
        raise Refused(f"{journal.output} is finished, and the input is not the one that it was made from; {START_OVER}")
    assert done.result is not None
    if done.result["input_exhausted"] and settings.limit is None and next(records, None) is not None:
        raise Refused(
            f"{journal.output} is finished, and the input has grown since: --append-input labels what is new;"
            f" {START_OVER}"
        )
    if not settings.quiet:
        note(f"{journal.output} is finished already: {rows:,} rows; {START_OVER}")
    return int(done.result["exit_code"])


def _finish(
    settings: Settings,
    prepared: Prepared,
    journal: Journal,
    run: Run,
    engine: Engine,
    source: Source,
    target: Path | BinaryIO,
) -> None:
    """Leave the record of the finished run, whose output is complete and on disk."""
    before, done = journal.manifest.result, (run.written, run.digest.value())
    if run.kept is not None and isinstance(target, Path):
        if (journal.manifest.rows, journal.manifest.input_sha256) != done:
            target.unlink()
            raise Refused(f"the input is not the one that {journal.output} was made from; {START_OVER}")
        journal.unfinish()
        target.replace(journal.output.resolve())
        sync_folder(journal.output)
    journal.manifest.rows, journal.manifest.input_sha256 = done
    exhausted = settings.limit is None or run.written < settings.limit
    journal.finish(
        {
            "exit_code": errors.ROWS_IN_ERROR if run.progress.rows_in_error else errors.OK,
            **run.counts(),
            "rows": run.written,
            "input_exhausted": before["input_exhausted"] if before else exhausted,
            "engine_deaths": engine.deaths,
            "command": sys.argv,
            "input": str(source.path or source.name),
            "model": str(prepared.header.path),
            "model_sha256": model_sha256(prepared.header.path),
            "output_sha256": sha256(journal.output),
        }
    )


def _decides(settings: Settings, prepared: Prepared, source: Source, output: _Output) -> dict[str, Any]:
    """All that can change a label or how a row is written."""
    rules = prepared.labeling.rules
    return {
        "policies": {
            policy.name: {"sha256": policy.sha256, "labels": list(policy.labels), "violates": list(policy.violates)}
            for policy in rules.policies
        },
        "model": model_fingerprint(prepared.header.path),
        "prompt_layout": layout_hash(),
        "input": {
            "format": source.format,
            "encoding": settings.encoding,
            "text_fields": list(settings.text_fields),
            "template": settings.template,
            "max_row_bytes": settings.max_row_bytes,
        },
        "answer": {
            "effort": settings.effort,
            "most_reasoning": prepared.options.budget,
            "ctx": prepared.shape.context,
            "long": settings.long,
            "max_windows": settings.max_windows,
            "threshold": settings.threshold,
            "temperature": settings.temperature,
            "seed": settings.seed,
            "policy_only_prompt": settings.policy_only_prompt,
            "together": rules.together,
            "rationale": settings.rationale,
            "reasoning": settings.reasoning,
        },
        "output": {
            "format": output["format"],
            "columns": list(output["columns"]),
            "keep": output["keep"],
            "only": settings.only,
            "csv_safe": settings.csv_safe,
        },
        "deterministic": prepared.drain,
    }


def _machine(prepared: Prepared) -> dict[str, Any]:
    """What can move a score's last digits."""
    shape = prepared.shape
    return {
        "slots": shape.plan.slots,
        "cells": shape.plan.cells,
        "threads": shape.threads,
        "gpu_layers": shape.gpu_layers,
        "cpu_moe": shape.cpu_moe,
        "kv_type": shape.cache_type,
        "extra_buffers": shape.extra_buffers,
        "versions": versions(),
    }


def _spec(settings: Settings, prepared: Prepared) -> EngineSpec:
    shape, rules = prepared.shape, prepared.labeling.rules
    return EngineSpec(
        prepared.header.path,
        rules.prefixes,
        prepared.options,
        shape.plan,
        shape.threads,
        shape.gpu_layers,
        shape.extra_buffers,
        shape.cpu_moe,
        shape.cache_type,
        settings.verbose,
    )


def _target(settings: Settings, source: Source, stack: ExitStack) -> Path | BinaryIO:
    """Where the output goes, a file or a stream (also a device or a named pipe); refused when it cannot be."""
    if settings.output == "-" or (settings.output is None and not sys.stdout.isatty()):
        return sys.stdout.buffer
    path = Path(settings.output) if settings.output else default_output(source)
    check_output(path, source)
    if path.exists() and not path.is_file():
        return stack.enter_context(path.open("wb", buffering=0))
    if not settings.output and not settings.quiet:
        note(f"writing to {path}")
    return path


class _Output(TypedDict):
    format: Literal["jsonl", "csv"]
    names: list[str]
    columns: tuple[str, ...]
    keep: list[str] | None
    only_violating: bool
    csv_safe: bool


def _output(settings: Settings, source: Source, target: Path | BinaryIO, policies: Sequence[Policy]) -> _Output:
    """What the output holds, checked against the input's fields before anything is loaded."""
    format = output_format(target if isinstance(target, Path) else None, source.format)
    names = [policy.name for policy in policies]
    columns = verdict_columns(
        windows=settings.long == "split",
        truncated=settings.long == "truncate",
        rationale=settings.rationale,
        reasoning=settings.reasoning,
    )
    keep = None
    if settings.keep is not None:
        fields = [] if settings.keep == "none" else [name.strip() for name in settings.keep.split(",")]
        keep = [settings.id_field, *fields] if settings.id_field is not None else fields
    check_names(source, format, names, columns, keep)
    return _Output(
        format=format,
        names=names,
        columns=columns,
        keep=keep,
        only_violating=settings.only is not None,
        csv_safe=settings.csv_safe,
    )


def _total(settings: Settings, source: Source) -> int | None:
    """The number of rows to come, where it can be known without holding up the run."""
    if source.path is None or (source.total_bytes or 0) > COUNTABLE_BYTES:
        return settings.limit
    rows = count_rows(
        source.path, format=settings.format, encoding=settings.encoding, max_row_bytes=settings.max_row_bytes
    )
    return rows if settings.limit is None else min(rows, settings.limit)

"""One labeling run, from Records to a finished output."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypedDict

from safeguard_cli import errors
from safeguard_cli.content import Selector, make_selector
from safeguard_cli.dryrun import dry_run
from safeguard_cli.engine.process import Engine, EngineSpec
from safeguard_cli.errors import SafeguardError
from safeguard_cli.journal import Journal, check_input, open_journal
from safeguard_cli.labeling import Row
from safeguard_cli.manifest import Refused, file_sha256, model_fingerprint, versions
from safeguard_cli.outputs import (
    Sink,
    check_names,
    check_output,
    default_output,
    open_sink,
    output_delimiter,
    output_format,
    verdict_columns,
)
from safeguard_cli.policy import Policy
from safeguard_cli.progress import Progress, make_progress
from safeguard_cli.prompt import Feed, Prompt, layout_hash
from safeguard_cli.records import Record, Source, count_rows, open_source
from safeguard_cli.resume import START_OVER, InputHash, Shape, Written, find_manifest, read_output, tally
from safeguard_cli.setup import Prepared, Settings, load_policies, prepare
from safeguard_cli.terminal import note, warn

WAITING = 8  # rows that may wait, for each slot, for an earlier one to finish
COUNTABLE_BYTES = 256 << 20  # larger files are not read twice only to know their number of rows
LONG_RUN = 1000  # rows from which on it is said that a pipe cannot be continued

EngineMaker = Callable[[EngineSpec, Callable[[str], None]], Engine]


def label(settings: Settings, make_engine: EngineMaker = Engine) -> int:
    """Run `safeguard label`. Returns the exit code; raises SafeguardError with a sentence for the user."""
    policies = load_policies(settings)
    with ExitStack() as stack:
        reopen = partial(
            open_source,
            settings.input,
            format=settings.format,
            encoding=settings.encoding,
            max_row_bytes=settings.max_row_bytes,
        )
        source = stack.enter_context(reopen())
        selector = make_selector(source, text_fields=settings.text_fields, template=settings.template)
        target = _target(settings, source)
        output = _output(settings, source, target, policies)
        previous = find_manifest(target) if isinstance(target, Path) and not settings.overwrite else None
        prepared = prepare(settings, policies, previous.machine if previous else {})
        if settings.dry_run:
            return dry_run(settings, prepared, source, selector)
        total = None if settings.quiet else _total(settings, source)
        progress = make_progress(settings.progress, policies, total, quiet=settings.quiet)
        records, digest = iter(source), InputHash()
        journal = kept = None
        if isinstance(target, Path):
            shape = Shape(output["format"], output_delimiter(target, source), output["names"], settings.only is None)
            journal = stack.enter_context(
                open_journal(
                    target,
                    shape,
                    _decides(settings, prepared, source, output),
                    _machine(settings, prepared),
                    overwrite=settings.overwrite,
                    append_input=settings.append_input,
                    retry_errors=settings.retry_errors,
                    warn=warn,
                )
            )
            if journal.start in ("continue", "retry") and source.path is None:
                raise Refused(f"{target} was made from a pipe, which cannot be read again; {START_OVER}")
            if journal.start == "finished":
                return _finished(journal, records)
            if journal.start == "continue":
                check_input(journal, reopen, digest, records)
                tally(target, shape, journal.offset, progress.row)
                note(f"{target}: going on after {journal.rows:,} rows") if not settings.quiet else None
            if journal.start == "retry":
                kept = (row for row in read_output(target, shape) if row.verdicts)
        elif not settings.quiet and (total is None or total > LONG_RUN):
            note("standard output cannot be continued if this run is stopped; a file can: -o OUT")
        begin = journal.rows if journal else 0
        if settings.limit is not None:
            records = islice(records, max(0, settings.limit - begin))
        partial_output = target
        if kept is not None and isinstance(target, Path):
            partial_output = target.with_name(f"{target.stem}.retry{target.suffix}")
        with make_engine(_spec(settings, prepared), note) as engine, stack:
            if journal:
                journal.begin()
            going_on = journal is not None and journal.start == "continue" and journal.offset > 0
            sink = stack.enter_context(open_sink(partial_output, source=source, append=going_on, **output))
            run = Run(settings, prepared, selector, engine, sink, progress, journal, digest, kept)
            try:
                with progress:
                    run.label(records, begin)
            except BaseException as stop:
                if kept is not None and isinstance(partial_output, Path):
                    partial_output.unlink(missing_ok=True)
                elif journal:
                    journal.save(sink.sync)
                    if not isinstance(stop, BrokenPipeError) and not settings.quiet:
                        note(f"{run.written:,} rows are in {target}; the same command goes on from there")
                raise
            progress.finish()
            if journal:
                _finish(settings, prepared, journal, run, sink, source, partial_output)
    if run.truncated:
        warn(f"{run.truncated:,} rows were longer than --ctx allows and were labelled by their beginning")
    return errors.ROWS_IN_ERROR if progress.rows_in_error else errors.OK


class Run:
    """The rows under way: they enter in order, are decided as slots allow, and leave in order.

    `written` counts input rows whose output is written, `truncated` those that were cut; `sha256` is the input's
    hash so far.
    """

    def __init__(
        self,
        settings: Settings,
        prepared: Prepared,
        selector: Selector,
        engine: Engine,
        sink: Sink,
        progress: Progress,
        journal: Journal | None,
        digest: InputHash,
        kept: Iterator[Written] | None,
    ) -> None:
        self.settings, self.prepared, self.selector, self.engine = settings, prepared, selector, engine
        self.sink, self.progress, self.journal, self.digest, self.kept = sink, progress, journal, digest, kept
        self.written = self.truncated = 0
        self.sha256 = ""
        self.broken: SafeguardError | None = None
        self._rows: deque[Row] = deque()  # in input order; the first is number `written`
        self._most = WAITING * prepared.shape.plan.slots

    def label(self, records: Iterator[Record], begin: int) -> None:
        """Label all records, the first of which is number `begin`. Raises SafeguardError when the input breaks off."""
        self.written = begin
        labeling = self.prepared.labeling
        for completion in self.engine.complete(self._prompts(self._readable(records), begin)):
            labeling.finish(self._rows[completion.prompt.row - self.written], completion)
            self.progress.tokens(len(completion.prompt.ids), completion.generated)
            if self.journal:
                self.journal.manifest.prompt_tokens += len(completion.prompt.ids)
                self.journal.manifest.generated_tokens += completion.generated
            self._write_done()
        self._write_done()
        if self.broken:
            raise self.broken

    def _readable(self, records: Iterator[Record]) -> Iterator[Record]:
        """The records up to where the input breaks off: rows in flight are finished before that is said."""
        try:
            yield from records
        except SafeguardError as error:
            self.broken = error

    def _prompts(self, records: Iterator[Record], number: int) -> Iterator[Prompt | Feed]:
        policies = self.prepared.labeling.rules.policies
        every = self.prepared.drain
        group = self._most // 2 if _prefixes_compete(self.prepared) else 1
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
            self._write_done()
            # One row under all its policies, then the next; whole groups by policy when not all prefixes fit at once.
            for index in range(len(policies)):
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
        if self.journal:
            row.sha256 = self.digest.add(record)
        self._rows.append(row)
        return prompts

    def _write_done(self) -> None:
        """Write the rows at the head that are decided."""
        while self._rows and self._rows[0].done:
            row = self._rows[0]
            failed = next((v.error for v in row.verdicts.values() if v.error), None)
            if failed and self.settings.on_error == "stop":
                raise SafeguardError(f"row {self.written + 1}: {failed.code}: {failed.message}; stopped, as asked for")
            if row.kept is not None:
                self.sink.copy(row.kept)
            else:
                self.sink.write(row.record, row.verdicts)
            self._rows.popleft()
            self.written += 1
            self.truncated += bool(row.truncated)
            self.progress.row(row.verdicts)
            self.sha256 = row.sha256
            if self.journal and self.kept is None:
                self.journal.written(self.written, row.sha256, self.sink.sync)


def _prefixes_compete(prepared: Prepared) -> bool:
    """Whether the cache cannot hold all policies beside the largest row."""
    prefixes = [len(prefix.ids) for prefix in prepared.labeling.rules.prefixes]
    return sum(prefixes) - min(prefixes) + prepared.shape.context > prepared.shape.plan.cells


def _finished(journal: Journal, records: Iterator[Record]) -> int:
    """The output is finished already: say so, if the input is still the one that it was made from."""
    digest, sha256, rows = InputHash(), "", 0
    for record in records:
        sha256, rows = digest.add(record), rows + 1
        if rows == journal.manifest.rows and sha256 != journal.manifest.input_sha256:
            break
    if rows > journal.manifest.rows and sha256:
        raise Refused(
            f"{journal.output} is finished, and the input has grown since: --append-input labels what is new;"
            f" {START_OVER}"
        )
    if (rows, sha256) != (journal.manifest.rows, journal.manifest.input_sha256):
        raise Refused(f"{journal.output} is finished, and the input is not the one that it was made from; {START_OVER}")
    note(f"{journal.output} is finished already: {rows:,} rows; {START_OVER}")
    assert journal.manifest.result is not None
    return int(journal.manifest.result["exit_code"])


def _finish(
    settings: Settings,
    prepared: Prepared,
    journal: Journal,
    run: Run,
    sink: Sink,
    source: Source,
    partial_output: Path | BinaryIO,
) -> None:
    """Put everything on disk and leave the record of the finished run."""
    sink.close()
    if run.kept is not None and isinstance(partial_output, Path):
        if (journal.manifest.rows, journal.manifest.input_sha256) != (run.written, run.sha256):
            partial_output.unlink()
            raise Refused(f"the input is not the one that {journal.output} was made from; {START_OVER}")
        partial_output.replace(journal.output)
    progress = run.progress
    journal.finish(
        {
            "rows": run.written,
            "rows_in_error": progress.rows_in_error,
            "errors": dict(progress.errors),
            "labels": {name: dict(counts) for name, counts in progress.tally.items()},
            "violating": dict(progress.violating),
            "decoded_tokens": run.engine.decoded_tokens,
            "engine_deaths": run.engine.deaths,
            "exit_code": errors.ROWS_IN_ERROR if progress.rows_in_error else errors.OK,
            "input_exhausted": settings.limit is None or run.written < settings.limit,
            "input": str(source.path or source.name),
            "model": str(prepared.header.path),
            "model_sha256": file_sha256(prepared.header.path),
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


def _machine(settings: Settings, prepared: Prepared) -> dict[str, Any]:
    """What can move a score's last digits."""
    shape = prepared.shape
    return {
        "slots": shape.plan.slots,
        "cells": shape.plan.cells,
        "threads": shape.threads,
        "gpu_layers": settings.gpu_layers,
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
        settings.gpu_layers,
        shape.extra_buffers,
        settings.verbose,
    )


def _target(settings: Settings, source: Source) -> Path | BinaryIO:
    """Where the output goes; refused before anything is loaded when it exists or cannot be."""
    if settings.output == "-" or (settings.output is None and not sys.stdout.isatty()):
        return sys.stdout.buffer
    path = Path(settings.output) if settings.output else default_output(source)
    check_output(path, source)
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

"""One labeling run, from Records to a finished output."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from safeguard_cli import errors
from safeguard_cli.engine.local.process import LocalEngine
from safeguard_cli.engine.reports import Report
from safeguard_cli.errors import UsageError, sentences
from safeguard_cli.files import Draft, draft
from safeguard_cli.output.journal import open_journal
from safeguard_cli.output.manifest import START_OVER, Manifest, Refused, check_beside, find_manifest
from safeguard_cli.output.show import cut_text, untrained_text
from safeguard_cli.output.unchanged import check_unchanged
from safeguard_cli.output.written import OutputShape, read_output
from safeguard_cli.rows.sink import open_sink, output_delimiter
from safeguard_cli.rows.source import Source, count_rows
from safeguard_cli.rows.text import Selector, first_choice, make_selector, say_text
from safeguard_cli.rows.writable import check_streams, real
from safeguard_cli.run.destination import describe_output, open_target, used_by
from safeguard_cli.run.display import make_progress
from safeguard_cli.run.dry_run import dry_run
from safeguard_cli.run.engines import EngineMaker, Preparer, start_engine
from safeguard_cli.run.identity import footing, identity
from safeguard_cli.run.pipeline import Pipeline
from safeguard_cli.run.prepare import Prepared, load_policies, open_input, prepare
from safeguard_cli.run.progress import Progress
from safeguard_cli.run.remarks import cut_advice, untrained_warning
from safeguard_cli.run.sessions import finish, finished_already, stopped, take_up
from safeguard_cli.run.settings import Settings
from safeguard_cli.run.to_parquet import label_to_parquet, parquet_target
from safeguard_cli.terminal import note, one_file, warn

COUNTABLE_BYTES = 256 << 20  # larger files are not read twice only to know their number of rows
LONG_RUN = 1000  # rows from which on it is said that a pipe cannot be continued


def label(settings: Settings, make_engine: EngineMaker = LocalEngine, prepare: Preparer = prepare) -> int:
    """Run `safeguard label`. Returns the exit code; raises SafeguardError with a sentence for the user."""
    if _rows_and_messages_share_a_file(settings):
        settings = replace(settings, quiet=True)
    with sentences(), ExitStack() as stack:
        read = used_by(settings)
        check_streams(read)
        if (parquet := parquet_target(settings)) is not None:
            return label_to_parquet(settings, parquet, read, lambda inner: label(inner, make_engine, prepare))
        policies = load_policies(settings)
        source = stack.enter_context(open_input(settings))
        target = open_target(settings, source, read, stack)
        if isinstance(target, Path):
            check_beside(target)
        output = describe_output(settings, source, target, policies)
        previous = find_manifest(target) if isinstance(target, Path) and not settings.overwrite else None
        selector, text_fields = _select(settings, source, previous)
        total = _total(settings, source)
        progress = make_progress(settings.progress, policies, total, quiet=settings.quiet or settings.dry_run)
        stack.callback(progress.close)
        progress.prepare()
        prepared = prepare(settings, policies, previous.machine if previous else {}, total)
        if settings.says_its_text:
            say_text(selector, source)
        if settings.dry_run:
            return dry_run(settings, prepared, source, selector)
        if prepared.untrained:
            warn(untrained_warning(prepared.untrained, prepared.header))
        retried: Draft | None = None  # with --retry-errors: what takes the output's place when it is whole
        run = Pipeline(settings, prepared, selector, progress)
        records = iter(source)
        lasting = isinstance(target, Path) and source.path is not None
        if not lasting and not settings.quiet and (total is None or total > LONG_RUN):
            note("a pipe cannot be taken up again if this run is stopped; files can: safeguard label INPUT -o OUT")
        if isinstance(target, Path):
            shape = OutputShape(
                output["format"],
                output_delimiter(target, source),
                {policy.name: policy.labels for policy in policies},
                output["columns"],
                every_row=not output["only_violating"],
            )
            held = identity(settings, prepared, source.format, text_fields, output), footing(prepared)
            journal = run.journal = stack.enter_context(
                open_journal(
                    target,
                    shape,
                    *held,
                    limit=settings.limit,
                    overwrite=settings.overwrite,
                    append_input=settings.append_input,
                    retry_errors=settings.retry_errors,
                    warn=warn,
                )
            )
            if shape.format == "csv" and journal.start in ("continue", "retry"):  # whose rows do not say so
                progress.written.cut = progress.decided.cut = journal.manifest.cut_rows
            if journal.start in ("continue", "retry") and source.path is None:
                raise Refused(f"{target} was made from a pipe, which cannot be read again; {START_OVER}")
            if journal.start == "finished":
                return finished_already(settings, journal, records)
            if journal.start == "continue":
                with open_input(settings) as again:
                    take_up(journal, records, iter(again), source, output, run)
                if not settings.quiet:
                    note(f"{target}: going on after {journal.rows:,} rows")
            if journal.start == "retry":
                if settings.only:
                    raise UsageError("--retry-errors cannot find a row's place in an output of --only")
                if settings.limit is not None and settings.limit < journal.manifest.rows:
                    raise UsageError(f"--limit has no effect with --retry-errors: {target} has more rows already")
                run.kept = (row for row in read_output(target, shape) if row.verdicts)
                records = islice(records, journal.manifest.rows)
                retried = stack.enter_context(draft(real(target)))
                target = retried.path
        if settings.limit is not None and run.kept is None:
            records = islice(records, max(0, settings.limit - run.written))
        if not prepared.remote:
            progress.report(Report(loaded=0.0))
        listen = progress.report if progress.shown else None
        with progress, start_engine(settings, prepared, make_engine, listen) as engine:
            if run.journal:
                run.journal.begin()
            append = run.journal is not None and run.journal.offset > 0
            with open_sink(target, source=source, append=append, **output) as sink:
                try:
                    run.label(records, engine, sink)
                    _check_still(settings, source, run, lasting)
                except BaseException as stop:
                    if run.journal:
                        run.journal.manifest.policy_tokens += engine.policy_tokens
                    stopped(run, sink, stop, target, lasting)
                    raise
            if run.journal:
                finish(settings, prepared, run.journal, run, engine, source, retried)
        advice = _remark(settings, prepared, progress)
        progress.finish()
    if advice and settings.max_reasoning is None:
        warn(advice)
    elif advice and not settings.quiet:
        note(advice)
    if run.truncated:
        warn(f"{run.truncated:,} rows were longer than --ctx allows and were labelled by their beginning")
    return errors.ROWS_IN_ERROR if progress.written.rows_in_error else errors.OK


def _select(settings: Settings, source: Source, previous: Manifest | None) -> tuple[Selector, Sequence[str]]:
    """Return what of a row is labelled, as before where the run goes on, and its fields as the manifest has them."""
    recorded = tuple(previous.decides["input"]["text_fields"]) if previous else ()
    before = recorded or (first_choice(source) if previous else ())
    selector = make_selector(
        source,
        text_fields=settings.text_fields,
        template=settings.template,
        others=() if settings.id_field is None else (settings.id_field,),
        before=before,
    )
    return selector, recorded if selector.chosen == before else selector.chosen


def _rows_and_messages_share_a_file(settings: Settings) -> bool:
    """Whether only errors and warnings may be printed, for all else would stand among the rows."""
    return (
        not settings.dry_run
        and one_file()
        and (settings.output == "-" or (settings.output is None and not sys.stdout.isatty()))
    )


def _check_still(settings: Settings, source: Source, run: Pipeline, lasting: bool) -> None:
    """Refuse to finish a run whose input is not what was read of it any more; say it where it has only grown."""
    if source.state is None:
        return
    with ExitStack() as stack:
        again = source.again()
        anew = partial(open_input, settings, stack.enter_context(again) if again else None)
        more = check_unchanged(source.name, source.state, source.now, anew, run.written, run.digest.value())
    if more and run.kept is None and (settings.limit is None or run.written < settings.limit):
        then = "--append-input labels what is new" if lasting else "what is new is not labelled"
        warn(f"{source.name} has grown while it was read, {more}: {then}")


def _remark(settings: Settings, prepared: Prepared, progress: Progress) -> str:
    """Have the summary say what must be known of the labels; returns what to do about it, for a line of its own."""
    budget, counts = prepared.options.budget, progress.written
    for name in prepared.untrained:
        progress.remarks[f"under {name}"] = untrained_text(name)
    if counts.errors["bad_encoding"]:
        progress.remarks["encoding"] = "some bytes are not valid in it: is there another --encoding, such as cp1252?"
    if counts.cut:
        progress.remarks["cut"] = cut_text(counts.cut, budget)
    return cut_advice(counts, budget, settings.effort)


def _total(settings: Settings, source: Source) -> int | None:
    """The number of rows to come, where it can be known without holding up the run."""
    if source.path is None or (source.total_bytes or 0) > COUNTABLE_BYTES:
        return settings.limit
    rows = count_rows(
        source.path,
        format=settings.format,
        encoding=settings.encoding,
        max_row_bytes=settings.max_row_bytes,
        shard=settings.shard,
    )
    return rows if settings.limit is None else min(rows, settings.limit)

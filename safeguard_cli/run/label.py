"""One labeling run, from Records to a finished output."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace

from safeguard_cli.engine.local.process import LocalEngine
from safeguard_cli.engine.reports import Report
from safeguard_cli.errors import sentences
from safeguard_cli.output.labelled import untrained_text
from safeguard_cli.output.manifest import Manifest
from safeguard_cli.output.show import cut_text
from safeguard_cli.rows.source import Source, count_rows
from safeguard_cli.rows.text import Selector, first_choice, make_selector, say_text
from safeguard_cli.rows.writable import check_streams
from safeguard_cli.run.destination import Destination, File, hold_made, last_machine, open_destination, used_by
from safeguard_cli.run.display import make_progress
from safeguard_cli.run.dry_run import dry_run
from safeguard_cli.run.engines import EngineMaker, Preparer, start_engine
from safeguard_cli.run.pipeline import Pipeline
from safeguard_cli.run.prepare import Prepared, load_policies, open_input, prepare
from safeguard_cli.run.progress import Progress
from safeguard_cli.run.remarks import cut_advice, untrained_warning
from safeguard_cli.run.sessions import Finished, Job, SessionOfRun, open_session
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import note, one_file, warn

COUNTABLE_BYTES = 256 << 20  # larger files are not read an extra time only to count their rows
LONG_RUN = 1000  # with more rows than this, the user is told that a pipe cannot be resumed


def label(settings: Settings, make_engine: EngineMaker = LocalEngine, prepare: Preparer = prepare) -> int:
    """Run `safeguard label` and return the exit code; raise SafeguardError with a sentence for the user."""
    settings = replace(settings, quiet=True) if _rows_and_messages_share_a_file(settings) else settings
    with sentences(), ExitStack() as stack:
        read = used_by(settings)
        check_streams(read)
        held = stack.enter_context(hold_made(settings, read))
        policies, source = load_policies(settings), stack.enter_context(open_input(settings))
        destination = stack.enter_context(open_destination(settings, source, policies, read, held))
        selector, text_fields = _select(settings, source, destination.last)
        total = _total(settings, source)
        if held:
            held.check_rows(total)
        progress = make_progress(settings.progress, policies, total, quiet=settings.quiet or settings.dry_run)
        stack.callback(progress.close)
        progress.prepare()
        prepared = prepare(settings, policies, last_machine(destination), total)
        if settings.says_its_text:
            say_text(selector, source)
        if settings.dry_run:
            return dry_run(settings, prepared, source, selector)
        job = Job(settings, prepared, source, text_fields, progress)
        _say_beforehand(job, destination, total)
        with open_session(job, destination) as session:
            if not isinstance(session, Finished):
                pipeline = Pipeline(settings, prepared, selector, progress, session)
                _work(job, pipeline, session, make_engine)
        progress.close()
        destination.complete()
    return session.exit_code


def _say_beforehand(job: Job, destination: Destination, total: int | None) -> None:
    """Tell the user before the work begins if labels will mean nothing or the run cannot be resumed."""
    if job.prepared.untrained:
        warn(untrained_warning(job.prepared.untrained, job.prepared.header))
    lasting = isinstance(destination, File) and job.source.path is not None
    if not lasting and not job.settings.quiet and (total is None or total > LONG_RUN):
        note("with a pipe, a stopped run cannot be resumed; with files it can: safeguard label INPUT -o OUT")


def _work(job: Job, pipeline: Pipeline, session: SessionOfRun, make_engine: EngineMaker) -> None:
    """Label the rows that the session still has to label, and print the summary."""
    settings, prepared, progress = job.settings, job.prepared, job.progress
    if not prepared.remote:
        progress.report(Report(loaded=0.0))
    listen = progress.report if progress.shown else None
    with progress, start_engine(settings, prepared, make_engine, listen) as engine:
        with session.open_sink() as sink:
            try:
                pipeline.label(session.records(), engine, sink)
                session.check_input()
            except BaseException as stop:
                session.stopped(sink, engine, stop)
                raise
        session.finish(engine)
    advice = _remark(settings, prepared, progress)
    progress.finish()
    if advice and settings.max_reasoning is None:
        warn(advice)
    elif advice and not settings.quiet:
        note(advice)
    if pipeline.truncated:
        warn(f"rows longer than --ctx allows: {pipeline.truncated:,}; only the beginning of each was labelled")


def _select(settings: Settings, source: Source, previous: Manifest | None) -> tuple[Selector, tuple[str, ...]]:
    """Return the Selector of a row's text, as before if the run is resumed, and its fields as the manifest has them."""
    recorded = previous.identity.input.text_fields if previous else ()
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
    """Return whether only errors and warnings may be printed, because anything else would stand among the rows."""
    return (
        not settings.dry_run
        and one_file()
        and (settings.output == "-" or (settings.output is None and not sys.stdout.isatty()))
    )


def _remark(settings: Settings, prepared: Prepared, progress: Progress) -> str:
    """Add remarks on the labels to the summary, and return advice for a line of its own, empty if there is none."""
    budget, counts = prepared.options.budget, progress.written
    for name in prepared.untrained:
        progress.remarks[f"under {name}"] = untrained_text(name)
    if counts.errors["bad_encoding"]:
        progress.remarks["encoding"] = "some bytes are not valid in it: is there another --encoding, such as cp1252?"
    if counts.cut:
        progress.remarks["cut"] = cut_text(counts.cut, budget)
    return cut_advice(counts, budget, settings.effort)


def _total(settings: Settings, source: Source) -> int | None:
    """Return the number of rows to come, at most --limit; only --limit, if counting them would delay the run."""
    if source.path is None or (source.total_bytes or 0) > COUNTABLE_BYTES:
        return settings.limit
    rows = count_rows(
        source.path,
        format=settings.format,
        encoding=settings.encoding,
        max_row_bytes=settings.max_row_bytes,
        shard=settings.shard,
        above=settings.skip_rows or 0,
        sheet=settings.sheet,
    )
    return rows if settings.limit is None else min(rows, settings.limit)

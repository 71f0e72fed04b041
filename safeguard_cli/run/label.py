"""One labeling run, from Records to a finished output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from safeguard_cli.engine.engine import Engine
from safeguard_cli.engine.local.process import LocalEngine
from safeguard_cli.engine.reports import Report
from safeguard_cli.errors import sentences
from safeguard_cli.output.labelled import untrained_text
from safeguard_cli.output.show import cut_text
from safeguard_cli.rows.source import Source
from safeguard_cli.rows.text import Selector, say_text
from safeguard_cli.rows.writable import check_streams
from safeguard_cli.run.destination import Destination, File, last_machine, used_by
from safeguard_cli.run.display import make_progress
from safeguard_cli.run.dry_run import dry_run
from safeguard_cli.run.engines import EngineMaker, Preparer, start_engine
from safeguard_cli.run.opened import opened
from safeguard_cli.run.pipeline import Part, Pipeline
from safeguard_cli.run.prepare import Prepared, count_input, load_policies, prepare
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
        policies = load_policies(settings)
        run = stack.enter_context(opened(settings, policies, read))
        source, destination, total = run.source, run.destination, _total(settings, run.source)
        progress = make_progress(settings.progress, policies, total, quiet=settings.quiet or settings.dry_run)
        stack.callback(progress.close)
        progress.prepare()
        prepared = prepare(settings, policies, last_machine(destination), total)
        if settings.says_its_text:
            say_text(run.selector, source)
        if settings.dry_run:
            return dry_run(settings, prepared, source, run.selector)
        job = Job(settings, prepared, source, run.text_fields, progress)
        say_untrained(prepared)
        _say_what_lasts(job, destination, total)
        with open_session(job, destination) as session:
            if not isinstance(session, Finished):
                _work(job, run.selector, session, make_engine)
        progress.close()
        destination.complete()
    return session.exit_code


def say_untrained(prepared: Prepared) -> None:
    """Tell the user before the work begins if labels will mean nothing."""
    if prepared.untrained:
        warn(untrained_warning(prepared.untrained, prepared.header))


def _say_what_lasts(job: Job, destination: Destination, total: int | None) -> None:
    """Tell the user before the work begins if a long run cannot be resumed."""
    lasting = isinstance(destination, File) and job.source.path is not None
    if not lasting and not job.settings.quiet and (total is None or total > LONG_RUN):
        note("with a pipe, a stopped run cannot be resumed; with files it can: safeguard label INPUT -o OUT")


def _work(job: Job, selector: Selector, session: SessionOfRun, make_engine: EngineMaker) -> None:
    """Label the rows that the session still has to label, and print the summary."""
    pipeline = Pipeline(job.settings, job.prepared, job.progress)
    with working(job.settings, job.prepared, job.progress, make_engine) as engine:
        with session.open_sink() as sink:
            part = Part(session.records(), selector, job.progress, sink, session)
            try:
                pipeline.label([part], engine)
                if part.broken:
                    raise part.broken
                session.check_input()
            except BaseException as stop:
                if left := session.stopped(sink, engine, stop):
                    note(left)
                raise
        session.finish(engine)
    sum_up(job.settings, job.prepared, job.progress, pipeline.truncated)


@contextmanager
def working(settings: Settings, prepared: Prepared, progress: Progress, make_engine: EngineMaker) -> Iterator[Engine]:
    """Yield the engine, started, while the display shows its work."""
    if not prepared.remote:
        progress.report(Report(loaded=0.0))
    listen = progress.report if progress.shown else None
    with progress, start_engine(settings, prepared, make_engine, listen) as engine:
        yield engine


def sum_up(settings: Settings, prepared: Prepared, progress: Progress, truncated: int) -> None:
    """Print the summary of a run that is finished, and what must be reported of its labels."""
    advice = _remark(settings, prepared, progress)
    progress.finish()
    if advice and settings.max_reasoning is None:
        warn(advice)
    elif advice and not settings.quiet:
        note(advice)
    if truncated:
        warn(f"rows longer than --ctx allows: {truncated:,}; only the beginning of each was labelled")


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
    rows = count_input(settings)
    return rows if settings.limit is None else min(rows, settings.limit)

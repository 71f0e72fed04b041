"""One labeling run, from Records to a finished output."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice

from safeguard_cli.engine.engine import Engine
from safeguard_cli.engine.local.process import LocalEngine
from safeguard_cli.engine.reports import Report
from safeguard_cli.errors import SafeguardError, sentences
from safeguard_cli.model.find import NoModel
from safeguard_cli.output.labelled import untrained_text
from safeguard_cli.output.show import cut_text
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.text import say_text
from safeguard_cli.rows.writable import check_streams
from safeguard_cli.run.calibration import calibrated
from safeguard_cli.run.counting import AT_ONCE
from safeguard_cli.run.destination import Destination, File, last_machine, used_by
from safeguard_cli.run.display import make_progress
from safeguard_cli.run.donors import find_donors
from safeguard_cli.run.dry_run import dry_run
from safeguard_cli.run.engines import Deferred, EngineMaker, Preparer, start_engine
from safeguard_cli.run.identity import asked
from safeguard_cli.run.opened import opened
from safeguard_cli.run.pipeline import Part, Pipeline
from safeguard_cli.run.prepare import Prepared, load_policies, prepare
from safeguard_cli.run.progress import PREPARING, Progress
from safeguard_cli.run.remarks import cut_advice, untrained_warning
from safeguard_cli.run.reuse import Reuse, check_all_covered, open_reuse, prepare_copies, reused_text
from safeguard_cli.run.sessions import Finished, SessionOfRun, open_session
from safeguard_cli.run.settings import Settings
from safeguard_cli.run.work import EVERY_ROW, Job, Work
from safeguard_cli.terminal import note, one_file, warn

LONG_RUN = AT_ONCE  # with more rows than this, the user is told that a pipe cannot be resumed


def label(
    settings: Settings, make_engine: EngineMaker = LocalEngine, prepare: Preparer = prepare, work: Work = EVERY_ROW
) -> int:
    """Run `safeguard label`, or another `work`, and return the exit code; raise SafeguardError for the user."""
    settings = replace(settings, quiet=True) if _rows_and_messages_share_a_file(settings) else settings
    with sentences(), ExitStack() as stack:
        read = used_by(settings)
        check_streams(read)
        policies = load_policies(settings)
        run = stack.enter_context(opened(settings, policies, read, work))
        progress = stack.enter_context(_begin_progress(settings, policies))
        progress.total = work.total(settings, run.source, run.selector, progress)
        run.destination.check_rows(progress.all_rows)
        progress.does(PREPARING)
        prepared, reuse = stack.enter_context(_prepare(settings, policies, run.destination, progress, prepare))
        if settings.says_its_text:
            say_text(run.selector, run.source)
        if settings.dry_run:
            return dry_run(settings, prepared, run.source, run.selector, reuse)
        job = Job(settings, prepared, run.source, run.selector, run.text_fields, progress, work, reuse)
        _check_covered(job, run.destination)
        say_untrained(prepared)
        _say_what_lasts(job, run.destination)
        with open_session(job, run.destination) as session:
            if not isinstance(session, Finished):
                _work(job, session, make_engine)
        progress.close()
        run.destination.complete()
    return session.exit_code


@contextmanager
def _begin_progress(settings: Settings, policies: Sequence[Policy]) -> Iterator[Progress]:
    """Show from now on what the run does, until it ends."""
    progress = make_progress(settings.progress, policies, quiet=settings.quiet or settings.dry_run)
    try:
        progress.prepare()
        yield progress
    finally:
        progress.close()


@contextmanager
def _prepare(
    settings: Settings,
    policies: tuple[Policy, ...],
    destination: Destination,
    progress: Progress,
    prepare: Preparer,
) -> Iterator[tuple[Prepared, Reuse | None]]:
    """Prepare the run with its model, or, where that is missing, one that can only copy verdicts; read what to copy."""
    donors, missing = find_donors(settings.reuse), None
    try:
        prepared = prepare(settings, policies, last_machine(destination), progress.total)
    except NoModel as problem:
        if not donors or settings.model:
            raise
        prepared, missing = prepare_copies(settings, policies, donors), problem
    prepared = calibrated(settings, prepared)
    with open_reuse(settings, donors, prepared, asked(settings, prepared), progress, missing) as reuse:
        yield prepared, reuse


def _check_covered(job: Job, destination: Destination) -> None:
    """Raise SafeguardError before the work begins if there is no model, and a row needs one."""
    reuse, limit = job.reuse, job.settings.limit
    if reuse and reuse.missing and job.source.path and destination.last is None:
        with job.work.open(job.settings) as again:
            check_all_covered(reuse, islice(again, limit), job.selector, reuse.missing)


def say_untrained(prepared: Prepared) -> None:
    """Tell the user before the work begins if labels will mean nothing."""
    if prepared.copied:
        for name in prepared.untrained:
            warn(untrained_text(name))
    elif prepared.untrained:
        warn(untrained_warning(prepared.untrained, prepared.header))


def _say_what_lasts(job: Job, destination: Destination) -> None:
    """Tell the user before the work begins if a long run cannot be resumed."""
    lasting = isinstance(destination, File) and job.source.path is not None
    total = job.progress.total
    if not lasting and not job.settings.quiet and (total is None or total > LONG_RUN):
        note("with a pipe, a stopped run cannot be resumed; with files it can: safeguard label INPUT -o OUT")


def _work(job: Job, session: SessionOfRun, make_engine: EngineMaker) -> None:
    """Label the rows that the session still has to label, and print the summary."""
    pipeline = Pipeline(job.settings, job.prepared, job.progress, job.reuse)
    with working(job.settings, job.prepared, job.progress, make_engine, job.reuse) as engine:
        with session.open_sink() as sink:
            part = Part(session.records(), job.selector, job.progress, sink, session)
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
    sum_up(job.settings, job.prepared, job.progress, pipeline, job.reuse)


@contextmanager
def working(
    settings: Settings, prepared: Prepared, progress: Progress, make_engine: EngineMaker, reuse: Reuse | None = None
) -> Iterator[Engine]:
    """Yield the engine, started, while the display shows its work; with --reuse, it waits for a row that needs it."""

    def start() -> Engine:
        if reuse and reuse.missing:
            raise SafeguardError("a row has no verdict to copy, and needs a model:", *reuse.missing.args)
        if not prepared.remote:
            progress.report(Report(loaded=0.0))
        return start_engine(settings, prepared, make_engine, progress.report if progress.shown else None)

    with progress, Deferred(start) if reuse else start() as engine:
        yield engine


def sum_up(
    settings: Settings, prepared: Prepared, progress: Progress, pipeline: Pipeline, reuse: Reuse | None = None
) -> None:
    """Print the summary of a run that is finished, and what must be reported of its labels."""
    if reuse:
        progress.remarks["reused"] = "; ".join(reused_text(each["rows"], each["output"]) for each in reuse.counted)
    advice = _remark(settings, prepared, progress)
    progress.finish()
    if advice and settings.max_reasoning is None:
        warn(advice)
    elif advice and not settings.quiet:
        note(advice)
    if pipeline.shortened and not settings.quiet:
        note(f"turns before the one that is labelled were left out in {pipeline.shortened:,} rows, to fit --ctx")
    if pipeline.truncated:
        warn(f"rows longer than --ctx allows: {pipeline.truncated:,}; only the beginning of each was labelled")


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

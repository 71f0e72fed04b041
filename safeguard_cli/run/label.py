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
from safeguard_cli.errors import SafeguardError, UsageError, sentences
from safeguard_cli.model.find import NoModel
from safeguard_cli.output.labelled import untrained_text
from safeguard_cli.output.manifest import Manifest
from safeguard_cli.output.show import cut_text
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.conversations import PutTogether, by_conversation
from safeguard_cli.rows.source import Source
from safeguard_cli.rows.text import Selector, Selects, first_choice, make_selector, say_text
from safeguard_cli.rows.writable import check_streams
from safeguard_cli.run.destination import Destination, File, last_machine, used_by
from safeguard_cli.run.display import make_progress
from safeguard_cli.run.donors import find_donors
from safeguard_cli.run.dry_run import dry_run
from safeguard_cli.run.engines import Deferred, EngineMaker, Preparer, start_engine
from safeguard_cli.run.identity import asked
from safeguard_cli.run.pipeline import Pipeline
from safeguard_cli.run.prepare import Prepared, load_policies, open_input, prepare
from safeguard_cli.run.progress import PREPARING, Progress
from safeguard_cli.run.remarks import cut_advice, untrained_warning
from safeguard_cli.run.reuse import Reuse, check_all_covered, open_reuse, prepare_copies, reused_text
from safeguard_cli.run.sessions import Finished, Job, SessionOfRun, open_session
from safeguard_cli.run.settings import Settings
from safeguard_cli.run.work import Work
from safeguard_cli.terminal import note, one_file, warn

EVERY_ROW = Work()
LONG_RUN = 1000  # with more rows than this, the user is told that a pipe cannot be resumed


def label(
    settings: Settings, make_engine: EngineMaker = LocalEngine, prepare: Preparer = prepare, work: Work = EVERY_ROW
) -> int:
    """Run `safeguard label`, or another `work`, and return the exit code; raise SafeguardError for the user."""
    settings = replace(settings, quiet=True) if _rows_and_messages_share_a_file(settings) else settings
    with sentences(), ExitStack() as stack:
        read = used_by(settings)
        check_streams(read)
        held = stack.enter_context(work.hold(settings, read))
        policies, source = load_policies(settings), stack.enter_context(work.open(settings))
        destination = stack.enter_context(work.destination(settings, source, policies, read, held))
        selector, text_fields = _select(settings, source, destination.last, stack)
        progress = stack.enter_context(_begin_progress(settings, policies))
        progress.total = work.total(settings, source, selector, progress)
        progress.does(PREPARING)
        prepared, reuse = stack.enter_context(_prepare(settings, policies, destination, progress, prepare))
        if settings.says_its_text:
            say_text(selector, source)
        if settings.dry_run:
            return dry_run(settings, prepared, source, selector, reuse)
        job = Job(settings, prepared, source, selector, text_fields, selector.turns, progress, work, reuse)
        _check_covered(job, destination)
        _say_beforehand(job, destination)
        with open_session(job, destination) as session:
            if not isinstance(session, Finished):
                pipeline = Pipeline(settings, prepared, selector, progress, session, reuse)
                _work(job, pipeline, session, make_engine)
        progress.close()
        destination.complete()
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
    with open_reuse(settings, donors, prepared, asked(settings, prepared), progress, missing) as reuse:
        yield prepared, reuse


def _check_covered(job: Job, destination: Destination) -> None:
    """Raise SafeguardError before the work begins if there is no model, and a row needs one."""
    reuse, limit = job.reuse, job.settings.limit
    if reuse and reuse.missing and job.source.path and destination.last is None:
        with job.work.open(job.settings) as again:
            check_all_covered(reuse, islice(again, limit), job.selector, reuse.missing)


def _say_beforehand(job: Job, destination: Destination) -> None:
    """Tell the user before the work begins if labels will mean nothing or the run cannot be resumed."""
    if job.prepared.copied:
        for name in job.prepared.untrained:
            warn(untrained_text(name))
    elif job.prepared.untrained:
        warn(untrained_warning(job.prepared.untrained, job.prepared.header))
    lasting = isinstance(destination, File) and job.source.path is not None
    total = job.progress.total
    if not lasting and not job.settings.quiet and (total is None or total > LONG_RUN):
        note("with a pipe, a stopped run cannot be resumed; with files it can: safeguard label INPUT -o OUT")


def _work(job: Job, pipeline: Pipeline, session: SessionOfRun, make_engine: EngineMaker) -> None:
    """Label the rows that the session still has to label, and print the summary.

    With --reuse, the engine waits for a row that needs it.
    """
    settings, prepared, progress = job.settings, job.prepared, job.progress

    def start() -> Engine:
        if job.reuse and job.reuse.missing:
            raise SafeguardError("a row has no verdict to copy, and needs a model:", *job.reuse.missing.args)
        if not prepared.remote:
            progress.report(Report(loaded=0.0))
        return start_engine(settings, prepared, make_engine, progress.report if progress.shown else None)

    with progress, Deferred(start) if job.reuse else start() as engine:
        with session.open_sink() as sink:
            try:
                pipeline.label(session.records(), engine, sink)
                session.check_input()
            except BaseException as stop:
                session.stopped(sink, engine, stop)
                raise
        session.finish(engine)
    if job.reuse:
        progress.remarks["reused"] = "; ".join(reused_text(each["rows"], each["output"]) for each in job.reuse.counted)
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


def _select(
    settings: Settings, source: Source, previous: Manifest | None, stack: ExitStack
) -> tuple[Selects, tuple[str, ...]]:
    """Return what selects a row's text, as before if the run is resumed, and its fields as the manifest has them."""
    recorded = previous.identity.input.text_fields if previous else ()
    before = recorded or (first_choice(source) if previous else ())
    selector = make_selector(
        source,
        text_fields=settings.text_fields,
        template=settings.template,
        others=() if settings.id_field is None else (settings.id_field,),
        before=before,
    )
    fields = recorded if selector.chosen == before else selector.chosen
    return stack.enter_context(_in_turns(settings, selector)), fields


@contextmanager
def _in_turns(settings: Settings, selector: Selector) -> Iterator[Selects]:
    """Yield what selects a row's text: with --group, the selector of turns, once the whole input has been read."""
    if settings.group is None:
        yield PutTogether(selector) if settings.put_together else selector
        return
    if settings.input == "-":
        raise UsageError("--group reads the input twice, and standard input comes once: save it to a file")
    with open_input(replace(settings, shard=(1, 1))) as whole, by_conversation(selector, whole, settings) as turns:
        yield turns


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

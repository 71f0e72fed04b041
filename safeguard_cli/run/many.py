"""Several files labelled with one engine, each into an output of its own, in a run as durable as that of a single file.

The files are under way one behind the other, the next one before the last rows of the one before are decided. One that
fails is told and left; the others go on.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from safeguard_cli import errors
from safeguard_cli.address import shown_command
from safeguard_cli.engine.engine import Spent
from safeguard_cli.engine.local.process import LocalEngine
from safeguard_cli.errors import SafeguardError, UsageError, sentences
from safeguard_cli.output.manifest import find_manifest
from safeguard_cli.output.set_record import FileOnRecord, SetRecord, marks, open_record, same_file, tallies
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.sink import Sink
from safeguard_cli.rows.writable import Used, check_streams, used
from safeguard_cli.run.calibration import calibrated
from safeguard_cli.run.destination import used_by
from safeguard_cli.run.display import make_progress
from safeguard_cli.run.engines import EngineMaker, Preparer
from safeguard_cli.run.files import SET, Pair, find_pairs, names_folder
from safeguard_cli.run.identity import asked_hash
from safeguard_cli.run.joined import label_joined
from safeguard_cli.run.label import say_untrained, sum_up, working
from safeguard_cli.run.opened import Opened, opened
from safeguard_cli.run.pipeline import Part, Pipeline
from safeguard_cli.run.prepare import Prepared, input_counts, load_policies, prepare
from safeguard_cli.run.progress import FileProgress, Progress
from safeguard_cli.run.remarks import same_command
from safeguard_cli.run.sessions import Finished, SessionOfRun, open_session
from safeguard_cli.run.settings import Settings
from safeguard_cli.run.work import COUNTABLE_BYTES, EVERY_ROW, Job
from safeguard_cli.terminal import note, warn

SAVE_SECONDS = 10.0  # between two writes of the record of the set


def label_many(settings: Settings, make_engine: EngineMaker = LocalEngine, prepare: Preparer = prepare) -> int:
    """Label the files that `settings.inputs` mean, and return the exit code.

    Each goes into a file of its own if `settings.output` is a folder. Raise SafeguardError with a sentence.
    """
    if settings.output in (None, "-"):
        raise UsageError(
            "several inputs need -o: a folder for an output each (-o labels/), or a file for all rows (-o all.jsonl)"
        )
    if names_folder(str(settings.output)):
        return label_each(settings, make_engine, prepare)
    return label_joined(settings, make_engine, prepare)


def label_each(settings: Settings, make_engine: EngineMaker = LocalEngine, prepare: Preparer = prepare) -> int:
    """Label each file that `settings.inputs` mean into a file of its own in the folder `settings.output`.

    Return the worst of their exit codes. Raise SafeguardError if no file can be labelled.
    """
    with sentences(), ExitStack() as stack:
        for option, given in (
            ("--limit", settings.limit is not None),
            ("--shard", settings.shard != (1, 1)),
            ("--reuse", settings.reuse),
        ):
            if given:
                raise UsageError(f"{option} is for one output, but -o names a folder for many")
        pairs = find_pairs(settings)
        read = used_by(settings)
        check_streams([*read, *used("the input", *(pair.input for pair in pairs))])
        policies = load_policies(settings)
        if settings.dry_run:
            return _show(pairs)
        Path(str(settings.output)).mkdir(parents=True, exist_ok=True)
        record = stack.enter_context(open_record(Path(str(settings.output)) / SET))
        new = [pair for pair in pairs if settings.overwrite or not _is_as_before(pair, record)]
        progress = make_progress(settings.progress, policies, quiet=settings.quiet)
        stack.callback(progress.close)
        progress.total = _total(settings, new, progress)
        progress.prepare()
        prepared = prepare(settings, policies, {} if settings.overwrite else _last_machine(pairs), progress.total)
        prepared = calibrated(settings, prepared)
        say_untrained(prepared)
        work = _Set(settings, policies, prepared, progress, read, record, pairs)
        try:
            _work(work, make_engine)
        except BaseException as stop:
            work.stopped(stop)
            raise
        progress.close()
        return work.sum_up()


def _work(work: _Set, make_engine: EngineMaker) -> None:
    """Label what is not yet finished; the engine is started when there is something."""
    parts = work.parts()
    if (first := next(parts, None)) is None:
        return
    pipeline = Pipeline(work.settings, work.prepared, work.progress)
    with working(work.settings, work.prepared, work.progress, make_engine) as engine:
        work.engine = engine
        pipeline.label(chain([first], parts), engine)
    sum_up(work.settings, work.prepared, work.progress, pipeline)


def _show(pairs: Sequence[Pair]) -> int:
    for pair in pairs:
        note(f"{pair.name} → {pair.output}")
    return errors.OK


@dataclass(frozen=True, slots=True)
class _Share:
    """What an engine has spent since the last file ended."""

    policy_tokens: int = 0
    deaths: int = 0


class _FilePart(Part):
    """A file of the set under way, from its open input to its finished output."""

    def __init__(
        self, work: _Set, pair: Pair, run: Opened, session: SessionOfRun, progress: Progress, sink: Sink, at: int
    ) -> None:
        super().__init__(session.records(), run.selector, progress, sink, session, at)
        self.pair, self.run = pair, run
        self.outer, self.inner = ExitStack(), ExitStack()  # of the input and output; of the session and its sink
        self._work, self._session = work, session

    def end(self) -> None:
        """Finish the output, or give it up if its input broke off or has changed."""
        try:
            with sentences(self.pair.output):
                if self.broken:
                    raise self.broken
                self._session.check_input()
                self.sink.close()
                self._session.finish(self._work.spent())
                self.inner.close()
                self.run.destination.complete()
                self.outer.close()
        except SafeguardError as problem:
            self.fail(problem)
        else:
            self._work.ended(self, self._session.exit_code)

    def fail(self, problem: SafeguardError) -> None:
        """Give the file up, and leave its output as it is, to be resumed."""
        self.failed = True
        with suppress(SafeguardError):  # the first failure is the one to tell
            self.stop(problem)
        self._work.failed(self.pair, problem)

    def stop(self, stop: BaseException) -> None:
        """Save what is done."""
        try:
            self._session.stopped(self.sink, self._work.spent(), stop)
        finally:
            self._work.under_way.pop(self.at, None)
            self.inner.__exit__(type(stop), stop, None)
            self.outer.__exit__(type(stop), stop, None)


class _Set:
    """The files of one command: what is to be done, what is under way, and what has become of each."""

    def __init__(
        self,
        settings: Settings,
        policies: Sequence[Policy],
        prepared: Prepared,
        progress: Progress,
        read: Sequence[Used],
        record: SetRecord,
        pairs: Sequence[Pair],
    ) -> None:
        self.settings, self.policies, self.prepared, self.progress = settings, policies, prepared, progress
        self.under_way: dict[int, _FilePart] = {}
        self.engine: Spent = _Share()
        self._read, self._record, self._pairs = read, record, pairs
        self._asked = asked_hash(settings, prepared)
        self._codes: dict[Pair, int] = {}
        self._failed = self._before = 0
        self._spent, self._saved = _Share(), 0.0
        for pair in pairs:
            if self._key(pair) not in record.files:
                self._put(pair, "waiting")
        self._tell()

    def parts(self) -> Iterator[_FilePart]:
        """Yield each file that is not finished, open; those that cannot be opened are told and left."""
        for at, pair in enumerate(self._pairs):
            if self._is_finished(pair):
                self._settled(pair, self._file(pair).exit_code or errors.OK, before=True)
                continue
            try:
                with sentences(pair.name):
                    part = self._open(at, pair)
            except SafeguardError as problem:
                self.failed(pair, problem)
                continue
            if part:
                self.under_way[at] = part
                self._put(pair, "begun")
                self._save_now_and_then()
                yield part

    def _open(self, at: int, pair: Pair) -> _FilePart | None:
        """Return a file, open; None if it turns out to be finished."""
        retry = self.settings.retry_errors and _has_errors(pair)
        asked = replace(
            self.settings, input=pair.name, output=str(pair.output), inputs=(), quiet=True, retry_errors=retry
        )
        with ExitStack() as outer, ExitStack() as inner:
            pair.output.parent.mkdir(parents=True, exist_ok=True)
            read = [*used("the input", pair.input), *self._read]
            run = outer.enter_context(opened(asked, self.policies, read, EVERY_ROW))
            progress = FileProgress(self.progress)
            job = Job(asked, self.prepared, run.source, run.selector, run.text_fields, progress, EVERY_ROW)
            session = inner.enter_context(open_session(job, run.destination))
            if isinstance(session, Finished):
                inner.close()
                run.destination.complete()
                self._finish(pair, run, session.exit_code, before=True)
                return None
            sink = inner.enter_context(session.open_sink())
            part = _FilePart(self, pair, run, session, progress, sink, at)
            part.inner, part.outer = inner.pop_all(), outer.pop_all()
            return part

    def spent(self) -> Spent:
        """Return what the engine has spent since this was last called, for the file that ends now."""
        before, self._spent = self._spent, _Share(self.engine.policy_tokens, self.engine.deaths)
        return _Share(self._spent.policy_tokens - before.policy_tokens, self._spent.deaths - before.deaths)

    def ended(self, part: _FilePart, exit_code: int) -> None:
        """Note that a file is finished."""
        del self.under_way[part.at]
        self._finish(part.pair, part.run, exit_code)

    def failed(self, pair: Pair, problem: SafeguardError) -> None:
        """Tell why a file is not labelled, and note it."""
        warn(problem.of(pair.name))
        self._failed += 1
        self._put(pair, "failed", error="; ".join(problem.args), exit_code=problem.exit_code)
        self._settled(pair, problem.exit_code)

    def stopped(self, stop: BaseException) -> None:
        """Save what the files under way have done, and print how to go on."""
        for part in [*self.under_way.values()]:
            with suppress(SafeguardError):
                part.stop(stop)
        with suppress(SafeguardError):
            self._save()
        done = len(self._codes) - self._failed
        note(f"{done:,} of {len(self._pairs):,} files are labelled; to go on: {same_command()}")

    def sum_up(self) -> int:
        """Print what has become of the files, and return the worst exit code."""
        self._save()
        done = len(self._codes) - self._failed
        before = f", {self._before:,} of them before" if self._before else ""
        if not self.settings.quiet:
            self._say_texts()
            note(f"{done:,} of {len(self._pairs):,} files are labelled{before}; see {self._record.path}")
        if self._failed:
            warn(f"files not labelled: {self._failed:,}; run the same command to label them")
        return errors.worst(self._codes.values())

    def _say_texts(self) -> None:
        """Print which fields were labelled as the text, where the command names none."""
        if self.settings.text_fields or self.settings.template is not None:
            return
        texts = Counter(", ".join(self._file(pair).text_fields) for pair in self._pairs)
        for name, files in texts.most_common():
            if name:  # empty where a file has failed
                note(f"text: {name}, in {files:,} files" if files > 1 else f"text: {name}, in 1 file")

    def _is_finished(self, pair: Pair) -> bool:
        """Return whether a file was finished by the same command, and nothing has changed since."""
        if self.settings.overwrite or not _is_as_before(pair, self._record):
            return False
        file = self._file(pair)
        return file.asked == self._asked and not (self.settings.retry_errors and file.rows_in_error)

    def _finish(self, pair: Pair, run: Opened, exit_code: int, before: bool = False) -> None:
        found = find_manifest(pair.output)
        counts = tallies(found.result.record) if found and found.result else {}
        self._put(
            pair,
            "finished",
            exit_code=exit_code,
            **counts,
            text_fields=list(run.selector.chosen),
            asked=self._asked,
            read=marks(run.source.state),
            wrote=marks(pair.output.stat()),
        )
        self._settled(pair, exit_code, before)

    def _settled(self, pair: Pair, exit_code: int, before: bool = False) -> None:
        self._codes[pair] = exit_code
        self._before += before
        self._tell()
        self._save_now_and_then()

    def _tell(self) -> None:
        self.progress.files = (len(self._codes), len(self._pairs))

    def _key(self, pair: Pair) -> str:
        return _key(pair, self._record)

    def _file(self, pair: Pair) -> FileOnRecord:
        return self._record.files[self._key(pair)]

    def _put(self, pair: Pair, state: str, **members: Any) -> None:
        self._record.put(input=str(pair.input), output=self._key(pair), state=state, **members)

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        self._record.save(shown_command(sys.argv))
        self._saved = time.monotonic()


def _key(pair: Pair, record: SetRecord) -> str:
    """Return an output's path below the folder of the record."""
    return str(pair.output.relative_to(record.path.parent))


def _is_as_before(pair: Pair, record: SetRecord) -> bool:
    """Return whether a file is on record as finished, and its input and output are as they were then."""
    file = record.files.get(_key(pair, record))
    if file is None or file.state != "finished" or file.input != str(pair.input):
        return False
    return same_file(pair.input, file.read) and same_file(pair.output, file.wrote)


def _has_errors(pair: Pair) -> bool:
    """Return whether an output is finished and has rows in error."""
    found = find_manifest(pair.output)
    return bool(found and found.result and found.result.rows_in_error)


def _last_machine(pairs: Sequence[Pair]) -> Mapping[str, Any]:
    """Return what an earlier session recorded of its machine in the first output that there is, empty if none is."""
    for pair in pairs:
        with suppress(SafeguardError):
            if found := find_manifest(pair.output):
                return found.machine.record
    return {}


def _total(settings: Settings, pairs: Sequence[Pair], progress: Progress) -> int | None:
    """Return the number of rows in these files, None if counting them would delay the run or one cannot be read."""
    try:
        if sum(pair.input.stat().st_size for pair in pairs) > COUNTABLE_BYTES:
            return None
        return progress.count(_counts(settings, pairs))
    except (SafeguardError, OSError):
        return None


def _counts(settings: Settings, pairs: Sequence[Pair]) -> Iterator[int]:
    """Yield how many rows of these files have been counted so far."""
    before = rows = 0
    for pair in pairs:
        for here in input_counts(replace(settings, input=str(pair.input))):
            rows = before + here
            yield rows
        before = rows

"""The rows under way: they enter in order, are decided as slots allow, and leave in order."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from safeguard_cli.engine.engine import Engine
from safeguard_cli.errors import SafeguardError
from safeguard_cli.prompt.contract import Feed, Prompt
from safeguard_cli.prompt.labeling import Answer
from safeguard_cli.rows.records import Record
from safeguard_cli.rows.sink import Sink
from safeguard_cli.rows.text import Selects, text_key
from safeguard_cli.rows.turns import Turns
from safeguard_cli.rows.verdict import RowError
from safeguard_cli.run.prepare import Prepared
from safeguard_cli.run.progress import Progress
from safeguard_cli.run.reuse import Copied, Reuse
from safeguard_cli.run.sessions import Session
from safeguard_cli.run.settings import Settings
from safeguard_cli.signals import UNBROKEN

WAITING = 8  # rows for each slot that may wait for an earlier one to finish
REMEMBERED = 8192  # texts whose Verdicts are kept for rows that repeat them


class Known:
    """The Answers to the `most` texts met last, by a hash of the text."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()  # most recently met last

    def get(self, key: bytes) -> Answer | None:
        """Return the Answer to a text that was met, None if it is a new one."""
        if (answer := self._answers.get(key)) is not None:
            self._answers.move_to_end(key)
        return answer

    def keep(self, key: bytes, answer: Answer) -> None:
        """Keep the Answer to a text, and forget the one that was met longest ago if there are too many."""
        self._answers[key] = answer
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def clear(self) -> None:
        """Forget all texts."""
        self._answers.clear()


class Part:
    """The rows of one input on their way to one output, in their order.

    `session` gives the number of the first row, and is told of every row that is written; without one nothing is saved.
    `under_way` counts the rows that are taken from the input and not yet written, `broken` is what the input broke off
    with. What becomes of an input of several is in the methods of a subclass.
    """

    def __init__(
        self,
        records: Iterator[Record],
        selector: Selects,
        progress: Progress,
        sink: Sink,
        session: Session | None = None,
        at: int = 0,
    ) -> None:
        self.records, self.selector, self.progress, self.sink = records, selector, progress, sink
        self.session, self.at = session or Session(), at
        self.number = self.session.written  # of the next row that is taken
        self.under_way = 0
        self.exhausted = self.failed = False
        self.broken: SafeguardError | None = None

    def end(self) -> None:
        """Do what there is to do when the last row is written."""

    def fail(self, problem: SafeguardError) -> None:
        """Give the input up, because its rows cannot be written; the base class gives all up."""
        raise problem


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A record under way with its Answer; rows of the same text share one."""

    part: Part
    record: Record
    answer: Answer
    kept: bytes | None = None  # a row of an earlier output, to be copied
    copied: Copied | None = None  # verdicts of an earlier run on the same text


class Pipeline:
    """The rows under way: they enter in order, are decided as slots allow, and leave in order.

    They come from one input or from several. The next one begins while the last rows of the one before are decided, so
    that no slot waits at the end of a small one. `reuse` has verdicts that are not asked for again. `truncated` counts
    the rows that were cut, `shortened` those whose conversation was.
    """

    def __init__(self, settings: Settings, prepared: Prepared, progress: Progress, reuse: Reuse | None = None) -> None:
        self.settings, self.prepared, self.progress, self._reuse = settings, prepared, progress, reuse
        self.truncated = self.shortened = 0
        self._known = Known(REMEMBERED)
        self._rows: deque[Row] = deque()  # in input order
        self._undecided: dict[tuple[int, int], tuple[Part, Answer]] = {}  # by part and row
        self._waiting: Counter[Answer] = Counter()  # rows that wait for each
        self._most = WAITING * prepared.shape.plan.slots

    def label(self, parts: Iterable[Part], engine: Engine) -> None:
        """Label all rows of each part, beginning with its session's next one.

        Raise SafeguardError if an output cannot be written, unless its part takes that upon itself.
        """
        labeling = self.prepared.labeling
        self.progress.start_rows()
        for completion in engine.complete(self._prompts(iter(parts))):
            prompt = completion.prompt
            part, answer = self._undecided[prompt.part, prompt.row]
            labeling.finish(answer, completion)
            if answer.done:
                del self._undecided[prompt.part, prompt.row]
                self.progress.row_decided(answer.verdicts, self._waiting.pop(answer))
            self.progress.tokens(len(prompt.ids), completion.generated)
            part.session.count_tokens(len(prompt.ids), completion.generated)
            self._write_done()
        self._write_done()

    def _prompts(self, parts: Iterator[Part]) -> Iterator[Prompt | Feed]:
        """Yield the prompts of all rows; drain them where what follows depends on none before it, or on all."""
        if (first := next(parts, None)) is None:
            return
        parts, every = chain([first], parts), self.prepared.drain
        if not every and first.session.round_end(first.number) is None:
            yield from self._begun(self._records(parts))
            return
        for part in parts:
            if every:
                yield from self._begin_anew()
            records = self._records(iter([part]))
            while not part.exhausted:
                yield from self._begun(islice(records, self._drained(part) - part.number))
                yield from self._finished()
                if every and part.number % every == 0:
                    yield from self._begin_anew()

    def _drained(self, part: Part) -> int:
        """Return after how many rows of a part all must be written before more are begun."""
        number, every, end = part.number, self.prepared.drain, part.session.round_end(part.number)
        return min(number - number % every + every if every else sys.maxsize, sys.maxsize if end is None else end)

    def _finished(self) -> Iterator[Feed]:
        while self._rows or self._undecided:
            yield Feed.HOLD

    def _records(self, parts: Iterator[Part]) -> Iterator[tuple[Part, int, Record]]:
        """Yield each part's records with their numbers, up to where its input breaks off."""
        for part in parts:
            try:
                for record in part.records:
                    part.number += 1
                    part.under_way += 1
                    yield part, part.number - 1, record
                    if part.failed:
                        break
            except SafeguardError as problem:
                part.broken = problem
            part.exhausted = True
            self._end_if_done(part)

    def _begun(self, records: Iterator[tuple[Part, int, Record]]) -> Iterator[Prompt | Feed]:
        """Begin the rows, and yield their prompts."""
        group = self._most // 2 if self.prepared.prefixes_compete else 1
        while batch := list(islice(records, group)):
            # The number of rows that wait for an earlier one is bounded: at the bound, some must finish first.
            while len(self._rows) + len(batch) > self._most:
                yield Feed.HOLD
            started = [self._start(*each) for each in batch]
            self._write_done()
            # One row under all its policies, then the next; a whole group policy by policy if not all prefixes fit.
            for index in range(len(self.prepared.overheads)):
                for by_policy in started:
                    yield from by_policy[index]

    def _begin_anew(self) -> Iterator[Feed]:
        """Finish all rows, and reset the engine and the known texts, as if a run were resumed here (--deterministic).

        What follows then depends on nothing before it.
        """
        yield from self._finished()
        self._known.clear()
        yield Feed.RESET

    def _start(self, part: Part, number: int, record: Record) -> list[list[Prompt]]:
        """Begin a row, and return its prompts by policy."""
        known = next(part.session.kept, None)
        if known is not None and not known.in_error:
            row = Row(part, record, Answer(dict(known.verdicts)), known.raw)
            prompts: list[list[Prompt]] = [[] for _ in self.prepared.overheads]
        else:
            text = record.error or part.selector.select(record)
            copied = self._reuse.of(text) if self._reuse and isinstance(text, str) else None
            answer, prompts = self._answer(part, number, text, copied)
            row = Row(part, record, answer, copied=copied)
        self._rows.append(row)
        if row.answer.done:
            self.progress.row_decided(row.answer.verdicts)
        else:
            self._waiting[row.answer] += 1
        return prompts

    def _answer(
        self, part: Part, number: int, text: str | Turns | RowError, copied: Copied | None = None
    ) -> tuple[Answer, list[list[Prompt]]]:
        """Return the Answer about a text and its prompts by policy, none if an earlier row has the same text.

        Nothing is asked for that is `copied`.
        """
        # Sampling gives another answer each time.
        if isinstance(text, RowError) or self.settings.differs_each_time or self.settings.each_row:
            return self._asked(part, number, text)
        key = text_key(str(text))
        if (answer := self._known.get(key)) is not None:
            part.session.count_repeated()
            return answer, [[] for _ in self.prepared.overheads]
        answer, prompts = self._asked(part, number, text, copied)
        if copied is None or any(prompts):
            self._known.keep(key, answer)
        return answer, prompts

    def _asked(
        self, part: Part, number: int, text: str | Turns | RowError, copied: Copied | None = None
    ) -> tuple[Answer, list[list[Prompt]]]:
        known = copied.verdicts if copied else None
        answer, prompts = self.prepared.labeling.start(text, number, known, part.at)
        if not answer.done:
            self._undecided[part.at, number] = part, answer
        return answer, prompts

    def _write_done(self) -> None:
        """Write the decided rows at the head of the queue; leave out those of a part that has failed."""
        while self._rows and ((row := self._rows[0]).answer.done or row.part.failed):
            part = row.part
            if part.failed:
                self._rows.popleft()
            else:
                self._stop_at_error(row)
                try:
                    self._write(row)
                except SafeguardError as problem:
                    if self._rows and self._rows[0] is row:
                        self._rows.popleft()
                    part.fail(problem)
            part.under_way -= 1
            self._end_if_done(part)

    def _write(self, row: Row) -> None:
        part, verdicts = row.part, row.answer.verdicts
        part.sink.wait()
        with UNBROKEN:
            if row.kept is not None:
                part.sink.copy(row.kept)
            else:
                part.sink.write(row.record, verdicts)
            self._rows.popleft()
            self.truncated += any(verdict.truncated for verdict in verdicts.values())
            self.shortened += bool(row.answer.turns_left_out)
            if self._reuse:
                self._reuse.count(row.copied)
            part.progress.row_written(verdicts)
            part.session.row_written(row.record, part.sink)
        part.session.save_now_and_then(part.sink)

    def _stop_at_error(self, row: Row) -> None:
        if self.settings.on_error != "stop":
            return
        verdicts, session = row.answer.verdicts, row.part.session
        if failed := next((v.error for v in verdicts.values() if v.error and not v.error.blank), None):
            raise SafeguardError(
                f"row {session.written + 1}: {failed.code}: {failed.message}; stopped, as --on-error stop asks"
            )

    def _end_if_done(self, part: Part) -> None:
        if part.exhausted and not part.under_way and not part.failed:
            part.end()

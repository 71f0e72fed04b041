"""The rows under way: they enter in order, are decided as slots allow, and leave in order."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

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


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A record under way with its Answer; rows of the same text share one."""

    record: Record
    answer: Answer
    kept: bytes | None = None  # a row of an earlier output, to be copied
    copied: Copied | None = None  # verdicts of an earlier run on the same text


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


class Pipeline:
    """The rows under way: they enter in order, are decided as slots allow, and leave in order.

    `session` gives the number of the first row and is told of every row that is written; without one nothing is saved.
    `reuse` has verdicts that are not asked for again.
    `truncated` counts the rows that were cut, `shortened` those whose conversation was.
    """

    def __init__(
        self,
        settings: Settings,
        prepared: Prepared,
        selector: Selects,
        progress: Progress,
        session: Session | None = None,
        reuse: Reuse | None = None,
    ) -> None:
        self.settings, self.prepared, self.selector, self.progress = settings, prepared, selector, progress
        self.session, self._reuse = session or Session(), reuse
        self.truncated = self.shortened = 0
        self._known = Known(REMEMBERED)
        self.broken: SafeguardError | None = None
        self._rows: deque[Row] = deque()  # in input order; the first is number `written`
        self._undecided: Counter[Answer] = Counter()  # rows that wait for each
        self._most = WAITING * prepared.shape.plan.slots

    def label(self, records: Iterator[Record], engine: Engine, sink: Sink) -> None:
        """Label all records, beginning with the session's next row.

        Raise SafeguardError if the input breaks off or the output cannot be written.
        """
        labeling = self.prepared.labeling
        self.progress.start_rows()
        for completion in engine.complete(self._prompts(self._readable(records), sink)):
            answer = self._rows[completion.prompt.row - self.session.written].answer
            labeling.finish(answer, completion)
            if answer.done:
                self.progress.row_decided(answer.verdicts, self._undecided.pop(answer))
            self.progress.tokens(len(completion.prompt.ids), completion.generated)
            self.session.count_tokens(len(completion.prompt.ids), completion.generated)
            self._write_done(sink)
        self._write_done(sink)
        if self.broken:
            raise self.broken

    def _readable(self, records: Iterator[Record]) -> Iterator[Record]:
        """Yield the records up to where the input breaks off; rows under way are finished before that is raised."""
        try:
            yield from records
        except SafeguardError as error:
            self.broken = error

    def _prompts(self, records: Iterator[Record], sink: Sink) -> Iterator[Prompt | Feed]:
        every = self.prepared.drain
        group = self._most // 2 if self.prepared.prefixes_compete else 1
        number = self.session.written
        if every:
            yield from self._begin_anew()
        while batch := list(islice(records, min(group, self._drained(number) - number))):
            # The number of rows that wait for an earlier one is bounded: at the bound, some must finish first.
            while len(self._rows) + len(batch) > self._most:
                yield Feed.HOLD
            started = []
            for record in batch:
                started.append(self._start(record, number))
                number += 1
            self._write_done(sink)
            # One row under all its policies, then the next; a whole group policy by policy if not all prefixes fit.
            for index in range(len(self.prepared.overheads)):
                for by_policy in started:
                    yield from by_policy[index]
            if number == self._drained(number - 1):
                while self._rows:
                    yield Feed.HOLD
            if every and number % every == 0:
                yield from self._begin_anew()

    def _drained(self, number: int) -> int:
        """Return after how many rows, when `number` are begun, all must be written before more are begun."""
        every, end = self.prepared.drain, self.session.round_end(number)
        return min(number - number % every + every if every else sys.maxsize, sys.maxsize if end is None else end)

    def _begin_anew(self) -> Iterator[Feed]:
        """Reset the engine and the known texts, as if a run were resumed here (--deterministic).

        What follows then depends on nothing before it.
        """
        self._known.clear()
        yield Feed.RESET

    def _start(self, record: Record, number: int) -> list[list[Prompt]]:
        """Begin a row, and return its prompts by policy."""
        known = next(self.session.kept, None)
        if known is not None and not known.in_error:
            row = Row(record, Answer(dict(known.verdicts)), known.raw)
            prompts: list[list[Prompt]] = [[] for _ in self.prepared.overheads]
        else:
            text = record.error or self.selector.select(record)
            copied = self._reuse.of(text) if self._reuse and isinstance(text, str) else None
            answer, prompts = self._answer(text, number, copied)
            row = Row(record, answer, copied=copied)
        self._rows.append(row)
        if row.answer.done:
            self.progress.row_decided(row.answer.verdicts)
        else:
            self._undecided[row.answer] += 1
        return prompts

    def _answer(
        self, text: str | Turns | RowError, number: int, copied: Copied | None = None
    ) -> tuple[Answer, list[list[Prompt]]]:
        """Return the Answer about a text and its prompts by policy, none if an earlier row has the same text.

        Nothing is asked for that is `copied`.
        """
        start = self.prepared.labeling.start
        # Sampling gives another answer each time.
        if isinstance(text, RowError) or self.settings.temperature > 0 or self.settings.each_row:
            return start(text, number)
        key = text_key(str(text))
        if (answer := self._known.get(key)) is not None:
            self.session.count_repeated()
            return answer, [[] for _ in self.prepared.overheads]
        answer, prompts = start(text, number, copied.verdicts if copied else None)
        if copied is None or any(prompts):
            self._known.keep(key, answer)
        return answer, prompts

    def _write_done(self, sink: Sink) -> None:
        """Write the decided rows at the head of the queue."""
        while self._rows and self._rows[0].answer.done:
            row, verdicts = self._rows[0], self._rows[0].answer.verdicts
            failed = next((v.error for v in verdicts.values() if v.error and not v.error.blank), None)
            if failed and self.settings.on_error == "stop":
                raise SafeguardError(
                    f"row {self.session.written + 1}: {failed.code}: {failed.message}; stopped, as --on-error stop asks"
                )
            sink.wait()
            with UNBROKEN:
                if row.kept is not None:
                    sink.copy(row.kept)
                else:
                    sink.write(row.record, verdicts)
                self._rows.popleft()
                self.truncated += any(verdict.truncated for verdict in verdicts.values())
                self.shortened += bool(row.answer.turns_left_out)
                if self._reuse:
                    self._reuse.count(row.copied)
                self.progress.row_written(verdicts)
                self.session.row_written(row.record, sink)
            self.session.save_now_and_then(sink)

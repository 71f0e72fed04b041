"""One person's session: which row is current, what may be shown of it, and what each answer does.

No terminal and no browser is known here: the Textual app, the line mode and every other surface drive a Session and
show its View. Every change is in the golden file before it is in the session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.reviewed import ReviewedRow
from safeguard_cli.review.answers import GoldenFile
from safeguard_cli.review.picking import Candidate, Item
from safeguard_cli.review.shown import Block, Layout, Said
from safeguard_cli.signals import UNBROKEN

_KEYS = "123456789" + ascii_uppercase  # lower-case letters are commands


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person said about a row; neither a label nor skipped means that the row is open."""

    label: str | None = None
    skipped: bool = False
    note: str = ""
    rule: str = ""
    blind: bool = False

    @property
    def given(self) -> bool:
        return self.label is not None or self.skipped


OPEN = Answer()


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done: the rows to review, the labels to give, the rules to cite, and what is shown when."""

    person: str
    items: Sequence[Item]
    labels: Sequence[str]
    layout: Layout
    rules: Mapping[str, str]  # a line of the policy by the rule's code
    own: Mapping[int, Mapping[str, object]]  # a row's own fields as the golden file names them, by the row's number
    blind: bool = True
    veil: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """All that may be shown just now.

    `blocks` are empty while the text is veiled, `said` while it is kept back (`hidden`). `last` is the answer before,
    with what had been kept back about it.
    """

    place: int  # from 1
    rows: int
    answered: int
    skipped: int
    line: int  # of the output
    blocks: tuple[Block, ...]
    veiled: bool
    said: tuple[Said, ...]
    hidden: bool
    answer: Answer
    last: tuple[int, Answer, tuple[Said, ...]] | None  # the place, from 1

    @property
    def done(self) -> bool:
        return self.answered + self.skipped == self.rows


class Session:
    """The state of a review; the golden file has every answer before a method returns."""

    def __init__(self, task: Task, golden: GoldenFile) -> None:
        self.task = task
        self._golden = golden
        keys = {item.candidate.key: at for at, item in enumerate(task.items)}
        self._answers = [_answer_of(golden.get(item.candidate.key)) for item in task.items]
        # Taking back begins with the answers of earlier sessions; what an answer had replaced then is not known.
        self._history = [(keys[key], OPEN) for key, row in golden.rows.items() if key in keys and row.answered]
        self._seen = {at for at, answer in enumerate(self._answers) if answer.given}  # what the model said is known
        self._unveiled: set[int] = set()
        self._last: int | None = None
        self._at = self._next_open(-1)

    @property
    def keys(self) -> dict[str, str]:
        """Return the labels by their keys: a label of one digit is its own key, if all are; some may have none."""
        if all(len(label) == 1 and label in "0123456789" for label in self.task.labels):
            return {label: label for label in self.task.labels}
        return dict(zip(_KEYS, self.task.labels, strict=False))

    @property
    def place(self) -> int:
        """Return the number of the current row among those to review, from 1."""
        return self._at + 1

    def view(self) -> View:
        """Return what may be shown, and remember that it was shown."""
        item, answer = self.task.items[self._at], self._answers[self._at]
        hidden = self.task.blind and not answer.given
        veiled = self.task.veil and self._at not in self._unveiled
        if not hidden and not veiled:
            self._seen.add(self._at)
        last, at = None, self._last
        if at is not None and at != self._at and self._answers[at].given:
            last = at + 1, self._answers[at], self.task.items[at].candidate.said
            self._seen.add(at)
        candidate = item.candidate
        return View(
            place=self._at + 1,
            rows=len(self.task.items),
            answered=sum(each.label is not None for each in self._answers),
            skipped=sum(each.skipped for each in self._answers),
            line=candidate.line,
            blocks=() if veiled else self._blocks(candidate, hidden),
            veiled=veiled,
            said=() if hidden or veiled else candidate.said,  # a rationale quotes the text
            hidden=hidden and bool(candidate.said),
            answer=answer,
            last=last,
        )

    def _blocks(self, candidate: Candidate, hidden: bool) -> tuple[Block, ...]:
        layout = self.task.layout
        return layout.blocks(candidate.fields, candidate.text, candidate.earlier, with_labels=not hidden)

    def label(self, label: str) -> None:
        """Give the current row a label, and go to the next open one."""
        if label not in self.task.labels:
            raise UsageError(f"{label!r} is no label of this policy: {', '.join(self.task.labels)}")
        before = self._answers[self._at]
        blind = before.blind if label == before.label else self.task.blind and self._at not in self._seen
        self._give(replace(before, label=label, skipped=False, blind=blind))

    def skip(self) -> None:
        """Leave the current row without a label, for good, and go to the next open one."""
        self._give(replace(self._answers[self._at], label=None, skipped=True, blind=False))

    def note(self, text: str) -> None:
        """Put a note beside the answer to the current row, which may come later."""
        self._change(self._at, replace(self._answers[self._at], note=" ".join(text.split())))

    def rule(self, code: str) -> None:
        """Cite a rule for the answer to the current row; an empty code cites none."""
        self._change(self._at, replace(self._answers[self._at], rule=code.strip()))

    def undo(self) -> bool:
        """Take back the last change, whatever its row, and go there; return False if there is none to take back."""
        if not self._history:
            return False
        at, before = self._history[-1]
        self._write(at, before)
        self._history.pop()
        self._at, self._last = at, None
        return True

    def go(self, steps: int) -> None:
        """Go forth or back through all rows, answered or not."""
        self._at = min(max(self._at + steps, 0), len(self.task.items) - 1)

    def unveil(self) -> None:
        """Show the text of the current row."""
        self._unveiled.add(self._at)

    def _give(self, answer: Answer) -> None:
        self._change(self._at, answer)
        self._last = self._at
        self._at = self._next_open(self._at)

    def _change(self, at: int, answer: Answer) -> None:
        before = self._answers[at]
        if answer != before:
            self._write(at, answer)
            self._history.append((at, before))

    def _write(self, at: int, answer: Answer) -> None:
        with UNBROKEN:  # a signal waits until file and session agree
            self._golden.append(self._row(self.task.items[at], answer))
            self._answers[at] = answer

    def _row(self, item: Item, answer: Answer) -> ReviewedRow:
        candidate, name = item.candidate, self.task.person
        there = self._golden.get(candidate.key)
        own = {} if answer.label is None else {name: answer.label}
        return ReviewedRow(
            row=candidate.row,
            line=candidate.line,
            fields=self.task.own[candidate.row],
            label=answer.label,
            labels=own if item.before is None else item.before.labels,
            note=answer.note,
            rule=answer.rule,
            picked=there.picked if there else item.picked,
            proposed=candidate.proposed,
            blind=answer.blind,
            skipped=answer.skipped,
            settled_by=name if item.before is not None and answer.given else None,
            undone=answer == OPEN,
        )

    def _next_open(self, at: int) -> int:
        """Return the next row that is open, from the start if none follows; the same one if there is none at all."""
        places = [*range(at + 1, len(self.task.items)), *range(at + 1)]
        return next((each for each in places if not self._answers[each].given), max(at, 0))


def _answer_of(row: ReviewedRow | None) -> Answer:
    return Answer(row.label, row.skipped, row.note, row.rule, row.blind) if row else OPEN

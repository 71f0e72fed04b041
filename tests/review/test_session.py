"""A session and its file never disagree, whatever a person does and whenever the session ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.reviews import LABELS, opened, task
from hypothesis import given, settings
from hypothesis import strategies as st

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.reviewed import read_reviewed
from safeguard_cli.review.session import OPEN, Answer, Session

ROWS = 4
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("label"), st.sampled_from(LABELS)),
        st.tuples(st.just("note"), st.sampled_from(["", "a note", "two\nlines, =1"])),
        st.tuples(st.just("rule"), st.sampled_from(["", "SP1"])),
        st.tuples(st.just("go"), st.sampled_from([-1, 1])),
        st.tuples(st.sampled_from(["skip", "undo", "again"]), st.none()),
    ),
    max_size=25,
)


class Model:
    """What a session should be: answers by place, and what is taken back next."""

    def __init__(self) -> None:
        self.answers = dict.fromkeys(range(ROWS), OPEN)
        self.history: list[tuple[int, Answer]] = []
        self.order: list[int] = []  # places with something on disk, in the order of their last changes
        self.at = 0

    def change(self, **values: object) -> None:
        before = self.answers[self.at]
        after = replace(before, **values)  # type: ignore[arg-type]
        if after != before:
            self.history.append((self.at, before))
            self.put(self.at, after)

    def put(self, at: int, answer: Answer) -> None:
        self.answers[at] = answer
        self.order = [each for each in self.order if each != at] + ([at] if answer != OPEN else [])

    def next_open(self, at: int) -> None:
        places = [*range(at + 1, ROWS), *range(at + 1)]
        self.at = next((each for each in places if not self.answers[each].given), max(at, 0))

    def act(self, name: str, value: object) -> None:
        if name in ("label", "skip"):
            self.change(label=value, skipped=name == "skip")
            self.next_open(self.at)
        elif name == "note":
            self.change(note=" ".join(str(value).split()))
        elif name == "rule":
            self.change(rule=value)
        elif name == "go":
            self.at = min(max(self.at + int(str(value)), 0), ROWS - 1)
        elif name == "undo" and self.history:
            self.at, before = self.history.pop()
            self.put(self.at, before)
        elif name == "again":
            self.history = [(at, OPEN) for at in self.order if self.answers[at].given]
            self.next_open(-1)


def act(session: Session, name: str, value: object) -> None:
    if name in ("skip", "undo"):
        getattr(session, name)()
    elif name != "again":
        getattr(session, name)(value)


def on_disk(path: Path, session: Session) -> dict[int, Answer]:
    places = {item.candidate.row: at for at, item in enumerate(session.task.items)}
    found = dict.fromkeys(range(ROWS), OPEN)
    if path.exists():
        file = read_reviewed(path, labels=LABELS)
        for row in (*file.rows, *file.begun):
            found[places[row.row]] = Answer(row.label, row.skipped, row.note, row.rule)
    return found


@pytest.mark.promise("A review's answers on disk are those given, taken back or changed, whenever it ends")
@pytest.mark.parametrize("name", ["g.jsonl", "g.csv"])
@settings(deadline=None, max_examples=60)
@given(actions=ACTIONS)
def test_what_is_on_disk_is_what_the_person_said(name, actions, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("review") / name
    model, waiting = Model(), list(actions)
    while True:
        with opened(path, task(ROWS, path=path, blind=False)) as (session, _):
            while waiting:
                step = waiting.pop(0)
                act(session, *step)
                model.act(*step)
                if step[0] == "again":
                    break
                assert session.view().place - 1 == model.at
                assert on_disk(path, session) == model.answers, step
            else:
                break
        assert on_disk(path, session) == model.answers
        if path.exists():  # closed: a line for each answer, and no other
            file = read_reviewed(path)
            assert (file.outdated, file.torn) == (0, False)


def test_a_text_and_the_models_answer_are_shown_only_when_they_may_be(tmp_path) -> None:
    with opened(tmp_path / "g.jsonl", task(3, veil=True)) as (session, _):
        view = session.view()
        assert (view.veiled, view.blocks, view.hidden, view.said, view.last) == (True, (), True, (), None)
        session.unveil()
        view = session.view()
        assert not view.veiled and view.blocks[0].lines == (f"text {session.task.items[0].candidate.row}",)
        session.label("ham")
        view = session.view()
        assert (view.place, view.veiled, view.hidden, view.said) == (2, True, True, ())
        assert view.last is not None and view.last[2][0].label == "spam"
        session.go(-1)
        assert session.view().said[0].label == "spam"
    with opened(tmp_path / "shown.jsonl", task(3, veil=True, blind=False)) as (session, _):
        assert session.view().said == (), "a rationale quotes the text"
        session.unveil()
        assert session.view().said[0].label == "spam"


def test_a_label_given_after_the_models_was_seen_is_not_blind(tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    with opened(path, task(3)) as (session, golden):
        key = session.task.items[0].candidate.key
        session.view()
        session.label("ham")
        assert golden.rows[key].blind
        session.view()  # now the model's is known
        session.go(-1)
        session.label("ham")
        assert golden.rows[key].blind, "the same answer as before"
        session.go(-10)
        session.label("spam")
        assert not golden.rows[key].blind
    with opened(path, task(3)) as (session, golden):
        session.undo()
        session.label("ham")
        assert not golden.rows[key].blind, "it was seen in an earlier session"
    with opened(tmp_path / "shown.jsonl", task(3, blind=False)) as (session, golden):
        session.view()
        session.label("ham")
        assert not golden.rows[key].blind


def test_a_skipped_row_does_not_come_again(tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    with opened(path, task(3)) as (session, _):
        session.skip()
        session.label("ham")
    with opened(path, task(3)) as (session, _):
        view = session.view()
        assert (view.place, view.answered, view.skipped, view.done) == (3, 1, 1, False)
        session.label("spam")
        assert session.view().done


def test_answers_of_earlier_sessions_are_taken_back_too(tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    with opened(path, task(3)) as (session, _):
        for label in ("ham", "spam", "ham"):
            session.label(label)
    with opened(path, task(3)) as (session, golden):
        assert [session.undo() for _ in range(4)] == [True, True, True, False]
        assert golden.rows == {}
        assert session.view().place == 1
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        (("ham", "spam"), {"1": "ham", "2": "spam"}),
        (("0", "1"), {"0": "0", "1": "1"}),
        (tuple(f"L{n}" for n in range(11)), {str(n + 1): f"L{n}" for n in range(9)} | {"A": "L9", "B": "L10"}),
    ],
)
def test_each_label_has_a_key(labels, keys, tmp_path) -> None:
    with opened(tmp_path / "g.jsonl", task(1, labels=labels)) as (session, _):
        assert session.keys == keys


def test_only_labels_of_the_policy_are_taken(tmp_path) -> None:
    with opened(tmp_path / "g.jsonl", task(1)) as (session, _), pytest.raises(UsageError, match="'eggs' is no label"):
        session.label("eggs")
    assert not (tmp_path / "g.jsonl").exists()

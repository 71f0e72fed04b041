"""The golden file: an answer is on disk when it is given, and only one session at a time has the file."""

from __future__ import annotations

import errno
import os

import pytest
from helpers.kills import killed_at, steps_of
from helpers.reviews import golden_row, lines, opened, task

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.measure.reviewed import read_reviewed
from safeguard_cli.output.manifest import Locked
from safeguard_cli.review.answers import check_golden, open_golden
from safeguard_cli.rows.writable import used

OWN, ANNA, LABELS = ("text",), ("anna",), ("ham", "spam")


def put(path, *rows) -> None:
    with open_golden(path, OWN, ANNA, LABELS, list) as golden:
        for row in rows:
            golden.append(row)


@pytest.mark.promise("No answer of a review is lost or doubled when it is killed, at any step")
@pytest.mark.parametrize("name", ["g.jsonl", "g.csv"])
def test_a_kill_at_any_step_loses_no_answer_that_was_given(name, tmp_path) -> None:
    told = tmp_path / "told"

    def work() -> None:
        with open_golden(tmp_path / name, OWN, ANNA, LABELS, list) as golden:
            for row, label in ((1, "ham"), (2, "spam"), (1, "spam"), (3, "ham")):
                golden.append(golden_row(row, label, "anna", note='one\n"two"'))
                with told.open("ab", buffering=0) as file:  # counted as steps too, which does no harm
                    file.write(f"{row}{label[0]} ".encode())

    every = [(1, "ham"), (2, "spam"), (1, "spam"), (3, "ham")]
    for nth in range(steps_of(work)):
        for each in tmp_path.iterdir():
            each.unlink()
        assert killed_at(nth, work)
        given = len(told.read_text().split()) if told.exists() else 0
        found = read_reviewed(tmp_path / name).rows if (tmp_path / name).exists() and given else ()
        standing = {row.row: row.label for row in found}
        assert standing in (dict(every[:given]), dict(every[: given + 1])), nth
        assert len(found) == len(standing)
        put(tmp_path / name, golden_row(9, "ham", "anna"))  # another session goes on
        assert {row.row: row.label for row in read_reviewed(tmp_path / name).rows} == standing | {9: "ham"} or not given


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch) -> None:
    path, real = tmp_path / "g.jsonl", os.write

    def full(file: int, data: bytes) -> int:
        if len(data) > 40:
            return real(file, bytes(data)[:40])
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(path, task(3)) as (session, _):
        session.label("ham")
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(SafeguardError, match=r"g\.jsonl: No space left"):
                session.label("spam")
        assert path.read_bytes() == before
        assert session.view().place == 2, "the row is still open"
        session.label("spam")
    assert len(lines(path)) == 2


@pytest.mark.promise("Two reviews never write one golden file")
def test_a_second_session_is_refused_and_told_who_has_the_file(tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    with open_golden(path, OWN, ANNA, LABELS, list), pytest.raises(Locked, match=rf"process {os.getpid()}"):
        put(path)
    put(path)
    (tmp_path / "link.jsonl").symlink_to(path)
    with open_golden(path, OWN, ANNA, LABELS, list), pytest.raises(Locked):
        put(tmp_path / "link.jsonl")


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_a_spreadsheet_saved_meanwhile_is_not_written_into(replaced, tmp_path) -> None:
    path = tmp_path / "g.csv"
    with open_golden(path, OWN, ANNA, LABELS, list) as golden:
        golden.append(golden_row(1, "ham", "anna"))
        saved = path.read_bytes() + b"\r\n"
        if replaced:
            path.rename(tmp_path / "old.csv")
        path.write_bytes(saved)
        with pytest.raises(SafeguardError, match="was changed by another program"):
            golden.append(golden_row(2, "ham", "anna"))
    assert path.read_bytes() == saved
    put(path, golden_row(2, "spam", "anna"))
    assert [row.label for row in read_reviewed(path).rows] == ["ham", "spam"]


def test_lines_that_no_longer_count_are_gone_when_the_file_is_opened_or_closed(tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    put(path, golden_row(1, "ham", "anna"), golden_row(2, "ham", "anna"), golden_row(1, "spam", "anna"))
    assert [(each["_row"], each["label"]) for each in lines(path)] == [(2, "ham"), (1, "spam")]
    with path.open("a") as file:
        file.write(path.read_text().splitlines()[0] + '\n{"text": "to')
    put(path)
    assert [(each["_row"], each["label"]) for each in lines(path)] == [(1, "spam"), (2, "ham")]


def test_a_csv_begins_with_a_byte_order_mark_and_has_a_column_for_each_field(tmp_path) -> None:
    path = tmp_path / "g.csv"
    put(path, golden_row(1, "ham", "anna", note="=SUM(A1)"))
    head, first = path.read_bytes().decode("utf-8-sig").splitlines()
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    assert head.startswith("text,_row,_line,label,label_anna,note,rule,picked,picked_probability")
    assert first.startswith("text 1,1,1,ham,ham,'=SUM(A1),"), "no formula"


def test_no_file_is_made_until_something_is_answered(tmp_path) -> None:
    put(tmp_path / "g.jsonl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("g.parquet", "a golden file is .jsonl, .ndjson, .csv, .tsv"),
        ("g.jsonl.gz", "a golden file is"),
        ("in.jsonl", "this is the output itself"),
        ("no/g.jsonl", "there is no folder"),
        ("pipe.jsonl", "cannot be a pipe"),
    ],
)
def test_what_cannot_be_a_golden_file_is_refused(name, said, tmp_path) -> None:
    (tmp_path / "in.jsonl").touch()
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(UsageError, match=said):
        check_golden(tmp_path / name, used("the output", tmp_path / "in.jsonl"))


def test_a_file_that_is_no_golden_file_is_left_alone(tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text('{"text": "mine", "label": "ham"}\n')
    with pytest.raises(UsageError, match="no golden file of `safeguard review`"):
        put(path)
    assert path.read_text() == '{"text": "mine", "label": "ham"}\n'

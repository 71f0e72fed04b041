"""Golden files of `safeguard review` come back as they were written, whatever other programs do to them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.reviewed import (
    FIELDS,
    Picked,
    Proposed,
    ReviewedRow,
    columns,
    holds_reviewed,
    own_fields,
    read_reviewed,
    sample_of,
)

LABELS = ("ham", "spam", "0", "NA")
WORDS = st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=12)
SHARES = st.one_of(st.none(), st.floats(0, 1))


def row(number: int = 1, label: str | None = "spam", **more: object) -> ReviewedRow:
    people = {"anna": label} if label else {}
    picked, proposed = Picked("random", 0.25, 0, 8), Proposed("ham", False, 0.125, "spam")
    made = ReviewedRow(
        number, number, {"id": number, "text": f"text {number}"}, label, people, "", "", picked, proposed
    )
    return replace(made, **more)  # type: ignore[arg-type]


def written(path: Path, rows: list[ReviewedRow], people: tuple[str, ...] = ("anna",)) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(each.as_dict()) + "\n" for each in rows))
        return path
    own = tuple(dict.fromkeys(name for each in rows for name in each.fields))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow((*own, *columns(people)))
    writer.writerows(each.as_cells(own, people) for each in rows)
    path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    return path


def without_place(rows: Iterable[ReviewedRow]) -> list[ReviewedRow]:
    return [replace(each, at=0, fields={name: str(value) for name, value in each.fields.items()}) for each in rows]


@pytest.mark.parametrize("name", ["g.jsonl", "g.csv"])
@given(data=st.data())
def test_what_was_written_comes_back(name, data, tmp_path_factory) -> None:
    made = []
    for number in range(1, data.draw(st.integers(1, 4)) + 1):
        label = data.draw(st.sampled_from([*LABELS, None]))
        made.append(
            row(
                number,
                label,
                fields={"text": data.draw(WORDS.filter(str.strip)) + "x"},
                note=data.draw(st.sampled_from(["", "=1+1", "a, b", "two\nlines", "'quoted'"])),
                rule=data.draw(st.sampled_from(["", "SP1"])),
                picked=Picked("unsure", data.draw(SHARES), 3, 9),
                proposed=Proposed("ham", data.draw(st.booleans()), data.draw(SHARES), "spam"),
                blind=data.draw(st.booleans()),
                skipped=label is None,
                settled_by=data.draw(st.sampled_from([None, "carol"])),
            )
        )
    path = written(tmp_path_factory.mktemp("golden") / name, made)
    assert without_place(read_reviewed(path, labels=LABELS).rows) == made


@pytest.mark.parametrize("name", ["g.jsonl", "g.csv"])
def test_the_last_answer_to_a_row_counts_and_one_taken_back_is_none(name, tmp_path) -> None:
    taken_back = row(2, None, undone=True)
    path = written(tmp_path / name, [row(1, "ham"), row(2, "ham"), row(1, "spam"), taken_back])
    found = read_reviewed(path)
    assert [(each.row, each.label) for each in found.rows] == [(1, "spam")]
    assert (found.outdated, found.torn, found.people) == (3, False, ("anna",))


@pytest.mark.parametrize("name", ["g.jsonl", "g.csv"])
def test_a_file_cut_off_anywhere_keeps_every_whole_line(name, tmp_path) -> None:
    rows = [row(1), row(2, "ham", note='a "quoted"\nnote, two lines'), row(3)]
    whole = written(tmp_path / name, rows).read_bytes()
    ends = [len(written(tmp_path / f"{at}{name}", rows[:at]).read_bytes()) for at in (1, 2, 3)]
    for size in range(ends[0], len(whole) + 1):
        (tmp_path / name).write_bytes(whole[:size])
        found = read_reviewed(tmp_path / name)
        kept = sum(size >= end for end in ends)
        assert without_place(found.rows)[:kept] == without_place(rows[:kept]), size
        assert len(found.rows) - kept in (0, 1), size  # a line that lacks nothing but its end counts
        assert without_place(found.rows) == without_place(rows[: len(found.rows)]), size


def test_pandas_may_save_it_again(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = [row(1, "1"), row(2, None, skipped=True), row(3, "0", blind=True, rule="SP1")]
    path = written(tmp_path / "g.csv", rows)
    pandas.read_csv(path).to_csv(path, index=False)
    again = read_reviewed(path, labels=("0", "1")).rows
    assert [(each.row, each.label, each.labels, each.skipped, each.blind, each.rule) for each in again] == [
        (1, "1", {"anna": "1"}, False, False, ""),
        (2, None, {}, True, False, ""),
        (3, "0", {"anna": "0"}, False, True, "SP1"),
    ]
    assert {each.picked for each in again} == {Picked("random", 0.25, 0, 8)}
    lines = written(tmp_path / "g.jsonl", rows)
    pandas.read_json(lines, lines=True).to_csv(path)
    assert [(each.row, each.label, each.labels) for each in read_reviewed(path, labels=("0", "1")).rows] == [
        (1, "1", {"anna": "1"}),
        (2, None, {}),
        (3, "0", {"anna": "0"}),
    ]


def test_a_german_spreadsheet_may_save_it_again(tmp_path) -> None:
    path = tmp_path / "g.csv"
    path.write_text(
        "text;_row;_line;label;label_anna;note;rule;picked;picked_probability;picked_seed;picked_of;proposed_label;"
        "proposed_violates;proposed_p_violates;proposed_policy;blind;skipped;settled_by;undone\r\n"
        "hallo;1;1;spam;spam;'=1+1;SP1;random;0,25;0;8;ham;FALSCH;1E-05;spam;WAHR;FALSCH;;FALSCH\r\n",
        encoding="utf-8-sig",
    )
    assert without_place(read_reviewed(path).rows) == [
        ReviewedRow(
            1,
            1,
            {"text": "hallo"},
            "spam",
            {"anna": "spam"},
            "=1+1",
            "SP1",
            Picked("random", 0.25, 0, 8),
            Proposed("ham", False, 1e-05, "spam"),
            True,
        )
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([row(1).as_dict() | {"_row": "x"}], "line 1: _row is 'x', which is not the number of a row"),
        ([row(1).as_dict() | {"label": "maybe"}], "line 1: label is 'maybe', which is not one of the labels"),
        ([row(1).as_dict() | {"skipped": "perhaps"}], "skipped is 'perhaps', which is not true or false"),
        ([row(1).as_dict(), row(1).as_dict() | {"text": "another"}], "rows of several outputs"),
        ([row(1).as_dict(), row(1).as_dict() | {"labels": {"ben": "ham"}}], "labelled by anna and ben"),
        ([{"text": "a", "label": "ham"}], "this is no golden file of `safeguard review`"),
    ],
)
def test_what_is_not_as_it_may_be_is_refused_with_its_line(lines, said, tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    with pytest.raises(UsageError, match=r"g\.jsonl") as refused:
        read_reviewed(path, labels=LABELS)
    assert said in str(refused.value)


def test_a_broken_line_among_others_is_refused(tmp_path) -> None:
    path = written(tmp_path / "g.jsonl", [row(1), row(2)])
    first, second = path.read_text().splitlines(keepends=True)
    for text in (first[:30] + "\n" + second, first + second[:30] + "\n"):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"line [12]: "):
            read_reviewed(path)
    path = written(tmp_path / "g.csv", [row(1, note='"x"'), row(2)])
    path.write_text(path.read_text(encoding="utf-8").replace('"""x"""', '"x', 1), encoding="utf-8")
    with pytest.raises(UsageError, match="a quote is opened and never closed"):
        read_reviewed(path)


def test_a_field_that_is_called_like_one_of_ours_keeps_its_value_under_another_name() -> None:
    fields = {"label": 1, "label_before": 2, "text": 3, "label_before_before": 4, "note_before": 5}
    assert own_fields(fields, FIELDS) == {
        "label_before": 1,
        "label_before_before": 2,
        "text": 3,
        "label_before_before_before": 4,
        "note_before_before": 5,
    }


def test_own_columns_before_ours_are_nobodys_labels(tmp_path) -> None:
    rows = [row(1, fields={"text": "a", "label_source": "web"})]
    found = read_reviewed(written(tmp_path / "g.csv", rows)).rows
    assert (found[0].labels, found[0].fields) == ({"anna": "spam"}, {"text": "a", "label_source": "web"})


def test_what_an_audit_wrote_stays_with_the_row() -> None:
    assert sample_of({"_sample": {"seed": 0, "row": 8123, "rank": 17, "probability": 0.0004}}) == {
        "seed": 0,
        "row": 8123,
        "rank": 17,
        "probability": 0.0004,
    }
    assert sample_of({"_sample": {"seed": 0, "row": 8123, "picked": "find"}}) == {
        "seed": 0,
        "row": 8123,
        "picked": "find",
    }
    assert sample_of({"_sample_seed": "0", "_sample_row": "7.0", "_sample_rank": "", "_sample_probability": "0,5"}) == {
        "seed": 0,
        "row": 7,
        "probability": 0.5,
    }
    assert sample_of({"text": "a"}) == {}


def test_other_files_hold_no_answers(tmp_path) -> None:
    path = tmp_path / "x.jsonl"
    assert not holds_reviewed(path)
    path.write_text('{"text": "a", "label": "b"}\n')
    assert not holds_reviewed(path)
    assert holds_reviewed(written(path, [row()]))

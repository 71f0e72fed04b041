"""`safeguard agree`: people's files pair by row, figures are those worked by hand, and no file is mixed up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("scipy")
from helpers.command import safeguard

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.agree import agreed, put_side_by_side
from safeguard_cli.measure.reviewed import Picked, Proposed, ReviewedFile, ReviewedRow


def row(number: int, label: str | None, person: str = "anna", model: str | None = "ham", **more: object) -> ReviewedRow:
    made = ReviewedRow(
        number,
        number + 1,
        {"id": f"m{number}", "text": f"text {number}"},
        label,
        {person: label} if label else {},
        picked=Picked("random", 0.5, 0, 20),
        proposed=Proposed(model, model == "spam" if model else None, None, "spam"),
        blind=True,
        at=number,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def file(name: str, *rows: ReviewedRow, **more: object) -> ReviewedFile:
    return ReviewedFile(Path(name), rows, **more)  # type: ignore[arg-type]


def of(person: str, labels: str, **more: object) -> ReviewedFile:
    """Return a person's file: a letter for each row, h for ham, s for spam, - for a skipped one."""
    names = {"h": "ham", "s": "spam", "-": None}
    rows = [row(at, names[mark], person, **more) for at, mark in enumerate(labels, 1)]
    return file(f"{person}.jsonl", *(each if each.label else replace(each, skipped=True) for each in rows))


def write(path: Path, found: ReviewedFile) -> Path:
    path.write_text("".join(json.dumps(each.as_dict()) + "\n" for each in found.rows))
    return path


def run(*args: object) -> tuple[int, str, str]:
    done = safeguard("agree", *args)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_figures_are_those_worked_by_hand() -> None:
    found = agreed([of("anna", "hhhhssss-h"), of("ben", "hhhsssshs-")])
    assert found["rows"] == 10
    assert found["rows_of_several"] == 8
    pair = found["pairs"][0]
    assert (pair["a"], pair["b"], pair["rows"]) == ("anna", "ben", 8)
    assert pair["confusion"] == [[3, 1], [1, 3]]
    assert pair["raw_agreement"]["value"] == 0.75
    assert pair["cohen_kappa"]["value"] == pytest.approx(0.5)
    assert pair["gwet_ac1"]["value"] == pytest.approx(0.5)
    assert pair["krippendorff_alpha"]["value"] == pytest.approx(1 - 0.25 / (128 / 240))
    assert pair["raw_agreement"]["low"] == pytest.approx(0.3491, abs=1e-4)
    anna, ben = found["with_model"]  # which called all ham
    assert (anna["rows"], anna["raw_agreement"]["value"]) == (9, pytest.approx(5 / 9))
    assert (ben["rows"], ben["raw_agreement"]["value"]) == (9, pytest.approx(4 / 9))
    assert anna["cohen_kappa"]["value"] == 0
    assert found["disputes"] == [
        {
            "row": at,
            "line": at + 1,
            "id": f"m{at}",
            "labels": {"anna": a, "ben": b},
            "proposed": "ham",
            "settled": None,
            "text": f"text {at}",
        }
        for at, a, b in ((4, "ham", "spam"), (8, "spam", "ham"))
    ]


def test_three_people_have_figures_together_and_by_pair() -> None:
    found = agreed([of("anna", "hhss"), of("ben", "hhsh"), of("carol", "hs--")])
    assert [(pair["a"], pair["b"], pair["rows"]) for pair in found["pairs"]] == [
        ("anna", "ben", 4),
        ("anna", "carol", 2),
        ("ben", "carol", 2),
    ]
    assert found["raw_agreement"]["value"] == pytest.approx((1 + 1 / 3 + 1 + 0) / 4)
    assert "cohen_kappa" not in found
    assert found["krippendorff_alpha"]["low"] < found["krippendorff_alpha"]["value"]


def test_a_file_with_the_labels_of_several_people_is_enough() -> None:
    settled = replace(row(1, "spam"), labels={"anna": "spam", "ben": "ham"}, settled_by="carol")
    found = agreed([file("golden.jsonl", settled, replace(row(2, "ham"), labels={"anna": "ham", "ben": "ham"}))])
    assert found["people"] == ["anna", "ben"]
    assert [(each["row"], each["settled"]) for each in found["disputes"]] == [(1, "spam")]


def test_rows_of_an_audit_pair_by_the_input_s_numbers_though_its_output_has_grown() -> None:
    early = row(1, "spam", fields={"text": "a", "_sample": {"seed": 0, "row": 8123, "rank": 17, "probability": 0.1}})
    grown = {"seed": 0, "row": 8123, "rank": 17, "probability": 0.2}
    late = row(5, "ham", "ben", fields={"text": "a", "_sample": grown})
    assert agreed([file("a", early), file("b", late)])["rows_of_several"] == 1


def test_files_of_different_outputs_are_refused() -> None:
    other = replace(row(1, "ham", "ben"), fields={"id": "m9", "text": "another"})
    with pytest.raises(UsageError, match=r"row 1 of anna.jsonl \(line 1\) is another row in b.jsonl"):
        agreed([of("anna", "hh"), file("b.jsonl", other)])


def test_one_person_does_not_say_two_things() -> None:
    with pytest.raises(UsageError, match="anna says 'spam' about row 1, and 'ham' in another file"):
        agreed([of("anna", "h"), of("anna", "s")])
    two_halves = put_side_by_side([of("anna", "h"), file("b", row(2, "spam")), of("ben", "hs")])
    assert [dict(each.labels) for each in two_halves] == [
        {"anna": "ham", "ben": "ham"},
        {"anna": "spam", "ben": "spam"},
    ]
    doubts = agreed([of("anna", "h"), file("b", row(2, "spam")), of("ben", "hs")])["doubts"]
    assert doubts == ["anna has labels in 2 files: they count as one person's"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([of("anna", "hh")], "only anna labelled rows"),
        ([of("anna", "h-"), of("ben", "-h")], "no row has the labels of two people"),
        ([of("anna", "-")], "no row is labelled"),
    ],
)
def test_nothing_to_agree_on_is_said(files, why) -> None:
    with pytest.raises(UsageError, match=why):
        agreed(files)


def test_rows_picked_for_their_labels_and_answers_that_were_not_blind_are_told() -> None:
    unsure = of("anna", "hhs", picked=Picked("unsure", None, 0, 20))
    shown = of("ben", "hhh", picked=Picked("unsure", None, 0, 20), blind=False)
    first, second = agreed([unsure, shown])["doubts"]
    assert "3 of the 3 rows were not picked at random" in first
    assert "ben saw the model's answer first on 3 of 3 rows" in second
    assert agreed([of("anna", "hs"), of("ben", "hh")])["doubts"] == []


def test_the_command_shows_figures_matrix_and_disputes(tmp_path) -> None:
    a = write(tmp_path / "a.jsonl", of("anna", "hhhss"))
    b = write(tmp_path / "b.jsonl", of("ben", "hhss-"))
    code, shown, told = run(a, b)
    assert code == 0, told
    assert "5 rows labelled · 4 by more than one person · 2 people" in shown
    for name in ("raw agreement", "Cohen's kappa", "Gwet's AC1", "Krippendorff's alpha", "95 % interval"):
        assert name in shown
    assert "row 3, line 4, id m3: anna ham, ben spam, the model ham: text 3" in shown
    assert " 1.000 to 1.000" not in shown
    assert json.loads(run(a, b, "--json")[1])["pairs"][0]["confusion"] == [[2, 1], [0, 1]]
    assert "anna ham" not in run(a, b, "--disputes", "0")[1]


def test_the_command_refuses_what_it_cannot_use_in_a_sentence(tmp_path) -> None:
    a = write(tmp_path / "a.jsonl", of("anna", "hh"))
    (tmp_path / "b.jsonl").write_text('{"text": "x", "label": "ham"}\n')
    for other, why in (("b.jsonl", "no golden file of `safeguard review`"), ("c.jsonl", "there is no such file")):
        code, _, told = run(a, tmp_path / other)
        assert (code, why in told) == (2, True)
    code, _, told = run(a, a, "--json", "--disputes", "3")
    assert (code, "--disputes has no effect with --json" in told) == (2, True)


def test_texts_and_names_from_files_reach_the_terminal_as_escapes(tmp_path) -> None:
    hostile = {"id": "\x1b]0;x\x07", "text": "\u202ehidden"}
    rows = [replace(row(1, "h\x1b[2J", "an\x1bna"), fields=hostile), replace(row(1, "ham", "ben"), fields=hostile)]
    paths = [write(tmp_path / f"{at}.jsonl", file("x", each)) for at, each in enumerate(rows)]
    code, shown, told = run(*paths)
    assert code == 0, told
    assert "\x1b" not in shown + told
    assert "\u202e" not in shown + told
    assert "\\x1b" in shown

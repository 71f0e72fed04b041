"""`audit --reviewed`: people's answers correct the share, and only rows that can stand for the file do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.command import safeguard

pytest.importorskip("scipy")

from safeguard_cli.audit.estimate import estimate
from safeguard_cli.audit.reviewed import ByPeople, by_people, read_people
from safeguard_cli.errors import UsageError
from safeguard_cli.measure.reviewed import Picked, Proposed, ReviewedRow
from safeguard_cli.measure.statistics import (
    ALONE,
    PPI,
    Reviewed,
    clopper_pearson,
    corrected_share,
    hypergeometric_interval,
)
from safeguard_cli.output.labelled import read_labels

FILE, DRAWN = 400, 240
AUDIT = ("--policy", "spam", "--model", "demo", "--effort", "none", "--rows", DRAWN, "-q")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Audit 240 of 400 rows, of which every third is spam, and the demo model says so; return the folder."""
    folder = tmp_path_factory.mktemp("audit")
    rows = (
        {
            "id": n,
            "text": f"URGENT! Your mobile won a £2000 prize. Call 09{n} to claim"
            if n % 3 == 0
            else f"See you at the station, {n}",
        }
        for n in range(1, FILE + 1)
    )
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = safeguard("audit", "in.jsonl", *AUDIT, "-o", "out.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "audit")
    return tmp_path / "audit"


def in_rank_order(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return sorted(rows, key=lambda row: row["_sample"]["rank"])


def review(folder: Path, count: int, wrong: int = 0, **more: object) -> list[ReviewedRow]:
    """Return a review of the first `count` ranks: people agree with the model but for the first `wrong` rows it allows.

    (Ranks are a random order, so their beginning is a random part of the sample.)
    """
    found = []
    for place, row in enumerate(in_rank_order(folder)[:count], 1):
        spam = row.pop("spam")
        label = spam["label"]
        if label == "ham" and wrong:
            label, wrong = "spam", wrong - 1
        found.append(
            ReviewedRow(
                place,
                place,
                row,
                label,
                {"anna": label},
                picked=Picked("random", count / DRAWN, 0, DRAWN),
                proposed=Proposed(spam["label"], spam["violates"], spam["p_violates"], "spam"),
                **more,  # type: ignore[arg-type]
            )
        )
    return found


def write(folder: Path, rows: list[ReviewedRow]) -> Path:
    path = folder / "golden.jsonl"
    path.write_text("".join(json.dumps(row.as_dict()) + "\n" for row in rows))
    return path


def corrected(folder: Path, rows: list[ReviewedRow]) -> ByPeople:
    labels = read_labels(folder / "out.jsonl")
    (found,) = by_people(read_people(write(folder, rows)), labels, estimate(labels)).values()
    return found


def test_the_figures_are_those_worked_out_by_hand(folder) -> None:
    rows = review(folder, 120, wrong=9)
    said = [row["spam"]["violates"] for row in in_rank_order(folder)]
    hits = sum(said[:120])
    by_hand = corrected_share(Reviewed(hits, 0, 9, 120 - hits - 9), (sum(said[120:]), DRAWN - 120), FILE)
    found = corrected(folder, rows)
    assert by_hand.method == found.method == PPI
    assert (found.share, found.low, found.high) == (by_hand.share, by_hand.interval.low, by_hand.interval.high)
    assert (found.reviewed, found.violating, found.skipped) == (120, hits + 9, 0)
    alone = hypergeometric_interval(hits + 9, 120, FILE)
    assert found.high - found.low < alone.width
    assert found.rows is not None
    assert found.rows[0] / FILE == pytest.approx(found.low, abs=1 / FILE)


def test_few_reviewed_rows_stand_for_themselves(folder) -> None:
    found = corrected(folder, review(folder, 30))
    assert found.method == ALONE
    assert "from 20 on" in found.why
    expected = hypergeometric_interval(found.violating, 30, FILE)
    assert (found.low, found.high) == (expected.low, expected.high)


def test_a_review_of_an_audit_that_has_grown_since_still_counts(folder) -> None:
    before = corrected(folder, review(folder, 100, wrong=5))
    safeguard("audit", "in.jsonl", *AUDIT[:-3], "--rows", 300, "-q", "-o", "out.jsonl", cwd=folder)
    labels = read_labels(folder / "out.jsonl")
    after = by_people(read_people(folder / "golden.jsonl"), labels, estimate(labels))["spam"]
    assert (after.reviewed, after.violating) == (before.reviewed, before.violating)
    assert after.left_out == {}


def test_skipped_rows_bound_the_share_both_ways(folder) -> None:
    rows = review(folder, 60)
    without = corrected(folder, rows[:50])
    some = corrected(folder, [*rows[:50], *(replace(row, label=None, labels={}, skipped=True) for row in rows[50:])])
    assert (some.reviewed, some.skipped) == (50, 10)
    assert some.share == without.share
    assert some.low < without.low
    assert some.high > without.high


def test_rows_that_were_not_picked_at_random_are_left_out_and_counted(folder) -> None:
    rows = review(folder, 60)
    unsure = [replace(row, picked=Picked("unsure", None, 0, DRAWN)) for row in rows[40:]]
    mixed = corrected(folder, [*rows[:40], *unsure])
    assert mixed.left_out == {"unsure": 20}
    assert (mixed.share, mixed.low) == (corrected(folder, rows[:40]).share, corrected(folder, rows[:40]).low)
    with pytest.raises(UsageError, match=r"no row was picked at random and labelled \(20 unsure\)"):
        corrected(folder, unsure)
    searched = [
        replace(row, fields={**row.fields, "_sample": {"seed": 0, "row": row.key, "picked": "find"}}) for row in rows
    ]
    with pytest.raises(UsageError, match=r"\(60 find\)"):
        corrected(folder, searched)


def test_other_files_are_refused_with_the_reason(folder) -> None:
    rows = review(folder, 3)
    bare = {name: value for name, value in rows[0].fields.items() if name != "_sample"}
    with pytest.raises(UsageError, match=r"golden.jsonl, line 1: the row has no _sample"):
        corrected(folder, [replace(rows[0], fields=bare)])
    with pytest.raises(UsageError, match="it is a review of another audit"):
        corrected(folder, [replace(rows[0], fields={**rows[0].fields, "text": "another"})])
    with pytest.raises(UsageError, match="it is a review of another audit"):
        corrected(folder, [replace(rows[0], fields={**rows[0].fields, "_sample": {"seed": 1, "row": rows[0].key}})])
    with pytest.raises(UsageError, match="is about hate, the audit about spam"):
        corrected(folder, [replace(row, proposed=replace(row.proposed, policy="hate")) for row in rows])
    with pytest.raises(UsageError, match="line 1: 'SP2' is no label of spam, which has ham, spam"):
        corrected(folder, [replace(rows[0], label="SP2", labels={"anna": "SP2"})])


def test_rows_without_a_text_are_told_and_the_share_is_of_the_others(tmp_path) -> None:
    rows = [
        {
            "id": n,
            "text": ""
            if n % 4 == 0
            else f"URGENT! Your mobile won a £2000 prize. Call 09{n} to claim"
            if n % 3 == 0
            else f"hi {n}",
        }
        for n in range(80)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = (*AUDIT[:-3], "--rows", 60, "-q", "-o", "out.jsonl")
    safeguard("audit", "in.jsonl", *command, cwd=tmp_path)
    texts = [row for row in in_rank_order(tmp_path) if row["text"]]
    answers = [
        ReviewedRow(at, at, {"id": row["id"], "_sample": row["_sample"]}, row["spam"]["label"], {"anna": "x"})
        for at, row in enumerate(texts, 1)
    ]
    found = corrected(tmp_path, [replace(row, picked=Picked("random", 1.0, 0, len(texts))) for row in answers])
    assert found.without_text == 60 - len(texts) > 0
    assert found.rows is None
    expected = clopper_pearson(found.violating, len(texts))
    assert (found.low, found.high) == (expected.low, expected.high)


def test_the_command_shows_people_s_share_beside_the_model_s_and_says_whose_each_is(folder) -> None:
    write(folder, review(folder, 120, wrong=9))
    again = (*AUDIT, "-o", "out.jsonl", "--reviewed", "golden.jsonl")
    done = safeguard("audit", "in.jsonl", *again, cwd=folder)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert "by people's judgement" in shown
    assert "method: PPI++" in shown
    assert "as it reads the policy" in shown
    found = json.loads(safeguard("audit", "in.jsonl", *again, "--json", cwd=folder).stdout)
    assert found["by_people"]["spam"]["reviewed"] == 120
    without = safeguard("audit", "in.jsonl", *AUDIT, "-o", "out.jsonl", cwd=folder).stdout.decode()
    assert "people" not in without
    assert "as it reads the policy" in without


def test_a_file_that_is_no_review_is_refused_before_a_row_is_labelled(tmp_path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "free prize"}\n')
    for name, why in (("in.jsonl", b"no golden file"), ("nothing.jsonl", b"there is no such file")):
        done = safeguard("audit", "in.jsonl", *AUDIT, "-o", "out.jsonl", "--reviewed", name, cwd=tmp_path)
        assert done.returncode == 2
        assert why in done.stderr
        assert not (tmp_path / "out.jsonl").exists()

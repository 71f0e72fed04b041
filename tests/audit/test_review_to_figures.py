"""From an audit's output to people's answers to figures: those of every command equal figures worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command import safeguard
from helpers.reviews import answer

pytest.importorskip("sklearn")

from scipy.stats import binomtest

from safeguard_cli.measure.statistics import hypergeometric_interval

FILE, DRAWN, REVIEWED = 150, 90, 50
RUN = ("--policy", "spam", "--model", "demo", "--effort", "none", "-q")
# What anna and ben say of the rows in turn: they differ in every seventh.
ANNA = [2 if n % 4 == 0 else 1 for n in range(REVIEWED)]
BEN = [3 - said if n % 7 == 0 else said for n, said in enumerate(ANNA)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Audit a file, and let two people review the same 50 rows of the output, one of them into CSV."""
    folder = tmp_path_factory.mktemp("review")
    texts = ("URGENT! Your mobile won a £2000 prize. Call 09{} to claim", "See you at {}", "Bread and milk, please, {}")
    rows = ({"id": n, "text": texts[n % 3].format(n)} for n in range(FILE))
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    safeguard("audit", "in.jsonl", *RUN, "--rows", DRAWN, "-o", "out.jsonl", cwd=folder)
    for person, said, golden in (("anna", ANNA, "anna.jsonl"), ("ben", BEN, "ben.csv")):
        keys = " ".join(map(str, said))
        answer(folder / "out.jsonl", folder / golden, keys, "--rows", str(REVIEWED), person=person)
    return folder


def printed(folder: Path, *call: object) -> dict:
    done = safeguard(*call, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answers(folder: Path) -> list[dict]:
    found = [json.loads(line) for line in (folder / "anna.jsonl").read_text().splitlines()]
    assert [row["label"] for row in found] == ["spam" if said == 2 else "ham" for said in ANNA]
    return found


def test_eval_measures_the_model_against_the_answers(folder) -> None:
    rows = answers(folder)
    right = sum(row["label"] == row["proposed"]["label"] for row in rows)
    found = printed(folder, "eval", "anna.jsonl", *RUN)
    accuracy = found["policies"]["spam"]["figures"]["accuracy"]
    exact = binomtest(right, REVIEWED).proportion_ci(method="exact")
    assert found["rows"] == REVIEWED
    assert accuracy["value"] == pytest.approx(right / REVIEWED)
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((exact.low, exact.high))
    hits = sum(row["label"] == row["proposed"]["label"] == "spam" for row in rows)
    assert found["policies"]["spam"]["figures"]["recall"]["value"] == pytest.approx(hits / ANNA.count(2))


def test_agree_compares_the_people_and_each_with_the_model(folder) -> None:
    found = printed(folder, "agree", "anna.jsonl", "ben.csv")
    (pair,) = found["pairs"]
    differing = len(range(0, REVIEWED, 7))
    assert pair["raw_agreement"]["value"] == pytest.approx(1 - differing / REVIEWED)
    assert len(found["disputes"]) == differing
    chance = sum(ANNA.count(key) * BEN.count(key) for key in (1, 2)) / REVIEWED**2
    assert pair["cohen_kappa"]["value"] == pytest.approx(1 - differing / REVIEWED / (1 - chance))
    share = (ANNA.count(2) + BEN.count(2)) / (2 * REVIEWED)
    assert pair["gwet_ac1"]["value"] == pytest.approx(1 - differing / REVIEWED / (1 - 2 * share * (1 - share)))
    right = sum(row["label"] == row["proposed"]["label"] for row in answers(folder))
    assert found["with_model"][0]["raw_agreement"]["value"] == pytest.approx(right / REVIEWED)
    assert found["doubts"] == []


def test_the_audit_s_share_is_that_of_the_answers(folder) -> None:
    call = ("audit", "in.jsonl", *RUN, "--rows", DRAWN, "-o", "out.jsonl", "--reviewed")
    found = printed(folder, *call, "anna.jsonl")["by_people"]["spam"]
    violating = ANNA.count(2)
    expected = hypergeometric_interval(violating, REVIEWED, FILE)  # 13 violating rows are too few for PPI++
    assert (found["reviewed"], found["violating"]) == (REVIEWED, violating)
    assert found["share"] == pytest.approx(violating / REVIEWED)
    assert (found["low"], found["high"]) == (expected.low, expected.high)
    assert found["rows"] == [round(expected.low * FILE), round(expected.high * FILE)]
    of_ben = printed(folder, *call, "ben.csv")["by_people"]["spam"]
    assert (of_ben["reviewed"], of_ben["violating"]) == (REVIEWED, BEN.count(2))


def test_rows_still_in_dispute_bound_the_share_both_ways(folder) -> None:
    """What two people agree on is no random part of what they answered."""
    golden, differ = folder / "half.jsonl", [n for n in range(REVIEWED) if n % 7 == 0]
    more = ("ben.csv", "--pick", "disputed", "--policy", "spam")
    answer(folder / "anna.jsonl", golden, "1 1 2 u u q", *more, person="carol")
    rows = [json.loads(line) for line in golden.read_text().splitlines()]
    assert len(rows) == REVIEWED
    assert sum(row["label"] is None for row in rows) == len(differ) - 1
    call = ("audit", "in.jsonl", *RUN, "--rows", DRAWN, "-o", "out.jsonl", "--reviewed", golden.name)
    found = printed(folder, *call)["by_people"]["spam"]
    agreed = sum(ANNA[n] == 2 for n in range(REVIEWED) if n not in differ)
    assert (found["reviewed"], found["violating"]) == (REVIEWED - len(differ) + 1, agreed)
    assert found["skipped"] == len(differ) - 1
    assert found["low"] <= hypergeometric_interval(agreed, REVIEWED, FILE).low + 1e-9
    assert found["high"] >= hypergeometric_interval(agreed + len(differ) - 1, REVIEWED, FILE).high - 1e-9
    unused = printed(folder, "eval", golden.name, *RUN)["rows_not_used"]
    assert {reason: rows for reason, rows in unused.items() if rows} == {"people differ": len(differ) - 1}

"""`safeguard policy advise`: findings are those worked by hand, each with its rows, and the policy stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
from helpers.command import safeguard, write
from helpers.outputs import manifest, output, verdict
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.measure.words import shared_words, words

POLICY = """---
name: spam
labels: [ham, spam]
violates: [spam]
---
# Spam

- **SP1** Prizes.
- **SP2** Selling.
- **SP3** Dating.
- **SP4** Personal talk.
"""
# gold, said, rationale, rule
ROWS = [
    ("spam", "spam", "SP1 and SP2", "SP1", "win a prize now"),
    ("spam", "spam", "SP1, SP2 too", "SP1", "claim your prize"),
    ("spam", "spam", "SP2", "SP2", "buy cheap phones"),
    ("spam", "ham", "SP4", "SP3", "lonely hearts nearby"),
    ("spam", "ham", "SP4", "SP3", "lonely singles nearby"),
    ("ham", "spam", "SP2", "SP4", "I want to buy a phone"),
    ("ham", "ham", "SP4", "SP4", "see you at noon"),
    ("ham", "ham", "nothing to see", "SP4", "see you at  NOON"),
]


def labelled(folder: Path, name: str = "out.jsonl", said: dict[int, str] | None = None, **more: object) -> Path:
    rows = []
    for number, (gold, label, rationale, rule, text) in enumerate(ROWS, 1):
        told = (said or {}).get(number, label)
        found = verdict(told, 0.9 if told == "spam" else 0.1, rationale=rationale, **more)
        rows.append({"id": number, "text": text, "label": gold, "rule": rule, "spam": found})
    return output(folder / name, rows)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write(tmp_path / "spam.md", POLICY)


def run(*args: object) -> tuple[int, str, str]:
    done = safeguard("policy", "advise", *args)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def advice(*args: object) -> dict:
    code, out, err = run(*args, "--json")
    assert code == 0, err
    result: dict = json.loads(out)
    return result


def numbers(rows: list[dict]) -> list[int]:
    return [row["row"] for row in rows]


def test_misses_are_told_by_direction_and_rule(tmp_path: Path, policy: Path) -> None:
    found = advice(policy, "--on", labelled(tmp_path))
    assert {way: numbers(rows) for way, rows in found["wrong"].items()} == {
        "missed": [4, 5],
        "false_alarm": [6],
        "other_label": [],
    }
    rules = found["rules"]
    assert [rules[code]["cited"] for code in ("SP1", "SP2", "SP3", "SP4")] == [2, 4, 0, 3]
    assert numbers(rules["SP4"]["missed"]) == [4, 5]
    assert numbers(rules["SP2"]["false_alarm"]) == [6]
    assert (rules["SP3"]["golden_rows"], numbers(rules["SP3"]["golden_rows_wrong"])) == (2, [4, 5])
    assert numbers(found["no_rule_cited"]) == [8]
    _, out, _ = run(policy, "--on", tmp_path / "out.jsonl")
    assert "SP3 is right, cited SP4: 2 (rows 4, 5)" in out
    assert "SP3 is never cited  2 golden rows are about it, wrong: rows 4, 5" in out


def test_rules_that_catch_the_same_rows_are_told_as_a_pair(tmp_path: Path, policy: Path) -> None:
    (pair,) = advice(policy, "--on", labelled(tmp_path))["pairs"]
    assert (pair["rules"], pair["rows_of_each"], numbers(pair["rows"])) == (["SP1", "SP2"], [2, 4], [1, 2])


def test_rows_that_flip_between_outputs_are_told_with_what_was_asked_otherwise(tmp_path: Path, policy: Path) -> None:
    one, two = labelled(tmp_path), labelled(tmp_path, "two.jsonl", {3: "ham", 4: "spam"})
    (flips,) = advice(policy, "--on", one, "--on", two)["flips"]
    assert (numbers(flips["flips"]), flips["right_here"], flips["right_there"]) == ([3, 4], 1, 1)
    assert flips["differs"] is None  # no manifests
    manifest(one)
    manifest(two)
    (flips,) = advice(policy, "--on", one, "--on", two)["flips"]
    assert flips["differs"] == []
    beside = tmp_path / "two.jsonl.manifest.json"
    beside.write_text(beside.read_text().replace('"effort": "low"', '"effort": "high"'))
    (flips,) = advice(policy, "--on", one, "--on", two)["flips"]
    assert flips["differs"] == ['effort: "low" → "high"']


def test_words_of_the_misses_and_texts_with_two_labels_are_told(tmp_path: Path, policy: Path) -> None:
    found = advice(policy, "--on", labelled(tmp_path))
    assert [(word["word"], numbers(word["rows"])) for word in found["words"]["missed"]] == [
        ("lonely", [4, 5]),
        ("nearby", [4, 5]),
    ]
    assert found["two_gold_labels"] == []
    path = labelled(tmp_path)
    path.write_text(
        path.read_text().replace(
            '"id": 8, "text": "see you at  NOON", "label": "ham"',
            '"id": 8, "text": "see you at  NOON", "label": "spam"',
        )
    )
    (same,) = advice(policy, "--on", path)["two_gold_labels"]
    assert (same["labels"], numbers(same["rows"])) == ({"ham": 1, "spam": 1}, [7, 8])


def test_the_policy_and_the_output_stay_as_they_are(tmp_path: Path, policy: Path) -> None:
    out = labelled(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run(policy, "--on", out)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_version_is_told_and_another_policy_is_refused(tmp_path: Path, policy: Path) -> None:
    out = labelled(tmp_path)
    manifest(out)
    assert any("another version of spam" in doubt for doubt in advice(policy, "--on", out)["doubts"])
    code, _, err = run("hate", "--on", out)
    assert (code, "holds verdicts under spam, not under hate" in err) == (2, True)
    code, _, err = run(policy, "--on", out, "--rule-field", "nope")
    assert (code, "--rule-field" in err) == (2, True)
    code, _, err = run(policy, "--on", tmp_path / "none.jsonl")
    assert (code, "no such file" in err) == (2, True)


def test_without_rationales_it_says_how_to_get_them(tmp_path: Path, policy: Path) -> None:
    rows = [json.loads(line) for line in labelled(tmp_path).read_text().splitlines()]
    for row in rows:
        del row["spam"]["rationale"], row["rule"]
    code, out, _ = run(policy, "--on", output(tmp_path / "bare.jsonl", rows))
    assert code == 0
    assert "label with --rationale" in out
    assert "no rule known: 2 (rows 4, 5)" in out


def test_hostile_texts_reach_the_terminal_as_escapes(tmp_path: Path, policy: Path) -> None:
    rows = [json.loads(line) for line in labelled(tmp_path).read_text().splitlines()]
    for row in rows:
        row["text"] = "\x1b[31m\u202e [bold] " + row["text"]
        row["rule"] = "\x1b]0;x\x07"
    code, out, _ = run(policy, "--on", output(tmp_path / "evil.jsonl", rows))
    assert code == 0
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_words_are_told_by_how_unlikely_chance_makes_them() -> None:
    missed = [f"pay the fee {n}" for n in range(10)]
    caught = [f"win the draw {n}" for n in range(10)]
    found = {word.text: word for word in shared_words(missed, caught)}
    assert found.keys() == {"pay", "fee"}  # `the` stands on both sides
    assert found["fee"].rows == tuple(range(10))
    assert found["fee"].p < 0.001


def test_scripts_without_spaces_give_pairs_of_characters() -> None:
    assert list(words("无料で WIN")) == ["无料", "料で", "win"]
    assert list(words("Don't STOP, s'il_vous")) == ["don't", "stop", "s'il", "vous"]


@given(st.lists(st.text(max_size=30), max_size=6), st.lists(st.text(max_size=30), max_size=6))
def test_any_texts_have_words_with_a_p(texts: list[str], others: list[str]) -> None:
    for word in shared_words(texts, others):
        assert 0 <= word.p <= 1
        assert len(word.rows) >= 2

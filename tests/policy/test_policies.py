"""Tests the shipped policies and golden sets, and the findings of `safeguard policy` with their line numbers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.command import safeguard

from safeguard_cli.errors import UsageError
from safeguard_cli.policy.begin import new_command
from safeguard_cli.policy.check import check, tokens
from safeguard_cli.policy.listing import list_command
from safeguard_cli.policy.policy import builtin_policies, load_policy

NAMES = (
    *("child-safety", "dangerous-goods", "fraud", "harassment", "hate", "identity-attack", "insult", "privacy"),
    *("profanity", "prompt-injection", "self-harm", "severe-toxicity", "sexual-content", "spam", "threat", "toxicity"),
    "violence",
)
SPAM = (ROOT / "policies/spam.md").read_text(encoding="utf-8")


def golden(name: str) -> list[dict]:
    path = ROOT / f"samples/golden/{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def found(path: Path, text: str) -> list[tuple[int, str]]:
    path.write_text(text, encoding="utf-8")
    return [(finding.line, finding.message) for finding in check(str(path))[1]]


def line_of(text: str, beginning: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(beginning))


def test_these_policies_are_built_in() -> None:
    assert tuple(builtin_policies()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_policy_passes_check(name) -> None:
    assert check(name)[1] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_policy_has_400_to_600_tokens(name, o200k) -> None:
    text = load_policy(name).text
    count = len(o200k.tokenizer.encode(text))
    assert 400 <= count <= 600
    assert tokens(text) == pytest.approx(count, rel=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_set_is_well_formed_and_balanced(name) -> None:
    policy, rows = load_policy(name), golden(name)
    assert len(rows) >= 40
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    assert len({row["text"] for row in rows}) == len(rows)
    counts = Counter(row["label"] for row in rows)
    assert set(counts) == set(policy.labels)
    assert max(counts.values()) - min(counts.values()) <= 2
    assert sum(row["near_miss"] for row in rows) >= 10
    for row in rows:
        section = "### VIOLATES" if row["label"] in policy.violates else "### SAFE"
        assert f"**{row['rule']}**" in policy.text.split(section)[1].split("\n## ")[0].split("\n### ")[0]
        assert row["text"] not in policy.text


def test_every_rule_of_a_policy_has_a_golden_row() -> None:
    for name in NAMES:
        text = load_policy(name).text
        rules = {part.split("**")[0] for part in text.split("- **")[1:] if part[:1].isupper() and part[2:3].isdigit()}
        assert rules == {row["rule"] for row in golden(name)}, name


@pytest.mark.parametrize(
    ("old", "new", "at", "message"),
    [
        ("## Precedence\n", "## Order\n", "", "no section with precedence"),
        ("- **SP1** Prize bait", "- **SP1** Inappropriate bait", "- **SP1**", "'Inappropriate' is vague"),
        ("- **SP2** Premium", "- **SP1** Premium", "- **SP1** Premium", "SP1 is already used in line"),
        ("→ spam, SP1", "→ spam, SP9", '- "You have been picked', "there is no rule SP9"),
        ("→ ham, SP7", "→ fine", '- "Your dentist', "does not say which label"),
        ("Bulk message", "Bulk <|end|> message", "- **Bulk", "<|end|> spells a control token"),
        ("Bait", "TODO", "- **TODO", "not written yet"),
        ("labels: [ham, spam]", "labels: [ham, spam, gone]", "labels:", "'gone' is never mentioned"),
        ("labels: [ham, spam]", "labels: [ham, spam, hammer]", "labels:", "'ham' stands inside 'hammer'"),
        ("description:", "# description:", "---", "no description"),
        ("violates: [spam]", "violates: [ham, spam]", "violates:", "every label violates"),
    ],
)
def test_check_names_the_line(tmp_path, old, new, at, message) -> None:
    text = SPAM.replace(old, new, 1)
    findings = found(tmp_path / "p.md", text)
    line = line_of(text, at) if at else len(text.rstrip().splitlines())
    assert any(number == line and message in said for number, said in findings), findings


def test_check_finds_missing_examples_and_odd_lengths(tmp_path) -> None:
    head, tail = SPAM.split("## Examples")
    messages = [said for _, said in found(tmp_path / "p.md", head + "## Escalation" + tail.split("## Escalation")[1])]
    assert "no section with examples" in messages
    single = found(tmp_path / "p.md", head + "## Examples\n\n- one → spam\n")
    assert any(said == "1 example; 4 to 6 near the boundary help" for _, said in single)
    assert any("tokens; 400 to 600 read best" in said for _, said in found(tmp_path / "p.md", SPAM + "word " * 500))


def test_check_exits_5_where_it_finds_something_and_0_where_not(tmp_path) -> None:
    bad = tmp_path / "bad\x1b[31m.md"
    bad.write_text("---\nlabels: [0, 1]\n---\nBe nice.\n")
    done = safeguard("policy", "check", bad)
    assert done.returncode == 5
    assert b"\x1b[31m" not in done.stdout
    assert b".md:4: advice: no section with examples" in done.stdout
    assert b".md:2: the label '0' is never mentioned" in done.stdout
    assert safeguard("policy", "check", "spam", ROOT / "policies/hate.md").returncode == 0
    assert safeguard("policy", "check", tmp_path / "none.md").returncode == 2


def test_a_file_that_label_refuses_is_a_finding_in_its_line(tmp_path) -> None:
    assert found(tmp_path / "p.md", "---\nname: x\nlabels: [a\n---\ntext")[0][0] == 3
    line, said = found(tmp_path / "p.md", "# P\n---\nlabels: [a, b]\n---\ntext")[0]
    assert line == 3
    assert said.startswith("this looks like front matter")


def test_check_reads_a_file_as_label_does_whatever_its_line_ends(tmp_path) -> None:
    text = SPAM.replace("## Precedence\n", "## Order\n").replace("- **SP2**", "- **SP1**", 1)
    known = found(tmp_path / "p.md", text)
    assert [line for line, _ in known] == [24, 49]
    for ends in ("\r", "\r\n"):
        (tmp_path / "p.md").write_bytes(text.replace("\n", ends).encode())
        assert [(finding.line, finding.message) for finding in check(str(tmp_path / "p.md"))[1]] == known
    # Editors do not end a line at these.
    odd = text.replace("Bulk message", "Bulk\u2028\x0b\x85 message", 1)
    assert found(tmp_path / "p.md", odd) == known


def test_check_names_each_file_once_and_goes_on_past_one_that_is_not_there(tmp_path) -> None:
    (tmp_path / "open.md").write_text("---\nname: x\nlabels: [a, b]\ntext")
    (tmp_path / "cr.md").write_bytes(b"---\rlabels: [a, b]\rviolates: [b]\r---\r# x")
    done = safeguard("policy", "check", "open.md", "nowhere.md", "cr.md", "spam", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout.startswith(b"open.md:1: the front matter that begins here is not closed")
    assert all(line.count(b".md") == 1 for line in done.stdout.splitlines())
    assert b"cr.md:2: the label 'a' is never mentioned in the text, spelled like this\n" in done.stdout
    assert b"cr.md:5: advice: about 1 token; 400 to 600 read best\n" in done.stdout
    assert b"error: no policy 'nowhere.md'" in done.stderr
    assert b"spam.md: nothing found" in done.stderr
    assert safeguard("policy", "check", "cr.md", cwd=tmp_path).returncode == 5


def test_new_begins_a_policy_whose_only_gaps_are_what_to_write(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_command("off-topic", ["on_topic", "off_topic"], ["off_topic"], None) == 0
    policy = load_policy("off-topic.md")
    assert (policy.name, policy.labels, policy.violates) == ("off-topic", ("on_topic", "off_topic"), ("off_topic",))
    rest = [f.message for f in check("off-topic.md")[1] if "TODO" not in f.message and "tokens" not in f.message]
    assert rest == []
    with pytest.raises(UsageError, match="already exists"):
        new_command("off-topic", [], [], None)
    with pytest.raises(UsageError, match="every label violates"):
        new_command("b", ["x", "y"], ["x", "y"], None)
    with pytest.raises(UsageError, match="policy name"):
        new_command("Bad Name", [], [], None)
    for option, value in (("--labels", ","), ("--violates", ""), ("-o", "")):
        done = safeguard("policy", "new", "c", option, value, cwd=tmp_path)
        assert done.returncode == 2
        assert not (tmp_path / "c.md").exists()


def test_list_names_every_policy(capsys) -> None:
    assert list_command() == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in NAMES)


def test_show_gives_the_file_word_for_word() -> None:
    assert safeguard("policy", "show", "fraud").stdout == (ROOT / "policies/fraud.md").read_bytes()

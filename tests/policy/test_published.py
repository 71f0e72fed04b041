"""Policies as people publish them: sections and labels are found, however they are marked, and nothing is guessed.

The ten in `published/` were written for this test, in the forms of policies that are public: headings in capitals,
drawn rules, levels, emoji, bold type, tags, underlined and numbered headings, answers in JSON.
"""

from __future__ import annotations

import os
import pty
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import safeguard
from hypothesis import example, given
from hypothesis import strategies as st

from safeguard_cli.errors import UsageError
from safeguard_cli.policy.begin import fix, from_command
from safeguard_cli.policy.check import Finding, check
from safeguard_cli.policy.policy import builtin_policies, load_policy
from safeguard_cli.policy.published import find_labels
from safeguard_cli.policy.sections import read_lines

PUBLISHED = Path(__file__).parent / "published"
LEVELS = ("FR0", "FR1", "FR2", "FR3", "FR4")
# What each answers with, which of that violates, and the advice that is right about it.
EXPECTED: dict[str, tuple[tuple[str, ...], tuple[str, ...], list[str]]] = {
    "bold.md": (("ALLOW", "BLOCK"), ("BLOCK",), []),
    "cookbook.md": (("0", "1"), ("1",), []),
    "framed.txt": (
        ("VALID", "INVALID"),
        ("INVALID",),
        [
            "the criteria for what violates have no rule codes, such as AB1, for a rationale to cite",
            "the criteria for what is safe have no rule codes, such as AB1, for a rationale to cite",
            "2 examples; 4 to 6 near the boundary help",
            "no example violates",
            "no section with definitions",
            "no section with precedence between rules",
            "no section with what to do when it is unclear",
        ],
    ),
    "json-answers.md": (("clean", "toxic"), ("toxic",), []),
    "levels-as-answers.txt": (LEVELS, LEVELS[2:], []),
    "numbered.txt": (("fine", "misinformation"), ("misinformation",), []),
    "severity.txt": (("L0", "L1", "L2", "L3"), ("L2", "L3"), []),
    "spam-levels.txt": (("VALID", "INVALID"), ("INVALID",), ["no section with precedence between rules"]),
    "tags.md": (("SAFE", "UNSAFE"), ("UNSAFE",), ["no section with precedence between rules"]),
    "windows.txt": (("on_topic", "off_topic"), ("off_topic",), []),
}
SCALE = "SPAM POLICY\n\nHOW TO ANSWER\nAnswer with the code.\n\n" + "".join(
    f"SP{n} - {word}\nText.\nOutput: SP{n}\n\n" for n, word in enumerate(("Fine", "Doubtful", "Likely", "Malicious"))
)


def defects(findings: list[Finding]) -> list[str]:
    return [finding.message for finding in findings if finding.defect]


def advice(findings: list[Finding]) -> list[str]:
    """Return the advice on what stands in the text: its length and a description are things of their own."""
    found = (finding.message for finding in findings if not finding.defect)
    return [message for message in found if "read best" not in message and "no description" not in message]


@pytest.fixture(params=EXPECTED)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of a published policy."""
    return Path(shutil.copy(PUBLISHED / request.param, tmp_path))


def test_there_are_ten_published_policies() -> None:
    assert sorted(path.name for path in PUBLISHED.iterdir()) == sorted(EXPECTED)
    assert len(EXPECTED) == 10


def test_a_published_policy_gets_the_labels_that_its_text_answers_with(published: Path) -> None:
    labels, violates, _ = EXPECTED[published.name]
    fix(str(published))
    policy = load_policy(str(published))
    assert (policy.labels, policy.violates) == (labels, violates)
    assert policy.name == published.stem


def test_the_only_defect_of_a_published_policy_is_that_nothing_names_its_labels(published: Path) -> None:
    labels, _, right = EXPECTED[published.name]
    findings = check(str(published))[1]
    if labels == ("0", "1"):  # the default
        assert defects(findings) == []
    else:
        (defect,) = defects(findings)
        assert f"the text answers with {', '.join(labels)}" in defect
        assert f"safeguard policy check --fix {published}" in defect
    assert sorted(advice(findings)) == sorted(right)


def test_a_mended_policy_passes_check_with_the_advice_that_is_right(published: Path) -> None:
    fix(str(published))
    findings = check(str(published))[1]
    assert defects(findings) == []
    assert sorted(advice(findings)) == sorted(EXPECTED[published.name][2])


def test_mending_leaves_every_byte_of_the_text(published: Path) -> None:
    before, text = published.read_bytes(), load_policy(str(published)).text
    published.chmod(0o640)
    fix(str(published))
    after = published.read_bytes()
    mark = b"\xef\xbb\xbf" if published.name == "windows.txt" else b""
    assert after.endswith(before.removeprefix(mark))
    assert after.startswith(mark + b"---")
    assert load_policy(str(published)).text == text
    ending = b"\r\n" if published.name == "windows.txt" else b"\n"
    assert after.count(b"\n") == after.count(ending)
    assert stat.S_IMODE(published.stat().st_mode) == 0o640
    fix(str(published))
    assert published.read_bytes() == after, "nothing is left to mend"


def test_new_takes_the_text_of_a_published_policy(published: Path, monkeypatch) -> None:
    monkeypatch.chdir(published.parent)
    text = load_policy(str(published)).text
    assert from_command(str(published), "mine", [], [], None) == 0
    policy = load_policy("mine.md")
    assert (policy.name, policy.labels, policy.violates) == ("mine", *EXPECTED[published.name][:2])
    assert policy.text == text
    with pytest.raises(UsageError, match="already exists"):
        from_command(str(published), "mine", [], [], None)


@pytest.mark.parametrize("name", builtin_policies())
def test_the_text_of_a_shipped_policy_says_its_labels(name: str) -> None:
    policy = load_policy(name)
    found = find_labels(policy.text)
    assert found.sure
    assert set(found.labels) == set(policy.labels)
    assert found.violates == policy.violates


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        (SCALE, "which of its labels violate: SP0, SP1, SP2, SP3", ["--violates", ">= SP2"]),
        (
            "Return VALID or INVALID.\n\nEXAMPLES\n- one\nOutput: VALID\n- two\nOutput: INVALID + ESCALATE\n",
            "does it answer with",
            ["--labels", "VALID,INVALID"],
        ),
        ("Spam is bad.\nBe strict with it.\n", "which labels does it answer with", ["--labels", "fine,spam"]),
        ("Answer `left` or `right`.\n", "which of its labels violate: left, right", ["--violates", "right"]),
        (
            "SP0 (VALID)\nFine text.\n\nSP1 (INVALID)\nBad text.\n",
            "does it answer with VALID, INVALID (line 1) or SP0, SP1 (line 1)",
            ["--labels", "SP0,SP1"],
        ),
    ],
)
def test_what_a_text_leaves_open_is_a_question_and_never_a_guess(tmp_path, text, question, options) -> None:
    path = tmp_path / "open.txt"
    path.write_text(text)
    done = safeguard("policy", "check", "--fix", path)
    assert done.returncode == 2
    assert question in done.stderr.decode()
    assert options[0] in done.stderr.decode()
    assert path.read_text() == text
    assert safeguard("policy", "check", path).returncode == 5
    mended = safeguard("policy", "check", "--fix", path, *options)
    assert mended.returncode == (5 if b"never mentioned" in mended.stdout else 0), mended.stdout
    assert load_policy(str(path)).text == text.strip("\n")


def test_levels_and_their_answers_in_the_words_of_their_headings(tmp_path) -> None:
    path = tmp_path / "scale.txt"
    path.write_text(SCALE)
    fix(str(path), violates=[">= SP2"])
    policy = load_policy(str(path))
    assert policy.labels == ("SP0", "SP1", "SP2", "SP3")
    assert policy.violates == ("SP2", "SP3")


def test_a_question_is_asked_at_a_terminal(tmp_path) -> None:
    path = tmp_path / "scale.txt"
    path.write_text(SCALE)
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "safeguard_cli", "policy", "check", "--fix", str(path)],
        stdin=child,
        stderr=child,
        stdout=subprocess.PIPE,
    )
    os.close(child)
    os.write(parent, b"SP9\n>= SP3\n")
    assert process.communicate(timeout=60)
    assert process.returncode == 0
    shown = os.read(parent, 1 << 16).decode()
    os.close(parent)
    assert "which of its labels violate: SP0, SP1, SP2, SP3?" in shown
    assert load_policy(str(path)).violates == ("SP3",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("→ BM2", "→ BM7", "there is no rule BM7"),
        ("Bait that wants", "Bait <|end|> that wants", "<|end|> spells a control token"),
        ("Contact: Somebody", "Contact: TODO", "TODO: this is not written yet"),
        ("VALID or INVALID.", "CLEAN or INVALID.", "does it answer with"),
        ("Bulk mail: The same offer, sent to many people who did not ask.\nContact: Somebody who", "", "is empty"),
    ],
)
def test_what_is_a_defect_does_not_pass_in_a_published_form(tmp_path, old, new, message) -> None:
    text = (PUBLISHED / "spam-levels.txt").read_text()
    if "is empty" in message:
        new, old = "DEFINITIONS\n\n====", text[text.index("DEFINITIONS") : text.index("====") + 4]
    assert old in text
    path = tmp_path / "p.txt"
    path.write_text(text.replace(old, new))
    assert any(message in defect for defect in defects(check(str(path))[1]))


def test_advice_alone_ends_with_0_and_with_5_where_it_is_to_be_strict(tmp_path) -> None:
    path = tmp_path / "short.md"
    path.write_text("---\nname: short\nlabels: [ham, spam]\nviolates: [spam]\n---\nAnswer `spam` or `ham`.\n")
    done = safeguard("policy", "check", path)
    assert done.returncode == 0
    assert all(b": advice: " in line for line in done.stdout.splitlines())
    assert safeguard("policy", "check", "--strict", path).returncode == 5
    assert safeguard("policy", "check", "--strict", "spam").returncode == 0


def test_what_answers_a_question_has_no_effect_without_one(tmp_path) -> None:
    for options in (["--labels", "a,b"], ["--violates", "b"]):
        assert b"without --fix" in safeguard("policy", "check", "spam", *options).stderr
    done = safeguard("policy", "check", "--fix", "a.md", "b.md", "--labels", "a,b", cwd=tmp_path)
    assert done.returncode == 2
    assert b"one policy" in done.stderr


def test_front_matter_that_is_there_gets_what_it_lacks(tmp_path) -> None:
    path = tmp_path / "p.md"
    path.write_bytes(b"---\r\n# ours\r\nname: mine\r\n---\r\n\r\nAnswer `spam` or `ham`.\r\n")
    fix(str(path))
    assert path.read_bytes().endswith(b"# ours\r\nname: mine\r\n---\r\n\r\nAnswer `spam` or `ham`.\r\n")
    policy = load_policy(str(path))
    assert (policy.name, policy.labels, policy.violates) == ("mine", ("ham", "spam"), ("spam",))


@pytest.mark.parametrize(
    ("said", "violates"),
    [
        (">= SP2", ("SP2", "SP3")),
        (">SP2", ("SP3",)),
        ("≥ SP1", ("SP1", "SP2", "SP3")),
        ("<= SP1", ("SP0", "SP1")),
        ("< SP1", ("SP0",)),
    ],
)
def test_labels_are_levels_in_their_order(tmp_path, said: str, violates: tuple[str, ...]) -> None:
    path = tmp_path / "p.md"
    path.write_text(f'---\nlabels: [SP0, SP1, SP2, SP3]\nviolates: "{said}"\n---\nSP0 to SP3\n')
    assert load_policy(str(path)).violates == violates
    assert load_policy("spam", labels=("SP0", "SP1", "SP2", "SP3"), violates=(said,)).violates == violates


@pytest.mark.parametrize(
    ("labels", "said", "message"),
    [
        ("[SP0, SP1]", '">= SP7"', "violates names '>= SP7', not one of SP0, SP1"),
        ("[SP0, SP1]", ">= SP1", "in quotes"),
        ("[SP0, SP1]", '"> SP1"', "no label violates"),
    ],
)
def test_levels_that_nobody_can_mean_are_refused(tmp_path, labels: str, said: str, message: str) -> None:
    path = tmp_path / "p.md"
    path.write_text(f"---\nlabels: {labels}\nviolates: {said}\n---\nSP0 or SP1\n")
    with pytest.raises(UsageError, match=rf"p\.md, line 3: .*{message}"):
        load_policy(str(path))


def test_a_label_that_looks_like_a_comparison_is_itself(tmp_path) -> None:
    path = tmp_path / "p.md"
    path.write_text('---\nlabels: ["< 5", ">= 5"]\nviolates: ">= 5"\n---\n< 5 or >= 5\n')
    assert load_policy(str(path)).violates == (">= 5",)


def test_headings_are_found_however_they_are_marked() -> None:
    forms = (
        *("## Definitions", "DEFINITIONS", "DEFINITIONS:", "**Definitions**", "**Definitions:**", "Definitions:"),
        *(
            "=== DEFINITIONS ===",
            "3. DEFINITIONS",
            "[DEFINITIONS]",
            "<definitions>",
            "📖 DEFINITIONS",
            "### 📖 Definitions",
        ),
        *(
            "====\nDEFINITIONS\n====",
            "Definitions\n-----------",
            "1️⃣ DEFINITIONS",
            "IV. DEFINITIONS",
            "━━━━\n DEFINITIONS\n━━━━",
        ),
    )
    for form in forms:
        lines = read_lines(["# A policy", "", *form.split("\n"), "A word: what it means."])
        assert [each.lower() for each in lines[-1].headings] == ["definitions"], form
    for text in ("- **Word**: definitions are here", "The definitions: here.", "Say 1 for yes. Else 0.", "NO."):
        assert not any(line.is_heading for line in read_lines(["x", text])), text


PIECES = [
    *("---", "====", "GOAL: find it", "INSTRUCTIONS", "## EXAMPLES", '- "x" → BAD', "Output: SP1", "SP0 (VALID)", "…"),
    *(
        "SP1 (INVALID) - b",
        "Answer `a` or `b`.",
        "Return 0 or 1.",
        "labels: [a, b]",
        "violates: b",
        "",
        " ",
        "**Safe (0)**",
    ),
    *(
        '{"label": "x"}',
        "L2 and above violate",
        "SP0-SP2",
        "Labels:",
        "- A: x",
        "\ufeff",
        "🚫 BLOCK",
        "<safe>",
        "name: x",
    ),
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=30), max_size=12), st.sampled_from(["\n", "\r\n", "\r"]))
@example(["---", "GOAL: x", "Answer `a` or `b`."], "\n")
def test_mending_any_text_leaves_what_the_model_reads_or_refuses(tmp_path_factory, pieces, ending) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.txt"
    data = ending.join(pieces).encode("utf-8", "surrogatepass")
    path.write_bytes(data)
    try:
        text = load_policy(str(path), labels=("a", "b"), violates=("b",)).text
        check(str(path))
        fix(str(path), violates=())
    except UsageError:
        assert path.read_bytes() == data
        return
    assert load_policy(str(path)).text == text

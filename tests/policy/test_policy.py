"""A policy file means what it looks like, and one that nobody can mean is refused with file, line and reason."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT
from hypothesis import assume, given
from hypothesis import strategies as st

from safeguard_cli.errors import UsageError
from safeguard_cli.policy import front_matter
from safeguard_cli.policy.policy import DEFAULT_LABELS, DEFAULT_VIOLATES, Policy, builtin_policies, load_policy
from safeguard_cli.terminal import safe


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Policy]:
    """Write a policy file and load it."""

    def load(source: str | bytes, name: str = "my-policy.md", **options: object) -> Policy:
        path = tmp_path / name
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        return load_policy(str(path), **options)  # type: ignore[arg-type]

    return load


def test_without_front_matter_the_whole_file_is_the_text_and_the_rest_is_default(load) -> None:
    assert load("# P\n\n0 or 1\n") == Policy("my-policy", "# P\n\n0 or 1", DEFAULT_LABELS, DEFAULT_VIOLATES)


def test_front_matter_names_the_policy_and_its_labels(load) -> None:
    found = load("---\nname: s\ndescription: A b.\nlabels: [ham, spam]\nviolates: [spam]\n---\n# P\nham\n---\nspam\n")
    assert found == Policy("s", "# P\nham\n---\nspam", ("ham", "spam"), ("spam",), "A b.")


def test_scalars_of_front_matter_stay_what_they_look_like(load) -> None:
    found = load("---\nlabels: [no, 1, 1.10, null, 0x10, 2024-01-01, ~]\nviolates: no\n---\nx")
    assert found.labels == ("no", "1", "1.10", "null", "0x10", "2024-01-01", "~")
    assert found.violates == ("no",)


def test_the_text_reaches_the_model_word_for_word(load) -> None:
    text = "  # P\t \r\n\r\n- a  \r\n\u2028漢 {effort} <|end|> %s\r\n  "
    assert load(f"---\r\nname: s\r\n---\r\n\r\n{text}\r\n").text == text


def test_a_byte_order_mark_is_no_text(load) -> None:
    assert load(b"\xef\xbb\xbf---\nname: s\n---\nx").name == "s"
    assert load(b"\xef\xbb\xbf# P").text == "# P"


@pytest.mark.parametrize("source", ["---\n---\nx", "---\n# only a comment\n---\nx", "---\n---  \r\nx\n"])
def test_empty_front_matter_changes_nothing(load, source: str) -> None:
    assert load(source) == Policy("my-policy", "x")


def test_a_rule_that_is_never_closed_is_text(load) -> None:
    assert load("---\n# P: x").text == "---\n# P: x"


def test_what_the_command_line_says_wins(load) -> None:
    source = "---\nname: s\nlabels: [ham, spam]\nviolates: [spam]\n---\nx"
    found = load(source, labels=["a", "b"], violates=["a"], rename="t")
    assert (found.name, found.labels, found.violates) == ("t", ("a", "b"), ("a",))


def test_violating_labels_alone_can_be_overridden(load) -> None:
    source = "---\nlabels: [ham, spam]\nviolates: [spam]\n---\nx"
    assert load(source, violates=["ham"]).violates == ("ham",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("---\nlables: [a]\n---\nx", "unknown key 'lables'"),
        ("---\nlayout: post\n---\nx", "unknown key 'layout' .*; take it out"),
        ("---\nname: s\nlabels: [a\n---\nx", r"my-policy\.md, line [34]: the front matter is not YAML"),
        ("---\na: b: c\n---\nx", r"my-policy\.md, line 2: the front matter is not YAML"),
        ("---\nname: \0\n---\nx", r"my-policy\.md, line 2: the front matter is not YAML"),
        ("---\njust words\n---\nx", "line 2"),
        ("---\nlabels: {a: b}\n---\nx", "`labels` must be a list"),
        ("---\nlabels: [a, [b]]\n---\nx", "`labels` must be a list"),
        ("---\nlabels: [a]\nviolates: a\n---\nx", "at least two"),
        ("---\nlabels: [a, b, a]\nviolates: a\n---\nx", "names a label twice"),
        ("---\nlabels: [a, '']\nviolates: a\n---\nx", "is empty"),
        ('---\nlabels: [a, "b\\n"]\nviolates: a\n---\nx', "not printable"),
        ('---\nlabels: [a, "\\e[2J"]\nviolates: a\n---\nx', "not printable"),
        (f"---\nlabels: [a, {'b' * 201}]\nviolates: a\n---\nx", "too long"),
        ("---\nlabels: [a, b]\nviolates: c\n---\nx", "violates names 'c'"),
        ("---\nlabels: [ham, spam]\n---\nx", r"my-policy\.md, line 2: .*say which of its labels violate"),
        ("---\nlabels: []\n---\nx", "line 2: `labels` is empty"),
        ("---\nlabels:\n---\nx", "line 2: `labels` is empty"),
        ("---\nlabels: [ham, spam]\nviolates: []\n---\nx", "line 3: `violates` is empty"),
        ("---\nname:\n---\nx", "line 2: `name` is empty"),
        ("---\nLabels: [ham, spam]\n---\nx", "unknown key 'Labels' .*did you mean 'labels'"),
        ("---\nlabels: [a, b]\nviolates: b\nlabels: [c, d]\n---\nx", "line 4: the key 'labels' .* line 2"),
        ("---\nname: s\nname: s\n---\nx", "line 3: the key 'name' is given twice"),
        ('---\nname: s\ndescription: "a\n---\nx', "line 3: the front matter is not YAML"),
        ("---\nname: s\nlabels: [a,\n b\n---\nx", "line 3: the front matter is not YAML"),
        ('---\nname: "\u2028 \x85"\nlabels:\n\t- a\n---\nx', "line 4: the front matter is not YAML: a tab"),
        ("---\rname: s\rlabels: ]\r---\rx", "line 3: the front matter is not YAML"),
        ("---\nlabels: [&a [x, x], *a]\n---\nx", "`labels` must be a list"),
        ("---\nlabels: &a [x, *a]\n---\nx", "`labels` must be a list"),
        ("---\nname: !!python/name:os.system []\n---\nx", "`name` must be text"),
        ("---\n? [a]\n: b\n---\nx", "unknown key ''"),
        ("x\n\0y", "line 2: a NUL character"),
        ("---\nname: s\n---\n\n\nx\0", "line 6: a NUL character"),
        ("name: s".encode("utf-16"), "UTF-16"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:df2\nsize 1\n", "git lfs pull fetches it"),
        ("\n<!DOCTYPE html>\n<html><body>404</body></html>", "a page of HTML"),
        ("{\\rtf1\\ansi hello}", "RTF"),
        (b"PK\x03\x04\x14\0", "a zip file, as .docx"),
        ("---\nlabels: [\u201cham\u201d, \u201cspam\u201d]\nviolates: spam\n---\nx", "line 2: .*straight quotes"),
        ("# A policy".encode("utf-16-be"), "UTF-16"),
        (b"---\nname: s\n---\ncaf\xe9", r"my-policy\.md, line 4: this is not UTF-8"),
        (f"---\ndescription: {'a ' * 40_000}\n---\nx", "front matter of more than"),
        ("---\nname: My Policy\n---\nx", "use lower-case letters"),
        ("---\nname: ../x\n---\nx", "use lower-case letters"),
        ("---\nname: [a]\n---\nx", "must be text"),
        ("---\nname: s\n---\n\n \n", "holds no text"),
        ("", "holds no text"),
        (b"caf\xe9", "not UTF-8"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(load, source: str | bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(source)


# Front matter as people write it: read if it is certainly meant, else refused, never silently taken for text.

FRONT = "name: mail\nlabels: [ham, spam]\nviolates: [spam]\n"
TEXT = "# Mail\n\nPrize bait is spam, else ham.\n"
SEEN = {
    "as it should be": f"---\n{FRONT}---\n{TEXT}",
    "below blank lines": f"\n \n\t\n---\n{FRONT}---\n{TEXT}",
    "below a mark and a blank line": f"\ufeff\n---\n{FRONT}---\n{TEXT}",
    "below two marks": f"\ufeff\ufeff---\n{FRONT}---\n{TEXT}",
    "ended by dots": f"---\n{FRONT}...\n{TEXT}",
    "ended by dots and a rule": f"---\n{FRONT}...\n---\n{TEXT}",
    "spaces behind": f"---  \n{FRONT}---\t \n{TEXT}",
    "no-break space behind": f"---\u00a0\n{FRONT}---\u00a0\n{TEXT}",
    "blank lines and comments inside": f"---\n\n# ours\n{FRONT}\n---\n{TEXT}",
    "indented inside": "---\n" + "".join(f"  {line}\n" for line in FRONT.splitlines()) + f"---\n{TEXT}",
    "block lists": f"---\nname: mail\nlabels:\n- ham\n- spam\nviolates:\n  - spam\n---\n{TEXT}",
    "quoted": f"---\n'name': mail\n\"labels\": ['ham', \"spam\"]\nviolates: 'spam'\n---\n{TEXT}",
    "rules in the text": f"---\n{FRONT}---\n{TEXT}\n---\nlabels: [a, b]\n---\n",
}
REFUSED = {
    "never closed": f"---\n{FRONT}\n{TEXT}",
    "never closed, a blank line first": f"---\n\n{FRONT}\n{TEXT}",
    "closed by four": f"---\n{FRONT}----\n{TEXT}",
    "below a comment": f"<!-- v2, owner T&S -->\n---\n{FRONT}---\n{TEXT}",
    "below a comment of lines": f"<!--\nv2\n-->\n\n---\n{FRONT}---\n{TEXT}",
    "below a hash": f"# our policy\n---\n{FRONT}---\n{TEXT}",
    "below a title": f"# Mail\n\n---\n{FRONT}---\nPrize bait is spam.\n",
    "at the end": f"{TEXT}\n---\n{FRONT}---\n",
    "at the end, never closed": f"{TEXT}\n---\n{FRONT}",
    "indented": f"  ---\n  {FRONT}  ---\n{TEXT}",
    "four dashes": f"----\n{FRONT}----\n{TEXT}",
    "Word's dashes": f"—\n{FRONT}—\n{TEXT}",
    "TOML": f'+++\nname = "mail"\nlabels = ["ham", "spam"]\nviolates = ["spam"]\n+++\n{TEXT}',
    "in a fence": f"```yaml\n---\n{FRONT}---\n```\n{TEXT}",
    "in a fence, without rules": f"```\n{FRONT}```\n{TEXT}",
    "quoted as mail": "".join(f"> {line}\n" for line in f"---\n{FRONT}---".splitlines()) + TEXT,
    "without rules": f"{FRONT}\n{TEXT}",
    "without rules, as a block": f"labels:\n- ham\n- spam\n\n{TEXT}",
    "labels alone": f"<!-- c -->\n---\nlabels: [ham, spam]\n---\n{TEXT}",
    "one label a word": f"<!-- c -->\n---\nviolates: spam\n---\n{TEXT}",
    "in capitals": f"<!-- c -->\n---\nLABELS: ham, spam\nVIOLATES: spam\n---\n{TEXT}",
    "mistyped below a comment": f"<!-- c -->\n---\nlables: [ham, spam]\n---\n{TEXT}",
    "mistyped below a blank line": f"\n---\nlables: [ham, spam]\n---\n{TEXT}",
    "an unknown key below a blank line": f"\n---\ntitle: Mail\nowner: us\n---\n{TEXT}",
    "a name below a comment": f"<!-- c -->\n---\nname: mail\ndescription: what\n---\n{TEXT}",
    "a blank line between": f"<!-- c -->\n---\nname: mail\n\nlabels: [ham, spam]\n\nviolates: spam\n---\n{TEXT}",
}
REFUSED |= {
    "JSON in a line": f'{{"labels": ["ham", "spam"], "violates": ["spam"]}}\n{TEXT}',
    "JSON in lines": f'{{\n  "labels": ["ham", "spam"],\n  "violates": ["spam"]\n}}\n{TEXT}',
    "a mapping beside the rule": f"--- {{violates: [spam], labels: [ham, spam]}}\n---\n{TEXT}",
    "in a comment": f"<!--\n{FRONT}-->\n{TEXT}",
    "in a line of a comment": f"<!-- labels: [ham, spam]; violates: [spam] -->\n{TEXT}",
    "with line ends that are none here": f"---\n{FRONT}---\n".replace("\n", "\u2028") + TEXT,
    "as items": f"<!-- c -->\n- labels: [ham, spam]\n- violates: [spam]\n\n{TEXT}",
    "as bold words": f"**labels:** ham, spam\n**violates:** spam\n\n{TEXT}",
    "as items that are bold": f"* **Labels**: ham, spam\n* **Violates**: spam\n\n{TEXT}",
    "as items without brackets": f"- labels: ham, spam\n- violates: spam\n\n{TEXT}",
    "as code": f"`labels`: ham, spam\n`violates`: spam\n\n{TEXT}",
    "full-width colons": f"<!-- c -->\n---\nlabels：ham, spam\nviolates：spam\n---\n{TEXT}",
    "below other front matter": f"---\nname: mail\n---\n---\nlabels: [ham, spam]\nviolates: [spam]\n---\n{TEXT}",
    "below empty front matter": f"---\n---\n---\n{FRONT}---\n{TEXT}",
    "below a directive": f"%YAML 1.2\n---\n{FRONT}---\n{TEXT}",
}
LINE_ENDS = {"LF": "\n", "CRLF": "\r\n", "CR": "\r"}


@pytest.mark.parametrize("ends", LINE_ENDS)
@pytest.mark.parametrize("case", SEEN)
def test_front_matter_that_can_only_be_meant_is_seen(load, case: str, ends: str) -> None:
    end = LINE_ENDS[ends]
    found = load(SEEN[case].replace("\n", end))
    assert (found.name, found.labels, found.violates) == ("mail", ("ham", "spam"), ("spam",))
    text = SEEN[case].partition("# Mail")[2]
    assert found.text == ("# Mail" + text).strip("\n").replace("\n", end)


@pytest.mark.parametrize("ends", LINE_ENDS)
@pytest.mark.parametrize("case", REFUSED)
def test_front_matter_that_is_not_where_it_is_read_is_refused(load, case: str, ends: str) -> None:
    with pytest.raises(UsageError, match=r"my-policy\.md, line \d+: .*(front matter)"):
        load(REFUSED[case].replace("\n", LINE_ENDS[ends]))


@pytest.mark.parametrize(
    "source",
    [
        "# P\n\n---\n\nBe nice: 0 or 1.\n\n---\n\nMore.\n",
        "\n---\nJust words between two rules.\n---\nx",
        "\n---\nNote: answer 0 or 1.\n---\nx",
        "---\n# P: x",
        "| a | b |\n|---|---|\n| 0 | 1 |\n",
        "A heading\n---\nLabels: a word that stands in a text.\n",
        "Labels: 0 and 1\n---------------\nx\n",
        "LABELS:\n\n- 0: fine\n- 1: bad\n",
        "GOAL: find spam\n\nDEFINITIONS:\nspam: bulk mail\n\nOUTPUT: 0 or 1\n",
        "Violates: a text that sells.\n\nSafe: all else.\n",
        "# P\n\n---\ntext: you won\nlabel: 1\n---\ntext: hello\nlabel: 0\n---\n",
        '# P\n\nAnswer so:\n```json\n{\n  "labels": ["1"],\n  "rationale": "…"\n}\n```\n',
        "# P\n\n====\nDescription: what is meant\n====\n",
        "Write labels: 0 or 1.\nThe text violates: say 1.\n",
        "***\nname: what a person is called\nage: how old they are\n***\n",
    ],
)
def test_a_text_with_rules_and_tables_is_a_policy_with_labels_0_and_1(load, source: str) -> None:
    assert load(source) == Policy("my-policy", source.strip("\n"), DEFAULT_LABELS, DEFAULT_VIOLATES)


_WORD = (
    st.text("abcdefgh-_ 0123456789éß漢", min_size=1, max_size=8)
    .map(str.strip)
    .filter(lambda word: word and word[0] not in "-_" and "#" not in word)
)


@st.composite
def policy_files(draw: st.DrawFn) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Generate a policy file as people write them, with the labels in it."""
    labels = tuple(draw(st.lists(_WORD, min_size=2, max_size=4, unique=True)))
    violates = labels[-draw(st.integers(1, len(labels) - 1)) :]

    def written(key: str, values: tuple[str, ...]) -> str:
        toml = opening.strip() == "+++"
        if toml or draw(st.booleans()):
            quote = '"' if toml else draw(st.sampled_from(["", "'", '"']))
            listed = draw(st.sampled_from([", ", ","])).join(f"{quote}{value}{quote}" for value in values)
            return f"{key} = [{listed}]\n" if toml else f"{key}: [{listed}]\n"
        dash = draw(st.sampled_from(["- ", "  - "]))
        return f"{key}:\n" + "".join(f"{dash}{value}\n" for value in values)

    opening = draw(st.sampled_from(["---", "--- ", "---\t", " ---", "----", "+++", "```yaml", "", "—", "\u00a0---"]))
    closing = draw(st.sampled_from([opening.strip(" \t") or "---", "---", "...", "--- ", "----", "```", ""]))
    parts = [written("labels", labels), written("violates", violates)]
    parts += draw(st.lists(st.sampled_from(["\n", "# a comment\n", "description: what\n"]), max_size=2, unique=True))
    above = draw(st.sampled_from(["", "\n", " \n\n", "\ufeff", "\ufeff\n", "<!-- c -->\n", "# Head\n\n", "Text.\n"]))
    between = draw(st.sampled_from(["", "\n"]))
    body = draw(st.sampled_from(["# P\n\nText.\n", "Text\n\n---\n\nmore\n", "a | b\n---|---\n"]))
    source = f"{above}{opening}\n{''.join(draw(st.permutations(parts)))}{closing}\n{between}{body}"
    return source.replace("\n", draw(st.sampled_from(["\n", "\r\n", "\r"]))), labels, violates


@given(policy_files())
def test_a_policy_has_the_labels_that_are_written_or_is_refused(tmp_path_factory, drawn) -> None:
    source, labels, violates = drawn
    path = tmp_path_factory.getbasetemp() / "drawn.md"
    path.write_bytes(source.encode())
    try:
        policy = load_policy(str(path))
    except UsageError as refusal:
        assert str(path) in str(refusal)
        return
    assert (policy.labels, policy.violates) == (labels, violates)
    assert "violates" not in policy.text


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(["---", "...", "\n", "\r", " ", "a: b", "labels", ": [", "]", "\0"]))
)
def test_any_text_is_a_policy_or_is_refused(tmp_path_factory, source) -> None:
    path = tmp_path_factory.getbasetemp() / "any.md"
    path.write_bytes("".join(source).encode("utf-8", "surrogatepass"))
    try:
        load_policy(str(path))
    except UsageError as refusal:
        assert "any.md" in str(refusal)


def test_a_key_given_twice_is_refused_though_its_values_are_the_same(load) -> None:
    with pytest.raises(UsageError, match=r"my-policy\.md, line 3: the key 'labels' is given twice, first in line 2"):
        load("---\nlabels: [0, 1]\nlabels: [0, 1]\n---\nx")


def test_an_alias_is_read_where_it_names_a_label(load) -> None:
    assert load("---\nlabels: [ham, &bad spam]\nviolates: *bad\n---\nx").violates == ("spam",)


def test_a_file_that_is_no_policy_is_refused_without_waiting(tmp_path, monkeypatch) -> None:
    """These are a folder, a device, a pipe that nobody writes to, and a file larger than any policy."""
    monkeypatch.setattr(front_matter, "PIPE_SECONDS", 0.5)
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large.md").open("wb") as file:
        file.truncate(front_matter.MAX_BYTES + 1)
    for path, reason in (
        (tmp_path, "a folder"),
        (Path("/dev/zero"), "a device"),
        (tmp_path / "pipe", "holds no text"),
        (tmp_path / "large.md", "too many for a policy"),
    ):
        with pytest.raises(UsageError, match=reason):
            load_policy(str(path))


def test_a_policy_can_come_through_a_pipe(tmp_path, monkeypatch) -> None:
    os.mkfifo(tmp_path / "p.md")
    writer = threading.Thread(target=lambda: (tmp_path / "p.md").write_text("# P\n" + "0 or 1\n" * 20_000))
    writer.start()
    assert len(load_policy(str(tmp_path / "p.md")).text) > 100_000
    writer.join()
    monkeypatch.setattr(front_matter, "PIPE_SECONDS", 0.2)
    silent = os.open(tmp_path / "p.md", os.O_RDWR)
    with pytest.raises(UsageError, match="nothing came through this pipe"):
        load_policy(str(tmp_path / "p.md"))
    os.close(silent)


def test_deeply_nested_front_matter_is_a_usage_error(load) -> None:
    with pytest.raises(UsageError, match=r"my-policy\.md"):
        load(f"---\ndescription: {'[' * 2_000}\n---\nx")


def test_labels_of_the_command_line_need_violating_ones(load) -> None:
    with pytest.raises(UsageError, match="--violates"):
        load("x", labels=["ham", "spam"])
    assert load("x", labels=["1", "2"]).violates == ("1",)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("My Policy v2.md", "my-policy-v2"),
        ("a.b.md", "a-b"),
        ("_x_.txt", "_x_"),
        ("Ünïcode Pólicy (v2).md", "unicode-policy-v2"),
        ("ﬁne.md", "fine"),
    ],
)
def test_the_name_comes_from_the_file(load, file: str, name: str) -> None:
    assert load("x", file).name == name


@pytest.mark.parametrize("file", ["политика.md", "政策.md", "---.md", "(—).md"])
def test_a_file_whose_name_holds_no_letters_of_a_name_asks_for_one(load, file: str) -> None:
    with pytest.raises(UsageError, match=r"write `name: …` in its front matter, or use --as"):
        load("x", file)
    assert load("x", file, rename="p").name == "p"
    assert load("---\nname: q\n---\nx", file).name == "q"


@pytest.mark.parametrize("name", ["nothing", "nothing.md", "", "a" * 5_000, "a\0b", "."])
def test_a_policy_that_is_not_there_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="polic"):
        load_policy(name)


@pytest.mark.parametrize(
    ("name", "near"), [("Spam", "spam"), ("SPAM.md", "spam"), ("spma", "spam"), ("self_harm", "self-harm")]
)
def test_a_near_miss_of_a_built_in_name_is_asked_about(name: str, near: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^no policy '{name}': .*did you mean '{near}'"):
        load_policy(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("my-polcy", "my-policy.md"),
        ("my-policy", "my-policy.md"),
        ("My-Policy.MD", "my-policy.md"),
        ("rules/spm", "rules/spam.md"),
        ("policies/spam.md", "spam"),
        ("plain-txt", "plain-text.txt"),
        ("nothing-alike", None),
    ],
)
def test_a_near_miss_of_a_file_beside_is_asked_about(name: str, near: str | None, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules").mkdir()
    for file in ("my-policy.md", "rules/spam.md", "plain-text.txt", "nothing-like-it.rst"):
        (tmp_path / file).write_text("x")
    with pytest.raises(UsageError) as caught:
        load_policy(name)
    hint = f"; did you mean {near!r}?" if near else f" ({', '.join(builtin_policies())})"
    assert str(caught.value) == f"no policy {name!r}: not a file, and not built in{hint}"


@given(st.text(max_size=40) | st.text("spamhte-._/:\x1b\n\0\ud800", max_size=600))
def test_every_unknown_policy_is_refused_with_one_short_sentence(name: str) -> None:
    assume(name not in builtin_policies() and not Path(name.replace("\0", "")[:200]).is_file())
    with pytest.raises(UsageError) as caught:
        load_policy(name)
    (sentence,) = caught.value.args
    assert len(safe(sentence)) < 4000
    assert safe(sentence).isprintable()


def test_what_is_wrong_with_the_file_names_it_and_what_is_wrong_with_the_call_does_not(load) -> None:
    with pytest.raises(UsageError, match=r"my-policy\.md, line 2: policy s names a label twice"):
        load("---\nlabels: [a, a]\nname: s\nviolates: a\n---\nx")
    with pytest.raises(UsageError, match=r"^policy my-policy names a label twice"):
        load("x", labels=["a", "a"], violates=["a"])


def test_a_label_that_is_never_mentioned_warns() -> None:
    warned = Policy("p", "Answer ham.", ("ham", "spam"), ("spam",)).warnings()
    assert warned == ["policy p never mentions its label 'spam', spelled like this"]


def test_a_label_inside_another_word_is_not_mentioned() -> None:
    policy = Policy("p", "Answer INVALID for that, else `NO`.", ("VALID", "INVALID", "NO"), ("INVALID",))
    assert policy.warnings() == ["policy p never mentions its label 'VALID', spelled like this"]


@pytest.mark.parametrize("label", ["INVALID + ESCALATE", "спам", "+1", "垃圾", '"quoted"', "SP0."])
def test_a_mentioned_label_of_any_kind_does_not_warn(label: str) -> None:
    assert not Policy("p", f"Answer `{label}`, or ham.", ("ham", label), (label,)).warnings()


def test_the_hash_tells_apart_what_shapes_the_answer() -> None:
    policies = [Policy("p", "x"), Policy("p", "y"), Policy("p", "x", ("1", "0")), Policy("p", "x", ("0", "1", "2"))]
    assert len({policy.sha256 for policy in policies}) == 4
    assert Policy("q", "x").sha256 == Policy("p", "x").sha256


def test_built_in_policies_are_found_in_an_editable_install() -> None:
    assert set(builtin_policies()) == {file.stem for file in (ROOT / "policies").glob("*.md")} >= {"spam"}
    assert load_policy("spam").labels == ("ham", "spam")


def test_the_shipped_policies_are_what_the_demo_model_was_trained_on() -> None:
    later = {"toxicity", "severe-toxicity", "identity-attack", "insult", "profanity", "threat"}
    assert {name: load_policy(name).sha256[:16] for name in builtin_policies() if name not in later} == {
        "child-safety": "0b608eb2c210d895",
        "dangerous-goods": "6a7d4953c303b80d",
        "fraud": "304b637cb7d74248",
        "harassment": "2cf20098ebb7990e",
        "hate": "980b3820ea8234a0",
        "privacy": "65031bcd885a93c4",
        "prompt-injection": "502ae00cab4b88a5",
        "self-harm": "b541e4c196626a61",
        "sexual-content": "b5b0bc3e435b8111",
        "spam": "d30eb69dab3f2379",
        "violence": "bfd8cea6dc916fa4",
    }


@pytest.mark.parametrize("name", sorted(builtin_policies()))
def test_built_in_policies_have_no_warnings(name: str) -> None:
    policy = load_policy(name)
    assert policy.name == name
    assert policy.description
    assert not policy.warnings()

"""A policy file means what it looks like, and one that cannot be meant is refused with file, line and reason."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from safeguard_cli.errors import UsageError
from safeguard_cli.policy import DEFAULT_LABELS, DEFAULT_VIOLATES, Policy, builtin_policies, load_policy

ROOT = Path(__file__).parents[1]


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Policy]:
    """Writes a policy file and loads it."""

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
        ("---\nlabels: [ham, spam]\n---\nx", "say which of its labels violate"),
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


def test_deeply_nested_front_matter_is_a_usage_error(load) -> None:
    with pytest.raises(UsageError, match=r"my-policy\.md"):
        load(f"---\ndescription: {'[' * 2_000}\n---\nx")


def test_labels_of_the_command_line_need_violating_ones(load) -> None:
    with pytest.raises(UsageError, match="--violates"):
        load("x", labels=["ham", "spam"])
    assert load("x", labels=["1", "2"]).violates == ("1",)


@pytest.mark.parametrize(("file", "name"), [("My Policy v2.md", "my-policy-v2"), ("a.b.md", "a-b"), ("_x_.txt", "_x_")])
def test_the_name_comes_from_the_file(load, file: str, name: str) -> None:
    assert load("x", file).name == name


def test_a_file_whose_name_holds_no_letters_of_a_name_asks_for_one(load) -> None:
    with pytest.raises(UsageError, match="--as"):
        load("x", "политика.md")
    assert load("x", "политика.md", rename="p").name == "p"


@pytest.mark.parametrize("name", ["nothing", "nothing.md", "", "a" * 5_000, "a\0b", "."])
def test_a_policy_that_is_not_there_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="polic"):
        load_policy(name)


def test_a_label_that_is_never_mentioned_warns() -> None:
    warned = Policy("p", "Answer ham.", ("ham", "spam"), ("spam",)).warnings()
    assert warned == ["policy p never mentions its label 'spam'"]


def test_a_label_inside_another_word_is_not_mentioned() -> None:
    policy = Policy("p", "Answer INVALID for that, else `NO`.", ("VALID", "INVALID", "NO"), ("INVALID",))
    assert policy.warnings() == ["policy p never mentions its label 'VALID'"]


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


@pytest.mark.parametrize("name", sorted(builtin_policies()))
def test_built_in_policies_have_no_warnings(name: str) -> None:
    policy = load_policy(name)
    assert policy.name == name
    assert policy.description
    assert not policy.warnings()


def test_built_in_policies_are_found_in_a_wheel(tmp_path: Path) -> None:
    wheels = pytest.importorskip("hatchling.builders.wheel")
    wheel = next(wheels.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:
        assert "safeguard_cli/policies/spam.md" in archive.namelist()
        archive.extractall(tmp_path / "site")
    code = (
        "import safeguard_cli, safeguard_cli.policy as p; print(safeguard_cli.__file__, p.load_policy('spam').labels)"
    )
    run = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {code}"]
    shown = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == f"{tmp_path / 'site' / 'safeguard_cli' / '__init__.py'} ('ham', 'spam')"

"""`safeguard stress`: no variant changes a prompt's structure, and figures are those of hand-worked cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.command import rows, safeguard, write
from helpers.jailbreaks import JAILBREAKS
from helpers.outputs import output, run_json, verdict
from helpers.pages import HOSTILE, parsed
from helpers.prompts import CONTENT_MARKERS, PREFIX_MARKERS, markers
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.options import Wanted
from safeguard_cli.measure.report.report import report
from safeguard_cli.measure.stress.figures import difference
from safeguard_cli.measure.stress.stress import StressPlan, planned, stress
from safeguard_cli.measure.stress.variants import all_variants, changed_texts
from safeguard_cli.output.labelled import read_labels
from safeguard_cli.policy.policy import load_policy
from safeguard_cli.policy.rationale import references
from safeguard_cli.prompt.harmony import Harmony
from safeguard_cli.run.settings import Settings

GOLDEN = ROOT / "samples/golden"
SPAM = load_policy("spam")
TINY = ("--max-reasoning", 2, "--slots", 8, "--threads", 1, "-q")


def structure(harmony: Harmony, text: str) -> bool:
    """Return whether the prompt with this text has exactly the program's control tokens, and the text byte for byte."""
    content = harmony.text_ids(text)
    ids = harmony.content_ids(content)
    whole = markers(harmony, ids) == CONTENT_MARKERS and ids[: len(content)] == tuple(content)
    return whole and harmony.tokenizer.decode_bytes(content) == text.encode()


@pytest.fixture(params=["harmony", "demo_harmony", "o200k"])
def vocabulary(request: pytest.FixtureRequest) -> Harmony:
    found: Harmony = request.getfixturevalue(request.param)
    return found


def test_no_variant_of_any_golden_row_changes_the_structure_of_a_prompt(vocabulary) -> None:
    assert markers(vocabulary, vocabulary.prefix(SPAM, "low").ids) == PREFIX_MARKERS
    about = {"policy": "spam", "allowed": "<|end|>", "violating": "<|start|>"}
    count = 0
    for path in sorted(GOLDEN.glob("*.jsonl")):
        for row in rows(path.read_bytes())[::10]:
            for new in changed_texts(all_variants(), row["text"], about, 0):
                assert structure(vocabulary, new.text), new
                count += 1
    assert count > 1500


def test_none_of_a_thousand_jailbreaks_changes_the_structure_of_a_prompt(vocabulary) -> None:
    assert len(set(JAILBREAKS)) == 1000
    assert [text for text in JAILBREAKS if not structure(vocabulary, text)] == []


@settings(max_examples=30)
@given(st.sampled_from(JAILBREAKS), st.integers(0, 9))
def test_variants_of_jailbreaks_change_no_structure_either(harmony: Harmony, text: str, seed: int) -> None:
    about = {"policy": "spam", "allowed": "ham", "violating": "spam"}
    assert all(structure(harmony, new.text) for new in changed_texts(all_variants(), text, about, seed))


def test_none_of_a_thousand_jailbreaks_breaks_a_run(tmp_path, tiny) -> None:
    source = write(tmp_path / "jailbreaks.jsonl", *(json.dumps({"text": text}) for text in JAILBREAKS))
    done = safeguard("label", source, "-p", "spam", "--model", tiny, "--effort", "none", *TINY[2:], "--ctx", 2048)
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert [row["text"] for row in found] == list(JAILBREAKS)
    assert all(row["spam"]["label"] in ("ham", "spam") for row in found)


# The rows


def plan_of(golden: Path, plan: StressPlan | None = None, **settings: object) -> list[dict]:
    return planned(Settings(str(golden), (), **settings), Wanted(), plan or StressPlan(), SPAM)  # type: ignore[arg-type]


def test_originals_come_first_and_the_rest_is_shuffled_the_same_way_each_time() -> None:
    first, second = plan_of(GOLDEN / "spam.jsonl", limit=4), plan_of(GOLDEN / "spam.jsonl", limit=4)
    assert first == second
    assert [(row["row"], row["family"]) for row in first[:4]] == [(i, "original") for i in (1, 2, 3, 4)]
    assert len({row["id"] for row in first}) == len(first)
    again = [i for i, row in enumerate(first) if row["family"] == "repeat"]
    assert len(again) == 8
    assert again != list(range(again[0], again[0] + 8))
    assert {row["text"] for row in first if row["family"] == "repeat"} == {row["text"] for row in first[:4]}
    assert plan_of(GOLDEN / "spam.jsonl", StressPlan(seed=1), limit=4) != first


def test_only_the_families_asked_for_are_planned() -> None:
    found = plan_of(GOLDEN / "spam.jsonl", StressPlan(families=("identity", "repeat")), limit=8)
    assert {row["family"] for row in found} == {"original", "identity", "repeat"}
    with pytest.raises(UsageError, match="the families are injection, obfuscation, identity, languages"):
        plan_of(GOLDEN / "spam.jsonl", StressPlan(families=("x",)))
    with pytest.raises(UsageError, match="--translation"):
        plan_of(GOLDEN / "spam.jsonl", StressPlan(families=("languages",)))


def test_languages_come_from_fields_or_from_rows_that_are_one(tmp_path) -> None:
    lines = [
        {"text": "win now", "de": "jetzt gewinnen", "label": "spam", "language": "en", "same": 1},
        {"text": "gagnez", "de": "", "label": "spam", "language": "fr", "same": 1},
        {"text": "see you", "label": "ham", "language": "en", "same": 2},
    ]
    golden = write(tmp_path / "g.jsonl", *(json.dumps(line) for line in lines))
    found = plan_of(golden, StressPlan(families=("languages",), translations=("de=de",), pair="same"))[3:]
    assert sorted((row["row"], row["variant"], row["group"], row["own_group"], row["text"]) for row in found) == [
        (1, "pair", "fr", "en", "gagnez"),
        (1, "translation", "de", "en", "jetzt gewinnen"),
    ]
    for plan in (StressPlan(translations=("de",)), StressPlan(translations=("de=x",)), StressPlan(pair="x")):
        with pytest.raises(UsageError, match=r"--translation|no row has the field"):
            plan_of(golden, plan)


# The command


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """Label a stress test of two spam rows, and keep it."""
    out = tmp_path_factory.mktemp("stress") / "out.jsonl"
    done = safeguard("stress", GOLDEN / "spam.jsonl", "-p", "spam", "--model", tiny, *TINY, "--limit", 2, "-o", out)
    assert done.returncode == 0, done.stderr
    for part in (b"injection", b"obfuscation", b"repeat", b"violating \xe2\x86\x92 allowed", b"rationales"):
        assert part in done.stdout
    return out


def measure(path: Path, *args: object) -> dict:
    done = safeguard("stress", path, "--json", *args)
    assert done.returncode == 0, done.stderr
    result: dict = json.loads(done.stdout)
    return result


def test_a_kept_test_is_measured_without_a_model(kept) -> None:
    result = measure(kept)
    found = rows(kept.read_bytes())
    assert (result["rows"], result["labelled"], result["rows_in_error"]) == (2, len(found), 0)
    assert set(result["families"]) >= {"injection", "obfuscation", "repeat"}
    base = {row["row"]: row["spam"]["label"] for row in found if row["family"] == "original"}
    for name, family in result["families"].items():
        part = [row for row in found if row["family"] == name]
        flips = sum(row["spam"]["label"] != base[row["row"]] for row in part)
        assert (family["flips"]["count"], family["flips"]["of"]) == (flips, len(part))
        assert sum(len(row["flips"]) for row in family["worst"]) == flips
    assert result["rationales"]["inventing"]["of"] == 2
    assert result["spread"]["most"] >= result["spread"]["mean"] >= 0


def test_a_test_that_is_not_kept_is_measured_as_one_that_is(kept, tiny) -> None:
    call = ("stress", GOLDEN / "spam.jsonl", "-p", "spam", "--model", tiny, *TINY, "--limit", 2, "--json")
    done = safeguard(*call)
    assert done.returncode == 0, done.stderr
    found, before = json.loads(done.stdout), measure(kept)
    assert found["families"].keys() == before["families"].keys()
    assert (found["labelled"], found["model"], found["doubts"]) == (before["labelled"], tiny.name, [])


def test_repetitions_are_labelled_and_not_copied(kept, harmony) -> None:
    manifest = json.loads(kept.with_name("out.jsonl.manifest.json").read_bytes())
    contents = [harmony.content_ids(harmony.text_ids(row["text"])) for row in rows(kept.read_bytes())]
    assert manifest["prompt_tokens"] == sum(map(len, contents))


def test_the_same_command_goes_on_with_a_test_that_was_cut_off(kept, tiny, tmp_path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(b"".join(kept.read_bytes().splitlines(keepends=True)[:-9]))
    manifest = json.loads(kept.with_name("out.jsonl.manifest.json").read_bytes())
    (tmp_path / "out.jsonl.run.json").write_text(json.dumps(manifest | {"result": None, "rows": 0, "input_sha256": ""}))
    done = safeguard("stress", GOLDEN / "spam.jsonl", "-p", "spam", "--model", tiny, *TINY, "--limit", 2, "-o", out)
    assert done.returncode == 0, done.stderr
    before, after = rows(kept.read_bytes()), rows(out.read_bytes())
    assert after[:-9] == before[:-9]
    assert [row["id"] for row in after] == [row["id"] for row in before]


def test_an_export_can_be_labelled_and_measured_later(kept, tiny, tmp_path) -> None:
    exported, out = tmp_path / "variants.jsonl", tmp_path / "labelled.csv"
    call = (
        "stress",
        GOLDEN / "spam.jsonl",
        "-p",
        "spam",
        "--limit",
        8,
        "--family",
        "identity",
        "--family",
        "repeat",
        "--export",
        exported,
    )
    assert safeguard(*call).returncode == 0
    assert safeguard(*call).returncode == 2  # it exists already
    assert safeguard("label", exported, "-p", "spam", "--model", tiny, *TINY, "-o", out).returncode == 0
    result = measure(out)
    assert (result["rows"], list(result["families"])) == (8, ["identity"])  # repetitions would get the same verdict


def test_what_is_missing_is_said(kept, tmp_path) -> None:
    golden = str(GOLDEN / "spam.jsonl")
    changed = tmp_path / "spam.md"
    changed.write_text((ROOT / "policies/spam.md").read_text() + "\n- **SP9** One more.\n")
    for path, policies, most, message in (
        (golden, (), None, "--policy"),
        (golden, ("spam", "hate"), None, "exactly one policy"),
        ("-", ("spam",), None, "no such file"),
        (str(kept), (), "few", "--max-flips"),
        (str(kept), (str(changed),), None, "is not the one that"),
    ):
        with pytest.raises(UsageError, match=message):
            stress(Settings(path, policies), Wanted(), StressPlan(), None, most)


# The figures


def trial(
    row: int, family: str, p: float, *, variant: str = "", group: str = "", own: str = "", **more: object
) -> dict:
    said = verdict("spam" if p >= 0.5 else "ham", p, **{k: v for k, v in more.items() if k == "rationale"})
    fields = {"id": f"{row}/{family}/{variant}/{group}", "row": row, "family": family, "variant": variant}
    fields |= {
        "group": group,
        "own_group": own,
        "label": more.get("gold", "spam"),
        "text": more.get("text", f"row {row}"),
    }
    return fields | {"spam": said}


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    """Write four originals (two violate) with rationales, four injections (two flip), two languages, repetitions."""
    originals = [
        trial(1, "original", 0.9, rationale='SP1: "row 1"'),
        trial(2, "original", 0.8, rationale='SP1 and SP99: "row 77"'),
        trial(3, "original", 0.2, gold="ham", rationale='"Prize bait" is not met, so "ham".'),
        trial(4, "original", 0.3, gold="ham"),
    ]
    injected = [
        trial(i, "injection", p, variant="order", group="append") for i, p in enumerate((0.1, 0.7, 0.6, 0.3), 1)
    ]
    languages = [
        trial(1, "languages", 0.1, variant="pair", group="de", own="en"),
        trial(2, "languages", 0.9, variant="pair", group="de", own="en"),
        trial(3, "languages", 0.9, variant="pair", group="de", own="en", gold="ham"),
    ]
    again = [trial(1, "repeat", p, variant="again", group=str(i)) for i, p in enumerate((0.94, 0.88), 1)]
    failed = {"label": None, "error": {"code": "engine", "message": "it failed"}}
    error = trial(4, "repeat", 0.5, variant="again", group="1") | {"spam": failed}
    return output(tmp_path / "out.jsonl", [*originals, *injected, *languages, *again, error])


def figures(path: Path, capsys, max_flips: str | None = None) -> tuple[int, dict]:
    settings = Settings(str(path), ("spam",))
    code = stress(settings, Wanted(json=True), StressPlan(), None, max_flips)
    return code, json.loads(capsys.readouterr().out)


def test_flips_directions_and_worst_rows_of_a_hand_worked_case(by_hand, capsys) -> None:
    code, result = figures(by_hand, capsys)
    assert code == 3  # a row is in error
    assert (result["rows"], result["labelled"], result["rows_in_error"]) == (4, 13, 1)
    family = result["families"]["injection"]
    assert family["flips"] == {
        "count": 2,
        "of": 4,
        "share": 0.5,
        "low": pytest.approx(0.0676, abs=0.0001),  # Clopper-Pearson
        "high": pytest.approx(0.9324, abs=0.0001),
    }
    assert (family["to_allowed"]["count"], family["to_allowed"]["of"]) == (1, 2)
    assert (family["to_violating"]["count"], family["to_violating"]["of"]) == (1, 2)
    assert (family["rows_flipped"]["count"], family["rows_flipped"]["of"]) == (2, 4)
    assert [(row["row"], [flip["p_violates"] for flip in row["flips"]]) for row in family["worst"]] == [
        (1, [0.1]),
        (3, [0.6]),
    ]
    assert [part["name"] for part in family["groups"]] == ["append"]
    assert family["groups_compared"] == []


def test_recall_by_language_counts_rows_that_should_violate(by_hand, capsys) -> None:
    (compared,) = figures(by_hand, capsys)[1]["families"]["languages"]["groups_compared"]
    recall = {group["name"]: (group["violating"]["count"], group["violating"]["of"]) for group in compared["groups"]}
    assert recall == {"de": (1, 2), "en": (2, 2)}
    assert (compared["rows"], compared["p"]) == (2, 1.0)


def test_the_spread_of_repeated_rows_and_what_rationales_invent(by_hand, capsys) -> None:
    result = figures(by_hand, capsys)[1]
    assert result["spread"] == {"mean": pytest.approx(0.06), "most": pytest.approx(0.06)}
    found = result["rationales"]
    assert (found["inventing"]["count"], found["inventing"]["of"]) == (1, 3)
    assert (found["codes"], found["unknown_codes"]) == (3, 1)
    assert (found["quotes"], found["policy_quotes"], found["unknown_quotes"]) == (3, 1, 1)
    assert found["worst"][0]["invented"] == ["SP99", "row 77"]


@pytest.mark.parametrize(
    ("most", "code"), [("66%", 5), ("67%", 3), ("50 %", 5), ("1", 5), ("2", 3), ("0", 5), ("100%", 3)]
)
def test_max_flips_is_of_every_family(by_hand, capsys, most: str, code: int) -> None:
    assert figures(by_hand, capsys, most)[0] == code  # injection 2 of 4, languages 2 of 3


def test_a_difference_between_groups_is_found_where_there_is_one() -> None:
    assert difference([]) is None
    assert difference([[True, False]]) is None
    assert difference([[True, True], [False, False]]) == 1.0
    assert (difference([[True, False, False]] * 12) or 1) < 0.001
    assert (difference([[True, False], [False, True]] * 6) or 0) > 0.5
    assert difference([[True, False]] * 5) == pytest.approx(2 / 2**5)  # exact: all rows one way, either way


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=4))
def test_a_difference_is_a_probability_whatever_the_order_of_groups(table: list[list[bool]]) -> None:
    one, other = difference(table), difference([row[::-1] for row in table])
    assert one is not None
    assert 0 < one <= 1
    assert other == pytest.approx(one, abs=0.05)


# Rationales


@pytest.mark.parametrize(
    ("rationale", "codes", "quotes"),
    [
        ('SP1 is met: "claim your PRIZE!"', [], []),
        ("SP1 and SP77", ["SP77"], []),
        ("He has a PS5, so SP2", [], []),
        ("“you … win”, and «won a prize»", [], ["won a prize"]),
        ('It is "spam", not "ham".', [], []),
        ('It says "Prize bait".', [], []),
        ('"SP77" is quoted from nowhere', [], ["SP77"]),
        ('"claim  your\nprize"', [], []),
        ('an open " quote', [], []),
    ],
)
def test_what_a_rationale_invents(rationale: str, codes: list[str], quotes: list[str]) -> None:
    found = references(rationale, "You can win a PS5: claim your prize!", SPAM.text, SPAM.labels)
    assert (list(found.unknown_codes), list(found.unknown_quotes)) == (codes, quotes)
    assert found.invents == bool(codes or quotes)


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_quote_of_the_content_is_never_invented(content: str, rationale: str) -> None:
    assert not references(f'"{content.replace(chr(34), " ")}"', content.replace('"', " "), "", ()).unknown_quotes
    assert set(references(rationale, content, rationale, ()).unknown_quotes) == set()


# The report


def test_a_report_has_the_stress_test_and_none_of_its_texts_is_more_than_text(tmp_path) -> None:
    lines = [trial(i, "original", 0.9, text=text, rationale=f'"{text}"') for i, text in enumerate(HOSTILE, 1)]
    lines += [
        trial(i, "identity", 0.1, text=text, variant=text, group=text, own=HOSTILE[0])
        for i, text in enumerate(HOSTILE, 1)
    ]
    source = output(tmp_path / "out.jsonl", lines)
    assert report(Settings(str(source), ("spam",), quiet=True), Wanted(), None, 25) == 0
    page = parsed(tmp_path / "out.html")
    words = "".join(page.words)
    for part in ("Under stress", "violating → allowed", "rationales invent", "By family", "flip:"):
        assert part in words
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, _ in page.tags if tag in ("img", "iframe", "object", "link")]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "\u202e" not in words


def test_a_kept_test_is_reported_and_evaluated_like_any_output(kept, capsys) -> None:
    assert report(Settings(str(kept), (), quiet=True), Wanted(), None, 25) == 0
    assert "Under stress" in kept.with_suffix(".html").read_text(encoding="utf-8")
    slices = run_json(capsys, kept, by=("family",))["policies"]["spam"]["slices"]["family"]
    assert {part["value"] for part in slices} >= {"original", "injection", "obfuscation", "repeat"}
    assert len(read_labels(kept).rows) == sum(part["rows"] for part in slices)

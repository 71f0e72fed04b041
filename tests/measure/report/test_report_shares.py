"""The report of an audit leads with its estimate; shares by slice stand in the report of any output."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers.outputs import manifest, output, verdict
from helpers.pages import HOSTILE, parsed

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.options import Wanted
from safeguard_cli.measure.report.report import report
from safeguard_cli.policy.policy import load_policy
from safeguard_cli.run.settings import Settings


def audited(
    folder: Path, rows: int = 60, *, finished: bool = True, total: int = 6000, text: str = "message {}"
) -> Path:
    """Write the output of an audit: every third row violates, every second one is German."""
    words = ("apple", "river", "window", "music", "garden")
    path = output(
        folder / "posts.audit.jsonl",
        [
            {"id": i, "text": text.format(f"{words[i % 5]} {'x' * (i * 7 % 31)}"), "language": ("de", "en")[i % 2]}
            | {"_sample": {"seed": 0, "row": 50 * i + 1, "rank": rows - i, "probability": rows / total}}
            | {"spam": verdict("spam" if i % 3 == 0 else "ham", 0.9 if i % 3 == 0 else 0.1)}
            for i in range(rows)
        ],
    )
    manifest(path, finished=finished)
    record = path.with_name(f"{path.name}.{'manifest' if finished else 'run'}.json")
    made = json.loads(record.read_text())
    made["decides"]["sample"] = {"draw": "uniform", "seed": 0, "rows": total, "bytes": 9, "sha256": "0" * 64}
    made |= {"rows": rows, "planned": rows}
    record.write_text(json.dumps(made))
    return path


def said(source: Path, target: Path, *, by: tuple[str, ...] = (), examples: int = 25, **options: object) -> str:
    assert report(Settings(str(source), quiet=True, **options), Wanted(by=by), str(target), examples) == 0  # type: ignore[arg-type]
    words = re.sub(r"\s+", " ", " ".join(parsed(target).words))
    return words[words.index("@media print") :]


def test_the_report_of_an_audit_leads_with_the_estimate_and_its_slices(tmp_path) -> None:
    page = tmp_path / "page.html"
    words = said(audited(tmp_path), page, by=("language",))
    sentence = "As the model reads spam , 33.3 % of the file violates: 21.8 to 46.6 % with 95 % confidence"
    lead = words.index(sentence)
    assert lead < words.index("How safeguard")
    for part in ("by language", "60 of the file's 6,000 rows, drawn at random (seed 0)", "The intervals are exact"):
        assert lead < words.index(part) < words.index("How safeguard"), part
    ranges = [attributes for tag, attributes in parsed(page).tags if attributes.get("class") == "range"]
    assert [bar["aria-label"] for bar in ranges] == ["33.3 %"] * 3
    assert "21.8 to 46.6 %" in words[words.index("How safeguard") :]


def test_an_audit_that_is_not_finished_is_said_to_be_one(tmp_path) -> None:
    words = said(audited(tmp_path, finished=False), tmp_path / "page.html")
    assert words.index("this run is not finished: 60 rows are labelled so far") < words.index("As the model reads spam")
    assert "no sample of the file" not in words
    assert "The audit is not finished." in words


def test_the_journal_of_an_unfinished_audit_is_reported_under_its_outputs_name(tmp_path) -> None:
    path = audited(tmp_path, finished=False)
    path.rename(tmp_path / f"{path.name}.rows.jsonl")
    (tmp_path / f"{path.name}.run.json").rename(tmp_path / f"{path.name}.rows.jsonl.run.json")
    assert "<title>posts.audit.jsonl" in (said(path, tmp_path / "page.html"), (tmp_path / "page.html").read_text())[1]


def test_examples_of_an_audit_are_random_ones_in_the_order_of_their_draw(tmp_path) -> None:
    words = said(audited(tmp_path), tmp_path / "page.html", examples=3)
    assert "Of each label random ones." in words
    shown = [int(row.replace(",", "")) for row in re.findall(r"row ([\d,]+), line", words)]
    assert len(shown) == 6
    assert shown[:3] == sorted(shown[:3], reverse=True)
    assert shown[3:] == sorted(shown[3:], reverse=True)


def test_texts_that_are_alike_are_shown_once_with_their_number(tmp_path) -> None:
    path = audited(tmp_path, text="Dear customer, your parcel could not be delivered today, pay the fee now {}")
    words = said(path, tmp_path / "page.html")
    assert len(re.findall(r"row [\d,]+, line", words)) <= 10
    assert "more like it" in words


def test_the_policys_text_is_shown_if_it_is_the_one_that_was_used(tmp_path) -> None:
    path = audited(tmp_path)
    record = path.with_name(f"{path.name}.manifest.json")
    made = json.loads(record.read_text())
    built_in = load_policy("spam")
    mine = tmp_path / "mine.md"
    mine.write_text("---\nname: spam\nlabels: [ham, spam]\nviolates: [spam]\n---\nMy own words: spam or ham.\n")
    for policy, given in ((built_in, ()), (load_policy(str(mine)), (str(mine),))):
        made["decides"]["policies"]["spam"] |= {"sha256": policy.sha256}
        record.write_text(json.dumps(made))
        words = said(path, tmp_path / "page.html", policies=given)
        assert re.sub(r"\s+", " ", policy.text)[:40] in words
    with pytest.raises(UsageError, match="was labelled under another text of this policy"):
        said(path, tmp_path / "page.html", policies=("spam",))


def test_an_output_of_label_has_counts_by_slice_without_gold(tmp_path) -> None:
    rows = [{"text": f"row {i}", "day": f"2026-0{1 + i % 3}-05", "spam": verdict("spam", 0.8)} for i in range(9)]
    path = output(tmp_path / "out.jsonl", rows)
    manifest(path)
    words = said(path, tmp_path / "page.html", by=("day:month",))
    assert "Every row of the file is labelled: the shares are counts, and have no interval." in words
    assert "Shares by day:month" in words
    assert words.index("2026-01") < words.index("2026-02") < words.index("2026-03")
    assert "confidence" not in words
    manifest(path, finished=False)
    path.with_name("out.jsonl.manifest.json").unlink()
    words = said(path, tmp_path / "page.html")
    assert "9 rows are labelled so far, the first ones, which are no sample of the file" in words


def test_hostile_slices_make_no_tag(tmp_path) -> None:
    rows = [{"text": f"row {i}", "source": text, "spam": verdict("spam", 0.8)} for i, text in enumerate(HOSTILE * 2)]
    path = output(tmp_path / "out.jsonl", rows)
    manifest(path)
    said(path, tmp_path / "page.html", by=("source",))
    found = parsed(tmp_path / "page.html")
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert not [tag for tag, _ in found.tags if tag in ("img", "iframe", "object", "link")]
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]


def test_a_file_of_violating_rows_alone_tells_no_share(tmp_path) -> None:
    path = output(tmp_path / "out.jsonl", [{"text": "row", "spam": verdict("spam", 0.9)}])
    manifest(path)
    record = path.with_name("out.jsonl.manifest.json")
    made = json.loads(record.read_text())
    made["decides"]["output"]["only"] = "violates"
    record.write_text(json.dumps(made))
    assert "the shares below tell nothing" in said(path, tmp_path / "page.html")
    with pytest.raises(UsageError, match="--only violates"):
        said(path, tmp_path / "page.html", by=("text",))

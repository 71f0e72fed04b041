"""`safeguard report`: one offline page, in which hostile text stays text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import manifests
from helpers.command import write
from helpers.outputs import output, verdict

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from helpers.outputs import manifest
from helpers.pages import HOSTILE, parsed

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.options import Wanted
from safeguard_cli.measure.report.report import report
from safeguard_cli.run.settings import Settings


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a report of rows, labels and rationales that all try to break out of it."""
    folder = tmp_path_factory.mktemp("report")
    labels = ("ham", HOSTILE[0])
    rows = [
        {"id": i, "text": text, "label": labels[i % 2], "source": text}
        | {"spam": verdict(labels[(i + i // 2) % 2], i / 12, labels=labels, rationale=text)}
        for i, text in enumerate(HOSTILE * 2)
    ]
    source = output(folder / "<img src=x>.jsonl", rows)
    assert report(Settings(str(source), (), quiet=True), Wanted(by=("source",)), str(folder / "page.html"), 25) == 0
    return folder / "page.html"


def test_content_makes_no_tag_and_no_attribute(page) -> None:
    found = parsed(page)
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert not [tag for tag, _ in found.tags if tag in ("img", "iframe", "object", "link")]
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    words = "".join(found.words)
    assert all(text in words for text in HOSTILE[:5])
    assert "1337" not in words
    assert "\u202e" not in words
    assert "\\x1b[31mred" in words


def test_the_page_needs_no_network(page) -> None:
    text = page.read_text(encoding="utf-8")
    addresses = [
        value for _, attributes in parsed(page).tags for key, value in attributes.items() if key in ("src", "href")
    ]
    assert all(value and value.startswith("#") for value in addresses)
    assert not re.search(r"url\((?!#)|@import", text)
    assert "default-src 'none'" in text


def test_it_has_what_was_asked_for(page) -> None:
    words = "".join(parsed(page).words)
    for part in ("Cohen's kappa", "Confusion", "By source", "Calibration", "Examples", "12 rows labelled", "Scores"):
        assert part in words


def test_an_output_without_gold_is_reported_too(tmp_path) -> None:
    rows = [{"text": f"row {i}", "spam": verdict("ham", i / 10)} for i in range(4)]
    source = output(tmp_path / "out.jsonl", rows)
    (tmp_path / "out.jsonl.manifest.json").write_text(json.dumps(manifests.make(seconds=2.0)))
    assert report(Settings(str(source), (), quiet=True), Wanted(), None, 25) == 0
    words = "".join(parsed(tmp_path / "out.html").words)
    assert "4 rows labelled, 0 violating" in words
    assert "2.0 s, 2.00 rows/s" in words
    assert "Confusion" not in words
    with pytest.raises(UsageError, match="no field 'language' for --by"):
        report(Settings(str(source), (), quiet=True), Wanted(by=("language",)), None, 25)


def test_what_is_no_output_is_refused(tmp_path) -> None:
    plain = write(tmp_path / "in.jsonl", '{"text":"a"}')
    with pytest.raises(UsageError, match="no row holds a verdict"):
        report(Settings(str(plain), ()), Wanted(), None, 25)


def test_a_browser_runs_no_script_of_the_content_and_filters_with_ours(page) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a Chromium to open the page in")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()],
        capture_output=True,
        timeout=60,
        check=True,
    )
    dom = done.stdout.decode()
    assert "<title>broken" not in dom
    assert "· safeguard</title>" in dom
    # Our script did run: it wrote how many examples are shown. The page's policy would also stop an injected script.
    assert "12 of 12</output>" in dom
    evil = page.with_name("evil.html")
    evil.write_text(page.read_text(encoding="utf-8").replace("</header>", f"{HOSTILE[0]}{HOSTILE[1]}</header>", 1))
    again = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", evil.as_uri()],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert "<title>broken" not in again.stdout.decode()


# The facts at the top, and which text is shown


def said(source: Path, **options: object) -> str:
    assert report(Settings(str(source), (), quiet=True, **options), Wanted(), None, 25) == 0  # type: ignore[arg-type]
    return "".join(parsed(source.with_suffix(".html")).words)


def test_a_run_that_is_not_finished_is_said_at_the_top(tmp_path) -> None:
    rows = [{"text": f"row {i}", "spam": verdict("ham", i / 10)} for i in range(4)]
    source = output(tmp_path / "out.jsonl", rows)
    manifest(source, finished=False)
    with source.open("a") as file:
        file.write('{"text": "row 4", "spam": {"la')  # a run is still writing it
    words = said(source)
    assert 0 < words.index("this run is not finished: 4 rows are labelled so far") < words.index("4 rows labelled, 0")


def test_a_file_that_was_changed_after_its_run_is_said_too(tmp_path) -> None:
    source = output(tmp_path / "out.jsonl", [{"text": "row", "spam": verdict("ham", 0.1)}])
    manifest(source, size=7)
    assert "the file was changed after its run had finished" in said(source)
    manifest(source)
    words = said(source)
    assert "changed" not in words
    assert "my.gguf" in words


@pytest.mark.parametrize(
    ("chosen", "options", "expected"),
    [
        ({"text_fields": ["body"]}, {}, "the body"),
        ({"text_fields": ["title", "body"]}, {}, "the title\n\nthe body"),
        ({"template": "{title}: {body}"}, {}, "the title: the body"),
        ({"text_fields": ["body"]}, {"text_fields": ("title",)}, "the title"),
        ({}, {"template": "<{title}>"}, "<the title>"),
    ],
)
def test_the_text_that_is_shown_is_the_one_that_was_labelled(tmp_path, chosen, options, expected) -> None:
    rows = [{"id": 1, "title": "the title", "body": "the body", "spam": verdict("ham", 0.1)}]
    source = output(tmp_path / "out.jsonl", rows)
    manifest(source, **chosen)
    page = tmp_path / "out.html"
    said(source, **options)
    assert f'<p class="text" dir="auto">{expected.replace("<", "&lt;").replace(">", "&gt;")}</p>' in page.read_text()


def test_a_text_that_the_output_does_not_have_is_not_asked_for(tmp_path) -> None:
    source = output(tmp_path / "out.jsonl", [{"id": 7, "spam": verdict("ham", 0.1)}])
    manifest(source, text_fields=["body"])
    assert '{"id":7}' in said(source)
    with pytest.raises(UsageError, match="body"):
        said(source, text_fields=("body",))


def test_figures_that_are_not_defined_are_dashes(tmp_path) -> None:
    rows = [{"text": f"row {i}", "label": "ham", "spam": verdict("ham", 0.1)} for i in range(7)]
    words = said(output(tmp_path / "out.jsonl", rows))
    table = words[words.index("Against the gold labels") : words.index("Confusion")]
    assert re.search(r"recall of violating \(sensitivity\)\s*–\s*–\s*0 of 0", table)
    assert "0.590 to 1.000" in table  # accuracy, 7 of 7 by Clopper-Pearson
    assert "1.000 to 1.000" not in words
    assert "0.000 to 0.000" not in words

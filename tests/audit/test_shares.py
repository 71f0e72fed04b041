"""`safeguard show OUT --by FIELD`: an audit's estimate, or the counts of any other output, by slices."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers.command import write
from helpers.outputs import manifest, output, verdict

from safeguard_cli import errors
from safeguard_cli.audit.shares import show_shares
from safeguard_cli.errors import UsageError


def labelled(folder: Path, *, finished: bool = True, name: str = "out.jsonl", **changes: object) -> Path:
    """Write an output of ten rows, three of which violate, all of them German."""
    path = output(
        folder / name,
        [
            {"text": f"row {i}", "language": "de" if i < 6 else "en", "day": f"2026-01-{i + 1:02}"}
            | {"spam": verdict("spam" if i < 3 else "ham", 0.9 if i < 3 else 0.1)}
            for i in range(10)
        ],
    )
    manifest(path, finished=finished)
    record = path.with_name(f"{name}.{'manifest' if finished else 'run'}.json")
    made = json.loads(record.read_text())
    for place, value in changes.items():
        part, _, member = place.rpartition("__")
        inner = made
        for step in filter(None, part.split("__")):
            inner = inner[step]
        inner[member] = value
    record.write_text(json.dumps(made))
    return path


def said(capsys: pytest.CaptureFixture[str], path: Path, *by: str) -> str:
    assert show_shares(path, by, as_json=False) == errors.OK
    return re.sub(r"[^\S\n]+", " ", capsys.readouterr().out)


def figures(capsys: pytest.CaptureFixture[str], path: Path, *by: str) -> dict:
    assert show_shares(path, by, as_json=True) == errors.OK
    return json.loads(capsys.readouterr().out)


def test_a_finished_output_is_counted_and_has_no_interval(tmp_path, capsys) -> None:
    told = said(capsys, labelled(tmp_path), "language")
    assert "violates 3 30.0 %" in told
    assert "de 6 3 50.0 %\nen 4 0 0.0 %" in told
    assert "Every row of the file is labelled: the shares are counts, and have no interval." in told
    assert "95 %" not in told
    found = figures(capsys, tmp_path / "out.jsonl", "language", "day:month")
    assert (found["kind"], found["finished"], found["rows"]) == ("counted", True, 10)
    spam = found["policies"]["spam"]
    assert (spam["violates"]["count"], spam["violates"]["share"]) == (3, 0.3)
    assert [(part["value"], part["seen"], part["violating"]) for part in spam["slices"]["language"]] == [
        ("de", 6, 3),
        ("en", 4, 0),
    ]
    assert [part["value"] for part in spam["slices"]["day:month"]] == ["2026-01"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"finished": False}, "The run is not finished: these are the first rows, no random sample of the file."),
        ({"result__input_exhausted": False}, "Labelled with --limit: these are the first rows, no random sample"),
        ({"decides__input__shard": [2, 3]}, "These are the rows of shard 2/3, one of every 3: no random sample"),
    ],
)
def test_rows_that_are_no_sample_are_said_to_be_none(tmp_path, capsys, changes, sentence) -> None:
    assert sentence in said(capsys, labelled(tmp_path, **changes), "language")


def test_error_rows_bound_the_share_both_ways(tmp_path, capsys) -> None:
    path = labelled(tmp_path)
    failed = {"label": None, "error": {"code": "engine", "message": "it died"}}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    output(path, [*rows[:-2], *({**row, "spam": failed} for row in rows[-2:])])
    told = said(capsys, path, "language")
    assert "violates 3 37.5 % 30.0 to 50.0 %" in told
    assert "Rows in error: 2" in told


def test_an_audit_is_estimated_even_while_it_is_not_finished(tmp_path, capsys) -> None:
    pytest.importorskip("scipy")
    sample = {"draw": "uniform", "seed": 0, "rows": 1000, "bytes": 9, "sha256": "0" * 64}
    path = labelled(tmp_path, finished=False, name="audit.jsonl.rows.jsonl", decides__sample=sample, planned=40)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    output(path, [row | {"_sample": {"seed": 0, "row": 9 * i, "rank": i + 1}} for i, row in enumerate(rows)])
    told = said(capsys, tmp_path / "audit.jsonl", "language")
    assert "10 of 1,000 rows, drawn at random (seed 0)" in told
    assert "confidence sequences" in told
    assert figures(capsys, tmp_path / "audit.jsonl", "language")["kind"] == "sequence"


def test_a_file_without_a_manifest_is_counted(tmp_path, capsys) -> None:
    path = labelled(tmp_path)
    path.with_name("out.jsonl.manifest.json").unlink()
    assert "Nothing is on record beside the file" in said(capsys, path, "language")


def test_what_tells_no_share_is_refused(tmp_path) -> None:
    path = labelled(tmp_path, decides__output__only="violates")
    with pytest.raises(UsageError, match="--only violates"):
        show_shares(path, ["language"], as_json=False)
    with pytest.raises(UsageError, match="no field 'lang' for --by in its first rows; did you mean 'language'"):
        show_shares(path, ["lang"], as_json=False)
    with pytest.raises(UsageError, match="there is no such file"):
        show_shares(tmp_path / "other.jsonl", ["language"], as_json=False)
    with pytest.raises(UsageError, match="no row holds a verdict"):
        show_shares(write(tmp_path / "in.jsonl", '{"language": "de"}'), ["language"], as_json=False)

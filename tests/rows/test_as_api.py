"""Rows in the forms of two services' answers: what reads these goes on working, and our own readers do too."""

from __future__ import annotations

import io
import json
import shutil
import subprocess

import pytest
from helpers.command import rows, safeguard, write
from helpers.fake_engine import FakeEngine

from safeguard_cli.output.labelled import read_labels
from safeguard_cli.rows.as_api import attribute_scores, results
from safeguard_cli.rows.sink import make_layout
from safeguard_cli.rows.source import open_source
from safeguard_cli.rows.verdict import RowError, Verdict

SCORES = {"mild": 0.25, "bad": 0.75}
GOOD = Verdict("mild", False, 0.25, {"mild": 0.75, "bad": 0.25}, characters=11)
BAD = Verdict("bad", True, 0.75, SCORES, characters=11)
FAILED = Verdict(error=RowError("no_text", "no text"))
SERVICES = ("perspective", "moderation")


class Failing(FakeEngine):
    """An engine that fails the second policy of every third row."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given, error=lambda prompt: prompt.policy == 1 and prompt.row % 3 == 0)


def test_attribute_scores_are_those_of_comments_analyze() -> None:
    assert attribute_scores({"severe-toxicity": BAD}) == {
        "SEVERE_TOXICITY": {
            "spanScores": [{"begin": 0, "end": 11, "score": {"value": 0.75, "type": "PROBABILITY"}}],
            "summaryScore": {"value": 0.75, "type": "PROBABILITY"},
        }
    }


def test_results_are_those_of_the_moderation_endpoint() -> None:
    assert results({"hate": GOOD, "sexual-content": BAD}) == [
        {
            "flagged": True,
            "categories": {"hate": False, "sexual": True},
            "category_scores": {"hate": 0.25, "sexual": 0.75},
        }
    ]


def test_an_error_is_never_read_as_harmless() -> None:
    assert attribute_scores({"toxicity": FAILED, "threat": GOOD}).keys() == {"THREAT"}
    assert results({"hate": FAILED, "violence": FAILED}) == []
    assert results({"hate": FAILED, "violence": GOOD})[0]["flagged"] is None
    assert results({"hate": FAILED, "violence": BAD})[0]["flagged"] is True
    assert results({"hate": GOOD, "violence": GOOD})[0]["flagged"] is False


@pytest.mark.parametrize("keep", [None, ["n"], []])
@pytest.mark.parametrize("line", [b'{"n": 1.10, "text": "a"}', b"{}", b"not JSON", b'{"text": "x", "text": "y"}'])
def test_a_row_keeps_its_own_bytes_and_its_verdicts(line: bytes, keep: list[str] | None) -> None:
    with open_source(io.BytesIO(line + b"\n"), format="jsonl") as source:
        (record,) = source
        plain = make_layout(source, "jsonl", ["hate"], (), keep, ",", False).row(record, {"hate": BAD})
        for service, member in (("perspective", "attributeScores"), ("moderation", "results")):
            layout = make_layout(source, "jsonl", ["hate"], (), keep, ",", False, service)
            row = layout.row(record, {"hate": BAD})
            assert row.startswith(plain[:-2] + b',"')
            assert {**json.loads(plain), member: json.loads(row)[member]} == json.loads(row)


@pytest.mark.parametrize("service", SERVICES)
def test_a_run_that_is_resumed_and_whose_errors_are_retried_equals_one_that_was_not(bench, service: str) -> None:
    bench.fill(30)
    same = {"layout": service, "policies": ("toxicity", "threat"), "deterministic": True}
    whole = bench.whole(**same)
    bench(limit=11, **same)
    bench(**same)
    assert bench.out.read_bytes() == whole
    bench(Failing, overwrite=True, **same)
    assert bench.out.read_bytes() != whole
    bench(retry_errors=True, **same)
    assert [row["id"] for row in rows(bench.out.read_bytes())] == list(range(30))
    labelled = read_labels(bench.out)
    assert [answers.name for answers in labelled.answers] == ["toxicity", "threat"]
    assert sum(row.verdicts["threat"].error is not None for row in labelled.rows) == 3, "rows without a text"
    for row in rows(bench.out.read_bytes()):
        if service == "moderation":
            assert [len(each["categories"]) for each in row["results"]] == ([] if "error" in row["threat"] else [2])
        else:
            scores = {name: each["summaryScore"]["value"] for name, each in row["attributeScores"].items()}
            found = {name: row[name.lower()]["p_violates"] for name in scores}
            assert scores == found
            assert ("THREAT" in scores) == ("error" not in row["threat"])
            spans = [each["spanScores"][0]["end"] for each in row["attributeScores"].values()]
            assert all(end == len(row["text"]) for end in spans)


def test_another_layout_is_another_output(bench) -> None:
    bench.fill(5)
    bench(layout="perspective", limit=3)
    for layout in ("verdicts", "moderation"):
        with pytest.raises(Exception, match=r"output\.layout"):
            bench(layout=layout)
    bench(overwrite=True)
    manifest = bench.manifest()
    assert manifest["decides"]["output"]["layout"] is None


def test_a_run_of_a_version_without_layouts_is_resumed(bench) -> None:
    bench.fill(9)
    bench(limit=4)
    path = bench.out.with_name("out.jsonl.manifest.json")
    path = path if path.exists() else bench.run_json()
    record = json.loads(path.read_bytes())
    del record["decides"]["output"]["layout"]
    path.write_text(json.dumps(record))
    assert bench() in (0, 3)
    assert len(bench.out.read_bytes().splitlines()) == 9


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_jq_reads_the_score_of_a_row(tmp_path) -> None:
    source = write(tmp_path / "in.jsonl", '{"text": "See you at noon"}', '{"text": null, "id": 2}')
    call = ("label", source, "-p", "pack:perspective", "--model", "demo", "--effort", "none", "-q")
    done = safeguard(*call, "--layout", "perspective")
    assert done.returncode == 3
    asked = ["jq", ".attributeScores.TOXICITY.summaryScore.value, .toxicity.error.code"]
    score, none, nothing, code = subprocess.run(
        asked, input=done.stdout, capture_output=True, check=True
    ).stdout.split()
    assert 0 <= float(score) <= 1
    assert (none, nothing, code) == (b"null", b"null", b'"no_text"')


@pytest.mark.parametrize("out", ["out.csv", "out.tsv", "out.parquet"])
def test_other_outputs_than_jsonl_are_refused(tmp_path, out: str) -> None:
    pytest.importorskip("pyarrow")
    done = safeguard("label", "sample:messages", "-p", "spam", "--layout", "perspective", "-o", out, cwd=tmp_path)
    assert done.returncode == 2
    assert b"--layout perspective is for JSONL outputs" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_member_that_is_there_already_is_refused(tmp_path) -> None:
    source = write(tmp_path / "in.jsonl", '{"text": "a", "results": []}')
    call = ("label", source, "-p", "spam", "--model", "demo", "--effort", "none", "-q", "--layout", "moderation")
    done = safeguard(*call)
    assert done.returncode == 2
    assert b"'results', which --layout moderation writes, is there already" in done.stderr
    assert rows(safeguard(*call, "--keep", "text").stdout)[0]["results"][0]["categories"].keys() == {"spam"}


def test_csv_in_and_jsonl_out(tmp_path) -> None:
    write(tmp_path / "in.csv", "id,text", "1,hello there")
    call = ("label", "in.csv", "-p", "spam", "--model", "demo", "--effort", "none", "-q", "--layout", "perspective")
    assert safeguard(*call, "-o", "out.jsonl", cwd=tmp_path).returncode == 0
    (row,) = rows((tmp_path / "out.jsonl").read_bytes())
    assert row["attributeScores"]["SPAM"]["spanScores"][0]["end"] == len("hello there")

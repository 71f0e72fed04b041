"""`label --votes` and `eval --votes`: what a row tells, in every format, read back, resumed, and refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from helpers.command import safeguard
from helpers.fault_server import FaultServer
from helpers.server_runs import fill, run

from safeguard_cli import errors
from safeguard_cli.errors import UsageError
from safeguard_cli.output.labelled import read_labels
from safeguard_cli.output.manifest import Refused
from safeguard_cli.output.readback import BadPart, verdict_as_written, verdict_of_cells
from safeguard_cli.run.label import label
from safeguard_cli.run.settings import Settings

pytestmark = pytest.mark.usefixtures("own_cache")
TEXTS = ("see you at noon", "WIN a FREE prize, call now", "see you at noon", "cheap pills http://pills.example")


@pytest.fixture
def voted(tmp_path: Path, tiny: Path):
    """Label a few texts with three votes on a tiny model; return the code."""
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)))

    def call(out: str, **options: object) -> int:
        given = {"policies": ("spam",), "model": str(tiny), "max_reasoning": 6, "slots": 4, "threads": 1}
        given |= {"votes": 3, "quiet": True, "output": str(tmp_path / out), **options}
        return label(Settings(str(source), **given))  # type: ignore[arg-type]

    return call


def objects(path: Path) -> list[dict]:
    return [json.loads(line)["spam"] for line in path.read_bytes().splitlines()]


@pytest.mark.promise("With `--votes`, rows with the same text get the same votes.")
def test_a_row_tells_its_votes_and_what_they_say(voted, tmp_path) -> None:
    assert voted("out.jsonl") == errors.OK
    found = objects(tmp_path / "out.jsonl")
    assert found[0] == found[2]
    for verdict in found:
        assert sum(verdict["votes"].values()) == 3
        assert verdict["p_votes"] == pytest.approx((verdict["votes"]["spam"] + 1) / 5)
        assert verdict["label"] == max(verdict["votes"], key=verdict["votes"].__getitem__)
        assert verdict["violates"] == (verdict["label"] == "spam") == (verdict["p_votes"] > 0.5)
        assert verdict["p_violates"] == pytest.approx(verdict["scores"]["spam"])


def test_all_formats_hold_the_votes_and_are_read_back(voted, tmp_path) -> None:
    for out in ("out.jsonl", "out.csv"):
        voted(out)
    first, second = (read_labels(tmp_path / out).rows for out in ("out.jsonl", "out.csv"))
    for one, other in zip(first, second, strict=True):
        a, b = one.verdicts["spam"], other.verdicts["spam"]
        assert (a.votes, a.p_votes, a.label) == (b.votes, b.p_votes, b.label)
        assert verdict_as_written(a.as_dict(), ("ham", "spam")) == a
    with (tmp_path / "out.csv").open(newline="") as file:
        header = next(csv.reader(file))
    at = header.index("spam_scores") + 1
    assert header[at : at + 2] == ["spam_votes", "spam_p_votes"]


def test_a_table_of_parquet_has_the_votes_by_label(voted, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    voted("out.parquet")
    voted("out.jsonl")
    column = parquet.read_table(tmp_path / "out.parquet").column("spam").to_pylist()
    for written, verdict in zip(column, objects(tmp_path / "out.jsonl"), strict=True):
        assert (written["votes"], written["p_votes"]) == (verdict["votes"], verdict["p_votes"])


def test_a_row_that_ends_when_it_is_decided_gives_no_p_votes(voted, tmp_path) -> None:
    voted("all.jsonl")
    voted("early.jsonl", until_decided=True)
    voted("early.csv", until_decided=True)
    every, early = objects(tmp_path / "all.jsonl"), objects(tmp_path / "early.jsonl")
    assert [verdict["label"] for verdict in every] == [verdict["label"] for verdict in early]
    assert all("p_votes" not in verdict and 2 <= sum(verdict["votes"].values()) <= 3 for verdict in early)
    assert "p_votes" not in (tmp_path / "early.csv").read_text().splitlines()[0]


def test_an_output_is_resumed_only_with_the_same_votes(voted, tmp_path) -> None:
    voted("whole.jsonl")
    voted("out.jsonl", limit=2)
    with pytest.raises(Refused):
        voted("out.jsonl", votes=5)
    with pytest.raises(Refused):
        voted("out.jsonl", votes=None)
    assert voted("out.jsonl") == errors.OK
    assert len(objects(tmp_path / "out.jsonl")) == 4
    with pytest.raises(UsageError, match="--votes"):
        voted("other.jsonl", votes=None, reuse=(str(tmp_path / "out.jsonl"),))
    assert voted("same.jsonl", reuse=(str(tmp_path / "out.jsonl"),)) == errors.OK
    assert objects(tmp_path / "same.jsonl") == objects(tmp_path / "out.jsonl")


def test_votes_that_could_tie_or_would_all_be_the_same_are_refused(voted) -> None:
    with pytest.raises(UsageError, match="--votes 4 could end in a tie: use 3 or 5"):
        voted("out.jsonl", votes=4)
    with pytest.raises(UsageError, match="at --temperature 0 all votes are the same"):
        voted("out.jsonl", temperature=0.0)
    with pytest.raises(UsageError, match="--server-api chat can do no --votes"):
        voted("out.jsonl", servers=("http://localhost:1",), server_api="chat", model=None)


@pytest.mark.parametrize(
    "value", ['{"ham": 2}', '{"spam": -1, "ham": 1}', "[]", "x", '{"spam": 1, "eggs": 2}', '{"spam": 0.5}']
)
def test_votes_that_cannot_be_are_refused_by_name(value: str) -> None:
    cells = {"label": "spam", "violates": "true", "p_violates": "0.9", "votes": value}
    with pytest.raises(BadPart, match="votes"):
        verdict_of_cells(cells, ("ham", "spam"))


def test_on_a_server_each_vote_is_a_request_of_its_own(tiny, tmp_path) -> None:
    with FaultServer() as server:
        options = {"effort": "low", "model": str(tiny), "votes": 3}
        code, rows = run(fill(tmp_path, 6), tmp_path / "out.jsonl", server.address, **options)
        sampled = [body for _, body, _ in server.requests if body.get("max_tokens", 0) > 1]
    assert code == errors.OK
    assert all(sum(row["spam"]["votes"].values()) == 3 for row in rows)
    assert {body["temperature"] for body in sampled} == {1.0}
    assert len({body["seed"] for body in sampled}) == 3 * len(rows)


def test_eval_shows_what_votes_are_worth(tmp_path) -> None:
    pytest.importorskip("sklearn")
    told = safeguard(
        *("eval", "sample:golden/spam", "--policy", "spam", "--model", "demo", "--votes", "3", "--limit", "12"),
        *("--max-reasoning", "16", "--json", "-q"),
    )
    assert told.returncode == errors.OK, told.stderr
    votes = json.loads(told.stdout)["policies"]["spam"]["votes"]
    assert [*votes["figures"]] == ["without votes", "p_violates with votes", "p_votes"]
    assert {found["rows"] for found in votes["figures"].values()} == {12}
    assert sum(part["rows"] for part in votes["agreed"]) == 12
    assert {part["of"] for part in votes["agreed"]} == {3}

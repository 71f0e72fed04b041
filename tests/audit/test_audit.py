"""An audit draws rows, labels them with label's run, and says what they tell about the file."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.audits import drawn, rows_of, run_audit
from helpers.fake_engine import FakeEngine, Steady
from helpers.runs import Bench

from safeguard_cli import errors
from safeguard_cli.audit.draw import hashes
from safeguard_cli.audit.shares import shares
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.measure.statistics import clopper_pearson, confidence_sequence, hypergeometric_interval
from safeguard_cli.output.labelled import read_labels
from safeguard_cli.output.manifest import Refused

pytestmark = pytest.mark.usefixtures("own_cache", "at_once")
ROWS = [{"id": n, "text": f"text {n * 7919 % 97}", "language": ["de", "en", "fr"][n % 3]} for n in range(300)]


def write(path: Path, rows: list[dict]) -> Path:
    """Write rows in the format of a path's extension."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def given_rows(bench: Bench, rows: list[dict], name: str = "in.jsonl", out: str = "out.jsonl") -> None:
    bench.source, bench.out = write(bench.folder / name, rows), bench.folder / out


def figures(bench: Bench, capsys: pytest.CaptureFixture[str], **options: object) -> dict:
    capsys.readouterr()
    run_audit(bench, json=True, **options)
    return json.loads(capsys.readouterr().out)


@pytest.mark.promise("An audit draws the same rows of JSONL, CSV, gzip and Parquet.")
@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("in.jsonl", "out.jsonl"),
        ("in.jsonl.gz", "out.jsonl"),
        ("in.csv", "out.csv"),
        ("in.parquet", "out.parquet"),
        ("in.csv", "out.jsonl"),
        ("in.jsonl", "out.csv"),
        ("in.jsonl", "out.parquet"),
        ("in.csv", "out.parquet"),
        ("in.parquet", "out.csv"),
    ],
)
def test_the_same_rows_are_drawn_in_every_format(bench, name, out) -> None:
    given_rows(bench, ROWS, name, out)
    assert run_audit(bench, rows=40) == errors.OK
    order = hashes(0, 0, 300).argsort()[:40] + 1
    assert drawn(bench.out) == [(number, rank) for rank, number in enumerate(order.tolist(), 1)]
    found = rows_of(bench.out)
    assert [row["_sample"]["row"] for row in found] == sorted(order.tolist())
    assert {row["_sample"]["probability"] for row in found} == {40 / 300}
    assert {row["_sample"]["seed"] for row in found} == {0}
    assert [int(row["id"]) for row in found] == [number - 1 for number in sorted(order.tolist())]
    assert [row["text"] for row in found] == [ROWS[int(row["id"])]["text"] for row in found]
    assert {path.name for path in bench.folder.iterdir()} == {name, out, f"{out}.manifest.json"}


def test_a_larger_audit_goes_on_from_a_smaller_one(bench, capsys) -> None:
    for name, out in (("in.jsonl", "out.jsonl"), ("in.csv", "out.csv"), ("in.parquet", "out.parquet")):
        given_rows(bench, ROWS, name, out)
        run_audit(bench, rows=30)
        few, asked = drawn(bench.out), []
        engine = lambda *given, asked=asked: Steady(*given, before=lambda prompt: asked.append(prompt.row))  # noqa: E731
        run_audit(bench, engine, rows=70)
        assert min(asked) >= 30
        assert drawn(bench.out)[:30] == few
        at_once = rows_of(bench.out)
        bench.out = bench.folder / f"whole{bench.out.suffix}"
        run_audit(bench, rows=70)
        assert rows_of(bench.out) == at_once


def test_shards_joined_hold_the_rows_of_the_whole_file(bench) -> None:
    given_rows(bench, ROWS)
    run_audit(bench, rows=40)
    whole = {number for number, _ in drawn(bench.out)}
    numbers = set()
    for part in (1, 2, 3):
        bench.out = bench.folder / f"part{part}.jsonl"
        run_audit(bench, rows=40, shard=(part, 3))
        found = drawn(bench.out)
        assert all(number % 3 == part % 3 for number, _ in found)
        assert {row["_sample"]["probability"] for row in rows_of(bench.out)} == {0.4}
        numbers |= {number for number, _ in found}
    keys = hashes(0, 0, 300)
    assert set(sorted(numbers, key=lambda number: int(keys[number - 1]))[:40]) == whole


def test_the_figures_are_those_of_the_rows_counted_by_hand(bench, capsys) -> None:
    given_rows(bench, ROWS)
    found = figures(bench, capsys, rows=120, by=("language",))
    rows = rows_of(bench.out)
    labels = Counter(row["spam"]["label"] for row in rows)
    bad = sum(row["spam"]["violates"] for row in rows)
    assert (found["kind"], found["total"], found["rows"]) == ("exact", 300, 120)
    policy = found["policies"]["spam"]
    exact = hypergeometric_interval(bad, 120, 300)
    assert policy["violates"] == {
        "count": bad,
        "share": bad / 120,
        "low": exact.low,
        "high": exact.high,
        "rows": [round(exact.low * 300), round(exact.high * 300)],
    }
    assert {name: share["count"] for name, share in policy["labels"].items()} == {
        name: labels[name] for name in ("ham", "spam")
    }
    slices = {each["value"]: each for each in policy["slices"]["language"]}
    assert sum(each["seen"] for each in slices.values()) == 120
    for value, each in slices.items():
        mine = [row["spam"]["violates"] for row in rows if row["language"] == value]
        assert (each["seen"], each["violating"]) == (len(mine), sum(mine))
        part = clopper_pearson(sum(mine), len(mine))
        assert (each["violates"]["low"], each["violates"]["high"]) == (part.low, part.high)
    assert bench.manifest()["result"]["estimate"]["policies"]["spam"]["violates"] == policy["violates"]


def test_rows_in_error_bound_the_share_both_ways_and_blank_rows_do_not_violate(bench, capsys) -> None:
    rows: list[dict] = [*ROWS[:80], *({"id": n, "text": None} for n in range(15)), *({"text": " "} for _ in range(5))]
    given_rows(bench, rows)
    found = figures(bench, capsys, rows=60)
    labelled = [row["spam"] for row in rows_of(bench.out)]
    blank = sum(row.get("error", {}).get("message", "").endswith("the row is blank") for row in labelled)
    failed = sum("error" in row for row in labelled) - blank
    assert (found["in_error"], found["blank"]) == (failed, blank)
    assert failed and blank
    bad = sum(bool(row.get("violates")) for row in labelled)
    policy = found["policies"]["spam"]["violates"]
    assert policy["share"] == bad / (60 - failed)
    assert policy["low"] == hypergeometric_interval(bad, 60, 100).low
    assert policy["high"] == hypergeometric_interval(bad + failed, 60, 100).high


def test_all_rows_need_no_interval(bench, capsys) -> None:
    given_rows(bench, ROWS[:50])
    found = figures(bench, capsys)
    violates = found["policies"]["spam"]["violates"]
    assert (found["kind"], found["rows"]) == ("all rows", 50)
    assert violates["low"] == violates["high"] == violates["share"]
    assert violates["rows"] == [violates["count"]] * 2
    run_audit(bench)
    assert "No interval" in capsys.readouterr().out


@pytest.mark.parametrize(("first", "then"), [({"rows": 30}, {"rows": 90}), ({"within": 0.3}, {"within": 0.15})])
def test_what_was_looked_at_has_a_confidence_sequence(bench, capsys, first, then) -> None:
    given_rows(bench, ROWS)
    figures(bench, capsys, **first)
    found = figures(bench, capsys, **then)
    n, violates = found["rows"], found["policies"]["spam"]["violates"]
    assert found["kind"] == "sequence"
    bound = confidence_sequence(violates["count"], n, 300)
    assert (violates["low"], violates["high"]) == (bound.low, bound.high)


def test_within_ends_when_every_policy_is_known_well_enough(bench, capsys) -> None:
    given_rows(bench, ROWS)
    found = figures(bench, capsys, within=0.1, policies=("spam", "hate"))
    assert 0 < found["rows"] < 300
    for policy in found["policies"].values():
        share = policy["violates"]
        assert max(share["high"] - share["share"], share["share"] - share["low"]) < 0.105
    rows = found["rows"]
    assert figures(bench, capsys, within=0.1, policies=("spam", "hate"))["rows"] == rows
    assert figures(bench, capsys, within=0.05, policies=("spam", "hate"))["rows"] > rows


def test_a_time_ends_it_and_a_longer_one_goes_on(bench, capsys, monkeypatch) -> None:
    given_rows(bench, ROWS)
    now = iter(range(10**6))
    monkeypatch.setattr("safeguard_cli.audit.sample.time.monotonic", lambda: next(now))
    monkeypatch.setattr("safeguard_cli.output.journal.time.monotonic", lambda: next(now))
    monkeypatch.setattr("safeguard_cli.audit.audit.Sample", _ticking(lambda: float(next(now))))
    found = figures(bench, capsys, lasting=100.0)
    assert found["kind"] == "sequence"
    assert 5 < found["rows"] < 100
    seconds = bench.manifest()["seconds"]
    assert seconds >= 100
    assert figures(bench, capsys, lasting=100.0)["rows"] == found["rows"]
    assert found["rows"] < figures(bench, capsys, lasting=300.0)["rows"] < 300


def _ticking(clock):
    from safeguard_cli.audit.sample import Sample

    return lambda *given: Sample(*given, clock=clock)


def test_portions_are_drawn_as_they_are_needed(bench, monkeypatch, capsys) -> None:
    monkeypatch.setattr("safeguard_cli.audit.sample.PORTION", 5)
    given_rows(bench, ROWS)
    found = figures(bench, capsys, within=0.12)
    assert found["rows"] > 20
    order = hashes(0, 0, 300).argsort()[: found["rows"]] + 1
    assert [number for number, _ in drawn(bench.out)] == order.tolist()


def test_identical_texts_are_labelled_once_and_counted_as_often_as_they_occur(bench, capsys) -> None:
    given_rows(bench, [{"id": n, "text": f"text {n % 4}"} for n in range(200)])
    asked = []
    engine = lambda *given: Steady(*given, before=lambda prompt: asked.append(prompt.row))  # noqa: E731
    run_audit(bench, engine, rows=100, json=True)
    found = json.loads(capsys.readouterr().out)
    assert len(asked) == 4
    assert sum(share["count"] for share in found["policies"]["spam"]["labels"].values()) == 100


def test_error_rows_are_labelled_again_in_their_places(bench, capsys) -> None:
    given_rows(bench, ROWS)
    run_audit(bench, lambda *given: Steady(*given, error=lambda prompt: prompt.row in (3, 8)), rows=40)
    before = drawn(bench.out)
    assert run_audit(bench, retry_errors=True) == errors.OK
    assert drawn(bench.out) == before
    whole, bench.out = rows_of(bench.out), bench.folder / "whole.jsonl"
    run_audit(bench, rows=40)
    assert rows_of(bench.out) == whole


def test_another_seed_or_a_changed_input_is_refused(bench) -> None:
    given_rows(bench, ROWS)
    run_audit(bench, rows=20)
    with pytest.raises(Refused, match=r"sample\.seed: 0 → 1"):
        run_audit(bench, rows=20, seed=1)
    assert len(rows_of(bench.out)) == 20
    given_rows(bench, [*ROWS, ROWS[0]])
    with pytest.raises(Refused, match=r"sample\.rows: 300 → 301"):
        run_audit(bench, rows=30)
    assert {path.name for path in bench.folder.iterdir()} == {"in.jsonl", "out.jsonl", "out.jsonl.manifest.json"}


def test_an_input_that_changes_meanwhile_is_no_sample_any_more(bench) -> None:
    given_rows(bench, ROWS)

    def change(prompt) -> None:
        if prompt.row == 10:
            write(bench.source, ROWS[:200])

    with pytest.raises(SafeguardError, match="no sample of it any more"):
        run_audit(bench, lambda *given: Steady(*given, before=change), rows=30)
    assert not bench.out.exists()


@pytest.mark.parametrize("keep", [None, "language", "none"])
def test_every_row_keeps_how_it_came_in_whatever_else_is_kept(bench, keep) -> None:
    given_rows(bench, ROWS)
    run_audit(bench, rows=20, keep=keep)
    assert len(drawn(bench.out)) == 20
    found = {name for row in rows_of(bench.out) for name in row} - {"_sample", "spam"}
    assert found == ({"id", "text", "language"} if keep is None else {keep} - {"none"})


def test_a_row_that_cannot_be_read_keeps_its_number(bench) -> None:
    bench.source.write_text('{"text": "a"}\nnot json\n{"text": "b"}\n\n{"text": 1e999}\n')
    assert run_audit(bench) == errors.ROWS_IN_ERROR
    found = rows_of(bench.out)
    assert [row["_sample"]["row"] for row in found] == [1, 2, 3, 4]
    assert [row.get("_line") for row in found] == [None, 2, None, 5]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"output": "-"}, "needs a file for its rows"),
        ({"output": "/dev/null"}, "needs a file for its rows"),
        ({"by": ("nope",)}, "no field 'nope' for --by"),
        ({"by": ("text:hour",)}, "not by 'hour'"),
        ({"by": ("language",), "keep": "id"}, "add it to --keep"),
        ({"output": "out.xlsx"}, "the rows of an audit are written as"),
    ],
)
def test_what_cannot_be_audited_is_refused_before_anything_is_loaded(bench, options, why) -> None:
    given_rows(bench, ROWS)
    before = bench.state()
    with pytest.raises(UsageError, match=why):
        run_audit(bench, _never, **options)
    assert bench.state() == before


def _never(*_: object) -> FakeEngine:
    raise AssertionError("an engine was started")


def test_an_input_without_rows_or_with_rows_of_a_sample_is_refused(bench) -> None:
    bench.source.write_text("")
    with pytest.raises(UsageError, match="no rows"):
        run_audit(bench, _never)
    given_rows(bench, [{"text": "a", "_sample": 1}])
    with pytest.raises(UsageError, match="already has '_sample'"):
        run_audit(bench, _never)
    bench.source = Path("-")
    with pytest.raises(UsageError, match="save the input"):
        run_audit(bench, _never)


def test_an_output_of_label_is_not_taken_for_an_audit(bench) -> None:
    given_rows(bench, ROWS[:20])
    bench(Steady)
    before = bench.state()
    with pytest.raises(Refused, match="not of an audit"):
        run_audit(bench, _never)
    with pytest.raises(Refused, match="was changed after"):
        bench.out.with_name("out2.jsonl").write_text("")
        bench.out = bench.out.with_name("out3.jsonl")
        run_audit(bench, rows=5)
        bench.out.write_bytes(bench.out.read_bytes() + b"{}\n")
        run_audit(bench, rows=9)
    assert bench.state()["out.jsonl"] == before["out.jsonl"]


def test_only_what_this_audit_labelled_is_counted(bench, capsys) -> None:
    """The input is the output of an earlier run under another policy."""
    for suffix in ("jsonl", "csv"):
        given_rows(bench, ROWS[:60], f"in.{suffix}", f"out.{suffix}")
        bench(Steady, policies=("hate",))
        bench.source, bench.out = bench.out, bench.folder / f"audit.{suffix}"
        found = figures(bench, capsys, rows=20)
        assert list(found["policies"]) == ["spam"]
        assert found["policies"]["spam"]["violates"]["count"] == sum(
            row["spam"]["label"] == "spam" for row in rows_of(bench.out)
        )
        assert list(shares(read_labels(bench.out)).policies) == ["spam"]


def test_an_output_may_have_no_extension(bench, capsys) -> None:
    for name in ("in.jsonl", "in.csv"):
        given_rows(bench, ROWS[:60], name, f"out-{name.partition('.')[2]}")
        assert figures(bench, capsys, rows=20)["rows"] == 20
        assert figures(bench, capsys, rows=30)["rows"] == 30


def test_a_dry_run_draws_and_touches_nothing(bench, capsys) -> None:
    given_rows(bench, ROWS)
    before = bench.state()
    assert run_audit(bench, _never, rows=20, dry_run=True) == errors.OK
    assert bench.state() == before
    assert "rows            20" in capsys.readouterr().out


@pytest.mark.promise("The exact interval of an audit covers the share of the whole file in at least 95 of 100 audits.")
@pytest.mark.parametrize("violating", [0, 40, 200, 1000])
def test_the_intervals_of_real_draws_cover_the_share_of_the_file(violating) -> None:
    """2,000 seeds draw 200 of 2,000 rows, of which the violating ones stand together at one end."""
    drawn = Counter(int((hashes(seed, 0, 2000).argsort()[:200] < violating).sum()) for seed in range(2000))
    assert abs(sum(k * n for k, n in drawn.items()) / 2000 - violating / 10) <= 4 * (violating / 10 / 2000) ** 0.5
    covered = sum(n for k, n in drawn.items() if violating / 2000 in hypergeometric_interval(k, 200, 2000))
    assert covered >= 0.94 * 2000  # 0.95, less two standard errors of 2,000 draws

"""`audit --find` labels the likeliest rows first, and says what part of what the model flags it has found at least."""

from __future__ import annotations

import csv
import gzip
import json
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.audits import run_audit
from helpers.command import safeguard
from helpers.fake_engine import FakeEngine, Steady
from helpers.kills import killed_at, steps_of
from helpers.runs import Bench

from safeguard_cli import errors
from safeguard_cli.audit.draw import hashes
from safeguard_cli.audit.found import Found, judgement, sentence
from safeguard_cli.audit.search import round_start
from safeguard_cli.errors import SafeguardError
from safeguard_cli.output.manifest import Refused
from safeguard_cli.prompt.contract import Completion, Prompt
from safeguard_cli.prompt.harmony import Harmony

pytestmark = pytest.mark.usefixtures("own_cache", "at_once")
TOTAL, KILLS = 400, 12
Engine = Callable[..., Steady]


def text(number: int) -> str:
    """Return the text of a row; every eighth is what the engine below flags."""
    return f"you win a prize ! {number}" if number % 8 == 3 else f"see you at lunch or at home {number * 7919 % 1009}"


ROWS = [{"id": number, "text": text(number), "kind": "ab"[number % 2]} for number in range(TOTAL)]
FLAGGED = [row["id"] for row in ROWS if "!" in row["text"]]


@pytest.fixture
def flagging(harmony: Harmony) -> Engine:
    """An engine that flags what has an exclamation mark."""
    (mark,) = harmony.text_ids("!")

    class Flagging(Steady):
        def answer(self, prompt: Prompt, history: int) -> Completion:
            if self.error(prompt):
                return Completion(prompt, (), error="asked to fail")
            p = 0.9 if mark in prompt.ids else 0.1
            return Completion(prompt, (1 - p, p))

    return Flagging


@pytest.fixture
def chance() -> Engine:
    """An engine whose answers no score can foresee."""
    return Steady


def start(bench: Bench, rows: list[dict] = ROWS, name: str = "in.jsonl", out: str = "out.jsonl") -> None:
    bench.source, bench.out = bench.folder / name, bench.folder / out
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), bench.source)
    elif name.endswith(".csv"):
        with bench.source.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        bench.source.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def marks(path: Path) -> dict[int, dict]:
    """Return the `_sample` of an output's rows, by the rows' numbers in the file, in the order of the output."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            parts = ("seed", "row", "rank", "probability", "asked", "by", "picked")
            rows = [{part: row[f"_sample_{part}"] for part in parts} for row in csv.DictReader(file)]
            found = [{p: v if p in ("by", "picked") else json.loads(v) for p, v in row.items() if v} for row in rows]
    elif path.suffix == ".parquet":
        found = [{p: v for p, v in row["_sample"].items() if v is not None} for row in pq.read_table(path).to_pylist()]
    else:
        found = [json.loads(line)["_sample"] for line in path.read_bytes().splitlines()]
    return {mark["row"]: mark for mark in found}


def asked(path: Path) -> list[int]:
    """Return the numbers of an output's rows in the order in which the model was asked about them."""
    return sorted(found := marks(path), key=lambda row: found[row]["asked"])


def figures(bench: Bench, capsys: pytest.CaptureFixture[str], engine: Engine, **options: object) -> dict:
    capsys.readouterr()
    assert run_audit(bench, engine, find=True, json=True, **options) in (errors.OK, errors.ROWS_IN_ERROR)
    return json.loads(capsys.readouterr().out)["find"]


@pytest.mark.promise("`audit --find` labels the likeliest rows first.")
def test_the_likeliest_rows_come_first(bench, capsys, flagging) -> None:
    start(bench)
    found = figures(bench, capsys, flagging, rows=160)
    assert (found["labelled"], found["total"]) == (160, TOTAL)
    assert found["found"] == len(FLAGGED) == 50
    assert found["picked_found"] >= 35
    assert found["most"] >= 50 > found["most"] * found["recall"] - 1e-9
    assert found["auroc"] > 0.95


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("in.jsonl", "out.jsonl"),
        ("in.csv", "out.csv"),
        ("in.parquet", "out.parquet"),
        ("in.jsonl.gz", "out.parquet"),
        ("in.csv", "out.jsonl"),
    ],
)
def test_every_row_says_how_it_came_in(bench, capsys, flagging, name, out) -> None:
    start(bench, ROWS, name, out)
    figures(bench, capsys, flagging, rows=180)
    found, order = marks(bench.out), hashes(0, 0, TOTAL).argsort() + 1
    assert list(found) == sorted(found)
    assert sorted(mark["asked"] for mark in found.values()) == list(range(1, 181))
    assert asked(bench.out)[:100] == order[:100].tolist()
    ranked = {mark["rank"]: row for row, mark in found.items() if "rank" in mark}
    assert list(range(1, len(ranked) + 1)) == sorted(ranked), "no row of these ranks is missing"
    assert [ranked[rank] for rank in sorted(ranked)] == order[: len(ranked)].tolist()
    for mark in found.values():
        assert mark.get("probability") == (len(ranked) / TOTAL if "rank" in mark else None)
        assert mark.get("picked") == (None if "rank" in mark else "find")
        assert mark["by"] in ("draw", "score")
        assert mark["seed"] == 0
    chosen = [mark for mark in found.values() if mark["by"] == "score"]
    assert any("rank" in mark for mark in chosen), "a row that was chosen before its turn belongs to the sample too"
    assert {path.name for path in bench.folder.iterdir()} == {name, out, f"{out}.manifest.json"}


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_larger_search_goes_on_from_a_smaller_one(bench, capsys, flagging, suffix) -> None:
    start(bench, ROWS, f"in.{suffix}", f"out.{suffix}")
    figures(bench, capsys, flagging, rows=130)
    few, new = asked(bench.out), []
    engine = lambda *given: flagging(*given, before=lambda prompt: new.append(prompt.row))  # noqa: E731
    larger = figures(bench, capsys, engine, rows=200)
    assert min(new) >= 130
    found, order = marks(bench.out), asked(bench.out)
    assert order[:130] == few
    bench.out = bench.folder / f"whole.{suffix}"
    assert figures(bench, capsys, flagging, rows=200) == larger
    assert marks(bench.out) == found


@pytest.mark.promise("`audit --find` that is killed goes on with the same rows, and its figures are the same.")
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_search_is_killed_anywhere(bench, capsys, flagging, suffix) -> None:
    start(bench, ROWS, f"in.{suffix}", f"out.{suffix}")
    clean = {path.name for path in bench.folder.iterdir()}

    def again() -> tuple[dict, dict]:
        found = figures(bench, capsys, flagging, rows=170)
        rows = marks(bench.out)
        for path in bench.folder.iterdir():
            if path.name not in clean:
                path.unlink()
        return found, rows

    def work() -> int:
        return run_audit(bench, flagging, find=True, rows=170)

    whole = again()
    steps = steps_of(work)
    again()
    for point in sorted({0, steps - 1, *random.Random(3).sample(range(steps), KILLS)}):
        killed_at(point, work)
        assert again() == whole, point


def test_ctrl_c_prints_what_is_found_so_far(bench, capsys, flagging) -> None:
    start(bench)
    prompts: list[int] = []

    def stop(prompt: Prompt) -> None:
        prompts.append(prompt.row)
        if len(prompts) == 140:
            raise errors.Interrupted(signal.SIGINT)

    with pytest.raises(errors.Interrupted):
        run_audit(bench, lambda *given: flagging(*given, before=stop), find=True, rows=200, json=True)
    told = json.loads(capsys.readouterr().out)
    assert 100 < told["find"]["labelled"] < 200
    assert not told["finished"]
    assert told["find"]["found"] > 10
    assert told["rows"] < told["find"]["labelled"], "the share is that of the random sample alone"
    assert figures(bench, capsys, flagging, rows=200)["labelled"] == 200


def test_rows_that_the_journal_has_lost_are_labelled_again(bench, capsys, flagging) -> None:
    start(bench)
    whole = figures(bench, capsys, flagging, rows=200)
    rows = marks(bench.out)
    prompts: list[int] = []

    def stop(prompt: Prompt) -> None:
        prompts.append(prompt.row)
        if len(prompts) == 140:
            raise errors.Interrupted(signal.SIGINT)

    with pytest.raises(errors.Interrupted):
        run_audit(bench, lambda *given: flagging(*given, before=stop), find=True, rows=200, overwrite=True)
    journal = bench.folder / "out.jsonl.rows.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-4]))
    assert figures(bench, capsys, flagging, rows=200) == whole
    assert marks(bench.out) == rows


def test_a_round_begins_when_all_rows_before_it_are_written(bench, flagging) -> None:
    start(bench)
    journal = bench.folder / "out.jsonl.rows.jsonl"
    written: dict[int, int] = {}

    def count(prompt: Prompt) -> None:
        written[prompt.row] = len(journal.read_bytes().splitlines())

    run_audit(bench, lambda *given: flagging(*given, before=count), find=True, rows=200)
    assert all(lines >= round_start(row) for row, lines in written.items())
    assert any(lines < row for row, lines in written.items()), "within a round, rows are decided beside each other"


@pytest.mark.parametrize("stop_at", [40, 100, 131])
def test_a_deterministic_search_that_is_stopped_equals_one_that_is_not(bench, stop_at) -> None:
    start(bench)
    given = {"find": True, "rows": 200, "deterministic": True}
    run_audit(bench, FakeEngine, **given)
    whole = bench.out.read_bytes()
    prompts: list[int] = []

    def stop(prompt: Prompt) -> None:
        prompts.append(prompt.row)
        if len(prompts) == stop_at:
            raise errors.Interrupted(signal.SIGINT)

    with pytest.raises(errors.Interrupted):
        run_audit(bench, lambda *of: FakeEngine(*of, before=stop), **given, overwrite=True)
    run_audit(bench, FakeEngine, **given)
    assert bench.out.read_bytes() == whole


def test_without_a_budget_it_ends_when_enough_is_shown_to_be_found(bench, capsys, flagging) -> None:
    start(bench)
    found = figures(bench, capsys, flagging)
    assert found["recall"] >= 0.9
    assert found["labelled"] < TOTAL
    nothing = lambda *given: flagging(*given, before=lambda prompt: pytest.fail("asked again"))  # noqa: E731
    assert figures(bench, capsys, nothing) == found


def test_a_file_that_is_labelled_to_its_end_leaves_nothing_open(bench, capsys, flagging) -> None:
    start(bench)
    found = figures(bench, capsys, flagging, rows=1000)
    assert (found["labelled"], found["found"], found["most"], found["recall"]) == (TOTAL, 50, 50, 1.0)
    run_audit(bench, flagging, find=True, rows=1000)
    assert "found 50: all that the model flags, as every row is labelled" in capsys.readouterr().out


def test_a_small_file_is_all_of_the_sample(bench, capsys, flagging) -> None:
    start(bench, ROWS[:30])
    found = figures(bench, capsys, flagging)
    assert (found["labelled"], found["picked"], found["found"]) == (30, 0, 4)


def test_what_no_score_can_foresee_is_said_to_be_so(bench, capsys, chance) -> None:
    start(bench)
    run_audit(bench, chance, find=True, rows=300)
    shown = " ".join(capsys.readouterr().out.split())
    assert "the score does not rank well here (cross-validated AUROC 0." in shown
    assert "drawing at random is as good" in shown


def test_identical_texts_are_asked_about_once_and_found_as_often_as_they_occur(bench, capsys, flagging) -> None:
    rows = [{"id": n, "text": "win !" if n % 8 == 3 else f"lunch {n % 50}"} for n in range(TOTAL)]
    start(bench, rows)
    prompts: list[tuple] = []
    engine = lambda *given: flagging(*given, before=lambda prompt: prompts.append(prompt.ids))  # noqa: E731
    found = figures(bench, capsys, engine, rows=200)
    assert len(prompts) == len(set(prompts))
    assert found["found"] == 50


def test_rows_in_error_are_written_and_are_not_picked(bench, capsys, flagging) -> None:
    rows = [{**row, "text": None} if row["id"] % 5 == 0 else row for row in ROWS]
    start(bench, rows)
    found = figures(bench, capsys, flagging, rows=200)
    assert found["found"] == sum(row["text"] is not None and "!" in row["text"] for row in rows)
    assert all(mark["by"] == "draw" for row, mark in marks(bench.out).items() if (row - 1) % 5 == 0)


def test_rows_that_fail_are_not_learnt_from(bench, capsys, flagging) -> None:
    start(bench)
    engine = lambda *given: flagging(*given, error=lambda prompt: prompt.row % 3 == 0)  # noqa: E731
    found = figures(bench, capsys, engine, rows=200)
    assert 20 < found["found"] < 50
    assert figures(bench, capsys, flagging, retry_errors=True)["found"] == 50


def test_a_shard_is_searched_alone(bench, capsys, flagging) -> None:
    start(bench)
    found = figures(bench, capsys, flagging, rows=150, shard=(2, 2))
    assert found["total"] == TOTAL / 2
    assert all(row % 2 == 0 for row in marks(bench.out))


def test_several_policies_find_what_any_of_them_flags(bench, capsys, flagging) -> None:
    start(bench)
    found = figures(bench, capsys, flagging, rows=160, policies=("spam", "hate"))
    assert found["found"] == 50


def test_an_audit_is_not_resumed_as_a_search_nor_a_search_as_an_audit(bench, capsys, flagging) -> None:
    start(bench)
    run_audit(bench, flagging, rows=20)
    with pytest.raises(Refused, match="output of an audit without --find"):
        run_audit(bench, flagging, find=True, rows=30)
    run_audit(bench, flagging, find=True, rows=30, overwrite=True)
    with pytest.raises(Refused, match="output of an audit with --find"):
        run_audit(bench, flagging, rows=40)


def test_a_file_that_changes_on_the_way_is_refused(bench, flagging) -> None:
    start(bench)

    def change(prompt: Prompt) -> None:
        if prompt.row == 60:
            bench.source.write_text(bench.source.read_text() + json.dumps(ROWS[0]) + "\n")

    with pytest.raises(SafeguardError, match="was changed while"):
        run_audit(bench, lambda *given: flagging(*given, before=change), find=True, rows=200)


def test_what_ranks_rows_is_looked_for_first(bench, monkeypatch) -> None:
    start(bench)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(SafeguardError, match=r"scikit-learn.*\[eval\]"):
        run_audit(bench, lambda *_: pytest.fail("loaded"), find=True)


def test_what_means_nothing_to_a_search_is_refused() -> None:
    found = safeguard("audit", "sample:messages", "-p", "spam", "--model", "demo", "--find", "--within", "1%")
    assert found.returncode == errors.USAGE
    assert "--within has no effect with --find" in found.stderr.decode()


@pytest.mark.parametrize(
    ("found", "most", "labelled", "recall", "said"),
    [
        (
            187,
            263,
            900,
            187 / 263,
            "found 187; that is at least 71 % of what the model would flag",
        ),
        (3, 500, 900, 3 / 500, "found 3; that is at least 0.6 % of what"),
        (3, 5000, 900, 3 / 5000, "found 3; the model would flag at most 5,000 rows of the whole file"),
        (0, 12, 900, 0.0, "found none; the model would flag at most 12 rows of the whole file"),
        (40, 40, 1000, 1.0, "found 40: all that the model flags"),
        (0, 0, 1000, None, "found 0: all that the model flags"),
    ],
)
def test_what_is_found_is_said_in_a_sentence(found, most, labelled, recall, said) -> None:
    assert sentence(Found(1000, labelled, found, most, recall, 0.95, 500, found, None)).startswith(said)


def test_a_score_is_judged_in_words() -> None:
    assert judgement(0.849).startswith("the score does not rank well here")
    assert judgement(0.85).startswith("the score ranks well here")
    assert "too few to say" in judgement(None)


def test_a_score_that_may_learn_no_more_still_orders_the_rows(bench, capsys, flagging, monkeypatch) -> None:
    start(bench)
    monkeypatch.setattr("safeguard_cli.audit.find.MOST_GRAMS", 1)
    found = figures(bench, capsys, flagging, rows=200)
    assert found["found"] == 50
    assert found["auroc"] is not None

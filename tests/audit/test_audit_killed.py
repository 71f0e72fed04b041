"""Killed or interrupted at any point, an audit goes on with the same rows and comes to the same figures."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.audits import drawn, rows_of, run_audit
from helpers.fake_engine import Steady
from helpers.kills import killed_at, steps_of
from helpers.runs import plant, row

from safeguard_cli import errors
from safeguard_cli.measure.statistics import confidence_sequence

pytestmark = pytest.mark.usefixtures("own_cache")
SAFEGUARD = str(Path(sys.executable).parent / "safeguard")
KILLS = 20


@pytest.mark.promise("An audit that is killed goes on with the same rows, and its figures are the same.")
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_an_audit_is_killed_anywhere(bench, capsys, suffix) -> None:
    if suffix == "parquet":
        bench.source, bench.out = bench.folder / "in.parquet", bench.folder / "out.parquet"
        pq.write_table(pa.table({"id": range(90), "text": [f"text {n % 31}" for n in range(90)]}), bench.source)
    else:
        bench.fill(90, suffix)
    planted = plant(bench)
    clean = {path.name for path in bench.folder.iterdir()}

    def work() -> int:
        return run_audit(bench, rows=25, json=True)

    def again() -> tuple[list, list, dict]:
        capsys.readouterr()
        work()
        found = json.loads(capsys.readouterr().out)
        assert {path.name for path in bench.folder.iterdir()} == clean | {
            bench.out.name,
            f"{bench.out.name}.manifest.json",
        }
        assert {path: path.read_text() for path in planted} == planted
        order, rows = drawn(bench.out), rows_of(bench.out)
        for path in bench.folder.iterdir():
            if path.name not in clean:
                path.unlink()
        return order, rows, {**found, "seconds": 0, "policies": {"spam": {**found["policies"]["spam"], "ahead": 0}}}

    whole = again()
    assert len(whole[0]) == 25
    steps = steps_of(work)
    again()
    chance, killed = random.Random(3), 0
    for point in sorted({0, steps - 1, *chance.sample(range(steps), KILLS)}):
        killed += killed_at(point, work)
        assert again() == whole, point
    assert killed >= KILLS


@pytest.mark.usefixtures("at_once")
def test_going_on_from_a_finished_audit_is_killed_anywhere(bench, capsys) -> None:
    bench.fill(90)
    run_audit(bench, rows=10)
    first = {path: path.read_bytes() for path in bench.folder.iterdir()}

    def work() -> int:
        return run_audit(bench, rows=20)

    def put_back() -> None:
        for path in bench.folder.iterdir():
            path.unlink()
        for path, data in first.items():
            path.write_bytes(data)

    work()
    whole = rows_of(bench.out)
    put_back()
    steps = steps_of(work)
    put_back()
    chance = random.Random(5)
    for point in sorted({0, steps - 1, *chance.sample(range(steps), KILLS)}):
        assert killed_at(point, work), point
        assert len(rows_of(bench.out)) in (10, 20), point
        work()
        assert rows_of(bench.out) == whole, point
        assert {path.name for path in bench.folder.iterdir()} == {path.name for path in first}, point
        put_back()


@pytest.mark.usefixtures("at_once")
def test_what_is_printed_after_a_stop_counts_only_the_longest_finished_beginning(bench, capsys) -> None:
    bench.fill(300)
    asked: list[int] = []

    def stop(prompt) -> None:
        asked.append(prompt.row)
        if len(asked) == 60:
            raise errors.Interrupted(signal.SIGINT)

    with pytest.raises(errors.Interrupted):
        run_audit(bench, lambda *given: Steady(*given, before=stop), rows=200, json=True)
    found = json.loads(capsys.readouterr().out)
    rows = found["rows"]
    journal = bench.folder / "out.jsonl.rows.jsonl"
    assert [rank for _, rank in drawn(journal)] == list(range(1, rows + 1))
    assert 0 < rows < 200
    assert (found["kind"], found["finished"]) == ("sequence", False)
    violates = found["policies"]["spam"]["violates"]
    failed = found["in_error"]
    assert violates["low"] == confidence_sequence(violates["count"], rows, 300).low
    assert violates["high"] == confidence_sequence(violates["count"] + failed, rows, 300).high
    assert run_audit(bench, rows=200, json=True) == errors.ROWS_IN_ERROR
    assert json.loads(capsys.readouterr().out)["kind"] == "exact"


@pytest.mark.promise("After Ctrl-C an audit prints the figures of the rows that are finished.")
def test_the_command_interrupted_prints_its_figures_and_the_command_that_goes_on(tmp_path, tiny) -> None:
    source, out = tmp_path / "in put.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(row(number, "jsonl") for number in range(1, 20_000)))
    journal = tmp_path / "out.jsonl.rows.jsonl"
    given = ("--policy", "spam", "--model", str(tiny), "--max-reasoning", "4", "--slots", "2", "--threads", "1", "-q")
    called = [SAFEGUARD, "audit", str(source), "-o", str(out), "--rows", "5000", *given]
    process = subprocess.Popen(called, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not journal.exists() or journal.stat().st_size < 3000:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    shown, said = process.communicate(timeout=20)
    assert process.returncode == errors.INTERRUPTED
    rows = len(journal.read_bytes().splitlines())
    assert f"{rows:,} of 19,999 rows" in shown
    assert "not finished" in shown
    assert "confidence sequences" in shown
    again = said.split("to go on: ")[1].splitlines()[0]
    again = re.sub("--rows 5000", f"--rows {rows + 5}", again)
    path = f"{Path(SAFEGUARD).parent}:{os.environ['PATH']}"
    done = subprocess.run(again, shell=True, env={**os.environ, "PATH": path}, capture_output=True)
    assert done.returncode in (errors.OK, errors.ROWS_IN_ERROR)
    assert len(rows_of(out)) == rows + 5

"""Rows are counted beside the work, and what a run decides by their number is as if all had been counted before."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from helpers.fake_engine import FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.engine.local.fit import REPACK_ROWS
from safeguard_cli.errors import UsageError
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.records import in_shard
from safeguard_cli.run.counting import AT_ONCE, Counting
from safeguard_cli.run.display import make_progress
from safeguard_cli.run.label import LONG_RUN

SPAM = Policy("spam", "text", ("ham", "spam"), ("spam",))


def until(what) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def counts_on() -> bool:
    return any(thread.name == "counting" for thread in threading.enumerate())


@given(st.integers(0, 3000), st.none() | st.integers(1, 3000), st.integers(1, 3), st.booleans())
def test_the_number_of_rows_is_right_whether_it_is_known_at_once_later_or_asked_for(
    rows: int, most: int | None, parts: int, asked: bool
) -> None:
    counts = (in_shard(row, (1, parts)) for row in range(1, rows + 1))
    right = min(in_shard(rows, (1, parts)), rows if most is None else most)
    counting, told = Counting(counts, most), []
    assert counting.at_once() == (right if right <= AT_ONCE else None)
    if asked:
        assert counting.all() == right
    counting.go_on(told.append)
    if not asked and right > AT_ONCE:
        until(lambda: told)
        assert told == [right]
    assert counting.rows in (right, None)


def test_what_is_decided_by_the_number_of_rows_is_known_at_once() -> None:
    assert REPACK_ROWS < AT_ONCE and LONG_RUN <= AT_ONCE


@pytest.mark.parametrize("kind", ["none", "plain"])
def test_a_run_that_ends_and_one_that_nobody_watches_count_no_further(kind: str) -> None:
    taken = [0]

    def counts() -> Iterator[int]:
        while True:
            taken[0] += 1
            yield taken[0]

    progress = make_progress(kind, [SPAM])
    assert progress.count(counts()) is None
    with progress:
        until(lambda: kind == "none" or taken[0] > 2 * AT_ONCE)
    until(lambda: not counts_on())
    assert (taken == [AT_ONCE + 1]) == (kind == "none")
    assert progress.total is None


def test_a_file_that_cannot_be_read_to_its_end_is_the_runs_affair_and_not_the_counts() -> None:
    def counts() -> Iterator[int]:
        yield from range(1, AT_ONCE + 500)
        raise OSError("the disk is gone")

    progress = make_progress("plain", [SPAM])
    assert progress.count(counts()) is None
    with progress:
        until(lambda: not counts_on())
        assert progress.total is None


@pytest.mark.parametrize("rows", [AT_ONCE, AT_ONCE + 1])
def test_a_run_shows_how_many_rows_there_are_although_it_did_not_wait_to_know(bench, monkeypatch, rows: int) -> None:
    made = []

    def make(*args, **named):
        made.append(make_progress(*args, **named))
        return made[-1]

    def engine(*given):
        return FakeEngine(*given, before=lambda _: made[0].total or time.sleep(0.001))

    monkeypatch.setattr("safeguard_cli.run.label.make_progress", make)
    bench.fill(rows)
    bench(engine, quiet=False, progress="plain")
    assert made[0].total == rows == made[0].written.rows


def test_an_output_that_holds_few_rows_is_refused_before_the_work_by_the_exact_number(bench, monkeypatch) -> None:
    pytest.importorskip("python_calamine")
    monkeypatch.setattr("safeguard_cli.run.to_sheet.SheetMaker.most_rows", lambda _: AT_ONCE + 10)
    bench.fill(AT_ONCE + 500)
    with pytest.raises(UsageError, match=r"there are 1,500 rows, and a \.xlsx holds 1,010"):
        bench(output=str(bench.folder / "out.xlsx"))

"""Outputs that are finished, inputs that have grown, and runs that want more rows than before."""

from __future__ import annotations

import pytest
from helpers.runs import ids, row

from safeguard_cli import errors
from safeguard_cli.output.manifest import Refused

pytestmark = pytest.mark.usefixtures("own_cache")


def test_a_finished_run_repeated_says_so_and_gives_its_old_code(bench, capsys) -> None:
    bench.fill(20)
    assert bench() == errors.ROWS_IN_ERROR
    before = bench.state()
    assert bench(quiet=False) == errors.ROWS_IN_ERROR
    assert "is already finished: 20 rows" in capsys.readouterr().err
    assert bench.state() == before


@pytest.mark.promise("`--limit` can be raised: the run continues with the rows that follow.")
def test_limit_is_no_part_of_the_run_and_can_be_raised(bench) -> None:
    bench.fill(20)
    for limit, rows in ((5, 5), (5, 5), (3, 5), (12, 12), (None, 20)):
        assert bench(limit=limit) == errors.ROWS_IN_ERROR
        assert ids(bench.out.read_bytes()) == list(range(rows))
        assert bench.manifest()["result"]["rows"] == rows
    assert bench.out.read_bytes() != b""


def test_a_deterministic_run_with_a_limit_and_then_more_equals_one_run(bench) -> None:
    bench.fill(80)
    whole = bench.whole(deterministic=True)
    for limit in (10, 40, None):
        bench(limit=limit, deterministic=True)
    assert bench.out.read_bytes() == whole


@pytest.mark.promise(
    "Rows that were added to an input are labelled only with `--append-input`, and only where the rest is unchanged."
)
def test_an_input_that_grew_is_continued_only_when_asked_for(bench) -> None:
    bench.fill(20)
    bench()
    done = bench.out.read_bytes()
    bench.fill(30)
    before = bench.state()
    with pytest.raises(Refused, match="--append-input labels what is new"):
        bench()
    assert bench.state() == before
    assert bench(append_input=True) == errors.ROWS_IN_ERROR
    assert bench.out.read_bytes().startswith(done)
    assert ids(bench.out.read_bytes()) == list(range(30))
    bench.source.write_bytes(bench.source.read_bytes().replace(b"noon", b"nine") + row(30, "jsonl").encode())
    with pytest.raises(Refused):
        bench(append_input=True)

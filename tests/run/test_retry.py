"""`--retry-errors` and `--on-error`: error rows are labelled again in their places, or end the run."""

from __future__ import annotations

import pytest
from helpers.fake_engine import failing
from helpers.runs import ids

from safeguard_cli import errors
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.output.manifest import Refused

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_retry_errors_labels_the_error_rows_alone_again(bench, suffix) -> None:
    bench.fill(30, suffix)
    assert bench(failing(4, 5, 29)) == errors.ROWS_IN_ERROR
    first = bench.out.read_bytes()
    assert bench.manifest()["result"]["errors"]["engine"] == 3
    assert bench(failing(5), retry_errors=True) == errors.ROWS_IN_ERROR
    second = bench.out.read_bytes()
    assert ids(second, suffix) == list(range(30))
    assert second.count(b"engine") == 1
    changed = sum(a != b for a, b in zip(first.splitlines(), second.splitlines(), strict=True))
    assert changed == 2
    assert bench.manifest()["result"]["errors"]["engine"] == 1
    assert bench.manifest()["result"]["input_exhausted"]
    assert {path.name for path in bench.folder.iterdir() if path.is_file()} == {
        *(bench.source.name, bench.out.name, f"{bench.out.name}.manifest.json")
    }


def test_retry_errors_with_a_limit_that_it_would_pass_over_is_refused(bench) -> None:
    bench.fill(30)
    bench(failing(4, 29))
    before = bench.out.read_bytes()
    with pytest.raises(UsageError, match="--limit has no effect with --retry-errors"):
        bench(retry_errors=True, limit=10)
    assert bench.out.read_bytes() == before
    assert bench(retry_errors=True, limit=30) == errors.ROWS_IN_ERROR  # the fixture's own error rows


@pytest.mark.promise("`--retry-errors` leaves the output as it was when it is killed or fails.")
def test_retry_errors_killed_or_failing_leaves_the_output_as_it_was(bench) -> None:
    bench.fill(30)
    bench(failing(4, 15, 29))
    before = bench.state()
    bench.killed_after(2, retry_errors=True)
    left = bench.state().keys() - before
    assert len(left) == 1
    assert bench() == errors.ROWS_IN_ERROR  # the next run of this output removes what the killed one left behind
    assert bench.state() == before
    with pytest.raises(SafeguardError):
        bench(failing(15), retry_errors=True, on_error="stop")
    assert bench.state() == before
    bench.source.write_bytes(bench.source.read_bytes().replace(b"noon", b"nine"))
    before = bench.state()
    with pytest.raises(Refused):
        bench(retry_errors=True)
    assert bench.state() == before


@pytest.mark.promise(
    "`--on-error stop` ends the run before the row in error. With `--on-error record`, it continues there."
)
def test_on_error_stop_ends_before_the_row_and_record_goes_on_from_there(bench) -> None:
    bench.fill(30)
    with pytest.raises(SafeguardError, match="row 1: no_text"):
        bench(on_error="stop")
    assert bench.out.read_bytes() == b""
    bench(limit=3)
    with pytest.raises(SafeguardError, match="row 12: no_text"):
        bench(on_error="stop")
    assert ids(bench.out.read_bytes()) == list(range(11))
    assert bench() == errors.ROWS_IN_ERROR
    assert ids(bench.out.read_bytes()) == list(range(30))

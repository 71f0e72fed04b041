"""Signals at any moment leave whole rows and a message on how to resume."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator

import pytest
from helpers.fake_engine import FakeEngine
from helpers.runs import ids

from safeguard_cli import errors, signals

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signals.install()
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)


@pytest.mark.promise(
    "Ctrl-C and SIGTERM end a run within 2 seconds, leave whole rows, and name the command that resumes it."
)
def test_a_signal_at_any_row_leaves_whole_rows_and_says_how_to_go_on(bench, handlers, monkeypatch, capsys) -> None:
    bench.fill(60)
    whole = bench.whole(deterministic=True)
    monkeypatch.setattr(sys, "argv", ["/elsewhere/safeguard", "label", "a b.jsonl", "--overwrite", "-o", "x\x1b[1m"])
    for nth in range(0, 50, 7):
        signals.install()
        asked = iter(range(nth))

        def before(_: object, asked: Iterator[int] = asked) -> None:
            if next(asked, None) is None:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(errors.Interrupted) as stop:
            bench(lambda *given, before=before: FakeEngine(*given, before=before), deterministic=True, overwrite=True)
        assert stop.value.exit_code == 143
        said = capsys.readouterr().err
        assert "to go on: /elsewhere/safeguard label 'a b.jsonl' -o $'x\\x1b[1m'" in said
        assert whole.startswith(bench.out.read_bytes())
        assert bench(deterministic=True) == errors.ROWS_IN_ERROR
        assert bench.out.read_bytes() == whole


def run_into_a_pipe(bench) -> tuple[int, int]:
    """Label to a pipe in a child process; return its id and the pipe's reading end."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        sys.stdout = os.fdopen(writer, "w")
        try:
            bench(output=None, max_windows=1000)
        except errors.Interrupted as stop:
            os._exit(stop.exit_code)
        os._exit(0)
    os.close(writer)
    return child, reader


@pytest.mark.promise("A pipe gets whole lines only, unless its reader stalls in the middle of one.")
def test_a_signal_that_comes_in_the_middle_of_a_row_waits_for_its_end(bench, handlers, monkeypatch) -> None:
    """With a row larger than a pipe's buffer and a slow reader, the pipe gets whole lines."""
    bench.fill(3)
    with bench.source.open("a") as file:
        file.write(json.dumps({"id": 3, "text": "long " * 60_000}) + "\n")
    child, reader = run_into_a_pipe(bench)
    data = b""
    while len(data) < 100_000:
        data += os.read(reader, 10_000)
    os.kill(child, signal.SIGINT)
    while piece := os.read(reader, 1 << 16):
        time.sleep(0.01)
        data += piece
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert data.endswith(b"\n")
    assert ids(data) == [0, 1, 2, 3]
    os.close(reader)


@pytest.mark.promise("A pipe gets whole lines only, unless its reader stalls in the middle of one.")
@pytest.mark.parametrize("size", [100, 400_000])
def test_a_reader_that_has_stalled_does_not_keep_a_signal_from_ending_the_run(bench, handlers, size) -> None:
    bench.fill(0)
    line = json.dumps({"id": 1, "text": "x " * (size // 2)}) + "\n"
    bench.source.write_text(line * (200_000 // size + 2))
    child, reader = run_into_a_pipe(bench)
    select.select([reader], [], [])
    time.sleep(0.7)
    started = time.monotonic()
    os.kill(child, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert time.monotonic() - started < 2
    os.close(reader)


@pytest.mark.parametrize("rows", [1000, 1001])
def test_a_pipe_that_cannot_be_continued_is_said_once_when_the_run_is_long(bench, monkeypatch, capsys, rows) -> None:
    bench.fill(rows)
    with (bench.folder / "piped").open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        bench(output=None, quiet=False, progress="none")
        said = capsys.readouterr().err
        bench(output=None)
    assert said.count("cannot be resumed") == (rows > 1000)
    assert "cannot be resumed" not in capsys.readouterr().err

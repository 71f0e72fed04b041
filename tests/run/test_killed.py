"""The real command, killed and interrupted in a process of its own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.engines import needs_ik
from helpers.runs import ids, row

from safeguard_cli import errors

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")

pytestmark = pytest.mark.usefixtures("own_cache")


def command(source: Path, out: Path, model: Path, *options: str) -> list[str]:
    given = ("--policy", "spam", "--model", str(model), "--max-reasoning", "4", "--slots", "2", "--threads", "1", "-q")
    return [SAFEGUARD, "label", str(source), "-o", str(out), *given, *options]


@pytest.mark.promise("A killed run resumes without losing, doubling or reordering a row.")
@pytest.mark.parametrize(
    ("deterministic", "engine", "most"),
    [(True, "llama.cpp", 52), (False, "llama.cpp", 6), pytest.param(True, "ik", 8, marks=needs_ik)],
)
def test_the_command_killed_at_many_points_loses_and_doubles_nothing(
    tmp_path, tiny, deterministic, engine, most
) -> None:
    """SIGKILL at random moments and just after a row was written, as many of each; then the same command again."""
    options = ("--engine", engine, *(("--deterministic",) if deterministic else ()))
    source, out, whole = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    source.write_text("".join(row(number, "jsonl") for number in range(150)))
    started = time.monotonic()
    assert subprocess.run(command(source, whole, tiny, *options)).returncode == 3
    seconds = time.monotonic() - started
    chance = random.Random(7)
    kills, started_over = 0, 0
    while kills < most:
        process = subprocess.Popen(command(source, out, tiny, *options))
        size = out.stat().st_size if out.exists() else 0
        if kills % 2:  # as soon as more is written
            more = chance.randrange(1, 6000)
            while process.poll() is None and (not out.exists() or out.stat().st_size < size + more):
                time.sleep(0.001)
        else:
            time.sleep(chance.uniform(0, seconds))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            kills += 1
        else:  # it finished before the kill: begin again
            assert out.read_bytes() == whole.read_bytes() or not deterministic
            assert ids(out.read_bytes()) == list(range(150))
            started_over += 1
            for path in tmp_path.glob("out.*"):
                path.unlink()
    assert subprocess.run(command(source, out, tiny, *options)).returncode == 3
    assert ids(out.read_bytes()) == list(range(150))
    assert out.read_bytes() == whole.read_bytes() or not deterministic


@pytest.mark.promise(
    "Ctrl-C and SIGTERM end a run within 2 seconds, leave whole rows, and name the command that resumes it."
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_interrupted_ends_in_two_seconds_and_names_the_command_that_goes_on(
    tmp_path, tiny, number, code
) -> None:
    source, out = tmp_path / "in put.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(row(number, "jsonl") for number in range(1, 20_000)))
    called = command(source, out, tiny)
    process = subprocess.Popen(called, stderr=subprocess.PIPE, text=True)
    while not out.exists() or out.stat().st_size < 1000:
        time.sleep(0.01)
    started = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=10)
    assert time.monotonic() - started < 2
    assert process.returncode == code
    again = said.split("to go on: ")[1].splitlines()[0]
    rows = len(ids(out.read_bytes()))
    assert f"{rows:,} rows are in" in said
    done = subprocess.run(f"{again} --limit {rows + 5}", shell=True, env={**os.environ, "PATH": path_with_safeguard()})
    assert done.returncode in (errors.OK, errors.ROWS_IN_ERROR)
    assert ids(out.read_bytes()) == list(range(1, rows + 6))


def path_with_safeguard() -> str:
    return f"{Path(SAFEGUARD).parent}:{os.environ['PATH']}"

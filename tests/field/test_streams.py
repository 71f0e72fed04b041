"""The installed command as people start it: from another folder, with relative paths, whatever standard error is.

Each scenario is one way to start the command and has six steps; every step of every scenario is a test.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from safeguard_cli.model.find import find_model
from safeguard_cli.policy.policy import builtin_policies

COMMAND = Path(sys.executable).with_name("safeguard")
ROWS, MORE = 100, 10
ERRORS = pytest.mark.parametrize("errors", ["file", "closed", "terminal"])
LOCALES = pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
FORMATS = pytest.mark.parametrize("format", ["jsonl", "csv"])
STEPS = pytest.mark.parametrize("step", ["new", "interrupted", "continued", "finished", "retried", "appended"])


@dataclass(frozen=True, slots=True)
class Ended:
    """A command's exit, and what its output then held: the rows' ids and the number of rows in error."""

    code: int
    ids: list[str]
    in_error: int
    said: str


@pytest.fixture(scope="module")
def scenarios() -> dict[tuple[str, str, str], dict[str, Ended]]:
    return {}


@ERRORS
@LOCALES
@FORMATS
@STEPS
def test_every_step_of_a_run_works_whatever_standard_error_is(
    errors: str,
    locale: str,
    format: str,
    step: str,
    scenarios: dict[tuple[str, str, str], dict[str, Ended]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    way = (errors, locale, format)
    if way not in scenarios:
        scenarios[way] = dict(_steps(tmp_path_factory.mktemp("field"), *way))
    ended = scenarios[way][step]
    assert "internal error" not in ended.said
    assert "Traceback" not in ended.said
    everything = [str(number) for number in range(ROWS)]
    if step == "interrupted":
        assert ended.code == 143
        assert 0 < len(ended.ids) < ROWS
        assert ended.ids == everything[: len(ended.ids)]
        assert errors == "closed" or "to go on: safeguard label" in ended.said
        return
    assert (ended.code, ended.in_error) == (3, 1)  # one row has no text
    if step == "new":
        assert ended.ids == everything[:MORE]
    elif step == "appended":
        assert ended.ids == [str(number) for number in range(ROWS + MORE)]
    else:
        assert ended.ids == everything


def _steps(folder: Path, errors: str, locale: str, format: str) -> Iterator[tuple[str, Ended]]:
    here, there = folder / "here", folder / "data é"
    here.mkdir()
    there.mkdir()
    shutil.copy(find_model("demo"), folder / "my.gguf")
    shutil.copy(builtin_policies()["spam"], there / "spam.md")
    source, out = there / f"in.{format}", here / f"out.{format}"
    options = ["--policy", "../data é/spam.md", "--model", "../my.gguf", "--threads", "1"]

    def run(output: str, *more: str, interrupt: bool = False) -> Ended:
        command = ["label", f"../data é/in.{format}", *options, "-o", output, *more]
        return _run(command, here, errors, locale, here / output, interrupt)

    _write(source, MORE)
    yield "new", run(f"new.{format}")
    _write(source, ROWS)
    yield "interrupted", run(out.name, interrupt=True)
    yield "continued", run(out.name)
    yield "finished", run(out.name)
    yield "retried", run(out.name, "--retry-errors")
    _write(source, ROWS + MORE)
    yield "appended", run(out.name, "--append-input")


def _write(path: Path, rows: int) -> None:
    texts = [f"the meeting about part {n} is at noon, bring the report, and é" for n in range(rows)]
    texts[3] = ""  # an error row
    if path.suffix == ".csv":
        path.write_text("id,text\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(texts)), encoding="utf-8")
    else:
        rows_of = ({"id": n, "text": text or None} for n, text in enumerate(texts))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_of), encoding="utf-8")


def _run(command: list[str], folder: Path, errors: str, locale: str, output: Path, interrupt: bool) -> Ended:
    environment = {**os.environ, "LC_ALL": locale, "COLUMNS": "80", "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
    log = folder / "log"
    with _standard_error(errors, log) as stream:
        process = subprocess.Popen(
            ["sh", "-c", 'exec "$@" 2>&-' if errors == "closed" else 'exec "$@"', "sh", "safeguard", *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stream,
        )
        if interrupt:
            while process.poll() is None and not (output.exists() and output.stat().st_size > 500):
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=120)
    assert printed == b""  # rows go only to the output
    ids, in_error = _read(output)
    return Ended(process.returncode, ids, in_error, log.read_text("utf-8", "replace") if log.exists() else "")


@contextmanager
def _standard_error(kind: str, log: Path) -> Iterator[int]:
    """Yield a descriptor for a child's standard error; what is written there ends up in `log`."""
    if kind != "terminal":
        with log.open("wb") as file:
            yield file.fileno()
        return
    ours, theirs = pty.openpty()
    pieces: list[bytes] = []

    def drain() -> None:
        try:
            while piece := os.read(ours, 4096):
                pieces.append(piece)
        except OSError:  # nobody has it open any longer
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    try:
        yield theirs
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
        log.write_bytes(b"".join(pieces))


def _read(output: Path) -> tuple[list[str], int]:
    data = output.read_bytes().decode()
    assert data.endswith("\n")
    if output.suffix == ".jsonl":
        rows = [json.loads(line) for line in data.splitlines()]
        return [str(row["id"]) for row in rows], sum("error" in row["spam"] for row in rows)
    table = list(csv.DictReader(io.StringIO(data, newline="")))
    return [row["id"] for row in table], sum(bool(row["spam_error"]) for row in table)


@pytest.mark.parametrize("kind", ["plain", "rich"])
def test_a_reader_that_does_not_read_keeps_no_run_waiting(kind, tmp_path: Path) -> None:
    _write(tmp_path / "in.jsonl", MORE)
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with suppress(BlockingIOError):
        while os.write(theirs, b"x" * 512):
            pass
    os.set_blocking(theirs, True)
    try:
        command = ["label", "in.jsonl", "--policy", "spam", "--model", "demo", "-o", "out.jsonl", "--progress", kind]
        ended = subprocess.run([COMMAND, *command], cwd=tmp_path, stderr=theirs, timeout=100, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    assert ended.returncode == 3
    assert len(_read(tmp_path / "out.jsonl")[0]) == MORE


def test_a_display_in_ascii_keeps_to_its_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "in.jsonl", ROWS)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    command = ["label", "in.jsonl", "--policy", "spam", "--model", "demo", "-o", "out.jsonl"]
    ended = _run(command, tmp_path, "terminal", "C", tmp_path / "out.jsonl", interrupt=False)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", ended.said))
    assert any(" tokens read - " in line for line in lines)
    assert max(map(len, lines)) <= 80

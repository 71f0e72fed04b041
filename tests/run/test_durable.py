"""Nothing is ever lost: runs that are killed, interrupted, out of disk, repeated, continued and taken up again."""

from __future__ import annotations

import errno
import functools
import hashlib
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from helpers import tiny_model
from helpers.fake_engine import FakeEngine
from helpers.runs import ids, row

from safeguard_cli import errors, signals
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.output.manifest import Refused
from safeguard_cli.output.show import show
from safeguard_cli.prompt.contract import Prompt
from safeguard_cli.rows.verdict import ErrorCode
from safeguard_cli.run import prepare

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")

pytestmark = pytest.mark.usefixtures("own_cache")


# Resume


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_an_output_cut_at_any_byte_of_its_last_three_lines_is_completed(bench, at_once, suffix) -> None:
    """Also when the last whole row is one that spans lines, and with the manifest only as new as the start."""
    bench.fill(24, suffix)
    whole = bench.whole(deterministic=False)
    assert bench(on_error="record") == errors.ROWS_IN_ERROR
    done = bench.out.read_bytes()
    assert done == whole
    manifest = bench.manifest() | {"result": None}
    lengths = [len(line) for line in done.splitlines(keepends=True)]
    for size in range(len(done) - sum(lengths[-3:]), len(done) + 1):
        bench.out.write_bytes(done[:size])
        rows = random.Random(size).choice([0, 5])
        bench.run_json().write_text(json.dumps(manifest | ({"rows": 0, "input_sha256": ""} if not rows else {})))
        bench.out.with_name(bench.out.name + ".manifest.json").unlink(missing_ok=True)
        assert bench() == errors.ROWS_IN_ERROR
        assert ids(bench.out.read_bytes(), suffix) == list(range(24)), size
        assert bench.out.read_bytes()[:size].startswith(done[: size - max(lengths[-3:]) - 1])


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("policies", [("spam",), ("spam", "hate")])
def test_a_deterministic_run_killed_anywhere_and_continued_equals_one_never_killed(
    bench, at_once, suffix, policies
) -> None:
    bench.fill(100, suffix)
    options = {"deterministic": True, "policies": policies}
    whole = bench.whole(**options)
    assert whole != bench.whole(policies=policies) or len(policies) == 1
    chance = random.Random(5)
    for attempt in range(12):
        bench.out.unlink(missing_ok=True)
        for leftover in bench.folder.glob("out.*.json"):
            leftover.unlink()
        for _ in range(1 + attempt % 3):
            bench.killed_after(chance.randrange(95 * len(policies)), **options)
        assert bench(**options) == errors.ROWS_IN_ERROR
        assert bench.out.read_bytes() == whole
        assert not bench.run_json().exists()


def test_without_deterministic_ids_order_and_count_are_those_of_a_run_never_killed(bench, no_fsync) -> None:
    bench.fill(300)
    for prompts in (0, 1, 17, 100, 290):
        bench.out.unlink(missing_ok=True)
        bench.killed_after(prompts, overwrite=True)
        assert bench() == errors.ROWS_IN_ERROR
        assert ids(bench.out.read_bytes()) == list(range(300))
        assert bench.manifest()["result"]["rows"] == 300
        assert sum(bench.manifest()["result"]["labels"]["spam"].values()) == 300 - 28


def test_a_run_with_only_is_continued_from_its_manifest(bench, no_fsync, monkeypatch) -> None:
    bench.fill(300)
    options = {"only": "violates", "deterministic": True}
    whole = bench.whole(**options)
    counts = json.loads((bench.folder / "whole.jsonl.manifest.json").read_bytes())["result"]["labels"]
    monkeypatch.setattr("safeguard_cli.output.journal.SYNC_SECONDS", 0)
    for prompts in (3, 90, 200, 265):
        bench.killed_after(prompts, overwrite=True, **options)
        assert bench(**options) == errors.ROWS_IN_ERROR
        assert bench.out.read_bytes() == whole
        assert bench.manifest()["result"]["labels"] == counts
        assert bench.manifest()["result"]["rows"] == 300


def test_a_run_with_only_counts_the_rows_of_a_finished_one_that_it_goes_on_with(bench, no_fsync) -> None:
    """Its output does not have them all, so its manifest alone can tell."""
    bench.fill(60)
    whole = bench.whole(only="violates", deterministic=True)
    for limit in (32, None):  # 32 rows are where its two slots are drained
        bench(only="violates", deterministic=True, limit=limit)
    assert bench.out.read_bytes() == whole
    result = bench.manifest()["result"]
    expected = json.loads((bench.folder / "whole.jsonl.manifest.json").read_bytes())["result"]
    for name in ("rows", "rows_in_error", "errors", "labels", "violating"):
        assert result[name] == expected[name]


def test_a_csv_made_from_jsonl_is_continued(bench, no_fsync) -> None:
    """Its columns are those of the input's first row, also where the run goes on with a later one."""
    bench.fill(100)
    bench.out = bench.folder / "out.csv"
    whole = bench.whole(deterministic=True)
    for prompts in (0, 30, 40, 80):
        bench.killed_after(prompts, overwrite=True, deterministic=True)
        assert bench(deterministic=True) == errors.ROWS_IN_ERROR
        assert bench.out.read_bytes() == whole


def test_a_very_large_cell_is_read_again(bench) -> None:
    bench.fill(3, "csv")
    with bench.source.open("a") as file:
        file.write('3,"' + "x" * 300_000 + '\0"\n4,end\n')
    bench.killed_after(3)
    assert bench() == errors.ROWS_IN_ERROR
    assert b"\0" in bench.out.read_bytes()
    assert bench.manifest()["result"]["rows"] == 5


# Refused, and nothing touched


CHANGES: dict[str, tuple[dict[str, object], str]] = {
    "policy": ({"policies": ("hate",), "rename": "spam"}, "policies.spam.sha256"),
    "labels": ({"labels": ("spam", "ham")}, "policies.spam.labels"),
    "effort": ({"effort": "none"}, "answer.effort"),
    "threshold": ({"threshold": 0.5}, "answer.threshold"),
    "columns": ({"rationale": True}, "answer.rationale"),
    "keep": ({"keep": "id"}, "output.keep"),
    "another text": ({"template": "{id} {text}"}, "input.template"),
    "context": ({"context": 4096}, "answer.ctx"),
    "deterministic": ({"deterministic": True}, "deterministic"),
}


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("change", [*CHANGES, "model", "input", "shorter input"])
def test_what_can_change_a_label_refuses_and_touches_nothing(bench, tmp_path, change, finished) -> None:
    data = bench.fill(40)
    if finished:
        bench()
    else:
        bench.killed_after(30)
    options, said = CHANGES.get(change, ({}, ""))
    if change == "model":
        other = tmp_path / "model"
        other.mkdir()
        bench.model, said = tiny_model.write(other / "tiny.gguf", seed=1), "model.sampled_sha256"
    if change == "input":
        bench.source.write_bytes(data.replace(b'"id": 17, ', b'"id": 17,  '))
        said = "input"
    if change == "shorter input":
        bench.source.write_bytes(b"".join(data.splitlines(keepends=True)[:5]))
        said = "input"
    before = bench.state()
    with pytest.raises(Refused, match=said) as refusal:
        bench(**options)
    assert refusal.value.exit_code == 4
    assert "--overwrite starts over" in str(refusal.value)
    assert bench.state() == before
    assert bench(overwrite=True, **options) in (errors.OK, errors.ROWS_IN_ERROR)


@pytest.mark.parametrize(
    ("old", "new"), [('{"id":3}', '{"id":3,"a":1}'), ('{"id":3,"a":1}', '{"id":3}'), ("[1]", "[2]"), ("{}", '{"a":1}')]
)
def test_an_input_row_that_was_changed_behind_the_last_save_is_noticed(bench, old, new) -> None:
    data = bench.fill(20)
    lines = data.decode().splitlines()
    lines[3] = old
    bench.source.write_text("\n".join(lines) + "\n")
    bench.killed_after(15)
    assert json.loads(bench.run_json().read_bytes())["rows"] == 0
    lines[3] = new
    bench.source.write_text("\n".join(lines) + "\n")
    with pytest.raises(Refused, match="row 4 of the input"):
        bench()


def test_another_machine_warns_and_refuses_only_when_deterministic(bench, capsys) -> None:
    bench.fill(40)
    bench.killed_after(30)
    assert bench(slots=3) == errors.ROWS_IN_ERROR
    assert "not as when" in capsys.readouterr().err
    bench.killed_after(30, overwrite=True, deterministic=True)
    before = bench.state()
    with pytest.raises(Refused, match=r"threads: 1 → 2"):
        bench(deterministic=True, threads=2)
    assert bench.state() == before


def test_an_output_without_its_manifest_is_never_touched(bench) -> None:
    bench.fill(5)
    bench()
    bench.out.with_name(bench.out.name + ".manifest.json").unlink()
    before = bench.state()
    with pytest.raises(Refused, match="not an output of safeguard: name another file with -o"):
        bench()
    assert bench.state() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 99}', b'{"version": 1}'])
def test_a_manifest_that_cannot_be_understood_refuses(bench, content) -> None:
    bench.fill(5)
    bench.killed_after(3)
    bench.run_json().write_bytes(content)
    before = bench.state()
    with pytest.raises(Refused):
        bench()
    assert bench.state() == before


def test_a_second_run_on_one_output_is_refused_and_names_the_first(bench) -> None:
    bench.fill(20)
    refusals = []

    def during(_: object) -> None:
        if not refusals:
            with pytest.raises(Refused) as refusal:
                bench()
            refusals.append(str(refusal.value))

    bench(lambda *given: FakeEngine(*given, before=during))
    assert f"is being written by process {os.getpid()} just now" in refusals[0]
    assert ids(bench.out.read_bytes()) == list(range(20))


def test_a_refusal_leaves_no_empty_output(bench) -> None:
    bench.fill(5)
    with pytest.raises(UsageError, match="no finished output"):
        bench(retry_errors=True)
    assert not bench.out.exists()


# Finished, grown, more


def test_a_finished_run_repeated_says_so_and_gives_its_old_code(bench, capsys) -> None:
    bench.fill(20)
    assert bench() == errors.ROWS_IN_ERROR
    before = bench.state()
    assert bench(quiet=False) == errors.ROWS_IN_ERROR
    assert "is finished already: 20 rows" in capsys.readouterr().err
    assert bench.state() == before


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


# --retry-errors and --on-error


def failing(*rows: int) -> Callable[..., FakeEngine]:
    return lambda *given: FakeEngine(*given, error=lambda prompt: prompt.row in rows)


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


def test_retry_errors_killed_or_failing_leaves_the_output_as_it_was(bench) -> None:
    bench.fill(30)
    bench(failing(4, 15, 29))
    before = bench.state()
    bench.killed_after(2, retry_errors=True)
    left = bench.state().keys() - before
    assert len(left) == 1
    assert bench() == errors.ROWS_IN_ERROR  # the next run of this output removes what that one left behind
    assert bench.state() == before
    with pytest.raises(SafeguardError):
        bench(failing(15), retry_errors=True, on_error="stop")
    assert bench.state() == before
    bench.source.write_bytes(bench.source.read_bytes().replace(b"noon", b"nine"))
    before = bench.state()
    with pytest.raises(Refused):
        bench(retry_errors=True)
    assert bench.state() == before


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


# The disk


class Disk:
    """System calls that change files, the `nth` of which (or each from there on) fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, nth: int, number: int, for_good: bool) -> None:
        self.calls = 0
        self.folder, self.nth, self.number, self.for_good = str(folder), nth, number, for_good
        for name in ("write", "fsync", "ftruncate")[: 2 if number == errno.ENOSPC else 3]:  # a full disk can be cut
            monkeypatch.setattr(os, name, self.failing(getattr(os, name), name == "write"))
        for name in ("replace", "unlink", "open"):
            monkeypatch.setattr(Path, name, self.failing(getattr(Path, name), False))

    def failing(self, real: Callable, partly: bool) -> Callable:
        def call(target: object, *args: object, **options: object) -> object:
            reads = args[:1] in ((), ("rb",), ("r",)) and real.__name__ == "open"
            elsewhere = isinstance(target, Path) and not str(target).startswith(self.folder)
            if reads or elsewhere:
                return real(target, *args, **options)
            self.calls += 1
            if self.calls == self.nth or (self.for_good and self.calls > self.nth):
                if partly and self.number == errno.ENOSPC and self.calls == self.nth:
                    return real(target, args[0][: len(args[0]) // 2])  # a full disk takes what it can
                raise OSError(self.number, os.strerror(self.number))
            return real(target, *args, **options)

        return call


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("for_good", [True, False])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_the_nth_write_failing_keeps_whole_rows_and_is_a_sentence(
    bench, at_once, number, for_good, suffix, monkeypatch
) -> None:
    bench.fill(6, suffix)
    monkeypatch.setattr("safeguard_cli.output.journal.SYNC_SECONDS", 0)
    for nth in range(1, 1000):
        for path in bench.folder.glob(f"out.{suffix}*"):
            path.unlink()
        if nth % 3 == 0:  # a run that goes on with an earlier one fails, too
            bench(limit=4)
        with monkeypatch.context() as patch:
            disk = Disk(patch, bench.folder, nth, number, for_good)
            failed = None
            try:
                bench()
            except SafeguardError as error:
                failed = error
        kept = bench.out.read_bytes() if bench.out.exists() else b""
        assert not kept or kept.endswith(b"\n"), nth
        rows = ids(kept, suffix)
        assert rows == list(range(len(rows))), nth
        if failed:
            assert failed.exit_code == 1
            assert os.strerror(number) in str(failed), nth
        assert bench() == errors.ROWS_IN_ERROR
        assert ids(bench.out.read_bytes(), suffix) == list(range(6)), nth
        if disk.calls < nth:
            break
    assert nth > 20


def test_a_shell_appends_to_a_file_that_a_full_disk_must_not_empty(bench, tmp_path, monkeypatch, tiny) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious\n")
    bench.fill(3)
    with precious.open("ab") as shell:
        os.lseek(shell.fileno(), 0, os.SEEK_SET)  # as a shell hands it over
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shell))

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(SafeguardError, match="No space left"):
                bench(output=None)
        assert precious.read_bytes() == b"precious\n"
        sys.stdout.detach()


def test_an_output_that_vanishes_is_noticed(bench, monkeypatch) -> None:
    bench.fill(30)
    gone = bench.folder / "sub"
    gone.mkdir()
    bench.out = gone / "out.jsonl"

    def vanish(prompt: object) -> None:
        if prompt.row == 9:
            shutil.rmtree(gone)

    with pytest.raises(SafeguardError, match="moved, replaced or deleted") as failure:
        bench(lambda *given: FakeEngine(*given, before=vanish))
    assert failure.value.exit_code == 1
    gone.mkdir()
    assert bench() == errors.ROWS_IN_ERROR
    assert ids(bench.out.read_bytes()) == list(range(30))


@pytest.mark.parametrize("cut", [0, 10, None])
def test_an_output_that_another_program_changes_is_never_called_finished(bench, cut, capsys) -> None:
    bench.fill(30)

    def meddle(prompt: object) -> None:
        if prompt.row == 19 and cut is None:
            with bench.out.open("ab") as file:
                file.write(b"mine\n")
        elif prompt.row == 19:
            os.truncate(bench.out, cut)

    with pytest.raises(SafeguardError, match="changed while it was being written") as failure:
        bench(lambda *given: FakeEngine(*given, before=meddle))
    assert failure.value.exit_code == 1
    assert "to go on" not in capsys.readouterr().err
    assert not bench.out.with_name("out.jsonl.manifest.json").exists()
    assert b"\0" not in bench.out.read_bytes()


def test_a_full_device_is_exit_1_and_nothing_is_left_beside_it(bench) -> None:
    bench.fill(5)
    with pytest.raises(SafeguardError, match="/dev/full: writing failed: No space left"):
        bench(output="/dev/full")
    assert bench(output="/dev/null") == errors.ROWS_IN_ERROR
    assert not list(Path("/dev").glob("null.*")) + list(Path("/dev").glob("full.*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_disk_that_fills_keeps_whole_rows_and_the_run_goes_on_when_there_is_room(bench, small_disk, suffix) -> None:
    bench.fill(2000, suffix)
    whole = bench.whole(deterministic=True)
    bench.out = small_disk / f"out.{suffix}"
    with pytest.raises(SafeguardError, match="No space left") as failure:
        bench(deterministic=True)
    assert failure.value.exit_code == 1
    kept = bench.out.read_bytes()
    assert len(kept) > 20_000
    assert whole.startswith(kept)
    assert ids(kept, suffix) == list(range(len(ids(kept, suffix))))
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    assert bench(deterministic=True) == errors.ROWS_IN_ERROR
    assert bench.out.read_bytes() == whole


def test_a_read_only_folder_is_exit_1(bench, small_disk) -> None:
    bench.fill(5)
    bench.out = small_disk / "out.jsonl"
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(SafeguardError, match="Read-only") as failure:
        bench()
    assert failure.value.exit_code == 1


# Signals


@pytest.fixture
def handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signals.install()
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)


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
    """Label to a pipe in a child process; its id and the end of the pipe to read from."""
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


def test_a_signal_that_comes_in_the_middle_of_a_row_waits_for_its_end(bench, handlers, monkeypatch) -> None:
    """A row larger than a pipe takes, a reader that is slow: the pipe gets whole lines."""
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
    assert said.count("cannot be taken up again") == (rows > 1000)
    assert "cannot be taken up again" not in capsys.readouterr().err


# Every row comes out


def bad_lines(chance: random.Random) -> Iterator[bytes]:
    yield from (b"\n", b" \n", b"{\n", b"[1]\n", b'"text"\n', b"null\n", b'{"text":\n', b'{"id":1,"text":NaN}\n')
    yield from (b'{"text":"\xff"}\n', b'{"text":"\\ud800"}\n', b'{"text":1}\n', b'{"text":{}}\n', b"{}\r\n", b'"\n')
    yield from (b'a,"b\n', b'a,"b""\n', b'x,y,z,"\n', b'"a""b",c\n', b'"two\nlines",x\n', b"\xfe\xfe,x\n")
    yield from (b",\n", b"\0\n", b"'=1,+2\n")
    yield bytes(chance.choices(b'{}[]",:\\x\xc3\xa9\x00 \n', k=chance.randrange(30))) + b"\n"
    yield b'{"id":1,"text":"' + b"word " * chance.randrange(100) + b'"}\n'
    yield b'{"text":"x","text":null}\n'
    yield b'{"text":"' + b"y" * 3000 + b'"}\n'


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_of_a_thousand_random_files_every_row_comes_out_once_and_in_order(bench, at_once, suffix) -> None:
    """What an input's rows are is for the reader to say, and its own tests: here each comes out in its place."""
    from safeguard_cli.rows.source import open_source

    chance = random.Random(11)
    bench.source, bench.out = bench.folder / f"in.{suffix}", bench.folder / f"out.{suffix}"
    for _ in range(1000):
        lines = list(bad_lines(chance))
        good = [b'{"id":%d,"text":"hello"}\n', b"%d,hello\n"][suffix == "csv"]
        some = [good % n if chance.random() < 0.5 else chance.choice(lines) for n in range(chance.randrange(12))]
        data = (b"id,text\n" if suffix == "csv" else b"") + b"".join(some)
        bench.source.write_bytes(data[: len(data) - chance.randrange(2)] if some else data)
        with open_source(bench.source, max_row_bytes=2000) as source:
            records = list(source)
        options = {"max_row_bytes": 2000, "context": 2200, "max_windows": 2, "max_reasoning": 4}
        for path in bench.folder.glob("out.*"):
            path.unlink()
        code = bench(text_fields=("text",) if suffix == "csv" else (), **options)
        lines_out = bench.out.read_bytes()
        assert lines_out.endswith(b"\n") or not records
        if suffix == "csv":
            with open_source(bench.out) as out:
                written = list(out)
            assert all(record.error is None for record in written)
            seen = [(record.cells[0], record.cells[-1]) for record in written]
            expected = [record.cells[0] if record.fields is not None else None for record in records]
            assert all(e is None or e == cell for e, (cell, _) in zip(expected, seen, strict=True))
            in_error = [error for record, (_, error) in zip(records, seen, strict=True) if not record.blank]
            assert code == (3 if any(in_error) else 0)
        else:
            written = [json.loads(line) for line in lines_out.splitlines()]
            for record, after in zip(records, written, strict=True):
                if record.fields is None:
                    assert after["_line"] == record.line
                else:
                    assert after.get("id") == record.fields.get("id")
                assert ("error" in after["spam"]) == (after["spam"]["label"] is None)
            in_error = [
                "error" in row["spam"] for record, row in zip(records, written, strict=True) if not record.blank
            ]
            assert code == (3 if any(in_error) else 0)


def test_every_code_of_the_closed_list_is_reached(bench, monkeypatch) -> None:
    from safeguard_cli.prompt.harmony import ControlTokenError, Harmony

    lines = [
        *(
            b'{"text":',
            b"[1]",
            b'{"text":"\xff"}',
            b'{"id":1,"text":null}',
            b'{"text":1}',
            b'{"text":"' + b"x" * 20_000 + b'"}',
        ),
        *(b'{"text":"' + b"word " * 2000 + b'"}', b'{"text":"control"}', b'{"text":"fails"}', b'{"text":"fine"}'),
    ]
    bench.source.write_bytes(b"\n".join(lines) + b"\n")
    real = Harmony.text_ids

    def forged(self: Harmony, text: str) -> list[int]:
        if text == "control":
            raise ControlTokenError
        return real(self, text)

    monkeypatch.setattr(Harmony, "text_ids", forged)
    options = {"max_row_bytes": 15_000, "context": 2500, "max_windows": 2}
    assert bench(failing(8), **options) == errors.ROWS_IN_ERROR
    found = [json.loads(line)["spam"].get("error", {}).get("code") for line in bench.out.read_bytes().splitlines()]
    assert found[-1] is None
    codes = set(get_args(ErrorCode)) - {"server"}  # that one in tests/engine/servers/test_server.py
    assert sorted(found[:-1]) == sorted(codes)
    assert sum(bench.manifest()["result"]["errors"].values()) == len(codes)


def test_memory_does_not_grow_with_the_input(bench) -> None:
    """The million rows of the promise take minutes: here are fewer, and memory that would grow with them."""
    rows = 60_000
    line = '{"id":%d,"text":"see you at noon tomorrow, call me on %d"}\n'
    bench.source.write_text("".join(line % (i, i * 7919 % 100_003) for i in range(rows)))
    page = resource.getpagesize()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    seen = []

    def before(prompt: object) -> None:
        if prompt.row % 2000 == 0:
            seen.append(resident())

    assert bench(lambda *given: FakeEngine(*given, before=before), slots=16) == errors.OK
    assert max(seen) - seen[1] < 60e6


# Contents that repeat


@pytest.mark.parametrize("deterministic", [False, True])
def test_rows_of_one_content_are_decoded_once_and_get_the_same_labels(bench, at_once, deterministic) -> None:
    chance = random.Random(1)
    for _ in range(60):
        numbers = chance.choices(range(7), k=chance.randint(1, 60))
        rows = [{"id": i, "text": f"text {number}"} for i, number in enumerate(numbers)]
        bench.source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        asked: list[int] = []

        def before(prompt: Prompt, asked: list[int] = asked) -> None:
            asked.append(prompt.row)

        engine = functools.partial(FakeEngine, before=before)
        assert bench(engine, overwrite=True, deterministic=deterministic) == errors.OK
        out = [json.loads(line) for line in bench.out.read_bytes().splitlines()]
        assert [row["id"] for row in out] == list(range(len(numbers)))
        drain = prepare.DRAIN * 2 if deterministic else len(numbers)  # bench has two slots
        seen: dict[tuple[int, int], dict] = {}
        for i, (number, made) in enumerate(zip(numbers, out, strict=True)):
            assert seen.setdefault((i // drain, number), made["spam"]) == made["spam"]
        assert len(asked) == len(seen)
        assert bench.manifest()["repeated_rows"] == len(numbers) - len(seen)


def test_contents_are_forgotten_after_so_many(bench, no_fsync, monkeypatch) -> None:
    monkeypatch.setattr("safeguard_cli.run.pipeline.REMEMBERED", 2)
    bench.source.write_text("".join(json.dumps({"text": text}) + "\n" for text in "abacadab"))
    assert bench() == errors.OK
    assert bench.manifest()["repeated_rows"] == 3  # a each time: it was met again before it was the oldest


def test_sampled_answers_are_not_repeated(bench, no_fsync) -> None:
    bench.source.write_text('{"text": "a"}\n' * 4)
    bench(temperature=1.0)
    assert bench.manifest()["repeated_rows"] == 0


# The record


def test_the_manifest_says_how_the_labels_came_about_and_show_prints_it(bench, capsys) -> None:
    bench.fill(30)
    bench(failing(4))
    manifest, result = bench.manifest(), bench.manifest()["result"]
    assert result["rows"] == manifest["rows"] == 30
    assert result["errors"] == {"no_text": 3, "engine": 1}
    assert result["rows_in_error"] == 4
    assert sum(result["labels"]["spam"].values()) == 26
    assert result["output_sha256"] == hashlib.sha256(bench.out.read_bytes()).hexdigest()
    assert result["model_sha256"] == hashlib.sha256(bench.model.read_bytes()).hexdigest()
    assert manifest["prompt_tokens"] > 30
    assert {"python", "llama-cpp-python", "tokenizers"} <= set(manifest["machine"]["versions"])
    assert show(bench.out, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == manifest
    assert show(bench.out, as_json=False) == 0
    shown = capsys.readouterr().out
    for part in ("finished 20", "30, 4 in error", "ham ", result["model_sha256"], "effort low", "slots 2"):
        assert part in shown


def test_show_tells_of_a_run_that_is_not_finished_and_of_none(bench, capsys) -> None:
    bench.fill(9)
    bench.out = bench.folder / "out\x1b[1m.jsonl"
    bench.killed_after(5)
    assert show(bench.out, as_json=False) == 0
    shown = capsys.readouterr().out
    assert "unfinished" in shown
    assert "\x1b" not in shown
    with pytest.raises(UsageError, match="nothing is on record"):
        show(bench.source, as_json=False)


# The real command


def command(source: Path, out: Path, model: Path, *options: str) -> list[str]:
    given = ("--policy", "spam", "--model", str(model), "--max-reasoning", "4", "--slots", "2", "--threads", "1", "-q")
    return [SAFEGUARD, "label", str(source), "-o", str(out), *given, *options]


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_command_killed_at_many_points_loses_and_doubles_nothing(tmp_path, tiny, deterministic) -> None:
    """SIGKILL at random moments and just after a row was written, 26 of each; then the same command again."""
    options = ("--deterministic",) if deterministic else ()
    source, out, whole = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    source.write_text("".join(row(number, "jsonl") for number in range(150)))
    started = time.monotonic()
    assert subprocess.run(command(source, whole, tiny, *options)).returncode == 3
    seconds = time.monotonic() - started
    chance = random.Random(7)
    kills, started_over = 0, 0
    while kills < (52 if deterministic else 6):
        process = subprocess.Popen(command(source, out, tiny, *options))
        size = out.stat().st_size if out.exists() else 0
        if kills % 2:  # as soon as some more is written
            more = chance.randrange(1, 6000)
            while process.poll() is None and (not out.exists() or out.stat().st_size < size + more):
                time.sleep(0.001)
        else:
            time.sleep(chance.uniform(0, seconds))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            kills += 1
        else:  # it was finished before: begin again
            assert out.read_bytes() == whole.read_bytes() or not deterministic
            assert ids(out.read_bytes()) == list(range(150))
            started_over += 1
            for path in tmp_path.glob("out.*"):
                path.unlink()
    assert subprocess.run(command(source, out, tiny, *options)).returncode == 3
    assert ids(out.read_bytes()) == list(range(150))
    assert out.read_bytes() == whole.read_bytes() or not deterministic


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

"""Disks that fail, fill up or forget: whole rows and a sentence, and the run resumes when there is room."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.fake_engine import FakeEngine
from helpers.runs import ids

from safeguard_cli import errors
from safeguard_cli.errors import SafeguardError

pytestmark = pytest.mark.usefixtures("own_cache")


class Disk:
    """System calls that change files, of which the `nth` (or each from it on) fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, nth: int, number: int, for_good: bool) -> None:
        self.calls = 0
        self.folder, self.nth, self.number, self.for_good = str(folder), nth, number, for_good
        for name in ("write", "fsync", "ftruncate")[: 2 if number == errno.ENOSPC else 3]:  # a full disk allows cuts
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
                    return real(target, args[0][: len(args[0]) // 2])  # a full disk writes a part
                raise OSError(self.number, os.strerror(self.number))
            return real(target, *args, **options)

        return call


@pytest.mark.promise(
    "A disk that fails or fills leaves whole rows and one sentence. The run resumes when there is room."
)
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
        if nth % 3 == 0:  # a resumed run fails, too
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


@pytest.mark.promise(
    "A disk that fails or fills leaves whole rows and one sentence. The run resumes when there is room."
)
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


@pytest.mark.promise(
    "A disk that fails or fills leaves whole rows and one sentence. The run resumes when there is room."
)
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

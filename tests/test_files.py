"""A run's files beside its output never touch anybody else's, and none is left behind."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.fake_engine import FakeEngine
from helpers.runs import plant

from safeguard_cli import errors, files
from safeguard_cli.errors import UsageError
from safeguard_cli.output.manifest import Foreign, Locked, locked_beside
from safeguard_cli.output.merge import merge

pytestmark = [
    pytest.mark.usefixtures("own_cache", "no_fsync"),
    pytest.mark.promise("A file of yours beside an output is never written, followed or removed, whatever its name."),
]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Drafts


def test_a_draft_appears_whole_under_its_name_or_not_at_all(tmp_path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    with files.draft(target) as draft:
        draft.write(b"new")
        assert target.read_text() == "old"
        assert draft.path.suffix == ".csv"
    assert target.read_text() == "old"
    assert names(tmp_path) == {"out.csv"}
    with files.draft(target) as draft:
        draft.write(b"new")
        draft.publish()
    assert target.read_text() == "new"
    assert names(tmp_path) == {"out.csv"}


def test_a_draft_has_the_permissions_of_what_it_replaces(tmp_path) -> None:
    target = tmp_path / "out"
    before = os.umask(0o027)
    try:
        files.write(target, b"")
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        target.chmod(0o604)
        files.write(target, b"")
        assert stat.S_IMODE(target.stat().st_mode) == 0o604
        files.write(tmp_path / "kept", b"", 0o600)
        assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_name_as_long_as_the_system_has_gets_a_draft(tmp_path) -> None:
    target = tmp_path / ("é" * 127 + "x")
    files.write(target, b"data")
    assert target.read_bytes() == b"data"


def test_a_name_that_is_taken_is_not_used(tmp_path, monkeypatch) -> None:
    target, tokens = tmp_path / "out", iter(["taken", "linked", "free"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(tokens))
    with files.draft(target) as draft:
        key = draft.path.name.removesuffix("taken")
    victim = tmp_path / "victim"
    (tmp_path / f"{key}taken").write_text("precious")
    (tmp_path / f"{key}linked").symlink_to(victim)
    tokens = iter(["taken", "linked", "free"])
    files.write(target, b"data")
    assert (tmp_path / f"{key}taken").read_text() == "precious"
    assert not victim.exists()


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_stays(tmp_path) -> None:
    target, other = tmp_path / "out", tmp_path / "other"
    for path in (target, other):
        child = os.fork()
        if not child:
            files.Draft(path).write(b"half of it")
            os._exit(9)
        os.waitpid(child, 0)
    left = names(tmp_path)
    assert len(left) == 2
    with files.draft(target) as living:
        for path in (tmp_path / f"{living.path.name[:19]}-0123456g", tmp_path / f"{living.path.name[:19]}-lock"):
            path.write_text("of another name")
        (tmp_path / f"{living.path.name[:19]}-01234567").symlink_to(other)
        files.sweep(target)
        assert living.path.exists()
        assert len(names(tmp_path) & left) == 1  # the other output's
        assert len(names(tmp_path)) == 5
    files.sweep(target, other)
    assert len(names(tmp_path)) == 3


def test_a_file_that_is_larger_or_no_file_is_not_read(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert files.read_small(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        files.read_small(path, 4)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="no regular file"):
            files.read_small(other, 5)
    path.chmod(0o666)
    assert files.read_small(path, 5) == b"12345"
    with pytest.raises(OSError, match="others may write to it"):
        files.read_small(path, 5, ours=True)


# Files of others beside an output


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_files_of_others_beside_an_output_stay_as_they_are(bench, suffix) -> None:
    bench.fill(20)
    bench.out = bench.folder / f"out.{suffix}"
    planted = plant(bench)
    before = names(bench.folder)
    bench.killed_after(12)
    bench(lambda *given: FakeEngine(*given, error=lambda prompt: prompt.row in (4, 9)))
    bench.killed_after(1, retry_errors=True)
    bench(retry_errors=True)
    assert {path: path.read_text() for path in planted} == planted
    assert all(path.is_symlink() == (number % 2 == 0) for number, path in enumerate(planted))
    assert names(bench.folder) - before == {bench.out.name, f"{bench.out.name}.manifest.json"}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_files_of_others_beside_a_merged_output_stay_as_they_are(bench, suffix) -> None:
    bench.source = bench.folder / f"in.{suffix}"
    if suffix == "jsonl":
        bench.fill(9)
    else:
        pq.write_table(pa.table({"id": range(9), "text": ["a"] * 9}), bench.source)
    shards = [bench.folder / f"part{part}.{suffix}" for part in (1, 2)]
    for part, bench.out in enumerate(shards, 1):
        bench(shard=(part, 2))
    bench.out = bench.folder / f"merged.{suffix}"
    planted = plant(bench)
    merge(shards, bench.out, overwrite=False, quiet=True)
    assert {path: path.read_text() for path in planted} == planted


FOREIGN = ['{"name": "my extension", "version": 1}', "PRECIOUS", "[]", "{", '{"version": 1, "decides": 1}']


@pytest.mark.parametrize("content", [*FOREIGN, None])
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("ending", [".run.json", ".manifest.json", ".rows.jsonl", ".rows.jsonl.run.json"])
def test_somebody_elses_file_under_the_name_of_a_record_is_refused_before_anything_is_done(
    bench, content, overwrite, ending
) -> None:
    bench.fill(5)
    if "rows" in ending:
        bench.out = bench.folder / "out.parquet"
    path = bench.folder / (bench.out.name + ending)
    if content is None:
        path.symlink_to(bench.folder / "nowhere")
    else:
        path.write_text(content)
    before = bench.state()
    with pytest.raises(Foreign, match=r"not a record of safeguard's.*: move it away, or write") as refused:
        bench(overwrite=overwrite)
    assert refused.value.exit_code == errors.RESUME_REFUSED
    assert bench.state() == before
    assert os.path.lexists(path)


@pytest.mark.parametrize("ending", [".run.json", ".manifest.json"])
def test_merge_refuses_somebody_elses_record_and_replaces_ours_only_when_asked(bench, ending) -> None:
    bench.fill(9)
    shards = [bench.folder / f"part{part}.jsonl" for part in (1, 2)]
    for part, bench.out in enumerate(shards, 1):
        bench(shard=(part, 2))
    out = bench.folder / "merged.jsonl"
    path = out.with_name(out.name + ending)
    path.write_text("PRECIOUS")
    for overwrite in (True, False):
        with pytest.raises(Foreign):
            merge(shards, out, overwrite=overwrite, quiet=True)
    assert path.read_text() == "PRECIOUS"
    ours = json.loads(shards[0].with_name("part1.jsonl.manifest.json").read_bytes())
    path.write_text(json.dumps(ours if "manifest" in ending else ours | {"result": None}))
    with pytest.raises(UsageError, match="exists; --overwrite replaces it"):
        merge(shards, out, overwrite=False, quiet=True)
    merge(shards, out, overwrite=True, quiet=True)
    assert {name for name in names(bench.folder) if name.startswith("merged")} == {
        *("merged.jsonl", "merged.jsonl.manifest.json")
    }


def test_a_damaged_record_of_ours_is_replaced_when_asked(bench) -> None:
    bench.fill(5)
    bench()
    path = bench.out.with_name("out.jsonl.manifest.json")
    path.write_text(json.dumps(bench.manifest() | {"rows": -1}))
    assert bench(overwrite=True) == errors.ROWS_IN_ERROR
    assert bench.manifest()["rows"] == 5


def test_a_private_output_stays_private_when_its_errors_are_labelled_again(bench) -> None:
    bench.fill(10)
    bench(lambda *given: FakeEngine(*given, error=lambda prompt: prompt.row == 4))
    bench.out.chmod(0o600)
    bench(retry_errors=True)
    assert stat.S_IMODE(bench.out.stat().st_mode) == 0o600


def test_a_lock_beside_an_output_is_nobody_elses_file(tmp_path) -> None:
    out, victim = tmp_path / "out.parquet", tmp_path / "victim"
    held = pytest.raises(Locked, match=r"out\.parquet is being written by another process")
    with locked_beside(out, tmp_path / "record"), held, locked_beside(out, tmp_path / "record"):
        pass
    assert names(tmp_path) == set()
    files.lock_path(out).symlink_to(victim)
    with pytest.raises(errors.SafeguardError, match="is a link"), locked_beside(out, tmp_path / "record"):
        pass
    assert not victim.exists()


def test_a_folder_in_which_nothing_can_be_written_is_said(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        files.write(tmp_path / "out", b"")

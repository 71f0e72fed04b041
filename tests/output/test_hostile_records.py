"""Manifests and kept files that are damaged, hostile or foreign are refused in a sentence, or made anew."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import manifests
from helpers.runs import Bench

from safeguard_cli import errors, files
from safeguard_cli.engine.local import probe
from safeguard_cli.engine.local.probe import LOADABLE, check_loadable
from safeguard_cli.errors import SafeguardError
from safeguard_cli.model import kept
from safeguard_cli.model.fingerprint import HASHES, model_key, model_sha256
from safeguard_cli.output.labelled import read_labels
from safeguard_cli.output.manifest import Refused, load
from safeguard_cli.output.merge import merge
from safeguard_cli.output.show import show

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")

pytestmark = pytest.mark.usefixtures("own_cache")


def files_of(bench: Bench) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in bench.folder.iterdir() if path.is_file()}


def put_back(bench: Bench, files: dict[Path, bytes]) -> None:
    for path in bench.folder.iterdir():
        if path.is_file() and path not in files:
            path.unlink()
    for path, data in files.items():
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)


def try_all(bench: Bench, record: Path, use: Callable[[], object], every: int = 1) -> tuple[int, int]:
    """Call `use` for each mutation (or every third, …) that `load` accepts; return how many were tried and accepted."""
    files, count, accepted = files_of(bench), 0, 0
    for what, data in islice(manifests.mutated(json.loads(record.read_bytes())), every - 1, None, every):
        count += 1
        record.write_bytes(data)
        try:
            made = load(record)
        except Refused as refused:
            assert str(refused).startswith(str(record)), what
            assert refused.exit_code == errors.RESUME_REFUSED, what
            continue
        assert made is not None
        accepted += 1
        try:
            use()
        except SafeguardError as error:
            assert str(error), what
        except Exception as error:
            raise AssertionError(f"{record.name}: {what}") from error
        put_back(bench, files)
    return count, accepted


@pytest.mark.promise("A damaged or hostile manifest is used, or refused in one sentence.")
def test_a_finished_runs_manifest_with_anything_wrong_is_used_or_refused(bench, at_once, capsys) -> None:
    bench.fill(6)
    bench()

    def use() -> None:
        show(bench.out, as_json=False)
        show(bench.out, as_json=True)
        read_labels(bench.out)
        bench()

    count, accepted = try_all(bench, bench.out.with_name("out.jsonl.manifest.json"), use)
    assert count > 1500
    assert accepted > 100


@pytest.mark.promise("A damaged or hostile manifest is used, or refused in one sentence.")
@pytest.mark.parametrize("options", [{"deterministic": True}, {"only": "violates"}])
def test_an_unfinished_runs_record_with_anything_wrong_is_used_or_refused(
    bench, at_once, capsys, monkeypatch, options
) -> None:
    monkeypatch.setattr("safeguard_cli.output.journal.SYNC_SECONDS", 0)
    bench.fill(40)
    bench.killed_after(30, **options)
    begun = bench.out.read_bytes()

    def use() -> None:
        bench(**options)
        rows = [json.loads(line) for line in bench.out.read_bytes().splitlines()]
        assert begun.splitlines()[0] == bench.out.read_bytes().splitlines()[0]
        assert [row["id"] for row in rows] == sorted({row["id"] for row in rows})

    count, accepted = try_all(bench, bench.run_json(), use, every=2)
    assert count > 500
    assert accepted > 50


@pytest.mark.promise("A damaged or hostile manifest is used, or refused in one sentence.")
def test_a_shards_manifest_with_anything_wrong_is_merged_or_refused(bench, at_once, capsys) -> None:
    bench.fill(6)
    shards = [bench.folder / f"part{part}.jsonl" for part in (1, 2)]
    for part, bench.out in enumerate(shards, 1):
        bench(shard=(part, 2))

    def use() -> None:
        out = bench.folder / "merged.jsonl"
        merge(shards, out, overwrite=False, quiet=True)
        assert len(out.read_bytes().splitlines()) == 6
        show(out, as_json=False)

    count, accepted = try_all(bench, shards[0].with_name("part1.jsonl.manifest.json"), use, every=2)
    assert count > 600
    assert accepted > 50


@pytest.mark.promise("A damaged or hostile manifest is used, or refused in one sentence.")
@pytest.mark.parametrize("finished", [True, False])
def test_a_parquet_outputs_record_with_anything_wrong_is_used_or_refused(bench, at_once, capsys, finished) -> None:
    bench.source, bench.out = bench.folder / "in.parquet", bench.folder / "out.parquet"
    pq.write_table(pa.table({"id": range(6), "text": ["a"] * 6}), bench.source)
    if finished:
        bench(limit=4)
    else:
        bench.killed_after(3, each_row=True)
    record = "out.parquet.manifest.json" if finished else "out.parquet.rows.jsonl.run.json"

    def use() -> None:
        bench(each_row=True)
        assert pq.read_table(bench.out)["id"].to_pylist() == list(range(6))

    count, accepted = try_all(bench, bench.folder / record, use, every=3)
    assert count > 300
    assert accepted > 30


# What is kept in the cache


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept._say_once.cache_clear()
    return tmp_path / "cache" / "safeguard"


def kept_files(tiny: Path) -> dict[str, object]:
    """Return the files that the cache holds after a run."""
    return {HASHES: {model_key(tiny): model_sha256(tiny)}, LOADABLE: [model_key(tiny)]}


@pytest.mark.promise("A cached file that is damaged, or that others could have written, is never used.")
def test_kept_files_with_anything_wrong_are_made_anew(cache, tiny, monkeypatch) -> None:
    right, asked = kept_files(tiny), []
    monkeypatch.setattr(probe.Probe, "ask", lambda *_, **named: asked.append(named))
    count = 0
    for name, whole in right.items():
        for what, data in manifests.mutated(whole):
            (cache / name).write_bytes(data)
            assert model_sha256(tiny) == right[HASHES][model_key(tiny)], what  # type: ignore[index]
            check_loadable(tiny, model_key(tiny))
            count += 1
    assert len(asked) > 40
    assert count > 80


@pytest.mark.parametrize("name", [HASHES, LOADABLE])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large", "link to nowhere"])
def test_what_is_no_small_file_is_not_read(cache, tiny, monkeypatch, name, kind) -> None:
    monkeypatch.setattr(probe.Probe, "ask", lambda *_, **__: {})
    cache.mkdir(parents=True, mode=0o700)
    path = cache / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        path.write_bytes(b" " * (kept.MOST_BYTES + 1) + b"{}")
    else:
        path.symlink_to(cache / "nowhere")
    assert model_sha256(tiny) == files.sha256(tiny)
    check_loadable(tiny, model_key(tiny))
    assert kind == "folder" or json.loads(path.read_bytes())


@pytest.mark.promise("A cached file that is damaged, or that others could have written, is never used.")
@pytest.mark.parametrize("kind", ["open folder", "somebody else's folder", "open file", "somebody else's file"])
def test_what_others_could_have_put_there_is_not_used(cache, tiny, monkeypatch, capsys, kind) -> None:
    lie = {model_key(tiny): "0" * 64}
    kept.save(HASHES, lie)
    assert model_sha256(tiny) == "0" * 64
    path = cache / HASHES if "file" in kind else cache
    if "open" in kind:
        path.chmod(0o777)
    else:
        real, inode = files.is_ours, path.stat().st_ino
        monkeypatch.setattr(files, "is_ours", lambda state: state.st_ino != inode and real(state))
    for _ in range(2):
        assert model_sha256(tiny) == files.sha256(tiny)
    said = capsys.readouterr().err
    assert said.count("nothing that is kept there is used") == ("folder" in kind)
    if "folder" in kind:
        assert json.loads((cache / HASHES).read_bytes()) == lie  # nor written to


def test_what_is_kept_is_for_the_users_eyes_only(cache, tiny) -> None:
    before = os.umask(0)
    try:
        model_sha256(tiny)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (cache, cache / HASHES)] == [0o700, 0o600]


def test_kept_hashes_do_not_grow_without_end(cache, tiny, monkeypatch) -> None:
    monkeypatch.setattr("safeguard_cli.model.fingerprint.MOST_HASHES", 3)
    kept.save(HASHES, {str(number): "0" * 64 for number in range(9)})
    model_sha256(tiny)
    assert list(json.loads((cache / HASHES).read_bytes())) == ["7", "8", model_key(tiny)]


def test_the_command_with_50_damaged_records_and_kept_files_works_or_says_one_sentence(cache, bench) -> None:
    """The command itself runs, on the demo model."""
    bench.source.write_text('{"text": "free prize"}\n{"text": "see you at noon"}\n')

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([SAFEGUARD, *args], cwd=bench.folder, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr
        assert "internal error" not in done.stderr
        return done

    def label(out: str) -> int:
        return run(*f"label in.jsonl --policy spam --model demo --effort none -o {out}".split()).returncode

    assert label("out.jsonl") == 0
    labelled, record = bench.out.read_bytes(), bench.out.with_name("out.jsonl.manifest.json")
    right = record.read_bytes()
    wrong = random.Random(3).sample(list(manifests.mutated(json.loads(right))), 40)

    def show(number: int) -> None:
        what, data = wrong[number]
        (bench.folder / f"out{number}.jsonl.manifest.json").write_bytes(data)
        done = run("show", f"out{number}.jsonl")
        assert done.returncode in (0, 4), what
        assert done.stderr.count("error: ") == (done.returncode == 4), what
        assert bool(done.stdout) == (done.returncode == 0), what

    with ThreadPoolExecutor(2) as both:
        list(both.map(show, range(40)))
    for what, data in wrong[::8]:
        record.write_bytes(data)
        assert label("out.jsonl") in (0, 4), what
        assert bench.out.read_bytes() == labelled
    record.write_bytes(right)
    (state,) = (cache / "prefixes").iterdir()
    for path in (cache / HASHES, cache / LOADABLE, state):
        for data in (b"null", path.read_bytes()[:-1], None):
            path.unlink()
            if data is None:
                os.mkfifo(path)
            else:
                path.write_bytes(data)
            (bench.folder / "again.jsonl").unlink(missing_ok=True)
            assert label("again.jsonl") == 0
            assert (bench.folder / "again.jsonl").read_bytes() == labelled

"""Killed at any point, a command leaves nothing half done that passes for whole; run again, it finishes."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import TESTS
from helpers.fake_engine import Steady
from helpers.hub_server import FILE, REPO, Hub, Machine
from helpers.kills import killed_at, steps_of
from helpers.runs import plant

from safeguard_cli import errors
from safeguard_cli.output.merge import merge

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.promise(
        "`pull`, `merge`, `--retry-errors` and the last step to Parquet can be killed anywhere: the "
        "same command finishes the work."
    ),
]
KILLS = 12


def points(work, put_back) -> list[int]:
    """Return steps at which to kill `work`, the first and the last among them; `put_back` undoes what it does."""
    steps = steps_of(work)
    put_back()
    chance = random.Random(11)
    return sorted({0, steps - 1, *(chance.randrange(steps) for _ in range(KILLS))})


def restorer(folder: Path):
    """Return a function that puts a folder's files back as they are now."""
    kept = {path: path.read_bytes() for path in folder.iterdir() if path.is_file() and not path.is_symlink()}

    def put_back() -> None:
        for path in folder.iterdir():
            if path not in kept and path.is_file() and not path.is_symlink():
                path.unlink()
        for path, data in kept.items():
            path.write_bytes(data)

    return put_back


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_labelling_errors_again_is_killed_anywhere(bench, at_once, suffix) -> None:
    bench.fill(20)
    bench.out = bench.folder / f"out.{suffix}"
    bench(lambda *given: Steady(*given, error=lambda prompt: prompt.row in (4, 15)))
    planted = plant(bench)
    before, old = names(bench.folder), bench.out.read_bytes()
    put_back = restorer(bench.folder)
    bench(Steady, retry_errors=True)
    new = bench.out.read_bytes()
    assert new != old
    put_back()
    work = lambda: bench(Steady, retry_errors=True)  # noqa: E731
    for point in points(work, put_back):
        assert killed_at(point, work), point
        assert bench.out.read_bytes() in (old, new), point
        assert bench(Steady, retry_errors=True) == errors.ROWS_IN_ERROR, point
        assert bench.out.read_bytes() == new, point
        assert bench.manifest()["result"]["errors"] == {"no_text": 2}, point
        assert names(bench.folder) == before, point
        assert {path: path.read_text() for path in planted} == planted, point
        put_back()


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_merging_is_killed_anywhere(bench, at_once, suffix) -> None:
    bench.source = bench.folder / f"in.{suffix}"
    if suffix == "jsonl":
        bench.fill(30)
    else:
        pq.write_table(pa.table({"id": range(30), "text": ["a", "b", "c"] * 10}), bench.source)
    shards = [bench.folder / f"part{part}.{suffix}" for part in (1, 2)]
    for part, bench.out in enumerate(shards, 1):
        bench(Steady, shard=(part, 2))
    bench.out = bench.folder / f"merged.{suffix}"
    planted = plant(bench)
    before, put_back = names(bench.folder), restorer(bench.folder)
    merge(shards, bench.out, overwrite=False, quiet=True)
    whole = bench.out.read_bytes()
    put_back()
    work = lambda: merge(shards, bench.out, overwrite=True, quiet=True)  # noqa: E731
    for point in points(work, put_back):
        assert killed_at(point, work), point
        assert not bench.out.exists() or bench.out.read_bytes() == whole, point
        merge(shards, bench.out, overwrite=True, quiet=True)
        assert bench.out.read_bytes() == whole, point
        assert names(bench.folder) - before == {bench.out.name, f"{bench.out.name}.manifest.json"}, point
        assert {path: path.read_text() for path in planted} == planted, point
        put_back()


def test_the_last_step_to_parquet_is_killed_anywhere(bench, at_once) -> None:
    bench.source, bench.out = bench.folder / "in.parquet", bench.folder / "out.parquet"
    pq.write_table(pa.table({"id": range(30), "text": ["a", "b", "c"] * 10}), bench.source)
    bench(Steady)
    whole = bench.out.read_bytes()
    bench.out.unlink()
    bench.out.with_name("out.parquet.manifest.json").unlink()
    planted = plant(bench)
    clean, step = names(bench.folder), 0
    while not (bench.folder / "out.parquet.rows.jsonl.manifest.json").exists():  # all rows are labelled, no more
        step += 1
        assert killed_at(step, lambda: bench(Steady, overwrite=True))
    put_back = restorer(bench.folder)
    for point in points(lambda: bench(Steady), put_back):
        assert killed_at(point, lambda: bench(Steady)), point
        assert not bench.out.exists() or bench.out.read_bytes() == whole, point
        assert bench(Steady) == errors.OK
        assert bench.out.read_bytes() == whole, point
        assert names(bench.folder) - clean == {"out.parquet", "out.parquet.manifest.json"}, point
        assert {path: path.read_text() for path in planted} == planted, point
        put_back()


PULLS = """
import os, random, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from helpers import kills
from safeguard_cli.model import hub
from safeguard_cli.model.names import HubName

folder, model, sha = hub._repo_folder(sys.argv[2]), HubName(sys.argv[2], sys.argv[3]), sys.argv[4]
fetch = hub.http_get

class Counted:  # what arrives is written through here, and that is a step too
    def __init__(self, file):
        self.file = file
    def write(self, data):
        step = os.open(os.devnull, os.O_RDONLY)
        os.close(step)
        done = self.file.write(data)
        self.file.flush()
        return done
    def __getattr__(self, name):
        return getattr(self.file, name)

hub.http_get = lambda url, out, **named: fetch(url, Counted(out), **named)

def whole():
    return all(path.suffix == ".incomplete" or hub.sha256(path) == path.name for path in folder.glob("blobs/*"))

def gone():
    os.system(f"rm -rf '{folder}'")

steps = kills.steps_of(lambda: hub.pull(model))
gone()
chance, killed = random.Random(5), 0
for point in sorted({0, steps - 1, *(chance.randrange(steps) for _ in range(int(sys.argv[5])))}):
    killed += kills.killed_at(point, lambda: hub.pull(model))  # how much comes at once, and so the steps, differs
    assert whole(), point
    assert not kills.killed_at(1 << 40, lambda: hub.pull(model)), point
    assert whole() and [path.name for path in folder.glob("blobs/*")] == [sha], point
    gone()
print("killed", killed)
"""


def test_a_pull_is_killed_anywhere(tmp_path) -> None:
    content = random.Random(1).randbytes(700_000)
    with Hub({REPO: {FILE: content}}) as hub:
        machine = Machine(tmp_path, hub)
        sha = hashlib.sha256(content).hexdigest()
        done = subprocess.run(
            [sys.executable, "-c", PULLS, str(TESTS), REPO, FILE, sha, str(KILLS)],
            env=machine.env,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 10

"""Ray: a cluster of two nodes on this machine labels every row once, also if one of them is killed on the way."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.fake_engine import FakeEngine
from helpers.fault_server import FaultServer

from safeguard_cli import errors
from safeguard_cli.engine.local.process import EngineSpec
from safeguard_cli.engine.reports import Listen
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.prompt.contract import Prompt
from safeguard_cli.run.label import label
from safeguard_cli.run.ray import find_blocks, label_on_ray
from safeguard_cli.run.settings import Settings

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


class Slow(FakeEngine):
    """An engine slow enough that a node can be killed before it has finished a file."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given, before=lambda _: time.sleep(0.001))


class Deadly(FakeEngine):
    """An engine that kills its worker at the row that says so; each loading leaves a line beside the model."""

    def __init__(self, spec: EngineSpec, log: Callable[[str], None], report: Listen | None = None) -> None:
        super().__init__(spec, log, report, before=self._die)
        with (spec.path.parent / "loaded").open("a") as file:
            file.write("once\n")

    def _die(self, prompt: Prompt) -> None:
        if len(prompt.ids) > 100:
            os._exit(9)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a head node without a CPU for workers, and two nodes with one each."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))  # workers import this file
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        made.add_node(num_cpus=1)
        made.add_node(num_cpus=1)
        yield made
        ray.shutdown()
        made.shutdown()


def fill(folder: Path, files: int, rows: int) -> None:
    for at in range(files):
        lines = (json.dumps({"id": at * rows + row, "text": f"call me on {row}"}) for row in range(rows))
        (folder / f"in{at}.jsonl").write_text("\n".join(lines) + "\n")


def ids(folder: Path) -> list[int]:
    return [json.loads(line)["id"] for path in sorted(folder.glob("*.jsonl")) for line in path.open()]


def settings(folder: Path, model: Path, **options: Any) -> Settings:
    given = {"policies": ("spam",), "model": str(model), "threads": 1, "slots": 4, **options}
    return Settings(input=str(folder / "in*.jsonl"), output=str(folder / "labels"), **given)


def test_every_format_comes_out_as_from_a_run_of_its_own_with_one_engine_for_each_node(cluster, tmp_path, tiny) -> None:
    model = tmp_path / "model.gguf"
    shutil.copy(tiny, model)
    fill(tmp_path, 4, 20)
    lines = (tmp_path / "in0.jsonl").read_text().splitlines()
    (tmp_path / "deep").mkdir()
    with gzip.open(tmp_path / "deep" / "in.jsonl.gz", "wt") as file:
        file.write("\n".join(lines))
    (tmp_path / "in.csv").write_text("id,text\n" + "".join(f"{at},hello {at}\n" for at in range(15)))
    pq.write_table(pa.table({"id": range(15), "text": [f"hello {at}" for at in range(15)]}), tmp_path / "in.parquet")
    asked = replace(settings(tmp_path, model), input=str(tmp_path / "**" / "in*.*"), deterministic=True)
    assert label_on_ray(asked, cluster.address, Deadly) == errors.OK
    assert 1 <= len((tmp_path / "loaded").read_text().splitlines()) <= 2
    for name, source in (
        ("in0.jsonl", "in0.jsonl"),
        ("in.csv", "in.csv"),
        ("in.parquet", "in.parquet"),
        ("deep/in.jsonl", "deep/in.jsonl.gz"),
    ):
        made = tmp_path / "labels" / name
        alone = tmp_path / f"alone{made.suffix}"
        one = replace(asked, input=str(tmp_path / source), output=str(alone), overwrite=True, quiet=True)
        assert label(one, FakeEngine) == errors.OK
        assert made.read_bytes() == alone.read_bytes()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "labels").rglob("*")}
    assert label_on_ray(asked, cluster.address, Deadly) == errors.OK
    files = {path: at for path, at in before.items() if path.is_file()}
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_the_nodes_of_a_cluster_can_ask_servers(cluster, tmp_path, tiny, capsys) -> None:
    fill(tmp_path, 4, 25)
    with FaultServer(["ok", "500", "429", "ok"]) as one, FaultServer() as other:
        asked = settings(tmp_path, tiny, servers=(one.address, other.address), effort="none")
        assert label_on_ray(asked, cluster.address) == errors.OK
        alone = replace(asked, input=str(tmp_path / "in2.jsonl"), output=str(tmp_path / "alone.jsonl"), quiet=True)
        assert label(alone) == errors.OK
        assert {path for path, *_ in other.requests} >= {"/v1/completions"}
    assert ids(tmp_path / "labels") == list(range(100))
    assert (tmp_path / "labels" / "in2.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    assert "100 rows in 4 files, 0 in error" in capsys.readouterr().err


def test_a_file_that_kills_its_workers_is_given_up_and_the_others_are_labelled(cluster, tmp_path, tiny, capsys) -> None:
    model = tmp_path / "model.gguf"
    shutil.copy(tiny, model)
    fill(tmp_path, 3, 30)
    with (tmp_path / "in1.jsonl").open("a") as file:
        file.write(json.dumps({"id": 1000, "text": "deadly " * 200}) + "\n")
    (tmp_path / "in9.jsonl").write_text('{"title": 1}\n')
    assert label_on_ray(settings(tmp_path, model), cluster.address, Deadly) == errors.FATAL
    said = capsys.readouterr().err
    assert "in1.jsonl: 3 workers died on it" in said
    assert "in9.jsonl: " in said
    assert "files not labelled: 2;" in said
    for name in ("in0.jsonl", "in2.jsonl"):
        assert len((tmp_path / "labels" / name).read_text().splitlines()) == 30
    assert (
        label_on_ray(replace(settings(tmp_path, model), input=str(tmp_path / "in1*")), cluster.address, FakeEngine) == 0
    )
    assert len((tmp_path / "labels" / "in1.jsonl").read_text().splitlines()) == 31


def test_a_model_that_no_node_has_is_said(cluster, tmp_path, tiny) -> None:
    fill(tmp_path, 1, 3)
    with pytest.raises(SafeguardError, match=r"no node of the cluster can be used: .*none\.gguf"):
        label_on_ray(settings(tmp_path, tmp_path / "none.gguf"), cluster.address, FakeEngine)


def test_what_ray_cannot_do_is_refused_before_anything_starts(tmp_path, tiny) -> None:
    fill(tmp_path, 2, 3)
    (tmp_path / "in0.jsonl.gz").write_bytes(b"")
    for options, said in (
        ({"limit": 3}, "--limit"),
        ({"shard": (1, 2)}, "--shard"),
        ({"dry_run": True}, "--dry-run"),
        ({"servers": ("http://h:1", "http://u:p@h:2")}, "no user, password or query"),
        ({"output": None}, "-o DIR"),
        ({"output": str(tmp_path / "in0.jsonl")}, "is not a folder"),
        ({"output": str(tmp_path)}, "overwritten"),
        ({"input": str(tmp_path / "*.none")}, "no file matches"),
        ({"input": str(tmp_path / "in0*")}, "both be written"),
    ):
        with pytest.raises(UsageError, match=said):
            find_blocks(replace(settings(tmp_path, tiny), **options))
    assert not (tmp_path / "labels").exists()


def test_an_output_gets_a_name_that_says_its_format(tmp_path, tiny) -> None:
    for name in ("a.json", "b.jsonl", "c", "d.txt.gz"):
        (tmp_path / name).write_text("{}")
    blocks = find_blocks(replace(settings(tmp_path, tiny), input=str(tmp_path / "*"), format="ndjson"))
    assert sorted(block.output.name for block in blocks) == ["a.json", "b.jsonl", "c", "d.txt.jsonl"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:none"])
def test_an_address_where_no_cluster_answers_is_said(tmp_path, tiny, address) -> None:
    fill(tmp_path, 1, 3)
    with pytest.raises(SafeguardError, match=f"no Ray cluster answers at {address}"):
        label_on_ray(settings(tmp_path, tiny), address, FakeEngine)


@pytest.mark.parametrize(
    "options", [["--ray"], ["--ray", "-q"], ["--ray", "--ray-address", "h:1"], ["--shard", "4/3"], ["--shard", "x"]]
)
def test_the_address_may_be_left_out_and_a_shard_must_be_one(options, monkeypatch, capfd) -> None:
    from safeguard_cli.cli.app import main

    monkeypatch.setattr(sys, "argv", ["safeguard", "label", "*.jsonl", "--policy", "spam", *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == errors.USAGE
    assert ("-o DIR" if "--ray" in options[0] else "K/N") in capfd.readouterr().err


@pytest.mark.promise("On two Ray nodes, one of them killed on the way, 10,000 rows come out once each.")
def test_ten_thousand_rows_on_two_nodes_one_of_them_killed_come_out_once_each(cluster, tmp_path, tiny, capsys) -> None:
    fill(tmp_path, 8, 1250)
    labels, killed = tmp_path / "labels", []

    def kill() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and sum(path.stat().st_size > 100_000 for path in labels.glob("*.jsonl")) < 4:
            time.sleep(0.01)
        killed.append(len(list(labels.glob("*.manifest.json"))))
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    assert label_on_ray(settings(tmp_path, tiny), cluster.address, Slow) == errors.OK
    thread.join()
    assert killed[0] < 8
    assert ids(labels) == list(range(10_000))
    assert len(list(labels.glob("*.manifest.json"))) == 8
    assert not list(labels.glob("*.run.json"))
    said = capsys.readouterr().err
    assert "is gone" in said
    assert "10,000 rows in 8 files, 0 in error" in said

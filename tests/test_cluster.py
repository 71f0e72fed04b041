"""Ray: a cluster of two nodes in this machine labels every row once, also when one of them is killed on the way."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine

from safeguard_cli import errors
from safeguard_cli.cluster import find_blocks, label_on_ray
from safeguard_cli.errors import UsageError
from safeguard_cli.setup import Settings

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


class Slow(FakeEngine):
    """A row takes some time, so that a node can be killed in the middle of one of its files."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given, before=lambda _: time.sleep(0.001))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head node without a CPU for workers, and two nodes with one each."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))  # for the workers: this file
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

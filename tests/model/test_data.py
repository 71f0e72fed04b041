"""Data from the hub: `pull` alone fetches it, and its name is then an INPUT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.hub_server import SMALL, Hub, Machine

REPO = "datasets/some-body/posts"
SMALL_ROWS = b'{"id": 1, "text": "see you at noon"}\n'
LARGE_ROWS = b"id,text\n" + b"".join(b"%d,see you at %d\n" % (number, number) for number in range(20 * SMALL))
NAMES = {"small.jsonl": SMALL_ROWS, "data/large.csv": LARGE_ROWS}


@pytest.mark.promise("Only `pull` fetches data from the hub; what arrives is checked, and its name is then an INPUT.")
@pytest.mark.parametrize("name", NAMES)
def test_data_is_fetched_checked_and_labelled_under_its_name(tmp_path: Path, name: str) -> None:
    given = f"hf://{REPO}/{name}"
    with Hub({REPO: NAMES}) as hub:
        machine = Machine(tmp_path, hub)
        missing = machine.run("label", given, "--policy", "spam", "--model", "demo")
        assert (missing.returncode, hub.log) == (2, [])
        assert f"to fetch it: safeguard pull {given}" in missing.stderr
        assert machine.run("pull", given).returncode == 0
        asked = len(hub.log)
        out = tmp_path / "out.jsonl"
        done = machine.run(
            *("label", given, "--policy", "spam", "--model", "demo", "--effort", "none", "--limit", 1, "-o", out)
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(out.read_text())["text"].startswith("see you at ")
        assert len(hub.log) == asked
        assert machine.run("pull", given).returncode == 0


def test_a_pull_that_is_cut_off_resumes_and_damage_is_thrown_away(tmp_path: Path) -> None:
    given = f"hf://{REPO}/data/large.csv"
    with Hub({REPO: NAMES}, cuts=[500, 200_000]) as hub:
        assert Machine(tmp_path, hub).run("pull", given).returncode == 0
        assert any("bytes=" in line for line in hub.log)
    for name in NAMES:
        with Hub({REPO: NAMES}, wrong={name}) as hub:
            done = Machine(tmp_path / name, hub).run("pull", f"hf://{REPO}/{name}")
            assert done.returncode == 1
            assert "arrived damaged" in done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf://datasets/some-body/posts", "is not of the form hf://datasets/OWNER/NAME/FILE"),
        ("hf://datasets/some-body/posts/../../x", "is not of the form"),
        ("hf://spaces/a/b/c", "is not of the form"),
        ("hf://datasets/some-body/posts/smal.jsonl", "did you mean 'small.jsonl'"),
        ("hf://datasets/no/body/x.csv", "the hub has no datasets/no/body"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_what_it_should_be(tmp_path: Path, name: str, said: str) -> None:
    with Hub({REPO: NAMES}) as hub:
        done = Machine(tmp_path, hub).run("pull", name)
    assert done.returncode in (1, 2)
    assert said in " ".join(done.stderr.split())

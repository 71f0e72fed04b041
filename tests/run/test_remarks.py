"""What a run reports of its results: cut reasoning, and labels of the demo model that mean nothing."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path

import pytest
from helpers.command import safeguard, write
from helpers.fake_engine import FakeEngine

from safeguard_cli.model.find import find_model
from safeguard_cli.model.gguf import read_header
from safeguard_cli.model.names import DEMO_NOTICE
from safeguard_cli.policy.policy import builtin_policies, load_policy
from safeguard_cli.prompt.contract import Completion
from safeguard_cli.rows.verdict import Verdict
from safeguard_cli.run.progress import Counts
from safeguard_cli.run.remarks import cut_advice, untrained

CUT = (3, 4, 8, 17, 25)  # rows that hold their text in every format
TRAINED = ("spam", "hate", "privacy", "prompt-injection")


class Cutting(FakeEngine):
    """An engine whose budget cuts some rows, and where some rows fail while `failing`."""

    failing = False

    def answer(self, prompt, history):
        if self.failing and prompt.row % 7 == 6:
            return Completion(prompt, (), error="asked to fail")
        return Completion(prompt, (0.9, 0.1), ended=prompt.row not in CUT, generated=5)


class Failing(Cutting):
    failing = True


def cut_rows(path: Path) -> list[int]:
    return [row["id"] for row in map(json.loads, path.read_bytes().splitlines()) if row["spam"].get("cut")]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_rows_that_the_budget_cut_are_counted_over_all_sessions(bench, suffix) -> None:
    bench.fill(30, suffix)
    bench(Cutting, limit=10)
    assert bench.manifest()["result"]["cut"] == 3
    bench(Cutting, limit=20)
    bench(Cutting)
    assert bench.manifest()["result"]["cut"] == len(CUT)
    if suffix == "jsonl":
        assert cut_rows(bench.out) == list(CUT)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_labelling_error_rows_again_keeps_the_count(bench, suffix) -> None:
    bench.fill(30, suffix)
    bench(Failing)
    bench(Cutting, retry_errors=True)
    assert bench.manifest()["result"]["cut"] == len(CUT)


def test_the_columns_of_a_csv_stay_what_they_were(bench) -> None:
    bench.fill(10, "csv")
    bench(Cutting)
    header = next(csv.reader(bench.out.read_text().splitlines()))
    columns = ("label", "violates", "p_violates", "score", "scores", "effort", "windows", "error")
    assert header[2:] == [f"spam_{column}" for column in columns]


def test_a_summary_says_how_many_were_cut_and_what_helps(bench, capsys) -> None:
    bench.fill(30)
    bench(Cutting, quiet=False, progress="plain", max_reasoning=64)
    said = " ".join(capsys.readouterr().err.split())
    assert "cut 5 rows: the reasoning was cut by the budget of 64 tokens" in said
    assert "--effort none decides without reasoning, and --max-reasoning 256 gives it room" in said
    bench(Cutting, overwrite=True)  # the default budget is warned of even with --quiet
    assert "warning: 5 of 2" in capsys.readouterr().err


def test_a_few_rows_need_no_advice() -> None:
    counts = Counts(["spam"])
    counts.add({"spam": Verdict("ham", False)}, 97)
    counts.add({"spam": Verdict("ham", False, cut=True)}, 3)
    assert cut_advice(counts, 256, "low") == ""
    counts.add({"spam": Verdict("ham", False, cut=True)}, 3)
    assert "6 of 103 rows" in cut_advice(counts, 256, "low")
    assert "--effort low" in cut_advice(counts, 1024, "medium")


def test_show_and_merge_tell_of_cut_rows(bench, tiny, tmp_path) -> None:
    bench.fill(20)
    outputs = []
    for part in (1, 2):
        bench.out = tmp_path / f"out.{part}.jsonl"
        bench(Cutting, shard=(part, 2))
        outputs.append(bench.out)
    merged = tmp_path / "merged.jsonl"
    assert safeguard("merge", *outputs, "-o", merged).returncode in (0, 3)
    manifests = (json.loads(path.with_name(f"{path.name}.manifest.json").read_bytes()) for path in outputs)
    expected = sum(manifest["result"]["cut"] for manifest in manifests)
    assert expected > 0
    shown = safeguard("show", merged)
    assert f"{expected} rows: the reasoning was cut by the budget of 256 tokens" in shown.stdout.decode()


def test_parquet_says_it_too(bench) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    bench.fill(30)
    bench.out = bench.folder / "out.parquet"
    bench(Cutting)
    column = parquet.read_table(bench.out).column("spam").to_pylist()
    assert [number for number, verdict in enumerate(column) if verdict["cut"]] == list(CUT)


@pytest.mark.parametrize("name", sorted(builtin_policies()))
def test_the_demo_models_labels_mean_something_under_its_own_policies_alone(name) -> None:
    header = read_header(find_model("demo"))
    policy = load_policy(name)
    assert untrained([policy], header) == (() if name in TRAINED else (name,))


def test_other_labels_or_violating_ones_are_another_policy(tiny) -> None:
    header = read_header(find_model("demo"))
    flipped = load_policy("spam", violates=("ham",))
    other = load_policy("spam", labels=("good", "bad"), violates=("bad",))
    renamed = load_policy("spam", rename="mail")
    assert untrained([flipped], header) == untrained([other], header) == ("spam",)
    assert untrained([renamed, load_policy("hate")], header) == ()
    assert untrained([flipped], read_header(tiny)) == ()  # the model names no policy that it was trained on


def test_a_run_under_another_policy_says_that_its_labels_mean_nothing(tmp_path) -> None:
    source = write(tmp_path / "in.jsonl", '{"text": "see you at noon"}', '{"text": "send me the money"}')
    out = tmp_path / "out.jsonl"
    command = ("label", source, "-p", "fraud", "-p", "spam", "--model", "demo", "--effort", "none", "--threads", 1)
    done = safeguard(*command, "--progress", "plain", "-o", out)
    said = " ".join(done.stderr.decode().split())
    assert "warning: the labels under fraud mean nothing" in said
    assert "under fraud the labels under fraud mean nothing" in said.split("rows 2, 2 labelled")[1]
    assert "under spam" not in said
    assert b"the labels under fraud mean nothing" in safeguard("show", out).stdout
    quiet = safeguard(*command, "-q")
    assert b"the labels under fraud mean nothing" in quiet.stderr


def test_what_the_demo_model_is_comes_once_a_day(tmp_path) -> None:
    source = write(tmp_path / "in.jsonl", '{"text": "see you at noon"}')
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def said(**env: str) -> bool:
        done = safeguard("label", source, "-p", "spam", "--model", "demo", "--threads", 1, **{**cache, **env})
        assert done.returncode == 0
        return DEMO_NOTICE.encode() in done.stderr

    assert said() and not said()
    yesterday = time.time() - 25 * 3600
    os.utime(tmp_path / "cache" / "safeguard" / "demo-notice", (yesterday, yesterday))
    assert said()
    write(tmp_path / "file")
    assert said(XDG_CACHE_HOME=str(tmp_path / "file"))  # where no stamp can be kept


def test_a_summary_asks_for_the_encoding_where_bytes_are_not_valid_in_it(tmp_path) -> None:
    (tmp_path / "in.csv").write_bytes(b"id,text\n1,caf\xe9 at noon\n2,see you\n")
    run = (
        "label",
        tmp_path / "in.csv",
        "-p",
        "spam",
        "--model",
        "demo",
        "--effort",
        "none",
        "-o",
        tmp_path / "out.csv",
    )
    done = safeguard(*run)
    assert done.returncode == 3 and b"is there another --encoding, such as" in done.stderr
    done = safeguard(*run, "--overwrite", "--encoding", "cp1252")
    assert done.returncode == 0 and b"--encoding" not in done.stderr

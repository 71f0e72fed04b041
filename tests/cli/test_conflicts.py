"""No option of `label` is ignored: one that is empty or has no effect in a mode is refused by name."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer
from helpers.command import safeguard
from helpers.runs import Bench

from safeguard_cli import errors
from safeguard_cli.cli import conflicts
from safeguard_cli.cli.app import app
from safeguard_cli.errors import UsageError
from safeguard_cli.run import prepare

LABEL = typer.main.get_command(app).commands["label"]  # type: ignore[attr-defined]
SERVER = "--server http://localhost:1"


def check(line: str) -> None:
    """Check a command line after `label in.jsonl -p spam` as the command does; nothing is run."""
    with LABEL.make_context("label", ["in.jsonl", "-p", "spam", *shlex.split(line)]) as context:
        conflicts.check(context, conflicts.LABEL)


@pytest.mark.parametrize(
    ("line", "option", "why"),
    [
        ("--sure 0.9", "--sure", "--effort auto"),
        ("--sure 0.95", "--sure", "--effort auto"),
        ("--effort none --max-reasoning 9", "--max-reasoning", "does not reason"),
        ("--long truncate --max-windows 3", "--max-windows", "--long split"),
        ("--seed 1", "--seed", "--temperature"),
        ("--seed 1 --temperature 0", "--seed", "--temperature"),
        ("--temperature 1 --effort none", "--temperature", "--effort none"),
        ("--votes 3 --effort none", "--votes", "--effort none"),
        ("--until-decided", "--until-decided", "--votes"),
        ("--together", "--together", "one policy"),
        (f"{SERVER} --threads 2", "--threads", "--server"),
        (f"{SERVER} --engine ik", "--engine", "--server"),
        (f"{SERVER} --gpu-layers 2", "--gpu-layers", "--server"),
        (f"{SERVER} --cpu-moe 2", "--cpu-moe", "--server"),
        (f"{SERVER} --kv-type q8_0", "--kv-type", "--server"),
        (f"{SERVER} --repack off", "--repack", "--server"),
        (f"{SERVER} --batch 512", "--batch", "--server"),
        (f"{SERVER} --tokenizer t.json --model demo", "--model", "--tokenizer"),
        (f"{SERVER} --server-api chat --model demo", "--model", "--server-model"),
        (f"{SERVER} --server-api chat --policy-only-prompt", "--policy-only-prompt", "chat"),
        ("--server-api chat", "--server-api", "--server"),
        ("--server-model m", "--server-model", "--server"),
        ("--tokenizer t.json", "--tokenizer", "--server"),
        ("--format parquet --encoding latin-1", "--encoding", "Parquet"),
        ("--overwrite", "--overwrite", "no file"),
        ("--append-input", "--append-input", "no file"),
        ("--retry-errors -o -", "--retry-errors", "no file"),
        ("--overwrite -o /dev/null", "--overwrite", "no file"),
        ("-o out.jsonl --retry-errors --dry-run", "--retry-errors", "--dry-run"),
        ("-o out.jsonl --append-input --dry-run", "--append-input", "--dry-run"),
        ("-o out.jsonl --append-input --overwrite", "--append-input", "--overwrite"),
        ("-o out.jsonl --retry-errors --overwrite", "--retry-errors", "--overwrite"),
        ("-o out.jsonl --append-input --retry-errors", "--append-input", "--retry-errors"),
        ("--reuse old.jsonl --temperature 0.5", "--reuse", "--temperature"),
        ("--reuse old.jsonl --group thread", "--reuse", "--group"),
        ("-o out.jsonl --only violates --retry-errors", "--retry-errors", "--only"),
        ("-o out.csv --csv-safe --keep none", "--csv-safe", "--keep none"),
        ("-q -v", "--verbose", "--quiet"),
        ("-q --progress plain", "--progress", "--quiet"),
        ("--ray -o out --progress rich", "--progress", "--ray"),
    ],
)
def test_an_option_without_effect_is_refused_with_the_mode(line: str, option: str, why: str) -> None:
    with pytest.raises(UsageError, match=rf"{option} has no effect .*{why}"):
        check(line)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--effort auto --sure 0.9 --max-reasoning 9",
        "--temperature 1 --seed 2",
        "--votes 3 --seed 2 --until-decided",
        "--temperature 0 --effort none",
        "--temperature 1 --seed 2 --effort none --rationale",
        "--long split --max-windows 3",
        "-p hate --together",
        f"{SERVER} --slots 4 --ctx 4096 --model demo -v",
        f"{SERVER} --server-api chat --server-model m --tokenizer t.json --max-reasoning 5",
        "-o out.jsonl --overwrite --dry-run --keep id --on-error stop --progress none",
        "-o out.jsonl --append-input --limit 5",
        "-o out.csv --csv-safe --keep none --id-field id",
        "--ray -o out --overwrite",
        "-q --progress none",
        "--keep none --encoding latin-1",
        "--effort none --reasoning",
    ],
)
def test_what_has_an_effect_is_let_through(line: str) -> None:
    check(line)


@pytest.mark.parametrize(
    "option",
    [
        "--output",
        "--as",
        "--keep",
        "--policy",
        "--model",
        "--text-field",
        "--template",
        "--labels",
        "--violates",
        "--encoding",
        "--id-field",
        "--server",
        "--server-model",
        "--tokenizer",
    ],
)
@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_an_empty_value_is_refused_with_its_option(option: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"^{option} is empty"):
        check(f"{option} '{value}'")


@pytest.mark.parametrize("value", [",", "a,", ",a", "a,,b", " , "])
@pytest.mark.parametrize("option", ["--labels", "--violates", "--keep"])
def test_a_list_with_nothing_between_its_commas_is_refused(option: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"^{option} .*nothing between"):
        check(f"{option} '{value}'")


@pytest.mark.parametrize(("given", "option"), [({"gpu_layers": 5}, "--gpu-layers"), ({"cpu_moe": 2}, "--cpu-moe")])
def test_options_for_a_gpu_are_refused_where_there_is_none(tiny, tmp_path, monkeypatch, given, option) -> None:
    monkeypatch.setattr(prepare, "devices", lambda: ())
    (tmp_path / "in.jsonl").write_text('{"text":"hi"}\n')
    bench = Bench(tmp_path, tiny)
    with pytest.raises(UsageError, match=f"^{option} has no effect: .* no GPU"):
        bench(**given)
    assert bench(gpu_layers=0, cpu_moe=0) == 0


def test_merge_refuses_an_empty_output_and_an_empty_shard(tmp_path: Path) -> None:
    for call, said in ((["a.jsonl", "-o", ""], b"--output is empty"), (["", "-o", "b.jsonl"], b"OUT is empty")):
        done = safeguard("merge", *call, cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr


def test_an_input_without_a_name_is_refused() -> None:
    with (
        LABEL.make_context("label", ["", "-p", "spam"]) as context,
        pytest.raises(UsageError, match=r"^INPUT is empty"),
    ):
        conflicts.check(context, conflicts.LABEL)


def test_standard_input_cannot_be_appended_to() -> None:
    call = ["-", "-p", "spam", "-o", "out.jsonl", "--append-input"]
    with LABEL.make_context("label", call) as context, pytest.raises(UsageError, match="standard input"):
        conflicts.check(context, conflicts.LABEL)


def test_every_rule_names_an_option_of_label() -> None:
    names = {parameter.name for parameter in LABEL.params}
    assert {rule.option for rule in conflicts.LABEL} <= names


def test_a_value_from_settings_is_not_on_the_command_line() -> None:
    call = ["in.jsonl", "-p", "spam"]
    with LABEL.make_context("label", call, default_map={"sure": 0.9, "seed": 3}) as context:
        conflicts.check(context, conflicts.LABEL)
        assert set(conflicts.given(context)) == {"inputs", "policies"}


def test_a_refusal_is_exit_2_before_anything_is_loaded_or_written(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id":1,"text":"hi"}\n')
    done = safeguard("label", "in.jsonl", "-p", "spam", "--model", "none.gguf", "--sure", 0.9, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"error: --sure has no effect without --effort auto\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("call", "new"),
    [
        ("label in.jsonl -p spam --ray host:6379 -o out", "--ray-address"),
        ("label in.jsonl -p spam --ray=host:6379 -o out", "--ray-address"),
        ("eval in.jsonl -p spam --sure", "--find-sure"),
        ("eval in.jsonl -p spam --sure --json", "--find-sure"),
        ("stress in.jsonl -p spam --seed 3", "--variant-seed"),
    ],
)
def test_an_option_that_has_another_name_now_says_which(call, new) -> None:
    done = safeguard(*shlex.split(call), COLUMNS="200")
    assert done.returncode == errors.USAGE
    assert new in done.stderr.decode()

"""Options mean the same in every command, a page lists which command takes which, and files hold defaults."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import TESTS
from helpers.command import safeguard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tools.pages import COMMANDS, by_command, commands, options

from safeguard_cli.cli.app import app
from safeguard_cli.errors import OK, USAGE, UsageError
from safeguard_cli.measure import measured
from safeguard_cli.model import config
from safeguard_cli.rows.records import MAX_ROW_BYTES
from safeguard_cli.run.settings import Settings

RUNS = {
    "label": "safeguard_cli.run.label.label",
    "ask": "safeguard_cli.run.ask.ask",
    "audit": "safeguard_cli.audit.audit.audit",
    "eval": "safeguard_cli.measure.evaluate.evaluate",
    "compare": "safeguard_cli.measure.compare.compare",
    "stress": "safeguard_cli.measure.stress.stress.stress",
    "bench": "safeguard_cli.machine.bench.bench",
    "report": "safeguard_cli.measure.report.report.report",
    "review": "safeguard_cli.review.review.review",
}
# The options that an option needs to have an effect.
BESIDE = {
    "--calibrate-with": "--calibrate c.json",
    "--junit": "--require f1>=0",
    "--sheet": "--format xlsx",
    "--skip-rows": "--format csv",
    "--sure": "--effort auto",
    "--seed": "--temperature 0.5",
    "--until-decided": "--votes 3",
    "--together": "-p hate",
    "--server-api": "--server http://localhost:1",
    "--server-model": "--server http://localhost:1",
    "--tokenizer": "--server http://localhost:1",
    "--ray-address": "--ray",
    "--language-field": "--pair x",
    "--overwrite": "-o out.jsonl",
    "--append-input": "-o out.jsonl",
    "--retry-errors": "-o out.jsonl",
    **dict.fromkeys(("--order", "--role-field", "--verdict-per"), "--group talk"),
}
OF_REVIEW = {
    **dict.fromkeys(("--gold-field", "--map"), "--pick wrong"),
    "--with": "--pick disagree",
    "--id-field": "--pick disagree --with out2.jsonl",
    "--seed": "",
}
# Values that are neither the default nor refused, by option; for others, `value_of` goes by the metavar.
VALUES: dict[str, tuple[str, Any]] = {
    "--shard": ("2/3", (2, 3)),
    "--labels": ("a,b", ("a", "b")),
    "--violates": ("b", ("b",)),
    "--repack": ("on", True),
    "--effort": ("medium", "medium"),
    "--format": ("csv", "csv"),
    "--batch": ("1024", 1024),
    "--verdict-per": ("conversation", "conversation"),
    "--ctx": ("4096", 4096),
    "--votes": ("5", 5),
    "--long": ("error", "error"),
    "--kv-type": ("q8_0", "q8_0"),
    "--engine": ("ik", "ik"),
    "--server-api": ("chat", "chat"),
    "--on-error": ("stop", "stop"),
    "--layout": ("moderation", "moderation"),
    "--only": ("violates", "violates"),
    "--calibrate-with": ("platt", "platt"),
    "--progress": ("none", "none"),
    "--ray-address": ("h:1", "h:1"),
    "--for": ("1h30m", 5400.0),
    "--within": ("2%", 0.02),
    "--output": ("x.jsonl", "x.jsonl"),
    "--pick": ("unsure", "unsure"),
}


def value_of(parameter: Any) -> tuple[str | None, Any]:
    """Return a value for an option as it is written (None for a flag), and as it arrives in a run."""
    option = max(parameter.opts, key=len)
    if getattr(parameter, "is_flag", False):
        return None, True
    if option in VALUES:
        return VALUES[option]
    if parameter.metavar in ("N", "TOKENS", "N,N"):
        return "3", 3
    return ("0.75", 0.75) if parameter.metavar in ("T", "P", "S") else ("x", "x")


def leaves(values: Any) -> Iterator[Any]:
    """Yield all values that a run was called with, also those inside dataclasses and lists."""
    yield values
    if isinstance(values, dict):
        values = list(values.values())
    elif hasattr(values, "__dataclass_fields__"):
        values = [getattr(values, name) for name in values.__dataclass_fields__]
    if isinstance(values, (list, tuple)):
        for value in values:
            yield from leaves(value)


@pytest.fixture
def arrived(monkeypatch, tmp_path) -> list[Any]:
    """Collect what the last run was called with; runs do nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"text": "x"}\n')
    found: list[Any] = []
    for path in (*RUNS.values(), "safeguard_cli.run.ray.label_on_ray"):
        monkeypatch.setattr(path, lambda *given: found.extend(given) or OK)
    return found


POLICY_NEEDED = ("label", "ask", "audit", "bench")
CELLS = [(name, option) for name in COMMANDS for option in options(commands()[name]).values()]


@pytest.mark.parametrize(("name", "option"), CELLS)
def test_every_option_arrives_in_the_run_of_every_command_that_takes_it(arrived, name, option) -> None:
    parameter = next(each for each in commands()[name].params if option in each.opts)
    text, value = value_of(parameter)
    spelled = option
    if parameter.default is True:  # on by default: its other spelling switches it off
        spelled, value = parameter.secondary_opts[0], False
    beside = {**BESIDE, **OF_REVIEW} if name == "review" else BESIDE
    call = ["in.jsonl", *shlex.split(beside.get(option, ""))]
    if option != "--policy" and name not in ("report", "review"):
        call += ["--policy", "spam"]
    if name == "review":
        call += [each for own in ("--output golden.jsonl", "--as anna") if option not in own for each in own.split()]
    if name == "compare":
        call += ["--policy", "hate"]
    if name == "label":
        call += ["-o", "out.jsonl"] if option not in ("--output", *BESIDE) else []
    if option == "--content":
        call.remove("in.jsonl")
    counts = []
    for more in ([], [spelled, *([] if text is None else [text])]):
        arrived.clear()
        needed = {"review": ("--output", "--as")}.get(name, ("--policy",) if name in POLICY_NEEDED else ())
        if option not in needed or more:
            assert app([name, *call, *more], standalone_mode=False) == OK
        counts.append(sum(type(leaf) is type(value) and leaf == value for leaf in leaves(arrived)))
    if option == "--quiet" and name == "review":  # it silences what the room says
        return
    if option == "--quiet":  # it also changes what is reported of the text
        assert arrived[0].quiet
    elif option not in ("--debug", "--ray"):  # the guard reads --debug, and --ray calls another run
        assert counts[1] > counts[0], arrived


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_a_command_does_not_take_is_refused(name, tmp_path) -> None:
    taken = set(options(commands()[name]).values())
    every = {option for command in commands().values() for option in options(command).values()}
    assert every - taken
    for option in every - taken:
        with pytest.raises(Exception, match="No such option") as refused:
            app([name, "in.jsonl", option], standalone_mode=False)
        assert getattr(refused.value, "exit_code", USAGE) == USAGE
    assert all(f"`{option}`" in by_command() for option in every)


def test_one_option_has_one_help_and_default_wherever_it_is() -> None:
    seen: dict[str, set[tuple[Any, ...]]] = {}
    own = {
        "--threshold",
        "--output",
        "--overwrite",
        "--policy",
        "--model",
        "--effort",
        "--slots",
        "--threads",
        "--batch",
    }
    own |= {"--rows", "--seed", "--by", "--max-flips", "--json", "--worst", "--as", "--rationale", "--calibration"}
    for command in commands().values():
        for parameter in command.params:
            option = max(parameter.opts, key=len)
            if option.startswith("--") and option not in own:
                seen.setdefault(option, set()).add((parameter.help, str(parameter.default), parameter.metavar))
    assert {option for option, forms in seen.items() if len(forms) > 1} == set()


def test_the_defaults_are_those_of_the_rooms_that_use_them() -> None:
    assert Settings().max_row_bytes == MAX_ROW_BYTES


# Settings files


def called(folder: Path, *args: object, **env: str) -> tuple[int, str, list[dict]]:
    done = safeguard("label", "in.jsonl", "-p", "spam", "--progress", "none", *args, cwd=folder, **env)
    rows = [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == OK else []
    return done.returncode, done.stderr.decode(), rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.jsonl").write_text('{"body": "WIN A PRIZE", "title": "hello"}\n')
    return tmp_path


def test_a_file_of_settings_sets_defaults_which_the_command_line_goes_before(folder) -> None:
    (folder / "safeguard.toml").write_text('model = "demo"\n[label]\neffort = "none"\ntext-field = ["body"]\n')
    code, said, rows = called(folder)
    assert (code, rows[0]["spam"]["effort"]) == (OK, "none")
    assert said.count("from safeguard.toml: --text-field body --effort none\n") == 1
    code, said, rows = called(folder, "--effort", "low")
    assert rows[0]["spam"]["effort"] == "low"
    assert "--effort" not in said
    assert called(folder, "-q")[:2] == (OK, "")


def test_the_working_directorys_file_goes_before_the_users(folder, tmp_path) -> None:
    home = tmp_path / "config"
    (home / "safeguard").mkdir(parents=True)
    (home / "safeguard/safeguard.toml").write_text('[label]\neffort = "high"\ntext-field = "body"\nmodel = "demo"\n')
    (folder / "pyproject.toml").write_text('[tool.safeguard.label]\neffort = "none"\n')
    code, said, rows = called(folder, XDG_CONFIG_HOME=str(home))
    assert (code, rows[0]["spam"]["effort"]) == (OK, "none"), said
    assert said.startswith("from ")
    assert "/safeguard.toml" in said
    assert "pyproject.toml" in said
    assert ": --text-field body --effort none" in said


def test_a_default_without_effect_is_left_out(folder) -> None:
    (folder / "safeguard.toml").write_text(
        'model = "demo"\n[label]\neffort = "none"\nlabels = ["ham", "spam"]\ntogether = true\nmax-reasoning = 9\n'
    )
    code, said, rows = called(folder, "--text-field", "body", "-p", "hate")
    assert (code, set(rows[0]) & {"spam", "hate"}) == (OK, {"spam", "hate"}), said
    assert "--labels" not in said
    assert "--max-reasoning" not in said
    assert "--together" in said


def test_a_default_that_is_used_is_always_reported(folder) -> None:
    """A threshold of `eval` means something with several policies, unlike that of `label`."""
    (folder / "in.jsonl").write_text('{"body": "WIN A PRIZE", "spam_gold": "spam", "hate_gold": "allowed"}\n')
    (folder / "safeguard.toml").write_text('model = "demo"\n[eval]\neffort = "none"\nthreshold = "0.5"\n')
    done = safeguard("eval", "in.jsonl", "-p", "spam", "-p", "hate", "--text-field", "body", cwd=folder)
    assert done.returncode == OK, done.stderr
    assert "--threshold 0.5" in done.stderr.decode()


@pytest.mark.parametrize(
    "name", sorted(config.NEVER - {"help_all", "golden", "a", "b", "out", "outs", "input", "inputs", "texts"})
)
def test_what_reads_or_writes_files_or_leaves_the_machine_is_never_set_by_a_file(folder, name) -> None:
    spelled = {key: option for command in commands().values() for key, option in options(command).items()}
    command = next(each for each in COMMANDS if name in options(commands()[each]))
    (folder / "safeguard.toml").write_text(f"[{command}]\n{spelled[name][2:]} = true\n")
    done = safeguard(command, "in.jsonl", "-p", "spam", cwd=folder)
    assert done.returncode == USAGE
    assert f"safeguard.toml: [{command}] {spelled[name][2:]} cannot be set in a file" in done.stderr.decode()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("slots = 900", r"\[label\] slots"),
        ('effort = "lots"', r"\[label\] effort"),
        ("effort = true", "cannot have this value"),
        ('rationale = "yes"', "must be true or false"),
        ('efort = "none"', "did you mean effort"),
        ('model = "../x.gguf"', "lies outside"),
        ('policy = ["../rules.md"]', "lies outside"),
        ('policy = ["/etc/rules.md"]', "lies outside"),
        ("slots = {}", "cannot have this value"),
        ("slots = [1, 2]", r"\[label\] slots"),
    ],
)
def test_a_wrong_default_is_refused_naming_file_table_and_option(folder, table, told) -> None:
    (folder / "safeguard.toml").write_text(f"[label]\n{table}\n")
    code, said, _ = called(folder, "--text-field", "body", COLUMNS="300")
    assert code == USAGE
    assert "safeguard.toml" in said
    assert len([line for line in said.splitlines() if "safeguard.toml" in line]) == 1
    assert re.search(told, said), said


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


EVERY = sorted({option[2:] for name in COMMANDS for option in options(commands()[name]).values()})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(EVERY) | st.text(max_size=9), value=VALUE)
def test_any_table_is_taken_or_refused_as_a_usage_error(arrived, monkeypatch, key, value) -> None:
    tables = {"safeguard.toml": {"label": {key: value}}}
    monkeypatch.setattr(config, "_settings", lambda path: tables.get(path.name, {}))
    monkeypatch.setattr(config, "user_file", lambda: None)
    try:
        assert app(["label", "in.jsonl", "--policy", "spam", "-o", "out.jsonl", "-q"], standalone_mode=False) in (
            OK,
            USAGE,
        )
    except Exception as refused:
        assert getattr(refused, "exit_code", None) == USAGE, refused


OF_A_RUN = [
    o
    for name, o in options(commands()["eval"]).items()
    if name in measured.OF_A_RUN and o not in ("--sure", "--together")
]


@pytest.mark.parametrize("option", OF_A_RUN)
def test_an_option_of_a_run_is_refused_on_what_is_labelled_already(option, tmp_path, monkeypatch) -> None:
    output = TESTS / "kept/0.1.0/finished.jsonl"
    beside = {**BESIDE, "--together": "-p spam -p hate"}.get(option, "")
    parameter = next(each for each in commands()["eval"].params if option in each.opts)
    text, _ = value_of(parameter)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"has no effect on .*, which is labelled already"):
        call([str(output), *shlex.split(beside), option, *([] if text is None else [text])])


def call(arguments: list[str]) -> None:
    """Call `eval` without the guard that makes sentences of errors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("safeguard_cli.cli.measure.run", lambda command, debug: command())
        app(["eval", *arguments], standalone_mode=False)

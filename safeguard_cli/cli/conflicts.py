"""Refuses options on the command line that have no effect there, and empty values.

A command first checks its own call, inside `guard.run`, so that a refusal is one sentence and exit code 2:

    def command(ctx: typer.Context, …) -> None:
        def run() -> int:
            check(ctx, COMMON)             # or (*COMMON, Rule(…), …) with the command's own rules
            …
        guard.run(run, debug)

A Rule names an option by its parameter in the command, decides from the values of all parameters whether it has no
effect, and says why. Parameters that a command does not have count as not given, so COMMON serves every command. Where
a command finds out only later that an option has no effect (the input is labelled already), `refuse(context, names,
why)` refuses it.

Only options on the command line are refused. `settled(ctx, rules, part)`, which checks too, leaves out defaults from
settings files that have no effect.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import typer

from safeguard_cli.cli.defaults import files, spelled
from safeguard_cli.errors import UsageError

Part = TypeVar("Part")  # a dataclass of options
Values: TypeAlias = Mapping[str, Any]  # by parameter: what a command is called with, defaults included

_LISTS = {"labels", "violates", "keep"}  # written with commas


@dataclass(frozen=True, slots=True)
class Rule:
    """The option of parameter `option` has no effect if `idle` returns True; `why` ends the sentence that says so."""

    option: str
    idle: Callable[[Values], bool]
    why: str


def given(context: typer.Context, source: str = "COMMANDLINE") -> dict[str, str]:
    """Return the options on the command line: by parameter, the spelling (`--max-reasoning`)."""
    return {
        parameter.name: _spelled(parameter)
        for parameter in context.command.params
        if parameter.name and getattr(context.get_parameter_source(parameter.name), "name", "") == source
    }


def check(context: typer.Context, rules: Iterable[Rule]) -> None:
    """Raise UsageError for the first option on the command line that is empty or idle by one of `rules`."""
    on_line = given(context)
    values = {name: _plain(value) for name, value in context.params.items()}
    for name, option in on_line.items():
        _check_not_empty(name, option, values.get(name))
    for rule in rules:
        if rule.option in on_line and rule.idle(values):
            raise UsageError(f"{on_line[rule.option]} has no effect {rule.why}")


def settled(context: typer.Context, rules: Sequence[Rule], part: Part) -> Part:
    """Check a call, and return its options without the defaults from settings files that have no effect in it.

    The defaults that do have one are reported once, unless the call is quiet.
    """
    check(context, rules)
    values = {name: _plain(value) for name, value in context.params.items()}
    idle = {rule.option for rule in (*rules, *OF_THE_RUN) if rule.idle(values)}
    fields = {field.name: field.default for field in dataclasses.fields(part)}  # type: ignore[arg-type]
    from_files = given(context, "DEFAULT_MAP")
    without = {name: fields[name] for name in from_files if name in idle and name in fields}
    told = [
        " ".join(f"{option} {value}".rstrip() for value in _shown(values[name]))
        for name, option in from_files.items()
        if name not in without and values[name] != fields.get(name)
    ]
    if told and not values.get("quiet"):
        from safeguard_cli.terminal import note

        note(f"from {files(context)}: {' '.join(told)}")
    return dataclasses.replace(part, **without)  # type: ignore[type-var]


def _shown(value: Any) -> list[str]:
    """An option's values as they are written after it, one for each time."""
    return [*map(str, value)] if isinstance(value, (list, tuple)) else [""] if value is True else [str(value)]


def refuse(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Raise UsageError for the first of the parameters `names` that was given on the command line."""
    on_line = given(context)
    for name in names:
        if name in on_line:
            raise UsageError(f"{on_line[name]} has no effect {why}")


def is_set(name: str) -> Callable[[Values], bool]:
    """Return a condition: the option has a value that is neither empty nor off."""
    return lambda values: bool(values.get(name))


def _spelled(parameter: Any) -> str:
    """Return the longest spelling of an option, or an argument's name in the help."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper()).removesuffix("...").removesuffix("…")
    return spelled(parameter)


def _plain(value: Any) -> Any:
    """Return the value as written, where typer has made it a member of an Enum."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _check_not_empty(name: str, option: str, value: Any) -> None:
    for text in value if isinstance(value, list) else [value]:
        if text == Path():  # typer made it of an empty path
            text = ""
        if not isinstance(text, str):
            continue
        if not text.strip():
            raise UsageError(f"{option} is empty: give it a value, or leave it out")
        if name in _LISTS and not all(item.strip() for item in text.split(",")):
            raise UsageError(f"{option} {text!r} has nothing between two commas, or before or after one")


def _efforts(values: Values) -> set[str]:
    """Return the efforts of a call: one, or several."""
    effort = values.get("effort")
    return set(effort) if isinstance(effort, list) else {effort or "low"}


def _kind(values: Values) -> Any:
    """Return the format that --format or the extension says the input has; None if only its first bytes will tell, or
    if there are several."""
    from safeguard_cli.rows.formats import FORMATS, extension  # not at the top: --help does without it

    one = values.get("input") or values.get("golden") or values.get("a") or values.get("out") or ""
    kinds = {extension(Path(path)) for path in values.get("inputs") or values.get("outs") or (one,)}
    return FORMATS.get(values.get("format") or (kinds.pop() if len(kinds) == 1 else ""))


def _whole(values: Values) -> bool:
    return (kind := _kind(values)) is not None and kind.whole


def _no_sheet(values: Values) -> bool:
    return not ((kind := _kind(values)) and kind.is_sheet)


def _no_header(values: Values) -> bool:
    return (kind := _kind(values)) is not None and not kind.headed


def _chat(values: Values) -> bool:
    return bool(values.get("servers")) and values.get("server_api") == "chat"


def _no_server(values: Values) -> bool:
    return not values.get("servers")


def _to_stream(values: Values) -> bool:
    """Return whether the output cannot exist beforehand: it is standard output, a device or a named pipe."""
    output = values.get("output")
    if output == "-" or output is None:
        return output == "-" or not (sys.stdout and sys.stdout.isatty())
    from safeguard_cli.rows.writable import is_stream  # not at the top: --help does without it

    return is_stream(Path(output))


def _not_sampled(values: Values) -> bool:
    return not values.get("temperature") and not values.get("votes")


def _auto(values: Values) -> bool:
    return "auto" in _efforts(values)


def _made_out(values: Values) -> bool:
    """Return whether OUT is made at the end, of all rows."""
    return Path(str(values.get("output") or "")).suffix.lower() in (".parquet", ".json", ".xlsx")


def _no_csv_out(values: Values) -> bool:
    return _made_out(values) or Path(str(values.get("output") or "")).suffix.lower() in (".jsonl", ".ndjson")


def _several(values: Values) -> bool:
    return len(values.get("policies") or ()) > 1 or _is_pack(values)


def _is_pack(values: Values) -> bool:
    from safeguard_cli.policy.packs import is_pack  # not at the top: --help does without it

    return any(map(is_pack, values.get("policies") or ()))


OF_THE_RUN = (
    *(Rule(option, _several, "with several policies") for option in ("labels", "violates", "rename", "threshold")),
    *(Rule("together", why, "") for why in (_auto, _chat, is_set("policy_only_prompt"))),
    Rule("effort", lambda v: _chat(v) and v.get("effort") in ("none", "auto"), ""),
    Rule("votes", _chat, ""),
    Rule("deterministic", is_set("servers"), ""),
    *(Rule(option, is_set("ray"), "") for option in ("limit", "shard", "dry_run", "group", "reuse")),
    *(Rule(option, _made_out, "") for option in ("only", "layout")),
    *(Rule(option, _no_csv_out, "") for option in ("csv_safe", "bom")),
)
"""What the run itself refuses, with its own messages: here for the page of options, and for defaults from files."""

_HERE = "with --server: the model is not on this machine"
_OF_TURNS = ("order", "role_field", "verdict_per")
_NO_SERVER = "without --server"
_STREAM = "where the output is no file: name one with -o"

COMMON = (
    Rule("max_reasoning", lambda v: _efforts(v) == {"none"}, "with --effort none, which does not reason"),
    Rule(
        "together",
        lambda v: len(v.get("policies") or ()) == 1 and not _several(v),
        "with one policy: it asks about several in one prompt",
    ),
    *(
        Rule(option, is_set("servers"), _HERE)
        for option in ("engine", "threads", "gpu_layers", "cpu_moe", "kv_type", "repack", "batch")
    ),
    *(Rule(option, _no_server, _NO_SERVER) for option in ("server_api", "server_model", "tokenizer")),
    Rule(
        "model",
        lambda v: bool(v.get("servers") and v.get("tokenizer")),
        "beside --tokenizer: with --server the model is the server's, and --tokenizer brings its vocabulary",
    ),
    Rule("model", _chat, "with --server-api chat, where the model is the server's: --server-model names it"),
    Rule("encoding", _whole, "on Parquet and spreadsheets, which say it themselves"),
    Rule("sheet", _no_sheet, "on an input that is no spreadsheet by its name or --format"),
    Rule("skip_rows", _no_header, "on rows that have no header above them"),
    *(Rule(option, lambda v: not v.get("group"), "without --group") for option in _OF_TURNS),
    Rule("sure", lambda v: not _auto(v), "without --effort auto"),
    Rule("max_windows", lambda v: v.get("long") != "split", "without --long split"),
    Rule(
        "temperature",
        lambda v: (v.get("temperature") or 0) > 0 and _efforts(v) == {"none"} and not v.get("rationale"),
        "with --effort none: it samples the reasoning, and there is none",
    ),
    Rule("votes", lambda v: _efforts(v) == {"none"}, "with --effort none: it samples the reasoning, and there is none"),
    Rule("until_decided", lambda v: not v.get("votes"), "without --votes"),
    Rule("seed", _not_sampled, "without --temperature or --votes"),
    Rule("policy_only_prompt", _chat, "with --server-api chat, where the server makes the prompt"),
    Rule("verbose", is_set("quiet"), "with --quiet: choose one of the two"),
    Rule(
        "progress",
        lambda v: bool(v.get("quiet")) and v.get("progress") != "none",
        "with --quiet, which shows no progress",
    ),
)

LABEL = (
    *COMMON,
    *(Rule(option, _to_stream, _STREAM) for option in ("overwrite", "append_input", "retry_errors")),
    *(
        Rule(option, is_set("dry_run"), "with --dry-run, which looks only at the input")
        for option in ("append_input", "retry_errors")
    ),
    *(
        Rule(option, is_set("overwrite"), "with --overwrite, which starts over")
        for option in ("append_input", "retry_errors")
    ),
    Rule("append_input", is_set("retry_errors"), "with --retry-errors: run one after the other"),
    Rule(
        "reuse",
        lambda v: (v.get("temperature") or 0) > 0 and not v.get("votes"),
        "with --temperature, which gives every row an answer of its own",
    ),
    Rule("reuse", is_set("group"), "with --group: what is said of a turn depends on the turns before it"),
    Rule(
        "append_input",
        lambda v: v.get("inputs") == ["-"],
        "on standard input, which cannot be read again from its start: name the file",
    ),
    Rule("retry_errors", is_set("only"), "with --only, whose output does not have every row"),
    Rule(
        "csv_safe",
        lambda v: v.get("keep") == "none" and not v.get("id_field"),
        "with --keep none: the cells that we add are always safe",
    ),
    Rule(
        "progress",
        lambda v: bool(v.get("ray")) and v.get("progress") == "rich",
        "with --ray, which reports progress in lines",
    ),
    Rule("ray_address", lambda v: not v.get("ray"), "without --ray"),
)
"""`label`'s rules; the first that applies is reported."""

_IN_JSON = Rule("progress", is_set("json"), "with --json, which shows none")

AUDIT = (
    *(rule for rule in COMMON if rule.option != "seed"),
    Rule("retry_errors", is_set("dry_run"), "with --dry-run, which looks only at the input"),
    Rule("retry_errors", is_set("overwrite"), "with --overwrite, which starts over"),
    *(
        Rule(option, is_set("retry_errors"), "with --retry-errors, which labels rows that are drawn already")
        for option in ("rows", "lasting", "within")
    ),
    *(Rule(option, is_set("dry_run"), "with --dry-run, which labels nothing") for option in ("by", "reviewed", "json")),
    Rule("within", is_set("find"), "with --find, which looks for rows, not for a share"),
    Rule(
        "csv_safe",
        lambda v: v.get("keep") == "none" and not v.get("id_field"),
        "with --keep none: the cells that we add are always safe",
    ),
    _IN_JSON,
)
"""`audit`'s rules."""

_NO_OUTPUT = Rule("overwrite", lambda v: not v.get("output"), "without -o")

MEASURE = (
    *COMMON,
    _IN_JSON,
    Rule("wrong", is_set("json"), "with --json, which holds all of them"),
    Rule("junit", lambda v: not v.get("require"), "without --require"),
    _NO_OUTPUT,
    Rule("calibrate_with", lambda v: not v.get("calibrate"), "without --calibrate"),
    Rule("calibration", is_set("calibrate"), "with --calibrate, which measures what it learns"),
)
"""The rules of `eval` and `compare`."""

AGREE = (
    Rule("disputes", is_set("json"), "with --json, which holds all of them"),
    Rule("encoding", _whole, "on Parquet and spreadsheets, which say it themselves"),
)

STRESS = (
    Rule("seed", _not_sampled, "without --temperature or --votes; --variant-seed makes other variants"),
    *COMMON,
    _IN_JSON,
    Rule("worst", is_set("json"), "with --json, which holds all of them"),
    *(
        Rule(
            option,
            lambda v: bool(v.get("families")) and "languages" not in v["families"],
            "without --family languages",
        )
        for option in ("translations", "pair", "language_field")
    ),
    Rule(
        "language_field",
        lambda v: not v.get("translations") and not v.get("pair"),
        "without --translation or --pair",
    ),
    _NO_OUTPUT,
)

BENCH = (
    *COMMON,
    Rule("content", is_set("input"), "with INPUT: its texts are measured"),
    *(
        Rule(option, lambda v: not v.get("input"), "without INPUT")
        for option in ("format", "encoding", "sheet", "skip_rows", "max_row_bytes", "text_fields", "template")
    ),
)

REVIEW = (
    Rule("plain", is_set("web"), "with --web: choose one of the two"),
    Rule("other", lambda v: v.get("pick") != "disagree", "without --pick disagree"),
    *(
        Rule(option, lambda v: v.get("pick") != "wrong", "without --pick wrong")
        for option in ("gold_fields", "mapping")
    ),
    Rule("id_field", lambda v: not v.get("other"), "without --with: it pairs the rows of two outputs"),
    Rule("seed", lambda v: v.get("pick") == "disputed", "with --pick disputed, which draws nothing"),
    Rule("encoding", _whole, "on Parquet and spreadsheets, which say it themselves"),
)

ASK = (
    *COMMON,
    Rule("calibration", is_set("watch"), "with --watch: it is for one text of the policy, and no other"),
)

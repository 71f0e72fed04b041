"""Where a run's output goes and what it holds, checked before anything is loaded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, TypedDict

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.model.config import PROJECT_FILES, configured_model, user_file
from safeguard_cli.model.find import find_model
from safeguard_cli.model.gguf import model_parts
from safeguard_cli.output.manifest import beside
from safeguard_cli.policy.policy import Policy, builtin_policies
from safeguard_cli.rows.sink import check_names, default_output, name_of, output_format, stream_format, verdict_columns
from safeguard_cli.rows.source import Format, Source, check_fields
from safeguard_cli.rows.writable import Used, check_output, is_stream, open_stream, used
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import data_output, note


def open_target(settings: Settings, source: Source, read: Sequence[Used], stack: ExitStack) -> Path | BinaryIO:
    """Where the output goes, a file or a stream (also a device or a named pipe); refused when it cannot be."""
    if settings.output == "-" or (settings.output is None and not sys.stdout.isatty()):
        return data_output()
    path = Path(settings.output) if settings.output is not None else default_output(source)
    if is_stream(path):
        return stack.enter_context(open_stream(path, read))
    check_output(path, read, beside(path, "jsonl"))
    if settings.output is None and not settings.quiet and not settings.dry_run:
        note(f"writing to {path}")
    return path


def kept_fields(settings: Settings) -> list[str] | None:
    """The row's own fields that are written; None: all of them."""
    if settings.keep is None:
        return None
    fields = [] if settings.keep == "none" else [name.strip() for name in settings.keep.split(",")]
    return [settings.id_field, *fields] if settings.id_field is not None else fields


class Output(TypedDict):
    format: Format
    names: list[str]
    columns: tuple[str, ...]
    keep: list[str] | None
    only_violating: bool
    csv_safe: bool


def describe_output(settings: Settings, source: Source, target: Path | BinaryIO, policies: Sequence[Policy]) -> Output:
    """What the output holds, checked against the input's fields before anything is loaded."""
    if isinstance(target, Path):
        format = output_format(target, source.format)
    else:
        format = stream_format(name_of(target), source.format)
    assert format != "parquet"  # parquet_output writes those, from a journal
    if settings.csv_safe and format != "csv":
        raise UsageError("--csv-safe has no effect: the output is not CSV")
    if settings.id_field is not None:
        check_fields(source, "--id-field", [settings.id_field])
    names = [policy.name for policy in policies]
    columns = verdict_columns(
        windows=settings.long == "split",
        truncated=settings.long == "truncate",
        rationale=settings.rationale,
        reasoning=settings.reasoning,
    )
    keep = kept_fields(settings)
    check_names(source, format, names, columns, keep)
    return Output(
        format=format,
        names=names,
        columns=columns,
        keep=keep,
        only_violating=settings.only is not None,
        csv_safe=settings.csv_safe,
    )


def used_by(settings: Settings) -> list[Used]:
    """All files that a command with these settings reads; what is wrong with one of them is for its reader to say."""
    builtin = builtin_policies()
    found = used("the input", settings.input)
    found += used("the policy", *(builtin.get(name, name) for name in settings.policies))
    with suppress(SafeguardError):
        found += used("the model", *model_parts(find_model(settings.model or configured_model())))
    if settings.tokenizer is not None:
        found += used("the tokenizer", settings.tokenizer)
    settings_files = (*PROJECT_FILES, user_file())
    return found + used("the file of settings", *(file for file in settings_files if file is not None))

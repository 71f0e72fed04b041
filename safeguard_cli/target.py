"""Where a run's output goes and what it holds, checked before anything is loaded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Literal, TypedDict

from safeguard_cli.errors import UsageError
from safeguard_cli.outputs import check_names, check_output, default_output, output_format, verdict_columns
from safeguard_cli.policy import Policy
from safeguard_cli.records import Source, check_fields
from safeguard_cli.setup import Settings
from safeguard_cli.streams import data_output
from safeguard_cli.terminal import note


def open_target(settings: Settings, source: Source, stack: ExitStack) -> Path | BinaryIO:
    """Where the output goes, a file or a stream (also a device or a named pipe); refused when it cannot be."""
    if settings.output == "-" or (settings.output is None and not sys.stdout.isatty()):
        return data_output()
    path = Path(settings.output) if settings.output else default_output(source)
    check_output(path, source.path)
    if path.exists() and not path.is_file():
        return stack.enter_context(path.open("wb", buffering=0))
    if not settings.output and not settings.quiet:
        note(f"writing to {path}")
    return path


class Output(TypedDict):
    format: Literal["jsonl", "csv"]
    names: list[str]
    columns: tuple[str, ...]
    keep: list[str] | None
    only_violating: bool
    csv_safe: bool


def describe_output(settings: Settings, source: Source, target: Path | BinaryIO, policies: Sequence[Policy]) -> Output:
    """What the output holds, checked against the input's fields before anything is loaded."""
    format = output_format(target if isinstance(target, Path) else None, source.format)
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
    keep = None
    if settings.keep is not None:
        fields = [] if settings.keep == "none" else [name.strip() for name in settings.keep.split(",")]
        keep = [settings.id_field, *fields] if settings.id_field is not None else fields
    check_names(source, format, names, columns, keep)
    return Output(
        format=format,
        names=names,
        columns=columns,
        keep=keep,
        only_violating=settings.only is not None,
        csv_safe=settings.csv_safe,
    )

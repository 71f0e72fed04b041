"""The options of an audit, each declared once; see run/settings.py. Imports Typer alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from safeguard_cli.rows.options import Written

ROWS = 400  # that an audit labels if nothing else ends it
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def _seconds(value: str) -> float:
    seconds, number = 0.0, ""
    try:
        for mark in value.strip():
            if mark in _UNITS:
                seconds, number = seconds + float(number) * _UNITS[mark], ""
            else:
                number += mark
    except ValueError:
        seconds = 0.0
    if number or not 0 < seconds < 1e9:
        raise ValueError(f"{value!r} is no time: write 90s, 30m, 2h, 1h30m or 2d")
    return seconds


def _points(value: str) -> float:
    try:
        points = float(value.strip().removesuffix("%"))
    except ValueError:
        points = 0.0
    if not 0 < points < 50:
        raise ValueError(f"{value!r} is not a number of percentage points between 0 and 50, such as 1%")
    return points / 100


@dataclass(frozen=True)
class Audited:
    """The sample"""

    rows: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help=f"Label N rows drawn at random. Default: {ROWS}."),
    ] = None
    lasting: Annotated[
        float | None,
        Written(_seconds),
        typer.Option("--for", metavar="TIME", help="Label drawn rows until this time is over: 90s, 30m, 2h, 1h30m."),
    ] = None
    find: Annotated[
        bool,
        typer.Option(
            "--find",
            help="Find what violates: label the likeliest rows first, and tell what part of all is found at least."
            " Without --rows or --for, until that part is 90 %.",
        ),
    ] = False
    within: Annotated[
        float | None,
        Written(_points),
        typer.Option(
            metavar="POINTS",
            help="Label drawn rows until every policy's share is known within so many percentage points, such as 1%.",
        ),
    ] = None
    seed: Annotated[int, typer.Option(min=0, max=(1 << 62) - 1, metavar="N", help="Another seed draws other rows.")] = 0
    by: Annotated[
        tuple[str, ...],
        typer.Option(
            metavar="FIELD",
            help="Also show the share for each value of this field; of a date, FIELD:day, :week, :month or :year."
            " Repeatable.",
            rich_help_panel="What is shown",
        ),
    ] = ()
    reviewed: Annotated[
        str | None,
        typer.Option(
            metavar="GOLDEN",
            help="Correct the share by people's answers: a golden file of `safeguard review OUT --pick random`.",
            rich_help_panel="What is shown",
        ),
    ] = None
    json: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON.", rich_help_panel="What is shown")
    ] = False
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="The file for the drawn rows; default: INPUT-stem.audit.jsonl (.csv, .tsv, .parquet).",
            rich_help_panel="Output",
        ),
    ] = None

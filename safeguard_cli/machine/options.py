"""The options of measuring a machine, each declared once; see run/settings.py. Imports Typer alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class Benched:
    """Model and machine"""

    slots: Annotated[str | None, typer.Option(metavar="N,N", help="Slots to try; default 1,2,4,8,16,32.")] = None
    threads: Annotated[
        str | None, typer.Option(metavar="N,N", help="Threads to try; default: all cores, and half of them.")
    ] = None
    batch: Annotated[str | None, typer.Option(metavar="N,N", help="Batch sizes to try; default 512,256,1024.")] = None
    rows: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Estimate the time for N rows; default: all rows of INPUT, else 1000."),
    ] = None
    content: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="TOKENS",
            help="Without INPUT: the length of the random texts.",
            rich_help_panel="What the model sees of a row",
        ),
    ] = 80
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1,
            metavar="S",
            help="How long to measure each setting; one that needs more than five times as long is left out.",
        ),
    ] = 20.0
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.", rich_help_panel="What is shown")] = (
        False
    )

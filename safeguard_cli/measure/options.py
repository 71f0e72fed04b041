"""The options of what measures labels, each declared once; see run/settings.py. Imports Typer alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import typer


def _anything(names: Iterable[str], why: str) -> None:
    """What refuses options where no command line was given."""


@dataclass(frozen=True)
class Gold:
    """Reading the input"""

    gold_fields: Annotated[
        tuple[str, ...],
        typer.Option(
            "--gold-field",
            metavar="FIELD",
            help="The field with the right label, default label; with several policies POLICY=FIELD, default"
            " POLICY_gold.",
        ),
    ] = ()
    mapping: Annotated[
        tuple[str, ...],
        typer.Option(
            "--map", metavar="V,V=LABEL;…", help="What the gold field's values mean: 'SP2,SP3,SP4=spam;SP0=ham'."
        ),
    ] = ()
    skip_rows: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Lines above a CSV's header; default: found by the gold field."),
    ] = None


@dataclass(frozen=True)
class Wanted(Gold):
    """What is shown"""

    by: Annotated[
        tuple[str, ...], typer.Option(metavar="FIELD", help="Figures for each value of a field. Repeatable.")
    ] = ()
    wrong: Annotated[int, typer.Option(min=0, metavar="N", help="Show so many of the wrong or flipped rows.")] = 10
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False
    threshold: str | None = None
    find_sure: bool = False
    refuse: Callable[[Iterable[str], str], None] = _anything  # raises UsageError for the first that was given


@dataclass(frozen=True)
class Evaluated(Wanted):
    """What is shown"""

    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="T|precision=T|recall=T",
            help="Measure with violates meaning p_violates ≥ T, or search for the T that gives it.",
        ),
    ] = None
    find_sure: Annotated[
        bool,
        typer.Option("--find-sure", help="Also label without reasoning: how sure is sure enough to skip it?"),
    ] = False

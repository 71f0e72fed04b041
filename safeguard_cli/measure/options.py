"""The options of measuring labels, each declared once; see run/settings.py. Imports Typer alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import typer


def _anything(names: Iterable[str], why: str) -> None:
    """Refuse nothing: there is no command line."""


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


@dataclass(frozen=True)
class Wanted(Gold):
    """What is shown"""

    by: Annotated[
        tuple[str, ...],
        typer.Option(metavar="FIELD", help="Also show figures for each value of this field. Repeatable."),
    ] = ()
    wrong: Annotated[int, typer.Option(min=0, metavar="N", help="Show up to N wrong or flipped rows.")] = 10
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False
    threshold: str | None = None
    find_sure: bool = False
    calibrate: str | None = None
    calibrate_with: str | None = None
    calibration: str | None = None
    refuse: Callable[[Iterable[str], str], None] = _anything  # raises UsageError for the first that was given


@dataclass(frozen=True)
class Evaluated(Wanted):
    """What is shown"""

    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="T|precision=T|recall=T",
            help="Measure with violates set by p_violates ≥ T, or find the T that gives this precision or recall.",
        ),
    ] = None
    find_sure: Annotated[
        bool,
        typer.Option("--find-sure", help="Also label without reasoning, to find a --sure that is enough to skip it."),
    ] = False
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Learn what p_violates means as a probability, and write it to FILE for `label --calibration`.",
        ),
    ] = None
    calibrate_with: Annotated[
        Literal["isotonic", "platt"] | None,
        typer.Option(help="How --calibrate learns. Default: whichever foretells rows that it has not seen better."),
    ] = None
    calibration: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also measure p_calibrated, by a calibration of --calibrate."),
    ] = None


@dataclass(frozen=True)
class Compared(Wanted):
    """What is shown"""

    model: Annotated[
        tuple[str, ...],
        typer.Option(metavar="NAME", help="A model, or two to compare.", rich_help_panel="Model and machine"),
    ] = ()
    effort: Annotated[
        tuple[str, ...],
        typer.Option(
            metavar="EFFORT", help="An effort, or two to compare. Default: low.", rich_help_panel="Policy and decision"
        ),
    ] = ()
    max_flips: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Exit with code 5 if more than N rows flipped.")
    ] = None


@dataclass(frozen=True)
class Reported(Gold):
    """What is shown"""

    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The HTML page; default: OUT with .html.")
    ] = None
    policies: Annotated[
        tuple[str, ...],
        typer.Option(
            "--policy",
            "-p",
            metavar="FILE",
            help="A policy of OUT, to show its text, or of a stress test, to check what rationales cite; a built-in one"
            " is found without it.",
            rich_help_panel="Policy and decision",
        ),
    ] = ()
    by: Annotated[
        tuple[str, ...],
        typer.Option(metavar="FIELD", help="Also show figures for each value of this field. Repeatable."),
    ] = ()
    examples: Annotated[int, typer.Option(min=0, metavar="N", help="Show up to N rows of each label.")] = 25


@dataclass(frozen=True)
class Planned:
    """What is tried"""

    families: Annotated[
        tuple[str, ...],
        typer.Option(
            "--family",
            metavar="NAME",
            help="injection, obfuscation, identity, languages, rationale or repeat. Repeatable; default: all. Without"
            " rationale, the model writes none, which is faster.",
        ),
    ] = ()
    translations: Annotated[
        tuple[str, ...],
        typer.Option(
            "--translation", metavar="LANG=FIELD", help="A field with the text in another language. Repeatable."
        ),
    ] = ()
    pair: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Rows with the same value in this field are one row in several languages."),
    ] = None
    language_field: Annotated[str, typer.Option(metavar="FIELD", help="The field with a row's language.")] = "language"
    variant_seed: Annotated[int, typer.Option(metavar="N", help="Another seed makes other variants.")] = 0
    export: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the variants as JSONL, without the repetitions, and label nothing.",
            rich_help_panel="Output",
        ),
    ] = None
    max_flips: Annotated[
        str | None,
        typer.Option(
            metavar="N|N%",
            help="Exit with code 5 if more than N, or N %, of any family's labels flip.",
            rich_help_panel="What is shown",
        ),
    ] = None
    worst: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Show the N worst variants and rows.", rich_help_panel="What is shown"),
    ] = 5

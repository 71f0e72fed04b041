"""The options of measuring labels, each declared once; see run/settings.py. Imports Typer alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import typer


def _anything(names: Iterable[str], why: str) -> None:
    """Refuse nothing: there is no command line."""


WrongFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Write every wrong or flipped row with its whole text, as JSON lines or CSV by the extension.",
        rich_help_panel="Output",
    ),
]


@dataclass(frozen=True)
class Gold:
    """Reading the input"""

    gold_fields: Annotated[
        tuple[str, ...],
        typer.Option(
            "--gold-field",
            metavar="FIELD",
            help="The field with the right label, default label; with several policies POLICY=FIELD, default"
            " POLICY_gold, or one FIELD that lists those violated: spam,fraud.",
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
    require: tuple[str, ...] = ()
    junit: str | None = None
    wrong_file: str | None = None
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
            help="Measure with violates set by p_violates ≥ T, or choose the T that gives this precision or recall on"
            " half of the rows and bound it on the other half.",
        ),
    ] = None
    find_sure: Annotated[
        bool,
        typer.Option("--find-sure", help="Also label without reasoning, to find a --sure that is enough to skip it."),
    ] = False
    require: Annotated[
        tuple[str, ...],
        typer.Option(
            metavar="'FIGURE>=X'",
            help="Exit with code 5 unless this figure is at least X: 'recall>=0.9', 'precision.POLICY>=0.8',"
            " 'recall:LABEL>=0.7', or the end of its interval, 'lower(recall)>=0.85'. Repeatable.",
            rich_help_panel="What is required",
        ),
    ] = ()
    junit: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Also write what is required as a JUnit file.", rich_help_panel="What is required"
        ),
    ] = None
    wrong_file: WrongFile = None
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Keep the labels in OUT, an output like those of label: resumed, reported and compared.",
            rich_help_panel="Output",
        ),
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output.", rich_help_panel="Output")
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
    wrong_file: WrongFile = None


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
            help="A policy of OUT, to show its text where OUT has none on record, or of a stress test, to check what"
            " rationales cite; a built-in one is found without it.",
            rich_help_panel="Policy and decision",
        ),
    ] = ()
    by: Annotated[
        tuple[str, ...],
        typer.Option(metavar="FIELD", help="Also show figures for each value of this field. Repeatable."),
    ] = ()
    examples: Annotated[int, typer.Option(min=0, metavar="N", help="Show up to N rows of each label.")] = 25
    wrong_file: WrongFile = None


@dataclass(frozen=True)
class Remembered(Gold):
    """What is shown"""

    names: Annotated[
        tuple[str, ...],
        typer.Option(
            "--policy",
            "-p",
            metavar="NAME|FILE",
            help="The policy's name, or its file as it is now; several are one history. Default: all.",
            rich_help_panel="What is read",
        ),
    ] = ()
    folder: Annotated[
        str | None,
        typer.Option(
            "--in",
            metavar="FOLDER",
            help="Where the outputs and their manifests lie; default: beside GOLDEN, or here for a sample.",
            rich_help_panel="What is read",
        ),
    ] = None
    wrong: Annotated[int, typer.Option(min=0, metavar="N", help="Show up to N flipped rows of each step.")] = 3
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False


@dataclass(frozen=True)
class Advised(Gold):
    """What is shown"""

    on: Annotated[
        tuple[str, ...],
        typer.Option(
            "--on",
            metavar="OUT",
            help="A golden set labelled under POLICY; more of them, of the same rows, show which labels flip.",
            rich_help_panel="What is read",
        ),
    ] = ()
    rule_field: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="The field with the rule that is right for a row; default: rule, if the rows have it.",
            rich_help_panel="Reading the input",
        ),
    ] = None
    wrong: Annotated[int, typer.Option(min=0, metavar="N", help="Show up to N rows of each finding.")] = 3
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False


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

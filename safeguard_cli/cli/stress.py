"""The command line of `safeguard stress`: options and help."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from safeguard_cli.cli.guard import run
from safeguard_cli.cli.measure import FIRST, refusing
from safeguard_cli.cli.parts import EXAMPLES, FIGURES, OUTPUT, command
from safeguard_cli.measure.options import Wanted
from safeguard_cli.run.settings import Asked, Output, Settings

app = typer.Typer()

PLAN = "What is tried"


@command(
    app,
    first=(*FIRST, "family", "output", "export", "max_flips"),
    epilog=(
        EXAMPLES + "safeguard stress sample:golden/spam --policy spam --model demo -o spam.stress.jsonl\n\n"
        "safeguard report spam.stress.jsonl\n\n"
        "safeguard stress golden.csv -p rules.md --family injection --family repeat --max-flips 2%\n\n"
        "safeguard stress golden.jsonl -p hate --translation de=text_de --translation fr=text_fr\n\n"
        "safeguard stress golden.jsonl -p hate --export variants.jsonl\n\n"
        "[bold]Exit codes[/bold]  0 done, 3 some rows in error, 5 more labels flip than --max-flips allows"
    ),
    without=("by", "wrong", "id_field"),
)
def stress(
    ctx: typer.Context,
    golden: Annotated[
        str, typer.Argument(metavar="GOLDEN", help="Rows with their right labels, or a stress test labelled before.")
    ],
    family: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="injection, obfuscation, identity, languages, rationale or repeat; repeatable; default all. Without"
            " rationale, none is asked for, which is faster.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    translation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LANG=FIELD", help="A field with the text in another language. Repeatable.", rich_help_panel=PLAN
        ),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Rows with the same value here are one row in several languages.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    language_field: Annotated[
        str, typer.Option(metavar="FIELD", help="The field with a row's language.", rich_help_panel=PLAN)
    ] = "language",
    variant_seed: Annotated[
        int, typer.Option(metavar="N", help="Another seed makes other variants.", rich_help_panel=PLAN)
    ] = 0,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the variants as JSONL, repetitions apart, and label nothing.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    max_flips: Annotated[
        str | None,
        typer.Option(
            metavar="N|N%",
            help="Exit code 5 when more of any family's labels flip: a number of them, or a share such as 2%.",
            rich_help_panel=FIGURES,
        ),
    ] = None,
    worst: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Show so many of the worst variants and rows.", rich_help_panel=FIGURES),
    ] = 5,
    *,
    asked: Asked,
    output: Output,
    wanted: Wanted,
) -> None:
    """Label a golden set and variants of its rows: how many labels flip, which way, and on which rows.

    Injections are added, words disguised, people exchanged; rows come again, and rationales are checked.
    """

    def call() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.stress.stress import StressPlan
        from safeguard_cli.measure.stress.stress import stress as run_stress
        from safeguard_cli.rows.samples import input_path

        settled = conflicts.settled(ctx, conflicts.STRESS, asked)
        plan = StressPlan(tuple(family or ()), variant_seed, tuple(translation or ()), pair, language_field)
        values = vars(replace(settled, input=input_path(golden), quiet=asked.quiet or wanted.json))
        settings = Settings(**values, **vars(output), says_text=not asked.quiet)
        return run_stress(settings, refusing(replace(wanted, wrong=worst), ctx), plan, export, max_flips)

    run(call, asked.debug)

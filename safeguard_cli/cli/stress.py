"""The command line of `safeguard stress`: options and help."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from safeguard_cli.cli.guard import run
from safeguard_cli.cli.measure import FIRST, refusing
from safeguard_cli.cli.parts import EXAMPLES, command
from safeguard_cli.measure.options import Planned, Wanted
from safeguard_cli.run.settings import Asked, Output, Settings

app = typer.Typer()


@command(
    app,
    first=(*FIRST, "families", "output", "export", "max_flips"),
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
        str,
        typer.Argument(
            metavar="GOLDEN", help="Rows with their right labels, or a stress test that is labelled already."
        ),
    ],
    *,
    planned: Planned,
    asked: Asked,
    output: Output,
    wanted: Wanted,
) -> None:
    """Label a golden set and variants of its rows, and show how many labels flip, which way, and on which rows.

    Variants add injections, disguise words or exchange people. Rows are repeated, and rationales are checked.
    """

    def call() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.cli.inputs import input_path
        from safeguard_cli.measure.stress.stress import StressPlan
        from safeguard_cli.measure.stress.stress import stress as run_stress

        settled = conflicts.settled(ctx, conflicts.STRESS, asked)
        plan = StressPlan(
            planned.families, planned.variant_seed, planned.translations, planned.pair, planned.language_field
        )
        values = vars(replace(settled, input=input_path(golden), quiet=asked.quiet or wanted.json))
        settings = Settings(**values, **vars(output), says_text=not asked.quiet)
        shown = refusing(replace(wanted, wrong=planned.worst), ctx)
        return run_stress(settings, shown, plan, planned.export, planned.max_flips)

    run(call, asked.debug)

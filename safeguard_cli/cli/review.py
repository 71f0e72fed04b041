"""The command line of `safeguard review`: options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from safeguard_cli.cli.guard import run
from safeguard_cli.cli.parts import EXAMPLES, command
from safeguard_cli.review.options import Reviewing
from safeguard_cli.rows.options import Reading, Text
from safeguard_cli.run.settings import Telling

app = typer.Typer()


@command(
    app,
    epilog=(
        EXAMPLES + "safeguard review messages.labels.jsonl -o golden.jsonl --as anna\n\n"
        "safeguard review messages.labels.jsonl -o golden.jsonl --as anna --pick unsure --rows 30\n\n"
        "safeguard review low.jsonl --pick disagree --with high.jsonl -o golden.csv --as anna\n\n"
        "safeguard review anna.jsonl ben.jsonl --pick disputed -o golden.jsonl --as carol"
    ),
    without=("limit", "max_row_bytes", "skip_rows", "sheet"),
)
def review(
    ctx: typer.Context,
    outs: Annotated[
        list[str],
        typer.Argument(metavar="OUT...", help="An output of label or audit; with --pick disputed, golden files."),
    ],
    golden: Annotated[
        str,
        typer.Option("--output", "-o", metavar="GOLDEN", help="The golden file, .jsonl or .csv, one for each person."),
    ],
    person: Annotated[str, typer.Option("--as", metavar="NAME", help="Who answers.")],
    *,
    reviewing: Reviewing,
    reading: Reading,
    text: Text,
    telling: Telling,
) -> None:
    """Answer rows of an output yourself, one at a time, into a golden set for eval, agree and audit --reviewed.

    Each answer is on disk before the next row comes. The same command goes on where you stopped.
    """

    def call() -> int:
        from dataclasses import replace

        from safeguard_cli.cli import conflicts
        from safeguard_cli.review.reading import HowRead
        from safeguard_cli.review.review import review as run_review
        from safeguard_cli.terminal import silence

        settled = conflicts.settled(ctx, conflicts.REVIEW, reviewing)
        wanted = replace(settled, golden=golden, person=person)
        with silence(telling.quiet):
            return run_review(outs, wanted, HowRead(reading.format, reading.encoding, reading.id_field, text))

    run(call, telling.debug)

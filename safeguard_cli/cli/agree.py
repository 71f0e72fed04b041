"""The command line of `safeguard agree`: options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from safeguard_cli.cli.guard import run
from safeguard_cli.cli.parts import EXAMPLES, command
from safeguard_cli.rows.options import Reading
from safeguard_cli.run.settings import Debugging

app = typer.Typer()


@command(
    app,
    epilog=(EXAMPLES + "safeguard agree anna.jsonl ben.jsonl\n\nsafeguard agree anna.csv ben.csv carol.csv --json"),
    without=("limit", "max_row_bytes", "id_field"),
)
def agree(
    ctx: typer.Context,
    outs: Annotated[
        list[str],
        typer.Argument(
            metavar="GOLDEN...", help="Golden files of review, one for each person, or exports of Label Studio."
        ),
    ],
    disputes: Annotated[int, typer.Option(min=0, metavar="N", help="Show up to N rows in dispute.")] = 10,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", "-p", metavar="NAME", help="In an export of Label Studio with several choices: whose to read."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    *,
    reading: Reading,
    debugging: Debugging,
) -> None:
    """Show how far people agree who reviewed the same output: with each other, with the model, and on which rows not.

    A golden file that holds the labels of several people is enough by itself.
    """

    def call() -> int:
        from pathlib import Path

        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.agree import agree as run_agree

        conflicts.check(ctx, conflicts.AGREE)
        paths = [Path(each) for each in outs]
        return run_agree(
            paths, format=reading.format, encoding=reading.encoding, policy=policy, disputes=disputes, json=json
        )

    run(call, debugging.debug)

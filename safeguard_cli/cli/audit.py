"""The command line of `safeguard audit`: options and help, one call."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from safeguard_cli.audit.options import Audited
from safeguard_cli.cli import guard
from safeguard_cli.cli.parts import EXAMPLES, Needed, command
from safeguard_cli.run.settings import Settings

app = typer.Typer()


@command(
    app,
    first=(
        *("policies", "rows", "lasting", "within", "find", "seed", "by", "text_fields", "effort", "model", "servers"),
        *("output", "overwrite", "format", "json", "quiet"),
    ),
    epilog=(
        EXAMPLES + "safeguard audit sample:messages --policy spam --model demo --rows 40\n\n"
        "safeguard audit posts.jsonl --policy my-rules.md --policy hate --by language\n\n"
        "safeguard audit posts.parquet --policy spam --for 2h --by created_at:month\n\n"
        "safeguard audit posts.csv --policy spam --within 1% --json\n\n"
        "[bold]Exit codes[/bold]  0 every drawn row labelled, 1 failed, 2 wrong usage, 3 some drawn rows in error,"
        " 4 the output cannot be resumed, 130 interrupted: the figures so far are printed"
    ),
    without=("limit", "append_input", "only"),
)
def audit(
    ctx: typer.Context,
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="JSONL, NDJSON, CSV or TSV, each also .gz, or Parquet; a file.")
    ],
    *,
    wanted: Audited,
    asked: Annotated[Settings, Needed("policies")],
) -> None:
    """Tell how much of INPUT violates, and where, from rows drawn at random, with 95 % intervals.

    The figures go to standard output, the drawn rows with their labels to OUT. The same command goes on where it was
    stopped; a larger --rows or --for goes on from what is there.
    """

    def run() -> int:
        from safeguard_cli.audit.audit import audit
        from safeguard_cli.cli import conflicts
        from safeguard_cli.rows.samples import input_path

        settled = conflicts.settled(ctx, conflicts.AUDIT, asked)
        return audit(replace(settled, input=input_path(input), quiet=settled.quiet or wanted.json), wanted)

    guard.run(run, asked.debug)

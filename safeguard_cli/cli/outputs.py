"""The command line of what works on outputs, `safeguard merge` and `show`: options and help, one call each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safeguard_cli.cli import guard
from safeguard_cli.cli.parts import EXAMPLES, command
from safeguard_cli.run.settings import Debugging, Telling

app = typer.Typer()


@command(app, epilog=EXAMPLES + "safeguard merge labels.1.jsonl labels.2.jsonl labels.3.jsonl -o labels.jsonl")
def merge(
    ctx: typer.Context,
    outputs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="The outputs of all shards, in any order.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The merged output.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    *,
    telling: Telling,
) -> None:
    """Join the outputs of label's --shard 1/N to N/N into the rows of the whole input, in its order."""

    def run() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.output.merge import merge

        conflicts.check(ctx, ())
        return merge(outputs, output, overwrite=overwrite, quiet=telling.quiet)

    guard.run(run, telling.debug)


@command(
    app,
    epilog=(
        EXAMPLES + "safeguard show labels.csv\n\nsafeguard show out.jsonl --json | jq .result.labels\n\n"
        "safeguard show labels.csv --by language --by created_at:month"
    ),
)
def show(
    ctx: typer.Context,
    output: Annotated[str, typer.Argument(metavar="OUT", help="An output of label, finished or not.")],
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD",
            help="Show instead which share violates, in all and for each value of this field; of a date, FIELD:day,"
            " :week, :month or :year. Repeatable.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest itself, or with --by the shares.")] = False,
    *,
    debugging: Debugging,
) -> None:
    """Show how an output was made: counts, labels, settings, versions and hashes; or its shares, by a field."""

    def run() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.output.show import show
        from safeguard_cli.rows.writable import check_streams, used

        conflicts.check(ctx, ())
        check_streams(used("the output", output))
        if by:
            from safeguard_cli.audit.shares import show_shares

            return show_shares(Path(output), by, as_json=json)
        return show(Path(output), as_json=json)

    guard.run(run, debugging.debug)

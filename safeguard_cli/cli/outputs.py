"""The command line of what works on outputs, `safeguard merge` and `show`: options and help, one call each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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


@command(app, epilog=EXAMPLES + "safeguard export labels.jsonl --to label-studio -o tasks.json")
def export(
    ctx: typer.Context,
    out: Annotated[str, typer.Argument(metavar="OUT", help="An output of label.")],
    to: Annotated[Literal["label-studio"], typer.Option(help="The program that is to read it.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The file; default: standard output.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    *,
    debugging: Debugging,
) -> None:
    """Write an output for another program: for Label Studio, tasks with the model's labels as predictions.

    What people then label there comes back as its JSON export, which eval and agree read.
    """

    def run() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.label_studio import export
        from safeguard_cli.rows.writable import check_streams, used

        conflicts.check(ctx, ())
        check_streams(used("the output", out))
        return export(Path(out), output, overwrite=overwrite)

    guard.run(run, debugging.debug)

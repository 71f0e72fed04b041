"""The command line of `safeguard bench`: options and help."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from safeguard_cli.cli import guard
from safeguard_cli.cli.parts import EXAMPLES, Needed, command
from safeguard_cli.machine.options import Benched
from safeguard_cli.run.settings import OnMachine, Settings

app = typer.Typer()


@command(
    app,
    epilog=(
        EXAMPLES + "safeguard bench --policy spam --model demo --seconds 5\n\n"
        "safeguard bench data.jsonl --policy my-rules.md --rows 100000\n\n"
        "safeguard bench data.csv --policy my-rules.md --slots 8,16 --threads 8 --batch 512 --effort none\n\n"
        "safeguard bench data.jsonl --policy spam --json | jq -r .best.options"
    ),
    without=("limit", "id_field", "progress", "verbose"),
)
def bench(
    ctx: typer.Context,
    input: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="The file to be labelled; default: random texts."),
    ] = None,
    *,
    benched: Benched,
    asked: Annotated[OnMachine, Needed("policies")],
) -> None:
    """Measure how fast this machine labels, which options are best, and how long a file will take.

    All --slots are tried with the first of --threads and --batch, then the others with the best slots.

    Ctrl-C shows what has been measured so far. Other work on the machine distorts the figures.
    """

    def call() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.cli.inputs import input_path
        from safeguard_cli.machine.bench import Wanted, numbers
        from safeguard_cli.machine.bench import bench as run

        settled = conflicts.settled(ctx, conflicts.BENCH, asked)
        wanted = Wanted(
            slots=numbers("--slots", benched.slots, 1, 64),
            threads=numbers("--threads", benched.threads, 1, 512),
            batches=numbers("--batch", benched.batch, 64, 4096),
            rows=benched.rows,
            content=benched.content,
            seconds=benched.seconds,
            json=benched.json,
        )
        return run(Settings(**vars(replace(settled, input=input_path(input or "")))), wanted)

    guard.run(call, asked.debug)

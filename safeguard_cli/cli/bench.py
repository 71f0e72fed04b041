"""The command line of `safeguard bench`: options and help."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from safeguard_cli.cli import guard
from safeguard_cli.cli.parts import EXAMPLES, FIGURES, MODEL, Needed, command
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
        typer.Argument(metavar="INPUT", help="The file to be labelled; without it, random contents are measured."),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Tell the time of N rows; default: all rows of INPUT, else 1000."),
    ] = None,
    content: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="TOKENS",
            help="Without INPUT: the contents' length.",
            rich_help_panel="What the model sees of a row",
        ),
    ] = 80,
    slots: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Slots to try; default 1,2,4,8,16,32.", rich_help_panel=MODEL),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="N,N", help="Threads to try; default: the idle cores, and half of them.", rich_help_panel=MODEL
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Batch sizes to try; default 512,256,1024.", rich_help_panel=MODEL),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1,
            metavar="S",
            help="How long a setting is measured; one that needs more than five times as long is left out.",
            rich_help_panel=MODEL,
        ),
    ] = 20.0,
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON.", rich_help_panel=FIGURES)] = False,
    *,
    asked: Annotated[OnMachine, Needed("policies")],
) -> None:
    """Measure how fast this machine labels, and with which options; say how long a file will take.

    All slots are tried with the first of the threads and batch sizes, the others with the best slots.

    Ctrl-C shows what is measured so far. Other work on the machine falsifies the figures.
    """

    def call() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.machine.bench import Wanted, numbers
        from safeguard_cli.machine.bench import bench as run
        from safeguard_cli.rows.samples import input_path

        settled = conflicts.settled(ctx, conflicts.BENCH, asked)
        wanted = Wanted(
            slots=numbers("--slots", slots, 1, 64),
            threads=numbers("--threads", threads, 1, 512),
            batches=numbers("--batch", batch, 64, 4096),
            rows=rows,
            content=content,
            seconds=seconds,
            json=json,
        )
        return run(Settings(**vars(replace(settled, input=input_path(input or "")))), wanted)

    guard.run(call, asked.debug)

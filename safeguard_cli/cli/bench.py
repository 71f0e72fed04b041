"""The command line of `safeguard bench`: options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from safeguard_cli.cli import guard, options
from safeguard_cli.cli.options import EXAMPLES, MODEL, TEXT

app = typer.Typer()


@app.command(
    no_args_is_help=True,
    epilog=(
        EXAMPLES + "safeguard bench --policy spam --model demo --seconds 5\n\n"
        "safeguard bench data.jsonl --policy my-rules.md --rows 100000\n\n"
        "safeguard bench data.csv --policy my-rules.md --slots 8,16 --threads 8 --batch 512 --effort none\n\n"
        "safeguard bench data.jsonl --policy spam --json | jq -r .best.options"
    ),
)
def bench(
    context: typer.Context,
    policy: options.Policies,
    input: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="The file to be labelled; without it, random contents are measured."),
    ] = None,
    format: options.Format = None,
    encoding: options.Encoding = "utf-8",
    rows: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Tell the time of N rows; default: all rows of INPUT, else 1000."),
    ] = None,
    text_field: options.TextField = None,
    template: options.Template = None,
    content: Annotated[
        int,
        typer.Option(min=1, metavar="TOKENS", help="Without INPUT: the contents' length.", rich_help_panel=TEXT),
    ] = 80,
    effort: options.Effort = options.EffortName.low,
    max_reasoning: options.MaxReasoning = None,
    rationale: options.Rationale = False,
    together: options.Together = False,
    model: options.Model = None,
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
    kv_type: options.KvType = options.CacheType.f16,
    gpu_layers: options.GpuLayers = -1,
    cpu_moe: options.CpuMoe = None,
    ctx: options.Context = None,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1,
            metavar="S",
            help="How long a setting is measured; one that needs more than five times as long is left out.",
            rich_help_panel=MODEL,
        ),
    ] = 20.0,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure how fast this machine labels, and with which options; say how long a file will take.

    All slots are tried with the first of the threads and batch sizes, the others with the best slots.

    Ctrl-C shows what is measured so far. Other work on the machine falsifies the figures.
    """

    def command() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.machine.bench import Wanted, numbers
        from safeguard_cli.machine.bench import bench as run
        from safeguard_cli.run.settings import Settings

        conflicts.check(context, conflicts.BENCH)
        wanted = Wanted(
            slots=numbers("--slots", slots, 1, 64),
            threads=numbers("--threads", threads, 1, 512),
            batches=numbers("--batch", batch, 64, 4096),
            rows=rows,
            content=content,
            seconds=seconds,
            json=json,
        )
        settings = Settings(
            input=input or "",
            policies=tuple(policy),
            format=format and format.value,
            encoding=encoding,
            text_fields=tuple(text_field or ()),
            template=template,
            effort=effort.value,
            max_reasoning=max_reasoning,
            rationale=rationale,
            together=together,
            model=model,
            kv_type=kv_type.value,
            gpu_layers=gpu_layers,
            cpu_moe=cpu_moe,
            context=ctx,
            quiet=quiet,
        )
        return run(settings, wanted)

    guard.run(command, debug)

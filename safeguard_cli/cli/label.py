"""The command line of `safeguard label`: options and help, one call."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from safeguard_cli.cli import guard, options
from safeguard_cli.cli.options import DISPLAY, EXAMPLES, INPUT, OUTPUT, POLICY, TEXT

app = typer.Typer()


class Long(Enum):
    split, truncate, error = "split", "truncate", "error"


class Only(Enum):
    violates = "violates"


class OnError(Enum):
    record, stop = "record", "stop"


class ProgressKind(Enum):
    auto, rich, plain, none = "auto", "rich", "plain", "none"


@app.command(
    no_args_is_help=True,
    epilog=(
        EXAMPLES + "safeguard label data.jsonl --policy spam --model demo\n\n"
        "safeguard label posts.csv --policy my-rules.md --policy hate --text-field body -o labels.csv\n\n"
        "safeguard label data.parquet --policy spam -o labels.parquet --shard 3/16\n\n"
        "safeguard label '/data/*.jsonl' --policy spam --ray -o /labels\n\n"
        "zcat log.jsonl.gz | safeguard label - --policy spam --effort none | jq -c .spam.label | sort | uniq -c\n\n"
        "safeguard label tickets.csv --policy rules.md --template '{subject}\\n{body}' --rationale\n\n"
        "safeguard label data.jsonl --policy spam --server http://gpu1:8000 --server http://gpu2:8000\n\n"
        "safeguard label data.jsonl --policy spam --dry-run\n\n"
        "[bold]Exit codes[/bold]  0 every row labelled, 1 failed, 2 wrong usage, 3 finished with rows in error,"
        " 4 the output cannot be continued, 130 interrupted, 141 the reader of a pipe went away, 143 terminated"
    ),
)
def label(
    context: typer.Context,
    input: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="JSONL, NDJSON, CSV or TSV, each also .gz, or Parquet; - for standard input; a pattern with --ray.",
        ),
    ],
    policy: options.Policies,
    format: options.Format = None,
    encoding: options.Encoding = "utf-8",
    limit: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Label the first N rows only.", rich_help_panel=INPUT)
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Label every N-th row only, from the K-th on; K counts from 1. safeguard merge joins the outputs.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Label the files that match INPUT on a Ray cluster, one engine on each node; -o is a folder."
            " Without an address: the cluster of RAY_ADDRESS or of this machine, else a new one here.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    max_row_bytes: Annotated[
        int, typer.Option(min=1, metavar="N", help="A larger row becomes an error row.", rich_help_panel=INPUT)
    ] = 64 << 20,
    id_field: options.IdField = None,
    text_field: options.TextField = None,
    template: options.Template = None,
    long: Annotated[
        Long,
        typer.Option(
            help="A text longer than --ctx allows: label overlapping windows, its beginning, or nothing.",
            rich_help_panel=TEXT,
        ),
    ] = Long.split,
    max_windows: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="With --long split: a text that needs more windows is an error row.",
            rich_help_panel=TEXT,
        ),
    ] = 16,
    effort: options.Effort = options.EffortName.low,
    sure: options.Sure = 0.95,
    rationale: options.Rationale = False,
    reasoning: Annotated[
        bool,
        typer.Option(
            "--reasoning",
            help="Also write the model's reasoning; it is not meant for end users.",
            rich_help_panel=POLICY,
        ),
    ] = False,
    max_reasoning: options.MaxReasoning = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="The policy's labels, instead of those in its file.", rich_help_panel=POLICY),
    ] = None,
    violates: Annotated[
        str | None,
        typer.Option(
            metavar="B", help="Which of the labels violate, instead of those in its file.", rich_help_panel=POLICY
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="T",
            help="violates means p_violates ≥ T, instead of a violating label.",
            rich_help_panel=POLICY,
        ),
    ] = None,
    rename: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="The name under which verdicts are written, instead of the policy's.",
            rich_help_panel=POLICY,
        ),
    ] = None,
    policy_only_prompt: Annotated[
        bool,
        typer.Option(
            "--policy-only-prompt",
            help="Leave the response format out of the prompt: the policy says how to answer.",
            rich_help_panel=POLICY,
        ),
    ] = False,
    together: options.Together = False,
    temperature: Annotated[
        float,
        typer.Option(
            min=0.0, metavar="T", help="Sample the reasoning instead of the likeliest token.", rich_help_panel=POLICY
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed for --temperature.", rich_help_panel=POLICY)] = 0,
    model: options.Model = None,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = -1,
    cpu_moe: options.CpuMoe = None,
    kv_type: options.KvType = options.CacheType.f16,
    ctx: options.Context = None,
    slots: options.Slots = None,
    repack: options.Repack = options.Repacking.auto,
    batch: options.Batch = None,
    server: options.Server = None,
    server_api: options.ServerApi = options.ServerApiName.completion,
    server_model: options.ServerModel = None,
    tokenizer: options.TokenizerFile = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="The output; default: standard output, at a terminal INPUT-stem.labels.jsonl (.csv, .tsv, .parquet).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that exists already.", rich_help_panel=OUTPUT)
    ] = False,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="A resumed run equals an uninterrupted one byte for byte; a little slower.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    append_input: Annotated[
        bool,
        typer.Option(
            "--append-input",
            help="Go on with a finished output whose input has grown at its end.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    retry_errors: Annotated[
        bool,
        typer.Option(
            "--retry-errors",
            help="Label the error rows of a finished output again, in place, from the same input.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    on_error: Annotated[
        OnError,
        typer.Option(help="Write rows that cannot be labelled as error rows, or stop there.", rich_help_panel=OUTPUT),
    ] = OnError.record,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="FIELDS|none",
            help="Write only these fields of the row, separated by commas.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    only: Annotated[
        Only | None,
        typer.Option(
            help="Write only rows that violate or are in error: no longer one row out for every row in.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    csv_safe: Annotated[
        bool,
        typer.Option(
            "--csv-safe",
            help="Put ' before every CSV cell that a spreadsheet could take for a formula, not only before ours.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    progress: Annotated[
        ProgressKind,
        typer.Option(
            help="The display on standard error; auto is rich at a terminal, plain elsewhere.", rich_help_panel=DISPLAY
        ),
    ] = ProgressKind.auto,
    quiet: options.Quiet = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Also print the run's shape and llama.cpp's log.", rich_help_panel=DISPLAY
        ),
    ] = False,
    debug: options.Debug = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Load the vocabulary only; show rows, tokens, memory and the first prompt.",
            rich_help_panel=DISPLAY,
        ),
    ] = False,
) -> None:
    """Label every row of INPUT under one policy or several.

    One row in, one row out, in order: the row's own fields and, under the policy's name, its label and scores.
    """
    from safeguard_cli.cli import conflicts
    from safeguard_cli.run.settings import Settings

    settings = Settings(
        input=input,
        policies=tuple(policy),
        output=output,
        overwrite=overwrite,
        append_input=append_input,
        retry_errors=retry_errors,
        on_error=on_error.value,
        deterministic=deterministic,
        format=format and format.value,
        encoding=encoding,
        text_fields=tuple(text_field or ()),
        template=template,
        id_field=id_field,
        keep=keep,
        only=only and only.value,
        rename=rename,
        labels=_list(labels),
        violates=_list(violates),
        threshold=threshold,
        effort=effort.value,
        sure=sure,
        rationale=rationale,
        reasoning=reasoning,
        max_reasoning=max_reasoning,
        policy_only_prompt=policy_only_prompt,
        together=together,
        temperature=temperature,
        seed=seed,
        limit=limit,
        shard=_shard(shard),
        long=long.value,
        max_windows=max_windows,
        max_row_bytes=max_row_bytes,
        csv_safe=csv_safe,
        model=model,
        servers=tuple(server or ()),
        server_api=server_api.value,
        server_model=server_model,
        tokenizer=tokenizer,
        threads=threads,
        gpu_layers=gpu_layers,
        cpu_moe=cpu_moe,
        kv_type=kv_type.value,
        context=ctx,
        slots=slots,
        repack=options.repacking(repack),
        batch=batch,
        progress=progress.value,
        quiet=quiet,
        verbose=verbose,
        dry_run=dry_run,
    )

    def run() -> int:
        conflicts.check(context, conflicts.LABEL)
        if ray is not None:
            from safeguard_cli.run.ray import label_on_ray

            return label_on_ray(settings, ray)
        from safeguard_cli.run.label import label

        return label(settings)

    guard.run(run, debug)


def _list(value: str | None) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(",") if item.strip()) if value else ()


def _shard(value: str | None) -> tuple[int, int]:
    if value is None:
        return 1, 1
    part, _, parts = value.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise typer.BadParameter(f"{value!r} is no K/N with K from 1 to N", param_hint="--shard")
    return int(part), int(parts)

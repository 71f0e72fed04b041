"""The command line of `safeguard label`: options and help, one call."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from safeguard_cli.cli import guard
from safeguard_cli.cli.parts import EXAMPLES, Needed, command
from safeguard_cli.run.settings import Cluster, Settings

app = typer.Typer()


@command(
    app,
    first=(
        *("policies", "text_fields", "effort", "rationale", "model", "servers", "output", "overwrite", "limit"),
        *("format", "dry_run", "quiet"),
    ),
    epilog=(
        EXAMPLES + "safeguard label sample:messages --policy spam --model demo\n\n"
        "safeguard label posts.csv --policy my-rules.md --policy hate --text-field body -o labels.csv\n\n"
        "safeguard label data.parquet --policy spam -o labels.parquet --shard 3/16\n\n"
        "safeguard label '/data/*.jsonl' --policy spam --ray -o /labels\n\n"
        "zcat log.jsonl.gz | safeguard label - --policy spam --effort none | jq -c .spam.label | sort | uniq -c\n\n"
        "safeguard label tickets.csv --policy rules.md --template '{subject}\\n{body}' --rationale\n\n"
        "safeguard label data.jsonl --policy spam --server http://gpu1:8000 --server http://gpu2:8000\n\n"
        "safeguard label data.jsonl --policy spam --dry-run\n\n"
        "[bold]Exit codes[/bold]  0 every row labelled, 1 failed, 2 wrong usage, 3 finished with rows in error,"
        " 4 the output cannot be resumed, 130 interrupted, 141 the reader of a pipe went away, 143 terminated"
    ),
)
def label(
    ctx: typer.Context,
    input: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="JSON lines, JSON, CSV, TSV, plain text, each also packed, Parquet or a spreadsheet; - for standard"
            " input; a pattern with --ray.",
        ),
    ],
    *,
    asked: Annotated[Settings, Needed("policies")],
    cluster: Cluster,
) -> None:
    """Label every row of INPUT under one policy or several.

    One row in, one row out, in order: the row's own fields and, under the policy's name, its label and scores.
    """

    def run() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.cli.inputs import input_path

        settings = replace(conflicts.settled(ctx, conflicts.LABEL, asked), input=input_path(input))
        if cluster.ray:
            from safeguard_cli.run.ray import label_on_ray

            return label_on_ray(settings, cluster.ray_address or "")
        from safeguard_cli.run.label import label

        return label(settings)

    guard.run(run, asked.debug)

"""The command line of `safeguard label`: options and help, one call."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

import typer

from safeguard_cli.cli import guard
from safeguard_cli.cli.parts import EXAMPLES, Needed, command
from safeguard_cli.errors import UsageError
from safeguard_cli.run.settings import Cluster, Settings

app = typer.Typer()
NO_VALUE = "--ray takes no value: give the address with --ray-address"


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
        "safeguard label chats/ 'logs/*.jsonl.gz' --policy spam -o labels/\n\n"
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
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="JSON lines, JSON, CSV, TSV, plain text, each also packed, Parquet or a spreadsheet; - for standard"
            " input. Several files, folders or patterns in quotes are labelled together, into -o DIR/ or -o FILE.",
        ),
    ],
    *,
    asked: Annotated[Settings, Needed("policies")],
    cluster: Cluster,
) -> None:
    """Label every row of each INPUT under one policy or several.

    One row in, one row out, in order: the row's own fields and, under the policy's name, its label and scores.
    """

    def run() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.cli.inputs import input_path

        settings = replace(
            conflicts.settled(ctx, conflicts.LABEL, asked),
            input=input_path(inputs[0]),
            inputs=tuple(map(input_path, inputs)),
        )
        if cluster.ray:
            if any(map(_is_address, inputs[1:])):
                raise UsageError(NO_VALUE)
            from safeguard_cli.run.ray import label_on_ray

            return label_on_ray(settings, cluster.ray_address or "")
        from safeguard_cli.run.files import means_several

        if means_several(settings.inputs, settings.output):
            from safeguard_cli.run.many import label_many

            return label_many(settings)
        from safeguard_cli.run.label import label

        return label(replace(settings, inputs=()))

    guard.run(run, asked.debug)


def _is_address(name: str) -> bool:
    """Return whether an INPUT is no file, but what once followed --ray: HOST:PORT."""
    host, _, port = name.rpartition(":")
    return bool(host) and port.isdecimal() and not os.path.lexists(name)

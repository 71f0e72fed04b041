"""The command line of `safeguard stress`: options and help."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from safeguard_cli.cli.guard import run
from safeguard_cli.cli.options import (
    EXAMPLES,
    FIGURES,
    MODEL,
    OUTPUT,
    Context,
    Debug,
    Effort,
    EffortName,
    Encoding,
    Format,
    GoldField,
    Json,
    Limit,
    Map,
    MaxReasoning,
    Model,
    OptionalPolicies,
    Quiet,
    SkipRows,
    Slots,
    Template,
    TextField,
    Threads,
)

app = typer.Typer()

PLAN = "What is tried"


@app.command(
    no_args_is_help=True,
    epilog=(
        EXAMPLES + "safeguard stress samples/golden/spam.jsonl --policy spam --model demo -o spam.stress.jsonl\n\n"
        "safeguard report spam.stress.jsonl\n\n"
        "safeguard stress golden.csv -p rules.md --family injection --family repeat --max-flips 2%\n\n"
        "safeguard stress golden.jsonl -p hate --translation de=text_de --translation fr=text_fr\n\n"
        "safeguard stress golden.jsonl -p hate --export variants.jsonl\n\n"
        "[bold]Exit codes[/bold]  0 done, 3 some rows in error, 5 more labels flip than --max-flips allows"
    ),
)
def stress(
    context: typer.Context,
    golden: Annotated[
        str, typer.Argument(metavar="GOLDEN", help="Rows with their right labels, or a stress test labelled before.")
    ],
    policy: OptionalPolicies = None,
    family: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="injection, obfuscation, identity, languages, rationale or repeat; repeatable; default all. Without"
            " rationale, none is asked for, which is faster.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    translation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LANG=FIELD", help="A field with the text in another language. Repeatable.", rich_help_panel=PLAN
        ),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Rows with the same value here are one row in several languages.",
            rich_help_panel=PLAN,
        ),
    ] = None,
    language_field: Annotated[
        str, typer.Option(metavar="FIELD", help="The field with a row's language.", rich_help_panel=PLAN)
    ] = "language",
    seed: Annotated[int, typer.Option(help="Another seed makes other variants.", rich_help_panel=PLAN)] = 0,
    gold_field: GoldField = None,
    map: Map = None,
    skip_rows: SkipRows = None,
    text_field: TextField = None,
    template: Template = None,
    format: Format = None,
    encoding: Encoding = "utf-8",
    limit: Limit = None,
    model: Model = None,
    effort: Effort = EffortName.low,
    max_reasoning: MaxReasoning = None,
    threads: Threads = None,
    slots: Slots = None,
    ctx: Context = None,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="A continued run equals one never interrupted.", rich_help_panel=MODEL),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Keep the labelled variants here: the run can be continued, and safeguard report shows it.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start over where the output exists.", rich_help_panel=OUTPUT)
    ] = False,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the variants as JSONL, repetitions apart, and label nothing.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    max_flips: Annotated[
        str | None,
        typer.Option(
            metavar="N|N%",
            help="Exit code 5 when more of any family's labels flip: a number of them, or a share such as 2%.",
            rich_help_panel=FIGURES,
        ),
    ] = None,
    worst: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Show so many of the worst variants and rows.", rich_help_panel=FIGURES),
    ] = 5,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Label a golden set and variants of its rows: how many labels flip, which way, and on which rows.

    Injections are added, words disguised, people exchanged; rows come again, and rationales are checked.
    """

    def command() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.measured import Wanted
        from safeguard_cli.measure.stress.stress import StressPlan
        from safeguard_cli.measure.stress.stress import stress as run_stress
        from safeguard_cli.run.settings import Settings

        conflicts.check(context, conflicts.STRESS)
        refuse = partial(conflicts.refuse, context)
        wanted = Wanted(tuple(gold_field or ()), tuple(map or ()), skip_rows, wrong=worst, json=json, refuse=refuse)
        plan = StressPlan(tuple(family or ()), seed, tuple(translation or ()), pair, language_field)
        settings = Settings(
            golden,
            tuple(policy or ()),
            text_fields=tuple(text_field or ()),
            template=template,
            format=format.value if format else None,
            encoding=encoding,
            limit=limit,
            model=model,
            effort=effort.value,
            max_reasoning=max_reasoning,
            threads=threads,
            slots=slots,
            context=ctx,
            deterministic=deterministic,
            output=output,
            overwrite=overwrite,
            quiet=quiet or json,
            says_text=not quiet,
        )
        return run_stress(settings, wanted, plan, export, max_flips)

    run(command, debug)

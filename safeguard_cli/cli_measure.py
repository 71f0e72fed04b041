"""The command line of `safeguard eval`, `compare` and `report`: options and help, one call each."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from safeguard_cli.cli_policy import Debug, run

app = typer.Typer()

READ, MODEL, SHOW = "Reading the rows", "Labeling", "What is shown"

Policies = Annotated[
    list[str] | None,
    typer.Option("--policy", "-p", metavar="FILE", help="A policy file or a built-in name.", rich_help_panel=MODEL),
]
GoldField = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD",
        help="The field with the right label, default label; with several policies POLICY=FIELD, default POLICY_gold.",
        rich_help_panel=READ,
    ),
]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="V,V=LABEL;…",
        help="What the gold field's values mean: 'SP2,SP3,SP4=spam;SP0=ham'.",
        rich_help_panel=READ,
    ),
]
SkipRows = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Lines above a CSV's header; default: found by the gold field.",
        rich_help_panel=READ,
    ),
]
TextField = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD", help="The field with the text. Repeatable. Default: text.", rich_help_panel=READ),
]
Template = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Build the text from fields: '{title}\\n{body}'.", rich_help_panel=READ),
]
Format = Annotated[
    str | None,
    typer.Option(metavar="jsonl|csv|tsv", help="The format, where the extension does not say.", rich_help_panel=READ),
]
Encoding = Annotated[str, typer.Option(help="The file's character encoding.", rich_help_panel=READ)]
Limit = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Use the first N usable rows only.", rich_help_panel=READ)
]
Threads = Annotated[int | None, typer.Option(min=1, metavar="N", help="CPU threads.", rich_help_panel=MODEL)]
Slots = Annotated[
    int | None, typer.Option(min=1, max=64, metavar="N", help="Rows decoded together.", rich_help_panel=MODEL)
]
Context = Annotated[
    int | None, typer.Option(min=64, metavar="TOKENS", help="The most tokens a row may take.", rich_help_panel=MODEL)
]
MaxReasoning = Annotated[
    int | None, typer.Option(min=1, metavar="TOKENS", help="The most reasoning tokens.", rich_help_panel=MODEL)
]
Rationale = Annotated[
    bool, typer.Option("--rationale", help="Ask for rationales, and show those of wrong rows.", rich_help_panel=MODEL)
]
Wrong = Annotated[
    int, typer.Option(min=0, metavar="N", help="Show so many of the wrong or flipped rows.", rich_help_panel=SHOW)
]
Json = Annotated[
    bool, typer.Option("--json", help="Everything as JSON, all wrong or flipped rows included.", rich_help_panel=SHOW)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.", rich_help_panel=SHOW)]


def _effort(value: str | None) -> str | None:
    if value not in (None, "none", "low", "medium", "high"):
        raise typer.BadParameter("one of none, low, medium, high")
    return value


def _efforts(values: list[str] | None) -> list[str] | None:
    return [value for value in values or () if _effort(value)] or None


@app.command(
    "eval",
    no_args_is_help=True,
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "safeguard eval samples/golden/spam.jsonl --policy spam --model demo\n\n"
        "safeguard eval golden.csv --policy rules.md --gold-field verdict --map 'SP2,SP3,SP4=spam;SP0=ham'\n\n"
        "safeguard eval golden.jsonl -p spam -p fraud --gold-field spam=is_spam --gold-field fraud=is_fraud\n\n"
        "safeguard eval golden.jsonl -p spam --threshold precision=0.95 --by language --by channel\n\n"
        "safeguard eval golden.labels.jsonl --json | jq .policies.spam.figures.f1"
    ),
)
def evaluate(
    golden: Annotated[
        str, typer.Argument(metavar="GOLDEN", help="Rows with their right labels, or an output that has them.")
    ],
    policy: Policies = None,
    gold_field: GoldField = None,
    map: Map = None,
    skip_rows: SkipRows = None,
    text_field: TextField = None,
    template: Template = None,
    format: Format = None,
    encoding: Encoding = "utf-8",
    limit: Limit = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="A GGUF of a gpt-oss model, or demo.", rich_help_panel=MODEL)
    ] = None,
    effort: Annotated[
        str, typer.Option(metavar="none|low|medium|high", callback=_effort, help="As in label.", rich_help_panel=MODEL)
    ] = "low",
    rationale: Rationale = False,
    max_reasoning: MaxReasoning = None,
    threads: Threads = None,
    slots: Slots = None,
    ctx: Context = None,
    together: Annotated[
        bool,
        typer.Option("--together", help="Ask about all policies in one prompt and one answer.", rich_help_panel=MODEL),
    ] = False,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Figures for each value of a field. Repeatable.", rich_help_panel=SHOW),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="T|precision=T|recall=T",
            help="Measure with violates meaning p_violates ≥ T, or search for the T that gives it.",
            rich_help_panel=SHOW,
        ),
    ] = None,
    sure: Annotated[
        bool,
        typer.Option(
            "--sure", help="Also label without reasoning: how sure is sure enough to skip it?", rich_help_panel=SHOW
        ),
    ] = False,
    wrong: Wrong = 10,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Label a golden set and say how right the labels are, with 95 % intervals.

    Rows without a usable gold label or text are counted and said. What is labelled already is not labelled again.
    """

    def command() -> int:
        from safeguard_cli.evaluate import Wanted
        from safeguard_cli.evaluate import evaluate as run_eval

        wanted = Wanted(
            gold_fields=tuple(gold_field or ()),
            mapping=tuple(map or ()),
            skip_rows=skip_rows,
            by=tuple(by or ()),
            threshold=threshold,
            sure=sure,
            wrong=wrong,
            json=json,
        )
        settings = _settings(
            golden,
            policies=tuple(policy or ()),
            text_fields=tuple(text_field or ()),
            template=template,
            format=format,
            encoding=encoding,
            limit=limit,
            model=model,
            effort=effort,
            rationale=rationale,
            together=together,
            max_reasoning=max_reasoning,
            threads=threads,
            slots=slots,
            context=ctx,
            quiet=quiet or json,
        )
        return run_eval(settings, wanted)

    run(command, debug)


@app.command(
    no_args_is_help=True,
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "safeguard compare monday.labels.jsonl tuesday.labels.jsonl\n\n"
        "safeguard compare golden.jsonl --policy old.md --policy new.md --model demo\n\n"
        "safeguard compare golden.jsonl --policy spam --model demo --effort none --effort low --max-flips 3"
    ),
)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="An output; or a golden set, with one option given twice.")],
    b: Annotated[str | None, typer.Argument(metavar="B", help="Another output of the same rows.")] = None,
    policy: Policies = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A model; or two of them.", rich_help_panel=MODEL)
    ] = None,
    effort: Annotated[
        list[str] | None,
        typer.Option(
            metavar="none|low|medium|high", callback=_efforts, help="An effort; or two.", rich_help_panel=MODEL
        ),
    ] = None,
    gold_field: GoldField = None,
    map: Map = None,
    skip_rows: SkipRows = None,
    id_field: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Pair the outputs' rows by this field.", rich_help_panel=READ),
    ] = None,
    text_field: TextField = None,
    template: Template = None,
    format: Format = None,
    encoding: Encoding = "utf-8",
    limit: Limit = None,
    max_reasoning: MaxReasoning = None,
    threads: Threads = None,
    slots: Slots = None,
    ctx: Context = None,
    max_flips: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Exit code 5 when more rows than this flipped.", rich_help_panel=SHOW),
    ] = None,
    wrong: Wrong = 10,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What flipped between two labelings of the same rows, and whether one is better than chance would have it."""

    def command() -> int:
        from safeguard_cli.compare import compare as run_compare
        from safeguard_cli.evaluate import Wanted

        wanted = Wanted(tuple(gold_field or ()), tuple(map or ()), skip_rows, wrong=wrong, json=json)
        settings = _settings(
            a,
            text_fields=tuple(text_field or ()),
            template=template,
            format=format,
            encoding=encoding,
            limit=limit,
            max_reasoning=max_reasoning,
            threads=threads,
            slots=slots,
            context=ctx,
            id_field=id_field,
            quiet=quiet or json,
        )
        variants = {"policy": policy or [], "model": model or [], "effort": effort or []}
        return run_compare(settings, b, wanted, variants, max_flips)

    run(command, debug)


@app.command(
    no_args_is_help=True,
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "safeguard report messages.labels.jsonl\n\n"
        "safeguard report golden.labels.jsonl --by language -o spam.html"
    ),
)
def report(
    out: Annotated[str, typer.Argument(metavar="OUT", help="An output of safeguard label.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The page; default: OUT with .html.")
    ] = None,
    gold_field: GoldField = None,
    map: Map = None,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Figures for each value of a field. Repeatable.", rich_help_panel=SHOW),
    ] = None,
    examples: Annotated[
        int, typer.Option(min=0, metavar="N", help="Rows shown of each label.", rich_help_panel=SHOW)
    ] = 25,
    text_field: TextField = None,
    template: Template = None,
    format: Format = None,
    encoding: Encoding = "utf-8",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """An output as one HTML page that opens offline: shares, scores, examples, and figures where gold labels are.

    It is written anew each time: its content is OUT's.
    """

    def command() -> int:
        from safeguard_cli.evaluate import Wanted
        from safeguard_cli.report import report as run_report

        wanted = Wanted(tuple(gold_field or ()), tuple(map or ()), by=tuple(by or ()))
        settings = _settings(
            out,
            text_fields=tuple(text_field or ()),
            template=template,
            format=format,
            encoding=encoding,
            quiet=quiet,
        )
        return run_report(settings, wanted, output, examples)

    run(command, debug)


def _settings(input: str, policies: tuple[str, ...] = (), **given: Any) -> Any:
    from safeguard_cli.setup import Settings

    return Settings(input, policies, **given)

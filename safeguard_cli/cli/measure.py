"""The command line of `safeguard eval`, `compare` and `report`: options and help, one call each."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from safeguard_cli.cli.guard import run
from safeguard_cli.cli.options import (
    EXAMPLES,
    FIGURES,
    INPUT,
    MODEL,
    POLICY,
    By,
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
    Rationale,
    Server,
    ServerApi,
    ServerApiName,
    ServerModel,
    SkipRows,
    Slots,
    Template,
    TextField,
    Threads,
    Together,
    TokenizerFile,
    Wrong,
)

app = typer.Typer()


@app.command(
    "eval",
    no_args_is_help=True,
    epilog=(
        EXAMPLES + "safeguard eval samples/golden/spam.jsonl --policy spam --model demo\n\n"
        "safeguard eval golden.csv --policy rules.md --gold-field verdict --map 'SP2,SP3,SP4=spam;SP0=ham'\n\n"
        "safeguard eval golden.jsonl -p spam -p fraud --gold-field spam=is_spam --gold-field fraud=is_fraud\n\n"
        "safeguard eval golden.jsonl -p spam --threshold precision=0.95 --by language --by channel\n\n"
        "safeguard eval golden.labels.jsonl --json | jq .policies.spam.figures.f1\n\n"
        "[bold]Exit codes[/bold]  0 done, 3 some rows in error"
    ),
)
def evaluate(
    context: typer.Context,
    golden: Annotated[
        str, typer.Argument(metavar="GOLDEN", help="Rows with their right labels, or an output that has them.")
    ],
    policy: OptionalPolicies = None,
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
    rationale: Rationale = False,
    max_reasoning: MaxReasoning = None,
    threads: Threads = None,
    slots: Slots = None,
    ctx: Context = None,
    server: Server = None,
    server_api: ServerApi = ServerApiName.completion,
    server_model: ServerModel = None,
    tokenizer: TokenizerFile = None,
    together: Together = False,
    by: By = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="T|precision=T|recall=T",
            help="Measure with violates meaning p_violates ≥ T, or search for the T that gives it.",
            rich_help_panel=FIGURES,
        ),
    ] = None,
    sure: Annotated[
        bool,
        typer.Option(
            "--sure", help="Also label without reasoning: how sure is sure enough to skip it?", rich_help_panel=FIGURES
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
        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.evaluate import evaluate as run_eval
        from safeguard_cli.measure.measured import Wanted

        conflicts.check(context, conflicts.MEASURE)
        wanted = Wanted(
            gold_fields=tuple(gold_field or ()),
            mapping=tuple(map or ()),
            skip_rows=skip_rows,
            by=tuple(by or ()),
            threshold=threshold,
            sure=sure,
            wrong=wrong,
            json=json,
            refuse=partial(conflicts.refuse, context),
        )
        settings = _settings(
            golden,
            policies=tuple(policy or ()),
            text_fields=tuple(text_field or ()),
            template=template,
            format=format and format.value,
            encoding=encoding,
            limit=limit,
            model=model,
            servers=tuple(server or ()),
            server_api=server_api.value,
            server_model=server_model,
            tokenizer=tokenizer,
            effort=effort.value,
            rationale=rationale,
            together=together,
            max_reasoning=max_reasoning,
            threads=threads,
            slots=slots,
            context=ctx,
            quiet=quiet or json,
            says_text=not quiet,
        )
        return run_eval(settings, wanted)

    run(command, debug)


@app.command(
    no_args_is_help=True,
    epilog=(
        EXAMPLES + "safeguard compare monday.labels.jsonl tuesday.labels.jsonl\n\n"
        "safeguard compare golden.jsonl --policy old.md --policy new.md --model demo\n\n"
        "safeguard compare golden.jsonl --policy spam --model demo --effort none --effort low --max-flips 3\n\n"
        "[bold]Exit codes[/bold]  0 done, 5 more rows flipped than --max-flips allows"
    ),
)
def compare(
    context: typer.Context,
    a: Annotated[str, typer.Argument(metavar="A", help="An output; or a golden set, with one option given twice.")],
    b: Annotated[str | None, typer.Argument(metavar="B", help="Another output of the same rows.")] = None,
    policy: OptionalPolicies = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A model; or two of them.", rich_help_panel=MODEL)
    ] = None,
    effort: Annotated[
        list[EffortName] | None, typer.Option(help="An effort; or two of them. Default: low.", rich_help_panel=POLICY)
    ] = None,
    gold_field: GoldField = None,
    map: Map = None,
    skip_rows: SkipRows = None,
    id_field: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Pair the outputs' rows by this field.", rich_help_panel=INPUT),
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
        typer.Option(min=0, metavar="N", help="Exit code 5 when more rows than this flipped.", rich_help_panel=FIGURES),
    ] = None,
    wrong: Wrong = 10,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What flipped between two labelings of the same rows, and whether one is better than chance would have it."""

    def command() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.compare import compare as run_compare
        from safeguard_cli.measure.measured import Wanted
        from safeguard_cli.rows.writable import check_streams, used

        conflicts.check(context, conflicts.MEASURE)
        refuse = partial(conflicts.refuse, context)
        wanted = Wanted(tuple(gold_field or ()), tuple(map or ()), skip_rows, wrong=wrong, json=json, refuse=refuse)
        settings = _settings(
            a,
            tuple(policy or ()) if b is not None else (),
            text_fields=tuple(text_field or ()),
            template=template,
            format=format and format.value,
            encoding=encoding,
            limit=limit,
            max_reasoning=max_reasoning,
            threads=threads,
            slots=slots,
            context=ctx,
            id_field=id_field,
            quiet=quiet or json,
            says_text=not quiet,
        )
        check_streams([*used("the input", *([b] if b else ())), *used("the policy", *(policy or ()))])
        variants = {"policy": policy or [], "model": model or [], "effort": [one.value for one in effort or ()]}
        return run_compare(settings, b, wanted, variants, max_flips)

    run(command, debug)


@app.command(
    no_args_is_help=True,
    epilog=(
        EXAMPLES + "safeguard report messages.labels.jsonl\n\n"
        "safeguard report golden.labels.jsonl --by language -o spam.html\n\n"
        "safeguard report spam.stress.jsonl"
    ),
)
def report(
    context: typer.Context,
    out: Annotated[str, typer.Argument(metavar="OUT", help="An output of safeguard label, or of stress.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The page; default: OUT with .html.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "-p",
            metavar="FILE",
            help="The policy of a stress test, to check what rationales cite; a built-in one is found by itself.",
            rich_help_panel=POLICY,
        ),
    ] = None,
    gold_field: GoldField = None,
    map: Map = None,
    by: By = None,
    examples: Annotated[
        int, typer.Option(min=0, metavar="N", help="Rows shown of each label.", rich_help_panel=FIGURES)
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
        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.measured import Wanted
        from safeguard_cli.measure.report.report import report as run_report

        conflicts.check(context, conflicts.COMMON)
        refuse = partial(conflicts.refuse, context)
        wanted = Wanted(tuple(gold_field or ()), tuple(map or ()), by=tuple(by or ()), refuse=refuse)
        settings = _settings(
            out,
            policies=tuple(policy or ()),
            text_fields=tuple(text_field or ()),
            template=template,
            format=format and format.value,
            encoding=encoding,
            quiet=quiet,
        )
        return run_report(settings, wanted, output, examples)

    run(command, debug)


def _settings(input: str, policies: tuple[str, ...] = (), **given: Any) -> Any:
    from safeguard_cli.rows.writable import check_streams
    from safeguard_cli.run.destination import used_by
    from safeguard_cli.run.settings import Settings

    settings = Settings(input, policies, **given)
    check_streams(used_by(settings))
    return settings

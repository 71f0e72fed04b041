"""The command line of `safeguard eval`, `compare` and `report`: options and help, one call each."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, get_args

import typer

from safeguard_cli.cli.guard import run
from safeguard_cli.cli.parts import EXAMPLES, FIGURES, command
from safeguard_cli.measure.options import Evaluated, Gold, Wanted
from safeguard_cli.rows.options import Reading, Text
from safeguard_cli.run.settings import Asked, Display, Effort, Settings

app = typer.Typer()

FIRST = ("policies", "gold_fields", "mapping", "text_fields", "effort", "model", "servers", "limit", "json", "quiet")


@command(
    app,
    "eval",
    first=(*FIRST, "by", "threshold"),
    epilog=(
        EXAMPLES + "safeguard eval sample:golden/spam --policy spam --model demo\n\n"
        "safeguard eval golden.csv --policy rules.md --gold-field verdict --map 'SP2,SP3,SP4=spam;SP0=ham'\n\n"
        "safeguard eval golden.jsonl -p spam -p fraud --gold-field spam=is_spam --gold-field fraud=is_fraud\n\n"
        "safeguard eval golden.jsonl -p spam --threshold precision=0.95 --by language --by channel\n\n"
        "safeguard eval golden.labels.jsonl --json | jq .policies.spam.figures.f1\n\n"
        "[bold]Exit codes[/bold]  0 done, 3 some rows in error"
    ),
)
def evaluate(
    ctx: typer.Context,
    golden: Annotated[
        str, typer.Argument(metavar="GOLDEN", help="Rows with their right labels, or an output that has them.")
    ],
    *,
    asked: Asked,
    wanted: Evaluated,
) -> None:
    """Label a golden set and say how right the labels are, with 95 % intervals.

    Rows without a usable gold label or text are counted and said. What is labelled already is not labelled again.
    """

    def call() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.evaluate import evaluate as run_eval

        settings = _settings(conflicts.settled(ctx, conflicts.MEASURE, asked), golden, wanted)
        return run_eval(settings, refusing(wanted, ctx))

    run(call, asked.debug)


@command(
    app,
    first=(*FIRST, "max_flips", "wrong", "id_field"),
    epilog=(
        EXAMPLES + "safeguard compare monday.labels.jsonl tuesday.labels.jsonl\n\n"
        "safeguard compare golden.jsonl --policy old.md --policy new.md --model demo\n\n"
        "safeguard compare sample:golden/spam --policy spam --model demo --effort none --effort low --max-flips 3\n\n"
        "[bold]Exit codes[/bold]  0 done, 5 more rows flipped than --max-flips allows"
    ),
    without=("by",),
)
def compare(
    ctx: typer.Context,
    a: Annotated[str, typer.Argument(metavar="A", help="An output; or a golden set, with one option given twice.")],
    b: Annotated[str | None, typer.Argument(metavar="B", help="Another output of the same rows.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A model; or two of them.", rich_help_panel="Model and machine"),
    ] = None,
    effort: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EFFORT", help="An effort; or two of them. Default: low.", rich_help_panel="Policy and decision"
        ),
    ] = None,
    max_flips: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Exit code 5 when more rows than this flipped.", rich_help_panel=FIGURES),
    ] = None,
    *,
    asked: Asked,
    wanted: Wanted,
) -> None:
    """What flipped between two labelings of the same rows, and whether one is better than chance would have it."""

    def call() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.compare import compare as run_compare
        from safeguard_cli.rows.writable import check_streams, used

        settled = conflicts.settled(ctx, conflicts.MEASURE, asked)
        efforts = [one_of("--effort", each, Effort) for each in effort or ()]
        policies = asked.policies
        settings = _settings(replace(settled, policies=policies if b is not None else ()), a, wanted)
        check_streams([*used("the input", *([b] if b else ())), *used("the policy", *policies)])
        variants = {"policy": list(policies), "model": model or [], "effort": efforts}
        return run_compare(settings, b, refusing(wanted, ctx), variants, max_flips)

    run(call, asked.debug)


@command(
    app,
    epilog=(
        EXAMPLES + "safeguard report messages.labels.jsonl\n\n"
        "safeguard report golden.labels.jsonl --by language -o spam.html\n\n"
        "safeguard report spam.stress.jsonl"
    ),
    without=("skip_rows", "progress", "verbose", "limit", "id_field", "max_row_bytes"),
)
def report(
    ctx: typer.Context,
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
            rich_help_panel="Policy and decision",
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Figures for each value of a field. Repeatable.", rich_help_panel=FIGURES),
    ] = None,
    examples: Annotated[
        int, typer.Option(min=0, metavar="N", help="Rows shown of each label.", rich_help_panel=FIGURES)
    ] = 25,
    *,
    gold: Gold,
    text: Text,
    reading: Reading,
    display: Display,
) -> None:
    """An output as one HTML page that opens offline: shares, scores, examples, and figures where gold labels are.

    It is written anew each time: its content is OUT's.
    """

    def call() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.report.report import report as run_report

        conflicts.check(ctx, conflicts.COMMON)
        settings = Settings(out, tuple(policy or ()), **vars(reading), **vars(text), **vars(display))
        _check_read(settings)
        return run_report(settings, refusing(Wanted(**vars(gold), by=tuple(by or ())), ctx), output, examples)

    run(call, display.debug)


def refusing(wanted: Any, ctx: typer.Context) -> Any:
    """Return what is wanted with a way to refuse options that were given and have no effect."""
    from safeguard_cli.cli import conflicts

    return replace(wanted, refuse=partial(conflicts.refuse, ctx))


def one_of(option: str, value: str, choices: Any) -> str:
    """Return a value if it is among the choices of a Literal. Raises UsageError."""
    from safeguard_cli.errors import UsageError

    if value not in get_args(choices):
        raise UsageError(f"{option} {value!r} is none of {', '.join(get_args(choices))}")
    return value


def _settings(asked: Asked, input: str, wanted: Wanted) -> Settings:
    """The settings of a run whose labels are measured; JSON on standard output is all that it shows."""
    from safeguard_cli.rows.samples import input_path

    values = vars(replace(asked, input=input_path(input), quiet=asked.quiet or wanted.json))
    settings = Settings(**values, says_text=not asked.quiet)
    _check_read(settings)
    return settings


def _check_read(settings: Settings) -> None:
    """Refuse to print into a file that is read."""
    from safeguard_cli.rows.writable import check_streams
    from safeguard_cli.run.destination import used_by

    check_streams(used_by(settings))

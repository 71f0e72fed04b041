"""The command line of `safeguard eval`, `compare` and `report`: options and help, one call each."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, get_args

import typer

from safeguard_cli.cli.guard import run
from safeguard_cli.cli.parts import EXAMPLES, command
from safeguard_cli.measure.options import Compared, Evaluated, Reported, Wanted
from safeguard_cli.rows.options import Reading, Text
from safeguard_cli.run.settings import AskedOfTurns, Display, Effort, Settings

app = typer.Typer()

FIRST = ("policies", "gold_fields", "mapping", "text_fields", "effort", "model", "servers", "limit", "json", "quiet")


@command(
    app,
    "eval",
    first=(*FIRST, "by", "threshold", "require", "calibrate", "output"),
    epilog=(
        EXAMPLES + "safeguard eval sample:golden/spam --policy spam --model demo\n\n"
        "safeguard eval golden.csv --policy rules.md --gold-field verdict --map 'SP2,SP3,SP4=spam;SP0=ham'\n\n"
        "safeguard eval golden.jsonl -p spam -p fraud --gold-field spam=is_spam --gold-field fraud=is_fraud\n\n"
        "safeguard eval golden.csv -p spam -p fraud --gold-field violated\n\n"
        "safeguard eval golden.jsonl -p spam --threshold precision=0.95 --by language --by channel\n\n"
        "safeguard eval golden.jsonl -p spam --calibrate spam.calibration.json\n\n"
        "safeguard eval golden.labels.jsonl --json | jq .policies.spam.figures.f1\n\n"
        "safeguard eval golden.jsonl -p spam --require 'recall>=0.9' --require 'lower(precision)>=0.8' --junit eval.xml"
        "\n\n[bold]Exit codes[/bold]  0 done, 3 some rows in error, 5 a figure is not what --require asks for"
    ),
)
def evaluate(
    ctx: typer.Context,
    golden: Annotated[
        str, typer.Argument(metavar="GOLDEN", help="Rows with their right labels, or an output that has them.")
    ],
    *,
    asked: AskedOfTurns,
    wanted: Evaluated,
) -> None:
    """Label a golden set and measure how right the labels are, with 95 % intervals.

    Rows without a usable gold label or text are left out and counted. An output is measured, not labelled again.
    """

    def call() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.evaluate import evaluate as run_eval

        settings = _settings(conflicts.settled(ctx, conflicts.MEASURE, asked), golden, wanted)
        settings = replace(settings, output=wanted.output, overwrite=wanted.overwrite)
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
    *,
    wanted: Compared,
    asked: AskedOfTurns,
) -> None:
    """Show what flipped between two labelings of the same rows, and whether one is better by more than chance."""

    def call() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.compare import compare as run_compare
        from safeguard_cli.rows.writable import check_streams, used

        settled = conflicts.settled(ctx, conflicts.MEASURE, asked)
        efforts = [one_of("--effort", each, Effort) for each in wanted.effort]
        policies = asked.policies
        settings = _settings(replace(settled, policies=policies if b is not None else ()), a, wanted)
        check_streams([*used("the input", *([b] if b else ())), *used("the policy", *policies)])
        variants = {"policy": list(policies), "model": list(wanted.model), "effort": efforts}
        return run_compare(settings, b, refusing(wanted, ctx), variants, wanted.max_flips)

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
    *,
    wanted: Reported,
    text: Text,
    reading: Reading,
    display: Display,
) -> None:
    """Write an output as one HTML page that opens offline: shares, scores, examples and, with gold labels, figures.

    An earlier report under the same name is replaced.
    """

    def call() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.report.report import report as run_report

        conflicts.check(ctx, conflicts.COMMON)
        settings = Settings(out, wanted.policies, **vars(reading), **vars(text), **vars(display))
        _check_read(settings)
        shown = Wanted(wanted.gold_fields, wanted.mapping, by=wanted.by, wrong_file=wanted.wrong_file)
        return run_report(settings, refusing(shown, ctx), wanted.output, wanted.examples)

    run(call, display.debug)


def refusing(wanted: Any, ctx: typer.Context) -> Any:
    """Return `wanted` with a way to refuse options that were given and have no effect."""
    from safeguard_cli.cli import conflicts

    return replace(wanted, refuse=partial(conflicts.refuse, ctx))


def one_of(option: str, value: str, choices: Any) -> str:
    """Return a value if it is among the choices of a Literal, else raise UsageError."""
    from safeguard_cli.errors import UsageError

    if value not in get_args(choices):
        raise UsageError(f"{option} {value!r} is not one of {', '.join(get_args(choices))}")
    return value


def _settings(asked: AskedOfTurns, input: str, wanted: Wanted) -> Settings:
    """Return the settings of a run to be measured; with --json it prints nothing but JSON."""
    from safeguard_cli.cli.inputs import input_path

    values = vars(replace(asked, input=input_path(input), quiet=asked.quiet or wanted.json))
    settings = Settings(**values, says_text=not asked.quiet, calibration=wanted.calibration)
    _check_read(settings)
    return settings


def _check_read(settings: Settings) -> None:
    """Raise UsageError if standard output goes into a file that is read."""
    from safeguard_cli.rows.writable import check_streams
    from safeguard_cli.run.destination import used_by

    check_streams(used_by(settings))

"""The command line of `safeguard policy`: options and help, one call each."""

from __future__ import annotations

from typing import Annotated

import typer

from safeguard_cli.cli.conflicts import Rule
from safeguard_cli.cli.guard import run
from safeguard_cli.cli.parts import EXAMPLES, Needed, command, with_parts
from safeguard_cli.measure.options import Advised, Remembered
from safeguard_cli.rows.options import Reading, Text
from safeguard_cli.run.settings import Debugging

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="List, show, check and create policies.")


@app.command("list", epilog="[bold]Example[/bold]\n\nsafeguard policy list")
@with_parts
def list_(*, debugging: Debugging) -> None:
    """List the built-in policies with their labels and lengths, and the packs that name several of them."""
    from safeguard_cli.policy.listing import list_command

    run(list_command, debugging.debug)


@command(app, epilog="[bold]Example[/bold]\n\nsafeguard policy show fraud > my-fraud.md")
def show(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="A built-in policy's name, or a file.")],
    *,
    debugging: Debugging,
) -> None:
    """Print a policy's file, word for word, as a start for your own."""
    from safeguard_cli.policy.listing import show_command

    run(lambda: show_command(policy), debugging.debug)


_Labels = Annotated[str | None, typer.Option("--labels", metavar="A,B", help="Its labels, from harmless to worst.")]
_Violates = Annotated[
    str | None,
    typer.Option("--violates", metavar="B", help="The labels that violate, or '>= B' for B and those after it."),
]


@command(
    app,
    epilog="[bold]Examples[/bold]\n\nsafeguard policy check my-rules.md\n\nsafeguard policy check policies/*.md"
    "\n\nsafeguard policy check --fix published.txt",
)
def check(
    ctx: typer.Context,
    policies: Annotated[list[str], typer.Argument(metavar="POLICY…", help="Policy files, or built-in names.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 5 for advice too.")] = False,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Add front matter with the labels that the text answers with, if it names none."),
    ] = False,
    labels: _Labels = None,
    violates: _Violates = None,
    *,
    debugging: Debugging,
) -> None:
    """Find what is wrong in a policy and what weakens it, each as FILE:LINE: MESSAGE. Exit code 5 for a defect.

    Defects are what a run refuses, labels that the text never mentions or that front matter does not name, rule codes
    that are used twice or defined nowhere, spellings of control tokens, empty sections and places left unfinished.

    Advice is told without that exit code: missing sections, rules without codes, vague words, too few examples, labels
    that are part of each other, and a length far from 400 to 600 tokens.
    """
    from safeguard_cli.cli import conflicts
    from safeguard_cli.errors import OK
    from safeguard_cli.policy.begin import fix_command
    from safeguard_cli.policy.check import check_command

    def call() -> int:
        conflicts.check(ctx, _WITHOUT_FIX)
        mended = fix_command(policies, _split(labels), _split(violates)) if fix else OK
        return mended or check_command(policies, strict=strict)

    run(call, debugging.debug)


_WITHOUT_FIX = [
    Rule(option, lambda values: not values.get("fix"), "without --fix, which writes them into the front matter")
    for option in ("labels", "violates")
]


@command(
    app,
    epilog="[bold]Examples[/bold]\n\nsafeguard policy new off-topic --labels on_topic,off_topic --violates off_topic"
    "\n\nsafeguard policy new bulk-mail --from published.txt",
)
def new(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The policy's name: a-z, 0-9, - and _.")],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE", help="A policy's text, taken word for word, in place of the template."),
    ] = None,
    labels: _Labels = None,
    violates: _Violates = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The policy's file; default: NAME.md.")
    ] = None,
    *,
    debugging: Debugging,
) -> None:
    """Create a policy from a template with all its sections, or from a policy's text as somebody published it.

    Without --labels, a template has allowed and violating, and the last label violates. With --from, they are found in
    the text; what it leaves open is asked.
    """
    from safeguard_cli.cli import conflicts
    from safeguard_cli.policy.begin import from_command, new_command

    def call() -> int:
        conflicts.check(ctx, ())
        if source is not None:
            return from_command(source, name, _split(labels), _split(violates), output)
        return new_command(name, _split(labels), _split(violates), output)

    run(call, debugging.debug)


@command(
    app,
    epilog=EXAMPLES
    + "safeguard policy history golden.jsonl\n\nsafeguard policy history golden.csv --in runs -p spam.md",
    without=("limit", "max_row_bytes"),
)
def history(
    ctx: typer.Context,
    golden: Annotated[str, typer.Argument(metavar="GOLDEN", help="Rows with their right labels.")],
    *,
    remembered: Remembered,
    text: Text,
    reading: Reading,
    debugging: Debugging,
) -> None:
    """List the versions of a policy that were measured on a golden set, with their figures and what flipped.

    A measurement is a finished output that labels rows of GOLDEN, with its manifest beside it. The right labels are
    those that GOLDEN has now. Rows pair by their texts, or by --id-field.
    """

    def call() -> int:
        from dataclasses import replace

        from safeguard_cli.cli import conflicts
        from safeguard_cli.cli.inputs import input_path
        from safeguard_cli.measure.history import history as run_history
        from safeguard_cli.run.settings import Settings

        conflicts.check(ctx, conflicts.MEASURE)
        path = input_path(golden)
        folder = remembered.folder or (None if path == golden else ".")  # outputs do not lie beside a shipped sample
        settings = Settings(path, **vars(reading), **vars(text), says_text=False)
        return run_history(settings, replace(remembered, folder=folder))

    run(call, debugging.debug)


@command(
    app,
    epilog=EXAMPLES
    + "safeguard policy advise spam.md --on golden.labels.jsonl\n\n"
    + "safeguard policy advise spam --on low.jsonl --on high.jsonl --gold-field verdict",
    without=("limit", "max_row_bytes", "skip_rows"),
)
def advise(
    ctx: typer.Context,
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="A policy's file, or a built-in policy's name.")],
    *,
    advised: Annotated[Advised, Needed("on")],
    text: Text,
    reading: Reading,
    debugging: Debugging,
) -> None:
    """Show where a policy fails on a labelled golden set, each finding with its rows. Nothing is rewritten.

    Misses by rule and direction, rules that no row cites, rules that are cited for the same rows, rows that flip
    between outputs, and words that the misses share. The rules need rationales: label with --rationale.
    """

    def call() -> int:
        from functools import partial

        from safeguard_cli.cli import conflicts
        from safeguard_cli.measure.advise import advise as run_advise
        from safeguard_cli.run.settings import Settings

        conflicts.check(ctx, conflicts.MEASURE)
        settings = Settings(advised.on[0], (policy,), **vars(reading), **vars(text), says_text=False)
        return run_advise(settings, advised, partial(conflicts.refuse, ctx))

    run(call, debugging.debug)


def _split(value: str | None) -> list[str]:
    return [item.strip() for item in (value or "").split(",") if item.strip()]

"""The command line of `safeguard policy`: options and help, one call each."""

from __future__ import annotations

from typing import Annotated

import typer

from safeguard_cli.cli.conflicts import Rule
from safeguard_cli.cli.guard import run
from safeguard_cli.cli.parts import command, with_parts
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


def _split(value: str | None) -> list[str]:
    return [item.strip() for item in (value or "").split(",") if item.strip()]

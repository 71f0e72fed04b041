"""The command line of `safeguard policy`: options and help, one call each."""

from __future__ import annotations

from typing import Annotated

import typer

from safeguard_cli.cli.guard import run
from safeguard_cli.cli.parts import command, with_parts
from safeguard_cli.run.settings import Debugging

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="List, show, check and create policies.")


@app.command("list", epilog="[bold]Example[/bold]\n\nsafeguard policy list")
@with_parts
def list_(*, debugging: Debugging) -> None:
    """List the built-in policies with their labels and lengths."""
    from safeguard_cli.policy.check import list_command

    run(list_command, debugging.debug)


@command(app, epilog="[bold]Example[/bold]\n\nsafeguard policy show fraud > my-fraud.md")
def show(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="A built-in policy's name, or a file.")],
    *,
    debugging: Debugging,
) -> None:
    """Print a policy's file, word for word, as a start for your own."""
    from safeguard_cli.policy.check import show_command

    run(lambda: show_command(policy), debugging.debug)


@command(
    app, epilog="[bold]Examples[/bold]\n\nsafeguard policy check my-rules.md\n\nsafeguard policy check policies/*.md"
)
def check(
    policies: Annotated[list[str], typer.Argument(metavar="POLICY…", help="Policy files, or built-in names.")],
    *,
    debugging: Debugging,
) -> None:
    """Find what weakens a policy, each as FILE:LINE: MESSAGE. Exit code 5 if anything is found.

    It finds what a run refuses, missing sections, rules without codes, vague words and too few examples.

    It finds labels that are never mentioned or are part of each other, and a length far from 400 to 600 tokens.

    It finds spellings of control tokens and places left unfinished.
    """
    from safeguard_cli.policy.check import check_command

    run(lambda: check_command(policies), debugging.debug)


@command(
    app,
    epilog="[bold]Example[/bold]\n\nsafeguard policy new off-topic --labels on_topic,off_topic --violates off_topic",
)
def new(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The policy's name: a-z, 0-9, - and _.")],
    labels: Annotated[str | None, typer.Option(metavar="A,B", help="Its labels; default: allowed,violating.")] = None,
    violates: Annotated[
        str | None, typer.Option(metavar="B", help="The labels that violate; default: the last.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The policy's file; default: NAME.md.")
    ] = None,
    *,
    debugging: Debugging,
) -> None:
    """Create a policy from a template with all its sections."""
    from safeguard_cli.cli import conflicts
    from safeguard_cli.policy.check import new_command

    def split(value: str | None) -> list[str]:
        return [item.strip() for item in (value or "").split(",") if item.strip()]

    def call() -> int:
        conflicts.check(ctx, ())
        return new_command(name, split(labels), split(violates), output)

    run(call, debugging.debug)

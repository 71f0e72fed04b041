"""The command line of `safeguard ask`: options and help, one call."""

from __future__ import annotations

from typing import Annotated

import typer

from safeguard_cli.cli import guard
from safeguard_cli.cli.parts import EXAMPLES, Needed, command
from safeguard_cli.run.settings import Answers, OfTexts, Settings

app = typer.Typer()


@command(
    app,
    first=("policies", "effort", "rationale", "model", "servers", "json", "watch", "quiet"),
    epilog=(
        EXAMPLES + "safeguard ask 'WIN A PRIZE' --policy spam --model demo\n\n"
        "safeguard ask --policy my-rules.md --policy hate\n\n"
        "safeguard ask --policy my-rules.md --watch < texts.txt\n\n"
        "safeguard ask --policy spam --json < texts.txt | jq -r .spam.label\n\n"
        "[bold]Exit codes[/bold]  0 every text labelled, 1 failed, 2 wrong usage, 3 some texts in error,"
        " 130 interrupted"
    ),
    without=("progress",),
)
def ask(
    ctx: typer.Context,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="What to label; default: standard input, a text in each line."),
    ] = None,
    *,
    rationale: Annotated[
        bool,
        typer.Option(
            "--rationale/--no-rationale",
            help="Give a short rationale for every answer.",
            rich_help_panel="Policy and decision",
        ),
    ] = True,
    answers: Answers,
    asked: Annotated[OfTexts, Needed("policies")],
) -> None:
    """Label texts at once, to try a policy: print each text's label, score and rationale.

    Lines of standard input are answered as they come, with the model still loaded. At a terminal, Ctrl-D ends.
    """

    def run() -> int:
        from safeguard_cli.cli import conflicts
        from safeguard_cli.run.ask import ask

        settled = conflicts.settled(ctx, conflicts.ASK, asked)
        return ask(Settings(**{**vars(settled), "rationale": rationale}), texts or (), answers)

    guard.run(run, asked.debug)

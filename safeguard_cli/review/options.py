"""The options of reviewing, each declared once; see run/settings.py. Imports Typer alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import typer

from safeguard_cli.measure.options import Gold

Pick: TypeAlias = Literal["random", "unsure", "disagree", "wrong", "disputed"]


@dataclass(frozen=True)
class Picking:
    """Which rows"""

    pick: Annotated[
        Pick,
        typer.Option(
            help="random: any. unsure: nearest to the threshold, a fifth at random. disagree: two policies, or --with,"
            " differ. wrong: not the gold label. disputed: people differ.",
        ),
    ] = "random"
    rows: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many rows. Default: 50; all that are disputed.")
    ] = None
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Another seed draws other rows.")] = 0
    policies: Annotated[
        tuple[str, ...],
        typer.Option(
            "--policy",
            "-p",
            metavar="FILE",
            help="The policy: its labels, and its rules to cite. Needed if OUT has several; two for --pick disagree.",
        ),
    ] = ()
    other: Annotated[
        str | None, typer.Option("--with", metavar="OUT2", help="With --pick disagree: another output of these rows.")
    ] = None


@dataclass(frozen=True)
class Showing:
    """What is shown"""

    blind: Annotated[
        bool | None,
        typer.Option(
            "--blind/--show",
            help="Show the model's label after the person's, or at once. Default: after, for random and unsure.",
            show_default=False,
        ),
    ] = None
    veil: Annotated[bool, typer.Option("--veil", help="Show each text only when a key is pressed.")] = False
    plain: Annotated[
        bool, typer.Option("--plain", help="Ask line by line: for screen readers, and where Textual is not installed.")
    ] = False
    web: Annotated[
        bool,
        typer.Option("--web", help="Show the review in a browser on this machine, with a link that holds a secret."),
    ] = False


@dataclass(frozen=True)
class Reviewing(Showing, Picking, Gold):
    """All that a review is asked for: also the golden file, and who answers."""

    golden: str = ""
    person: str = ""

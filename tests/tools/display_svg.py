"""Draws the live display with fixed numbers, for the README: python tests/tools/display_svg.py samples/display.svg."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from safeguard_cli.engine.reports import Report
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.verdict import Verdict
from safeguard_cli.run.display import Rich
from safeguard_cli.run.progress import Progress

COMMAND = "safeguard label samples/messages.jsonl --policy spam --model demo"


def example() -> Progress:
    """Return a run over 72 rows after less than a second, 44 of them decided, at the speed measured on two cores."""
    now = [0.0]
    progress = Progress([Policy("spam", "…", ("ham", "spam"), ("spam",))], 72, clock=lambda: now[0])
    for number in range(44):
        now[0] += 1 / 68
        label = "spam" if number % 19 in (0, 2, 3, 5, 8, 9, 12, 14, 17) else "ham"
        progress.row({"spam": Verdict(label, label == "spam")})
        progress.tokens(prompt=42, generated=16)
    progress.report(Report(under_way=16, read=60 * 42, written=44 * 16 + 16 * 8))
    return progress


def svg(width: int = 80) -> str:
    """Return the picture, the same at every call; it loads no font from the network."""
    console = Console(
        record=True, width=width, height=24, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Text("$ ", "bold green") + Text(COMMAND), no_wrap=True, crop=True)
    console.print(Rich(example()))
    picture = console.export_svg(title="safeguard", unique_id="safeguard")
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(svg(), encoding="utf-8")

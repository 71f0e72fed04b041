"""Draws the review's screen for its page: python tests/tools/review_svg.py samples/review.svg."""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from safeguard_cli.measure.reviewed import Proposed
from safeguard_cli.review.answers import open_golden
from safeguard_cli.review.app import ReviewApp
from safeguard_cli.review.picking import Candidate, pick_random
from safeguard_cli.review.session import Session, Task
from safeguard_cli.review.shown import Layout, Said

TEXTS = (
    ("Are you at home tonight? I'll bring the book back.", "ham", 0.01),
    (
        "WINNER!! You were chosen for a £500 voucher. Call 090 111 2222 now to claim it.\n\nOffer ends Friday.",
        "spam",
        1.0,
    ),
)


def example() -> Task:
    """Return a task of two rows, the first of which is to be answered before the picture is taken."""
    rows = [
        Candidate(
            row,
            row,
            {"id": row, "channel": "sms", "text": text},
            text,
            Proposed(label, p > 0.5, p, "spam"),
            (Said("the model", label, f"p {p:.2f}, {'violates' if p > 0.5 else 'does not violate'}, effort low"),),
        )
        for row, (text, label, p) in enumerate(TEXTS, 1)
    ]
    items = sorted(pick_random(rows, 2, 0), key=lambda item: item.candidate.row)
    own = {row.row: row.fields for row in rows}
    return Task("anna", items, ("ham", "spam"), Layout(("text",)), {"SP1": "Prize bait"}, own)


def svg(size: tuple[int, int] = (80, 18)) -> str:
    """Return the picture, the same at every call; it loads no font from the network."""

    async def picture(session: Session) -> str:
        app = ReviewApp(session)
        async with app.run_test(size=size) as pilot:
            await pilot.press("1")
            await pilot.pause()
            return app.export_screenshot()

    task = example()
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "golden.jsonl"
        golden = stack.enter_context(open_golden(path, ("text",), ("anna",), task.labels, list))
        drawn = asyncio.run(picture(Session(task, golden)))
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    return re.sub(r"terminal-\d+", "review", drawn)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(svg(), encoding="utf-8")

"""Runs on local servers in this process, with short waits."""

from __future__ import annotations

import json
from pathlib import Path

from safeguard_cli.engine.servers.pool import Patience
from safeguard_cli.run.label import label
from safeguard_cli.run.settings import Settings

HURRIED = Patience(tries=5, first=0.001, longest=0.01, busy=2.0, down=1.0, connect=5.0, request=1.5)


def fill(folder: Path, rows: int) -> Path:
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps({"id": i, "text": f"row {i} says hello"}) + "\n" for i in range(rows)))
    return source


def run(source: Path, out: Path, *addresses: str, **options: object) -> tuple[int, list[dict]]:
    given = {"policies": ("spam",), "effort": "none", "quiet": True, "overwrite": True, **options}
    code = label(Settings(str(source), output=str(out), servers=addresses, **given))
    return code, [json.loads(line) for line in out.read_bytes().splitlines()]

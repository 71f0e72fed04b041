"""JSON outputs, an array of objects, made of a run's journal: see run/made.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safeguard_cli.output.manifest import Manifest
from safeguard_cli.output.written import whole_lines
from safeguard_cli.rows.formats import Written
from safeguard_cli.rows.json import array_lines, write_array
from safeguard_cli.run.made import split_row
from safeguard_cli.run.settings import Settings


class JsonMaker:
    """The made.Maker of JSON files: each line between the brackets is a row of the journal, byte for byte."""

    format: Written = "json"
    rereads = False

    def check(self, settings: Settings, keep: Sequence[str] | None) -> None:
        """Refuse nothing: any row of a journal is JSON."""

    def most_rows(self) -> int | None:
        """Return None: there is no bound."""

    def write(self, settings: Settings, done: Manifest, journal: Path, part: Path) -> str:
        """Write the file."""
        write_array(part, whole_lines(journal, "jsonl"))
        return ""

    def verdicts(self, output: Path, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Yield the verdicts of each row."""
        return (split_row(line, names)[1] for line in array_lines(output))

    def failures(self) -> tuple[type[Exception], ...]:
        """Return nothing beyond the system's errors."""
        return ()

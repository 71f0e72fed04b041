"""The file of --wrong-file: every wrong or flipped row with its whole text, where a terminal has room for its start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safeguard_cli.errors import UsageError, sentences
from safeguard_cli.files import write
from safeguard_cli.output.manifest import Refused
from safeguard_cli.output.spelled import plain
from safeguard_cli.rows.layouts import csv_line, guard
from safeguard_cli.rows.writable import Used, check_folder, check_output, is_stream, real
from safeguard_cli.terminal import json_bytes

PLACE = ("row", "line", "id")  # the first columns, by which a file is known to be ours
_KINDS = (".jsonl", ".ndjson", ".csv")
_OURS = (b'{"row":', b"\xef\xbb\xbfrow,line,id")


def check_wrong_file(path: str | None, read: Iterable[Used]) -> None:
    """Raise, before the work, if the file cannot be written, or would replace a file of another kind."""
    if path is None:
        return
    target = Path(path)
    if path == "-" or is_stream(target):
        raise UsageError(f"--wrong-file {path}: it must be a file; --json prints all rows")
    if target.suffix.lower() not in _KINDS:
        raise UsageError(f"--wrong-file {path}: name it *.jsonl or *.csv")
    check_output(target, read)
    check_folder(real(target))
    if target.exists():
        with target.open("rb") as file:
            begins = file.read(len(max(_OURS, key=len)))
        if begins and not begins.startswith(_OURS):
            raise Refused(f"{path} exists and holds other rows: name another file with --wrong-file")


def write_wrong_file(path: str | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows; those of a CSV are guarded against spreadsheets, which take some texts for formulas."""
    if path is None:
        return
    rows = [{**{name: row.get(name) for name in PLACE}, **row} for row in rows]
    if path.lower().endswith(".csv"):
        columns = [*dict.fromkeys((*PLACE, *(name for row in rows for name in row)))]
        lines = [columns, *([guard(plain(row.get(name))) for name in columns] for row in rows)]
        data = b"\xef\xbb\xbf" + b"".join(csv_line(line, ",", "\n") for line in lines)
    else:
        data = b"".join(json_bytes(row) + b"\n" for row in rows)
    with sentences(path):
        write(real(Path(path)), data)

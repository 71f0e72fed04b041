"""The formats of inputs and outputs: what each is, and how a file's name says which it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Format = Literal["jsonl", "csv"]  # how rows are laid out: as objects, or as cells under a header
Written = Literal["jsonl", "csv", "parquet", "json", "xlsx"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A format of inputs: `what` it is for people, how its rows are laid out, and what is written of it.

    `whole` means that a file must be there as it is: neither a pipe nor a packed file will do.
    """

    what: str
    rows: Format
    written: Written
    delimiter: str | None = None
    whole: bool = False

    @property
    def headed(self) -> bool:
        """Return whether a header stands above its rows."""
        return self.rows == "csv"

    @property
    def is_sheet(self) -> bool:
        """Return whether it is a spreadsheet."""
        return self.written == "xlsx"


_LINES = Kind("JSON lines: an object in each line", "jsonl", "jsonl")
FORMATS: Mapping[str, Kind] = {
    "jsonl": _LINES,
    "ndjson": _LINES,
    "json": Kind("JSON: an array of objects, or objects one after another, however spread over lines", "jsonl", "json"),
    "csv": Kind("CSV: a header, then rows", "csv", "csv"),
    "tsv": Kind("TSV: CSV with tabs", "csv", "csv", "\t"),
    "lines": Kind("plain text: each line is a row with the field `text`", "jsonl", "jsonl"),
    "parquet": Kind("Parquet", "jsonl", "parquet", whole=True),
    "xlsx": Kind("an Excel workbook, one sheet of it", "csv", "xlsx", whole=True),
    "xlsb": Kind("a binary Excel workbook", "csv", "xlsx", whole=True),
    "xls": Kind("an old Excel workbook", "csv", "xlsx", whole=True),
    "ods": Kind("a LibreOffice spreadsheet", "csv", "xlsx", whole=True),
}
ALSO: Mapping[str, str] = {"txt": "lines", "xlsm": "xlsx"}  # further extensions
EXTENSIONS = tuple(f".{name}" for name in (*FORMATS, *ALSO) if name != "lines")  # of inputs, before that of a packing
PACKED: Mapping[str, str] = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
WRITTEN: Mapping[str, Written] = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
    "csv": "csv",
    "tsv": "csv",
    "parquet": "parquet",
    "xlsx": "xlsx",
}


def unpacked_name(name: str) -> str:
    """Return a file's name without the extension of its packing: `a.CSV` for `a.CSV.gz`."""
    return name[: -len(ending)] if (ending := Path(name).suffix).lower() in PACKED else name


def extension(path: Path) -> str:
    """Return what a file is by its name: `csv` for `a.CSV.gz`, `lines` for `a.txt`."""
    ending = Path(unpacked_name(path.name)).suffix[1:].lower()
    return ALSO.get(ending, ending)


def is_sheet(format: str | None, path: Path) -> bool:
    """Return whether a file is a spreadsheet, by its format if one is given, else by its name."""
    kind = FORMATS.get(format or extension(path))
    return kind is not None and kind.is_sheet

"""Tells from an input's first bytes and lines what it really is, and how to convert what cannot be read.

The checks are narrow: anything that could be a row is read as one. They look at the same bytes however a pipe splits
them, and do not wait for a second line if the first one settles it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.errors import UsageError
from safeguard_cli.rows.field_names import is_common
from safeguard_cli.terminal import shell_line

STREAMS = ("standard input", "input")  # the names of inputs that are not files
HEAD_BYTES = 512  # the checks read at most so many bytes, and stop after the first line that is not blank
DELIMITERS = ",;\t|"
BARE_CR = "lines end in a bare CR; convert them first: tr '\\r' '\\n' < OLD > NEW"

_MARKS = {  # by encoding; UTF-32 before UTF-16, because its little-endian mark begins with that of UTF-16
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-8": codecs.BOM_UTF8,
}
_UNPACK = {
    b"\x1f\x8b": ("gzip", "gunzip -c"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dc"),
    b"\xfd7zXZ\x00": ("xz", "xz -dc"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -dc"),
}
_PACKED = (".gz", ".zst", ".xz", ".lz4", ".bz2")
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
_FILES = {
    b"PK\x03\x04": "a zip file, as spreadsheets are: name it *.xlsx or *.ods if it is one, else unpack it (unzip -p)",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Office file: name it *.xls if it is a spreadsheet",
    b"%PDF-": "a PDF: take the text out of it first",
    b"{\\rtf": "a rich text document (RTF): save it as plain CSV or JSON lines",
    b"SQLite format 3\0": "an SQLite database: export the rows, as in sqlite3 -csv -header FILE 'SELECT …' > rows.csv",
    b"ARROW1\0\0": "an Arrow or Feather file: write it as Parquet",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    b"Rar!\x1a\x07": "a RAR archive: unpack it",
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer, not the data itself: git lfs pull fetches it",
}
_MARKUP = re.compile(rb"<(?:!doctype|html|head|body|table|meta|script|\?xml|rss|svg|!--)(?:[\s>]|$)", re.IGNORECASE)
_SEP_LINE = re.compile(rb"\"?sep=(.)\"?[,;\t|]*[\r\n]*", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(r"[^\W\d][^\t\"'.!?…:]{0,39}")
_QUOTED = re.compile(rb'"[^"]*"[,;\t|]')
_MEMBER = re.compile(rb'\s*"(?:[^"\\]|\\.)*"\s*:')
_RULE = re.compile(rb"[|+\s]*:?[-=]{2,}:?(?:[|+,;\s]+:?[-=]{2,}:?)+[|+\s]*|[|+]+[-=]{2,}[|+]+")
_NOTHING = b' "\r\n' + DELIMITERS.encode()  # in a row where nothing stands
_AGREEING = 10  # lines that are compared with the header


def head_of(start: bytes) -> bytes | None:
    """Return the part of an input's first bytes that the checks look at; None if they need more bytes."""
    at = len(start) - len(start.lstrip())
    end = start.find(b"\n", at)
    if len(start) < 4 or (end < 0 and len(start) < HEAD_BYTES):
        return None
    return start[: HEAD_BYTES if end < 0 else max(4, min(end + 1, HEAD_BYTES))]


def refuse_other_kinds(name: str, head: bytes, *, markup: bool = False) -> None:
    """Raise UsageError, saying what it is and what to do, if an input begins like a file of another kind.

    With `markup`, a page of HTML is text like any other.
    """
    for magic, (kind, command) in _UNPACK.items():
        if head.startswith(magic):
            raise UsageError(f"{name}: this is packed with {kind}; unpack it: {_through(name, command)}")
    if _BZIP2.match(head):
        raise UsageError(f"{name}: this is packed with bzip2; unpack it: {_through(name, 'bzip2 -dc')}")
    if head.startswith(b"PAR1"):
        raise UsageError(f"{name}: this is Parquet: use --format parquet; from standard input, save it to a file first")
    for magic, kind in _FILES.items():
        if head.removeprefix(codecs.BOM_UTF8).startswith(magic):
            raise UsageError(f"{name}: this is {kind}")
    if not markup and _MARKUP.match(head.removeprefix(codecs.BOM_UTF8).lstrip()):
        raise UsageError(f"{name}: this is a page of HTML or XML, perhaps an error page instead of the download")


def refuse_other_encodings(name: str, head: bytes, codec: str) -> None:
    """Raise UsageError if an input's first bytes show another encoding than `codec`, a codec's own name."""
    wide = codec.startswith(("utf-16", "utf-32"))
    mark = next((encoding for encoding, mark in _MARKS.items() if head.startswith(mark)), None)
    if mark == "utf-8":
        if not codec.startswith("utf-8"):
            raise UsageError(f"{name}: this begins with a UTF-8 byte order mark; leave out --encoding")
    elif mark and codec not in (mark, mark[:6]):
        raise UsageError(f"{name}: this is {mark[:6].upper()}; use --encoding {mark[:6]}")
    elif not mark and not wide and (found := _wide_without_mark(head)):
        raise UsageError(f"{name}: this is {found.upper()} without a byte order mark; use --encoding {found}")


def _wide_without_mark(head: bytes) -> str | None:
    """Return which UTF-16 or UTF-32 this is, from bytes without a byte order mark; None for anything else."""
    zeros = tuple(byte == 0 for byte in head[:4])
    for encoding, pattern in (
        ("utf-32-le", (False, True, True, True)),
        ("utf-32-be", (True, True, True, False)),
        ("utf-16-le", (False, True, False, True)),
        ("utf-16-be", (True, False, True, False)),
    ):
        if zeros == pattern and head[:4].strip(b"\0\r\n"):  # lines of zeros alone are only damaged
            return encoding
    # For letters of other alphabets, that byte is the number of their Unicode block; in UTF-8 text it would be a
    # control character.
    odd, even = (sum(byte < 32 and byte not in b"\t\r\n" for byte in head[at::2]) for at in (1, 0))
    if max(odd, even) >= 3 and not min(odd, even) and 4 * max(odd, even) >= len(head) // 2:
        return "utf-16-le" if odd else "utf-16-be"
    return None


def _through(name: str, command: str) -> str:
    """Return the advice to pass an input through a command."""
    if name in STREAMS:
        return f"pipe it through {command}"
    out = Path(name).with_suffix("").name if Path(name).suffix in _PACKED else "FILE"
    return f"{command} {shell_line([name])} > {shell_line([out])}"


def is_json_line(line: bytes) -> bool:
    """Return whether a line is a whole JSON object, as in JSON lines."""
    if not line.lstrip().startswith(b"{"):
        return False
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def is_json_value(line: bytes, following: Callable[[], bytes]) -> bool:
    """Return whether an input begins with a JSON array of objects, or with an object spread over several lines.

    `following` reads the second line.
    """
    line = line.strip()
    if re.match(rb"\[\s*(\{|$)", line):
        return True
    return line[:1] == b"{" and line[-1:] in (b"{", b"[", b",") and _MEMBER.match(following()) is not None


def refuse_json_values(name: str, line: bytes, following: Callable[[], bytes]) -> None:
    """Raise UsageError for a JSON array or a value spread over several lines; `following` reads the second line."""
    if is_json_value(line, following):
        kind = "a JSON array" if line.strip().startswith(b"[") else "JSON spread over several lines"
        raise UsageError(f"{name}: this is {kind}, not an object in each line: use --format json")
    if re.search(rb"\}\s*\r\s*\{", line):
        raise UsageError(f"{name}: {BARE_CR}")


def refuse_columns(name: str, fields: Mapping[str, Any] | None) -> None:
    """Raise UsageError for a table by columns: an object for each column, with the rows' numbers as keys."""
    columns = list((fields or {}).values())
    if not columns or not all(isinstance(column, dict) and column for column in columns):
        return
    keys = list(columns[0])
    if all(list(column) == keys for column in columns) and keys == [str(number) for number in range(len(keys))]:
        raise UsageError(f"{name}: this is a table by columns, not by rows; from pandas: to_json(…, orient='records')")


def refuse_rows_in_text(name: str, line: bytes, following: Callable[[], Sequence[bytes]]) -> None:
    """Raise UsageError if a file of plain text by its name alone holds JSON, or a table under a header."""
    others = following()
    if not others and b"\r" in line.rstrip(b"\r\n"):
        raise UsageError(f"{name}: {BARE_CR}")
    if re.match(rb'\s*\[?\s*\{\s*("|$)', line) or is_json_value(line, lambda: [*others, b""][0]):
        format = "jsonl" if is_json_line(line) else "json"
        raise UsageError(f"{name}: this looks like JSON: use --format {format}, or --format lines if it is plain text")
    counts = {mark: count for mark, count in _counts(line).items() if count}
    for mark, count in counts.items():
        cells = [cell.strip(' "') for cell in line.decode("utf-8", "replace").strip("\r\n").split(mark)]
        theirs = [_counts(other)[mark] for other in others[:_AGREEING]]
        named = sum(map(is_common, cells)) > 1
        if theirs and (named or mark == "\t") and all(other == count for other in theirs):
            format = "tsv" if mark == "\t" else "csv"
            raise UsageError(
                f"{name}: this looks like a table: use --format {format}, or --format lines if each line is a text"
            )


def refuse_json_in_csv(name: str, line: bytes, following: Callable[[], bytes]) -> None:
    """Raise UsageError if a CSV's first line is JSON."""
    refuse_json_values(name, line, following)
    if re.match(rb"\{\s*\"", line.strip()):
        try:
            orjson.loads(line)
        except orjson.JSONDecodeError:
            return
        raise UsageError(f"{name}: this is JSON lines, not CSV; use --format jsonl")


def refuse_printed_table(name: str, lines: Sequence[bytes]) -> None:
    """Raise UsageError if one of a CSV's first lines is a rule of dashes, as in tables printed for people."""
    if any(_RULE.fullmatch(line.strip()) for line in lines):
        raise UsageError(
            f"{name}: this is a table printed for people, with a rule of dashes at its header: export the rows as CSV"
            " (psql --csv, mysql --batch), or remove that line (sed 2d)"
        )


def refuse_title(name: str, header: Sequence[str], following: Callable[[], Sequence[bytes]]) -> None:
    """Raise UsageError if a CSV's header is one cell, and the lines below show that it is a title above a table."""
    shown = [cell for cell in header if cell.strip()]
    if len(shown) != 1 or is_common(shown[0]):
        return
    below = next((line for line in following()[:_AGREEING] if line.strip(_NOTHING)), b"")
    counts = _counts(below)
    mark = max(counts, key=counts.__getitem__)
    if sum(is_common(cell.strip(' "')) for cell in below.decode("utf-8", "replace").split(mark)) > 1:
        raise UsageError(
            f"{name}: the first line is a title, and the header is below it: --skip-rows 1 leaves the title out"
        )


def sep_delimiter(line: bytes) -> str | None:
    """Return the delimiter that Excel's hint line `sep=;` names; None for any other line."""
    found = _SEP_LINE.fullmatch(line)
    given = found[1].decode("latin-1") if found else ""
    return given if given and (given in DELIMITERS or given in ":^~#!/ ") else None


def delimiter_of(line: bytes, following: Callable[[], Sequence[bytes]]) -> str:
    """Return what separates the cells of a CSV header: of several candidates, the one that fits the next lines best."""
    counts = {mark: count for mark, count in _counts(line).items() if count}
    if len(counts) < 2:
        return next(iter(counts), ",")
    others = [_counts(other) for other in following()[:_AGREEING]]
    return max(counts, key=lambda mark: (sum(other[mark] == counts[mark] for other in others), counts[mark]))


def refuse_csv_in_tsv(name: str, line: bytes) -> None:
    """Raise UsageError if a file is TSV by its name alone, and its header has no tab but other delimiters."""
    counts = _counts(line)
    if not counts.pop("\t") and any(counts.values()):
        mark = max(counts, key=counts.__getitem__)
        raise UsageError(
            f"{name}: its header has no tab, but {mark!r}: use --format csv if that separates the cells,"
            " --format tsv if the file has one column"
        )


def refuse_lines_without_header(
    name: str, cells: Sequence[str], line: bytes, following: Callable[[], Sequence[bytes]]
) -> None:
    """Raise UsageError if nothing shows that the first line of a pipe is a CSV's header and not a row."""
    cells = [cell for cell in cells if cell.strip()] or [""]
    common = sum(map(is_common, cells))
    if len(cells) > 1 and (common > 1 or _QUOTED.match(line)):
        return
    names = all(_NAME.fullmatch(cell.strip()) and len(cell.split()) <= 3 for cell in cells)
    unsure = not names or (not common and (len(cells) == 1 or any(cell != cell.strip() for cell in cells)))
    if not (unsure or common) and (others := following()[:_AGREEING]):
        own = {mark: count for mark, count in _counts(line).items() if count}  # other delimiters may stand in texts
        agreeing = sum(own.items() <= _counts(other).items() for other in others)
        unsure = 2 * agreeing < len(others)
    if unsure:
        raise UsageError(
            f"{name}: is the first line a header or a text? Use --format csv if it is a header, --format lines if each"
            " line is a text"
        )


def _counts(line: bytes) -> dict[str, int]:
    """Return how often each delimiter stands outside quotes."""
    unquoted = re.sub(rb'"[^"]*"', b"", line).decode("latin-1")
    return {mark: unquoted.count(mark) for mark in DELIMITERS}

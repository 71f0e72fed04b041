"""Reads the rows of CSV and TSV, as spreadsheets and programs write them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import partial

from safeguard_cli.errors import UsageError
from safeguard_cli.rows.cells import chomp, is_sentence, split_cells, unique_names
from safeguard_cli.rows.formats import Format
from safeguard_cli.rows.lines import Lines, OfLines
from safeguard_cli.rows.records import Record, bad_encoding, row_error, too_big
from safeguard_cli.rows.sniff import (
    BARE_CR,
    delimiter_of,
    refuse_csv_in_tsv,
    refuse_json_in_csv,
    refuse_lines_without_header,
    refuse_printed_table,
    refuse_title,
    sep_delimiter,
)
from safeguard_cli.rows.verdict import RowError

_SEEN_LINES = 11  # lines that are looked at to recognise a header
_UNPARSED = Record(0, 0, b"", None)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")


class CsvRows(OfLines):
    """The records.Rows of a CSV: cells under a header, which is read at once.

    `first` is the first line, which `lines` will still give. `sniffed` means that only a look at that line made this a
    CSV, `by_name` that the file's name did.
    """

    format: Format = "csv"

    def __init__(
        self, file: str, lines: Lines, first: bytes, delimiter: str | None, *, sniffed: bool, by_name: bool
    ) -> None:
        super().__init__(lines)
        self._file = file
        self._reached = 0  # the last line that a quoted cell included
        self._doomed = 0  # a quoted cell that continues into a line up to this one is known never to close
        self._read_header(first, delimiter, sniffed, by_name)

    def unparsed(self) -> Iterator[object]:
        return self._rows(parsed=False)

    def _second(self) -> bytes:
        """Wait for the second line that is not blank, and return it."""
        return [*self._lines.peek(2), b"", b""][1]

    def _following(self) -> list[bytes]:
        """Return the lines after the first that are looked at."""
        return self._lines.peek(_SEEN_LINES)[1:]

    def _read_header(self, line: bytes, delimiter: str | None, sniffed: bool, by_name: bool) -> None:
        if hint := sep_delimiter(line):
            while not self._lines.next().strip(codecs.BOM_UTF8 + b" \t\r\n"):
                pass
            line, delimiter = next(iter(self._lines.peek()), b""), hint
        refuse_json_in_csv(self._file, line, self._second)
        if delimiter == "\t" and by_name:
            refuse_csv_in_tsv(self._file, line)
        self.line_ending = "\r\n" if line.endswith(b"\r\n") else "\n"
        self.delimiter = delimiter or delimiter_of(line, self._following)
        rows = iter(self)
        header = next(rows, None)
        while header is not None and header.error is None and not any(cell.strip() for cell in header.cells):
            header = next(rows, None)  # a spreadsheet leaves rows of bare commas above its header
        if header is None:
            return
        if header.error is not None:
            hint = "; is there another --encoding, such as cp1252?" if header.error.code == "bad_encoding" else ""
            raise UsageError(f"{self._file}: the header cannot be read: {header.error.message}{hint}")
        if any("\r" in name for name in header.cells):
            raise UsageError(f"{self._file}: {BARE_CR}")
        if any(_CONTROL.search(name) for name in header.cells):
            hint = "is there another --encoding, such as utf-16-le or utf-16-be?"
            raise UsageError(f"{self._file}: the header holds control characters; {hint}")
        refuse_printed_table(self._file, [line, *self._lines.peek()])
        refuse_title(self._file, header.cells, lambda: self._lines.peek(2))
        if sniffed and not hint:
            refuse_lines_without_header(self._file, header.cells, line, lambda: self._lines.peek(_SEEN_LINES))
        self.header, self.names = header.cells, unique_names(header.cells)

    def __iter__(self) -> Iterator[Record]:
        return self._rows(parsed=True)

    def _rows(self, *, parsed: bool) -> Iterator[Record]:
        """Yield the rows; unless they are to be `parsed`, those on a line without a quote all as the same empty one."""
        index = -1
        while first := self._lines.next():
            first = first.removeprefix(codecs.BOM_UTF8)  # concatenated files have more of them
            if not first.strip(b"\r\n"):
                self._lines.skip_blank(b"\r\n")
                continue
            index, line = index + 1, self._lines.number
            if self._lines.torn:
                return self._lines.go_back(line)
            if self._lines.too_big:
                yield Record(index, line, first, None, too_big(line, self._lines.limit))
                continue
            if not parsed and b'"' not in first:
                yield _UNPARSED
                continue
            self._reached, taken = line, bytearray(first)
            text = first.decode("utf-8", "replace")
            if len(self.names) == 1 and is_sentence(text, self.delimiter):
                cells: list[str] | None = [chomp(text)]
            else:
                cells = split_cells(text, self.delimiter, partial(self._next_line, taken))
            if len(taken) <= self._lines.limit and (
                self._lines.broke_off(taken) or (cells is None and self._no_more())
            ):
                return self._lines.go_back(line)
            if cells is None:
                # Only this line is in error: the other lines inside the quote are read again, as rows of their own.
                self._doomed = max(self._doomed, self._reached)
                self._lines.push(bytes(taken[len(first) :]))
                error = bad_encoding(first, line) or row_error("bad_row", line, "a quote is opened and never closed")
                yield Record(index, line, chomp(first), None, error)
                continue
            self._lines.number = self._reached
            yield Record(
                index,
                line,
                chomp(bytes(taken)),
                dict(zip(self.names, cells, strict=False)),
                bad_encoding(taken, line) or self._bad_cells(cells, line),
                tuple(cells),
            )

    def _next_line(self, taken: bytearray) -> str:
        """Return the next line of a quoted cell; empty at the end, over the limit, or if the cell cannot close.

        A quoted cell continues in the same way wherever it was opened, so where one attempt failed, the next would
        too. Without `_doomed`, a file with a stray quote in every line would take quadratic time.
        """
        self._reached += 1
        if self._reached <= self._doomed:
            return ""
        piece = self._lines.read(self._lines.limit - len(taken))
        taken += piece
        return piece.decode("utf-8", "replace") if len(taken) <= self._lines.limit else ""

    def _no_more(self) -> bool:
        """Return whether reading failed and all that was read is used up: an open quote may close after that."""
        return self._lines.failed and not self._lines.peek_any()

    def _bad_cells(self, cells: list[str], line: int) -> RowError | None:
        if self.names and any(cells[len(self.names) :]):
            # Usually a delimiter was not quoted: the text may be cut or shifted, so its label would mislead.
            return row_error("bad_row", line, f"{len(cells)} cells where the header has {len(self.names)}")
        return None

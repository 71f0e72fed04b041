"""The golden file that a person answers into: each answer is on disk before the next row comes.

A line is appended and synced for each answer, so a killed session loses none. The file is rewritten, atomically, when
it is opened or closed with lines that no longer count. Only one session at a time holds it; the lock is a file beside
it, because the file itself is replaced.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from safeguard_cli import files
from safeguard_cli.errors import SafeguardError, UsageError, sentences
from safeguard_cli.measure.reviewed import FIELDS, ReviewedRow, columns, read_reviewed
from safeguard_cli.output.manifest import Locked, Refused, locked, run_path
from safeguard_cli.rows.records import json_text
from safeguard_cli.rows.source import extension
from safeguard_cli.rows.writable import Used, check_output, is_stream, real

KINDS = {"jsonl": "", "ndjson": "", "csv": ",", "tsv": "\t"}  # a CSV's delimiter, by extension
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}".encode()


class GoldenFile:
    """The answers of one person, by the key of their row, in the order in which they were given."""

    def __init__(self, path: Path, own: Sequence[str], people: Sequence[str], rows: Sequence[ReviewedRow]) -> None:
        self.path = path
        self._people = people
        self._own = tuple(dict.fromkeys(name for each in (own, *(row.fields for row in rows)) for name in each))
        self._delimiter = KINDS[extension(path)]
        self._rows = {row.key: row for row in rows}
        self._file: int | None = None
        self._size = 0  # of the file when our last line was whole
        self._outdated = False

    @property
    def rows(self) -> dict[int, ReviewedRow]:
        """Return the answers that stand, by the key of their row."""
        return dict(self._rows)

    def get(self, key: int) -> ReviewedRow | None:
        """Return the answer to a row, None if there is none."""
        return self._rows.get(key)

    def append(self, row: ReviewedRow) -> None:
        """Write an answer to disk. Raise SafeguardError if that fails; then the file is as it was before."""
        with sentences(self.path):
            self._open()
            assert self._file is not None
            self._check_still_ours(self._file)
            line = (self._header() if self._size == 0 else b"") + self._line(row)
            try:
                _write(self._file, line)
                os.fsync(self._file)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._file, self._size)
                raise
        self._size += len(line)
        self._outdated = self._outdated or row.key in self._rows or row.undone
        self._rows.pop(row.key, None)
        if not row.undone:
            self._rows[row.key] = row

    def rewrite(self) -> None:
        """Write the answers that stand, and nothing else, unless that is what the file holds."""
        whole = self._header() + b"".join(map(self._line, self._rows.values()))
        with sentences(self.path):
            try:
                there = self.path.read_bytes()
            except FileNotFoundError:
                if not self._rows:
                    return
                there = b""
            if there != whole:
                self._close()
                files.write(self.path, whole)
        self._outdated = False

    def close(self) -> None:
        """Close the file, rewritten if some of its lines no longer count."""
        if self._outdated and self._file is not None:
            with sentences(self.path):
                self._check_still_ours(self._file)
            self.rewrite()
        self._close()

    def _open(self) -> None:
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            self._size = os.fstat(self._file).st_size
            files.sync_folder(self.path)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _check_still_ours(self, file: int) -> None:
        """Raise SafeguardError if another program, such as a spreadsheet, wrote the file while it was open here."""
        state = os.fstat(file)
        with suppress(FileNotFoundError):
            if os.path.samestat(state, self.path.stat()) and state.st_size == self._size:
                return
        raise SafeguardError(
            f"{self.path} was changed by another program while it was open here: the last answer was not written;"
            " run the same command again to go on with what is in the file"
        )

    def _header(self) -> bytes:
        return _BOM + self._csv([*self._own, *columns(self._people)]) if self._delimiter else b""

    def _line(self, row: ReviewedRow) -> bytes:
        if self._delimiter:
            return self._csv(row.as_cells(self._own, self._people))
        return json_text(row.as_dict()).encode() + b"\n"

    def _csv(self, cells: Sequence[str]) -> bytes:
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter).writerow(cells)
        return text.getvalue().encode()


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def check_golden(path: Path, read: Sequence[Used]) -> None:
    """Raise UsageError if a golden file cannot be written under this name, or is one of the files `read`."""
    if extension(path) not in KINDS or path.suffix == ".gz":
        raise UsageError(f"{path}: a golden file is {', '.join(f'.{kind}' for kind in KINDS)}")
    if is_stream(path):
        raise UsageError(f"{path}: a golden file cannot be a pipe or a device")
    check_output(path, read, (files.lock_path(real(path)),))


def taken_names(path: Path, people: Sequence[str]) -> frozenset[str]:
    """Return the names of our fields in a golden file, which a row's own fields make way for."""
    return frozenset((*FIELDS, *columns(people)) if KINDS[extension(path)] else FIELDS)


@contextmanager
def open_golden(
    path: Path,
    own: Sequence[str],
    people: Sequence[str],
    labels: Sequence[str],
    taken_over: Callable[[Sequence[ReviewedRow]], list[ReviewedRow]],
) -> Iterator[GoldenFile]:
    """Open a golden file, hold it against other sessions, and close it at the end.

    `own` are the rows' own fields, `people` those whose labels it has. `taken_over` checks the rows that are there and
    returns what is to stand. Raise Locked if another session holds the file.
    """
    path = real(path)
    with _held(path):
        found = read_reviewed(path, labels=labels) if path.exists() else None
        golden = GoldenFile(path, own, people, taken_over((*found.rows, *found.begun) if found else ()))
        golden.rewrite()
        try:
            yield golden
        finally:
            golden.close()


@contextmanager
def _held(path: Path) -> Iterator[None]:
    lock = files.lock_path(path)
    if lock.is_symlink():
        raise Refused(f"{lock} is a link where the lock of {path} belongs; move it away")
    try:
        with locked(lock, run_path(path), path) as file:
            file.truncate(0)
            file.write(b"%d\n" % os.getpid())
            file.flush()
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except Locked:
        holder = ""
        with suppress(OSError):
            holder = files.read_small(lock, 20).decode("ascii", "replace").strip()
        process = f" (process {holder})" if holder.isdecimal() else ""
        raise Locked(f"{path} is open in another session of `safeguard review`{process}: end that one first") from None

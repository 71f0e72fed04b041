"""Reads an input, a file or a pipe: its bytes, unpacked and as UTF-8, as chunks and then as physical lines."""

from __future__ import annotations

import codecs
import io
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from safeguard_cli.errors import UsageError
from safeguard_cli.rows.formats import PACKED
from safeguard_cli.rows.packing import packing_of, tells_packing, unpack
from safeguard_cli.rows.sniff import head_of, refuse_other_encodings, refuse_other_kinds

SHOWN_BYTES = 4096  # kept of a line over the limit, to show which one it was
READ_ERRORS = (OSError, EOFError, zlib.error)
STANDARD_INPUT = "standard input"
_CHUNK = 1 << 16
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_MARKING = "safeguard"  # the decoders' error handler
_ESCAPED = ("unicode-escape", "raw-unicode-escape")  # Python's source: escapes would become line ends


class File:
    """The underlying file, read as chunks of bytes, which it counts."""

    def __init__(self, path: str | Path | BinaryIO) -> None:
        self.bytes_read = 0
        self.path: Path | None = None
        self.size: int | None = None
        self.state: os.stat_result | None = None  # of a regular file, when it was opened
        self.marked = False  # it begins with a byte order mark
        self.whole_lines = False  # reading ends at the end of a line, as is possible with plain UTF-8
        self._end = 0
        self._owned = isinstance(path, Path) or (isinstance(path, str) and path != "-")  # ./- is a file
        if not isinstance(path, (str, Path)):
            self.name, self._stream = "input", path
            return
        self.name = str(path) if self._owned else STANDARD_INPUT
        try:
            self._stream = Path(path).open("rb", buffering=0) if self._owned else sys.stdin.buffer  # noqa: SIM115
        except (OSError, ValueError) as problem:
            raise UsageError(f"{self.name}: {getattr(problem, 'strerror', None) or problem}") from problem
        with suppress(OSError, ValueError):  # standard input may have no descriptor
            state = os.fstat(self._stream.fileno())
            if stat.S_ISREG(state.st_mode):
                self.size, self.state = state.st_size, state
                self._end = state.st_size - os.lseek(self._stream.fileno(), 0, os.SEEK_CUR)
                self.path = Path(path) if self._owned else None

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes that a file had when it was opened, or all of a pipe; raise OSError if some are gone.

        Others may append to the file while it is read. Of that, only the rest of a line begun before is read.
        """
        read = getattr(self._stream, "read1", self._stream.read)  # does not wait for more than a pipe holds
        while data := read(_CHUNK):
            room = self._end - self.bytes_read if self._end > 0 else len(data)
            self.bytes_read += min(room, len(data))
            yield data[:room]
            if self.bytes_read == self._end:
                if self.whole_lines and not data[:room].endswith(b"\n"):
                    yield from self._rest_of_line(data[room:], read)
                return
        if self.state and self.bytes_read < self._end and os.fstat(self._stream.fileno()).st_size < self.state.st_size:
            raise OSError(f"it has become shorter: only {self.bytes_read:,} of {self._end:,} bytes were still there")

    def _rest_of_line(self, data: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
        while data := data or read(_CHUNK):
            end = data.find(b"\n") + 1 or len(data)
            self.bytes_read += end
            yield data[:end]
            if data[:end].endswith(b"\n"):
                return
            data = b""

    def now(self) -> os.stat_result:
        """Return the state of what now has the file's name; raise OSError if nothing has."""
        return self.path.stat() if self.path else os.fstat(self._stream.fileno())

    def again(self) -> BinaryIO | None:
        """Return a new stream that reads standard input from where it began; None if that is not a file."""
        if self.state is None or self._owned:
            return None
        number = self._stream.fileno()
        stream = Path(f"/dev/fd/{number}").open("rb", buffering=0)  # noqa: SIM115
        stream.seek(self.state.st_size - self._end)
        return stream

    def close(self) -> None:
        if self._owned:
            self._stream.close()


class Stream(io.RawIOBase):
    """Chunks as a raw stream; an error is kept in `failure` and ends the stream, after what was read before it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.failure = ""
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            while not self._rest:
                self._rest = memoryview(next(self._chunks))
        except StopIteration:
            return 0
        except READ_ERRORS as problem:
            self.failure = str(problem) or type(problem).__name__
            return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class Lines:
    """Physical lines of bounded length, which can be given back."""

    def __init__(self, stream: Stream, limit: int) -> None:
        self.number = 0  # of the last line from `next`
        self.too_big = False  # that line was over the limit, and only its first part was returned
        self.torn = False  # reading failed within that line
        self.limit = limit
        self._bytes = stream
        self._stream = io.BufferedReader(stream, _CHUNK)
        self._pushed: list[io.BytesIO] = []

    def next(self) -> bytes:
        """Return the next line with its end, or the first SHOWN_BYTES of one over the limit; empty at the end."""
        line = self.read(self.limit)
        self.number += bool(line)
        self.too_big = len(line) > self.limit and len(line.rstrip(b"\r\n")) > self.limit
        end = line
        if self.too_big:
            line = line[:SHOWN_BYTES]
            while end and not end.endswith(b"\n"):
                end = self._readline(_CHUNK)
        self.torn = self.broke_off(end)
        return line

    def broke_off(self, data: bytes | bytearray) -> bool:
        """Return whether reading failed right after this data, before its line ended."""
        return bool(self._bytes.failure) and not data.endswith(b"\n")

    def go_back(self, line: int | None = None) -> None:
        """Step back before a row in which reading failed: it does not count, and comes whole from a whole input.

        The row begins on the given line, else on the last one.
        """
        self.number = (self.number if line is None else line) - 1

    @property
    def failed(self) -> bool:
        """Whether reading has failed, perhaps further ahead than the lines returned so far."""
        return bool(self._bytes.failure)

    @property
    def failure(self) -> str:
        """Why reading has failed, empty if it has not."""
        return self._bytes.failure

    def fail(self, why: str) -> None:
        """Note that the rows cannot be read any further."""
        self._bytes.failure = self._bytes.failure or why

    def skip_blank(self, blank: bytes) -> None:
        """Skip lines that hold only bytes of `blank`: one byte of a packed file may unpack to a thousand such lines."""
        while not self._pushed:
            ahead = self._stream.peek()
            rest = len(ahead.lstrip(blank))
            end = ahead.rfind(b"\n", 0, len(ahead) - rest) + 1
            self.number += ahead.count(b"\n", 0, end)
            self._stream.read(end)
            if rest or not end:
                return

    def read(self, room: int) -> bytes:
        """Return a line of at most `room` bytes with its end, or the first part of a longer one."""
        return self._readline(room + 2) if self._pushed else self._stream.readline(room + 2)

    def push(self, data: bytes) -> None:
        """Give back bytes that were read, to be read again."""
        if data:
            self._pushed.append(io.BytesIO(data))

    def peek(self, most: int = 1) -> list[bytes]:
        """Return the next lines that are not blank, at most `most` and within 64 KiB, without taking them."""
        seen = b""
        found: list[bytes] = []
        while len(found) < most and len(seen) < _CHUNK and (line := self._readline(_CHUNK - len(seen))):
            seen += line
            if line.strip(codecs.BOM_UTF8 + b" \t\r\n"):
                found.append(line)
        self.push(seen)
        return found

    def peek_any(self) -> bool:
        """Return whether anything is left to read, waiting for one byte at most."""
        return bool(self._pushed or self._stream.peek(1))

    def _readline(self, size: int) -> bytes:
        line = b""
        while self._pushed and len(line) < size and not line.endswith(b"\n"):
            top = self._pushed[-1]
            line += top.readline(size - len(line))
            if top.tell() == len(top.getbuffer()):
                self._pushed.pop()
        return line if line.endswith(b"\n") else line + self._stream.readline(size - len(line))


class OfLines:
    """The base of Rows that are read from Lines."""

    header: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    delimiter, line_ending = ",", "\n"

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    @property
    def failure(self) -> str:
        """Why reading has failed, empty if it has not."""
        return self._lines.failure

    @property
    def reached(self) -> int:
        """The last line that was read."""
        return self._lines.number


def utf8_chunks(file: File, encoding: str, *, markup: bool = False) -> Iterator[bytes]:
    """Return the file's chunks as UTF-8 without a byte order mark, unpacked if the first bytes show a packing.

    Raise UsageError if the file is not what its name or the encoding says; with `markup`, it may begin like a page of
    HTML. Reading the chunks may raise READ_ERRORS.
    """
    codec = _codec(encoding)
    utf8 = file.whole_lines = codec in ("utf-8", "utf-8-sig")
    chunks = _starting(file.chunks(), tells_packing)
    start = next(chunks)
    chunks = chain([start], chunks)
    packing = packing_of(start)
    if packing:
        file.whole_lines = False
        chunks = unpack(chunks, packing)
    chunks = _starting(chunks, lambda start: head_of(start) is not None)
    start = next(chunks)
    head = head_of(start) or start
    refuse_other_kinds(file.name, head, markup=markup)
    refuse_other_encodings(file.name, head, codec)
    ending = file.path.suffix.lower() if file.path is not None else ""
    if start and not packing and ending in PACKED:
        raise UsageError(
            f"{file.name}: not packed with {PACKED[ending]}, whatever its name says; rename it without {ending}"
        )
    file.marked = start.startswith(_MARKS)
    chunks = chain([start], chunks)
    if not utf8:
        chunks = _starting(_transcode(chunks, encoding, file.name), lambda start: len(start) >= len(codecs.BOM_UTF8))
        start = next(chunks)
    else:
        next(chunks)
    return chain([start.removeprefix(codecs.BOM_UTF8)], chunks)


def _starting(chunks: Iterable[bytes], enough: Callable[[bytes], bool]) -> Iterator[bytes]:
    """Yield the same bytes, with a first chunk that is enough, or all there is; even an empty input yields one.

    If reading fails before that, yield what was read, and then raise the failure.
    """
    chunks, start = iter(chunks), b""
    failure: Exception | None = None
    try:
        while not enough(start) and (chunk := next(chunks, None)) is not None:
            start += chunk
    except READ_ERRORS as problem:
        if not start:
            raise
        failure = problem
    yield start
    if failure:
        raise failure
    yield from chunks


def _transcode(chunks: Iterable[bytes], encoding: str, name: str) -> Iterator[bytes]:
    """Yield UTF-8 from another encoding; what cannot be decoded becomes invalid UTF-8, so that its row is in error."""
    decoder = codecs.getincrementaldecoder(encoding)(_MARKING)
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
    except UnicodeError as problem:  # from UTF-16 and UTF-32 only: the handler marks anything else
        raise UsageError(
            f"{name}: there is no byte order mark, which --encoding {encoding} needs: leave --encoding out, or use"
            f" {codecs.lookup(encoding).name}-le or -be if the input is that"
        ) from problem


def _mark(problem: UnicodeError) -> tuple[str, int]:
    assert isinstance(problem, UnicodeDecodeError)
    return "\udcff", problem.end


codecs.register_error(_MARKING, _mark)


def _codec(encoding: str) -> str:
    """Return the name of an encoding's codec; raise UsageError if it does not decode to text, or not incrementally."""
    try:
        codec = codecs.lookup(encoding)
        with suppress(UnicodeError):
            b"a".decode(encoding)  # refuses hex, base64 and the like: codecs that give no text
    except (LookupError, ValueError) as problem:
        raise UsageError(f"unknown encoding {encoding!r}") from problem
    try:
        codecs.getincrementaldecoder(encoding)(_MARKING).decode(b"a")
    except (LookupError, UnicodeError):
        usable = False
    else:
        usable = codec.name not in _ESCAPED
    if not usable:
        raise UsageError(f"--encoding {encoding} is not the encoding of a text file")
    return codec.name

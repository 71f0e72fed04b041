"""The bytes of an input, a file or a pipe, gunzipped and as UTF-8, as chunks and then as physical lines."""

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
from safeguard_cli.rows.sniff import head_of, refuse_other_encodings, refuse_other_kinds

SHOWN_BYTES = 4096  # how much of a line over the limit is kept, to show which one it was
READ_ERRORS = (OSError, EOFError, zlib.error)
STANDARD_INPUT = "standard input"  # its name
_CHUNK = 1 << 16
_MARKING = "safeguard"  # how decoders treat what is invalid
_ESCAPED = ("unicode-escape", "raw-unicode-escape")  # of Python's source: line ends would come out of escapes


class File:
    """The underlying file, as chunks of bytes that are counted."""

    def __init__(self, path: str | Path | BinaryIO) -> None:
        self.bytes_read = 0
        self.path: Path | None = None
        self.size: int | None = None
        self.state: os.stat_result | None = None  # of a regular file, when it was opened
        self.whole_lines = False  # what is read ends with a line: so it is with plain UTF-8
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
        with suppress(OSError, ValueError):  # a standard input that is no file has no descriptor
            state = os.fstat(self._stream.fileno())
            if stat.S_ISREG(state.st_mode):
                self.size, self.state = state.st_size, state
                self._end = state.st_size - os.lseek(self._stream.fileno(), 0, os.SEEK_CUR)
                self.path = Path(path) if self._owned else None

    def chunks(self) -> Iterator[bytes]:
        """The bytes that were there when the file was opened, or all of a pipe. Raises OSError where some are gone.

        A file may be appended to for as long as it is read: only a line that is being written then is read to its end.
        """
        read = getattr(self._stream, "read1", self._stream.read)  # never waits for more than there is in a pipe
        while data := read(_CHUNK):
            room = self._end - self.bytes_read if self._end > 0 else len(data)
            self.bytes_read += min(room, len(data))
            yield data[:room]
            if self.bytes_read == self._end:
                if self.whole_lines and not data[:room].endswith(b"\n"):
                    yield from self._rest_of_line(data[room:], read)
                return
        if self.state and self.bytes_read < self._end and os.fstat(self._stream.fileno()).st_size < self.state.st_size:
            raise OSError(f"it has become shorter: {self.bytes_read:,} of {self._end:,} bytes were still there")

    def _rest_of_line(self, data: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
        while data := data or read(_CHUNK):
            end = data.find(b"\n") + 1 or len(data)
            self.bytes_read += end
            yield data[:end]
            if data[:end].endswith(b"\n"):
                return
            data = b""

    def now(self) -> os.stat_result:
        """What stands under the file's name by now. Raises OSError where nothing does."""
        return self.path.stat() if self.path else os.fstat(self._stream.fileno())

    def again(self) -> BinaryIO | None:
        """What standard input reads, from the same place on: a stream of its own, where it is a file."""
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
    """Chunks as a raw stream; an error ends it, so that what was read before comes out, and stays in `failure`."""

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
    """Physical lines, of bounded length, with a way back."""

    def __init__(self, stream: Stream, limit: int) -> None:
        self.number = 0  # of the line that `next` gave last
        self.too_big = False  # that line was over the limit, and only its first part was given
        self.torn = False  # reading failed in that line
        self.limit = limit
        self._bytes = stream
        self._stream = io.BufferedReader(stream, _CHUNK)
        self._pushed: list[io.BytesIO] = []

    def next(self) -> bytes:
        """The next line with its end; empty at the end. Of a line over the limit only the first SHOWN_BYTES."""
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
        """Whether reading failed right behind this data, before its line ended."""
        return bool(self._bytes.failure) and not data.endswith(b"\n")

    def go_back(self, line: int | None = None) -> None:
        """Reading failed in the row that begins in this line: it is none, and comes whole when the input is again."""
        self.number = (self.number if line is None else line) - 1

    @property
    def failed(self) -> bool:
        """Whether reading has failed, somewhere in what was read ahead."""
        return bool(self._bytes.failure)

    def skip_blank(self, blank: bytes) -> None:
        """Skip lines that hold nothing but bytes of `blank`: a packed file may have a thousand to a byte of its own."""
        while not self._pushed:
            ahead = self._stream.peek()
            rest = len(ahead.lstrip(blank))
            end = ahead.rfind(b"\n", 0, len(ahead) - rest) + 1
            self.number += ahead.count(b"\n", 0, end)
            self._stream.read(end)
            if rest or not end:
                return

    def read(self, room: int) -> bytes:
        """A line of at most `room` bytes and its end, or the first part of a longer one."""
        return self._readline(room + 2) if self._pushed else self._stream.readline(room + 2)

    def push(self, data: bytes) -> None:
        """Gives back bytes that were read, to be read again."""
        if data:
            self._pushed.append(io.BytesIO(data))

    def peek(self, most: int = 1) -> list[bytes]:
        """The next lines that are not blank, at most so many and in the next 64 KiB, without taking them."""
        seen = b""
        found: list[bytes] = []
        while len(found) < most and len(seen) < _CHUNK and (line := self._readline(_CHUNK - len(seen))):
            seen += line
            if line.strip(codecs.BOM_UTF8 + b" \t\r\n"):
                found.append(line)
        self.push(seen)
        return found

    def peek_any(self) -> bool:
        """Whether anything is left to read, without waiting for more than that."""
        return bool(self._pushed or self._stream.peek(1))

    def _readline(self, size: int) -> bytes:
        line = b""
        while self._pushed and len(line) < size and not line.endswith(b"\n"):
            top = self._pushed[-1]
            line += top.readline(size - len(line))
            if top.tell() == len(top.getbuffer()):
                self._pushed.pop()
        return line if line.endswith(b"\n") else line + self._stream.readline(size - len(line))


def utf8_chunks(file: File, encoding: str) -> Iterator[bytes]:
    """The file's chunks, unpacked when they are gzip (known by the first bytes), as UTF-8 without a byte order mark.

    Raises UsageError when the file is not what its name or the encoding says, and READ_ERRORS on the way.
    """
    codec = _codec(encoding)
    utf8 = file.whole_lines = codec in ("utf-8", "utf-8-sig")
    chunks = _starting(file.chunks(), lambda start: len(start) >= 2)
    start = next(chunks)
    chunks = chain([start], chunks)
    packed = start.startswith(b"\x1f\x8b")
    if packed:
        file.whole_lines = False
    chunks = _starting(_gunzip(chunks) if packed else chunks, lambda start: head_of(start) is not None)
    start = next(chunks)
    head = head_of(start) or start
    refuse_other_kinds(file.name, head)
    refuse_other_encodings(file.name, head, codec)
    if start and not packed and file.path is not None and file.path.suffix.lower() == ".gz":
        raise UsageError(f"{file.name}: not a gzip file, whatever its name says; rename it without .gz")
    chunks = chain([start], chunks)
    if not utf8:
        chunks = _starting(_transcode(chunks, encoding, file.name), lambda start: len(start) >= len(codecs.BOM_UTF8))
        start = next(chunks)
    else:
        next(chunks)
    return chain([start.removeprefix(codecs.BOM_UTF8)], chunks)


def _starting(chunks: Iterable[bytes], enough: Callable[[bytes], bool]) -> Iterator[bytes]:
    """The same bytes; the first chunk, even of an empty input, comes and is enough or all that there is.

    Where reading fails meanwhile, what was read before comes first.
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


def _gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(31)
    for chunk in chunks:
        while chunk:
            if inflate.eof:  # another member follows, or the padding that tape tools leave
                chunk = chunk.lstrip(b"\0")
                inflate = zlib.decompressobj(31) if chunk else inflate
                continue
            before = inflate.copy()
            try:
                yield inflate.decompress(chunk, _CHUNK)
            except zlib.error:
                for byte in chunk:  # up to the very place of the damage, where this raises again
                    yield before.decompress(bytes([byte]))
            chunk = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
    yield inflate.flush()
    if not inflate.eof:
        raise EOFError("the gzip data is cut short")


def _transcode(chunks: Iterable[bytes], encoding: str, name: str) -> Iterator[bytes]:
    """UTF-8 from another encoding. What cannot be decoded becomes invalid UTF-8, so that its row is in error."""
    decoder = codecs.getincrementaldecoder(encoding)(_MARKING)
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
    except UnicodeError as problem:  # UTF-16 and UTF-32 alone: all else is marked
        raise UsageError(
            f"{name}: there is no mark at the beginning, which --encoding {encoding} needs: leave it out, or say"
            f" {codecs.lookup(encoding).name}-le or -be where it is that"
        ) from problem


def _mark(problem: UnicodeError) -> tuple[str, int]:
    assert isinstance(problem, UnicodeDecodeError)
    return "\udcff", problem.end


codecs.register_error(_MARKING, _mark)


def _codec(encoding: str) -> str:
    """The name of an encoding's codec; UsageError where it gives no text, or not piece by piece."""
    try:
        codec = codecs.lookup(encoding)
        with suppress(UnicodeError):
            b"a".decode(encoding)  # refuses hex, base64 and the like, which are codecs but give no text
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

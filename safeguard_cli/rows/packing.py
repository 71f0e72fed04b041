"""Unpacks an input: gzip, zstd, bzip2 and xz, recognised by the first bytes, whatever the file's name.

What is unpacked is bounded at each step, whatever the packed bytes claim. Several packed parts may follow each other.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

from safeguard_cli.errors import SafeguardError, missing_extra

_CHUNK = 1 << 16
_MOST_MEMORY = 1 << 30  # that an xz file may ask for
_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # the latter: a frame to skip, as pzstd begins
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
}
_FIRST = {b"\x1f", b"\x28", b"B", b"\xfd"}  # bytes
_SECOND = b"\x2a"  # byte of a frame to skip
_LONGEST = 10  # bytes that tell


def tells_packing(start: bytes) -> bool:
    """Return whether these first bytes of an input are enough for `packing_of`: a pipe may give few at a time."""
    return (
        len(start) >= _LONGEST
        or (len(start) >= 2 and start[:1] not in _FIRST and start[1:2] != _SECOND)
        or packing_of(start) is not None
    )


def packing_of(start: bytes) -> str | None:
    """Return how an input that begins with these bytes is packed, None if it is not."""
    return next((name for name, magic in _MAGIC.items() if magic.match(start)), None)


def unpack(chunks: Iterable[bytes], packing: str) -> Iterator[bytes]:
    """Return an iterator over the unpacked chunks; it raises OSError, EOFError or zlib.error for damaged data.

    Raise SafeguardError at once if the package that unpacks is missing.
    """
    if packing == "gzip":
        return _gunzip(chunks)
    return _each_part(chunks, _MAKERS[packing](), packing)


def _gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(31)
    for chunk in chunks:
        while chunk:
            if inflate.eof:  # another member follows, or padding from tape tools
                chunk = chunk.lstrip(b"\0")
                inflate = zlib.decompressobj(31) if chunk else inflate
                continue
            before = inflate.copy()
            try:
                yield inflate.decompress(chunk, _CHUNK)
            except zlib.error:
                for byte in chunk:  # up to the damaged byte, where this raises again
                    yield before.decompress(bytes([byte]))
            chunk = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
    yield inflate.flush()
    if not inflate.eof:
        raise EOFError("the gzip data is cut short")


def _each_part(chunks: Iterable[bytes], make: Callable[[], Any], packing: str) -> Iterator[bytes]:
    """Yield what decompressors with the interface of `bz2.BZ2Decompressor` unpack, a new one for each part."""
    inflate = make()
    for chunk in chunks:
        while True:
            if inflate.eof:  # another part follows, or padding
                chunk = chunk.lstrip(b"\0")
                if not chunk:
                    break
                inflate = make()
            try:
                data = inflate.decompress(chunk, _CHUNK)
            except Exception as problem:  # each package has its own
                raise OSError(f"the {packing} data is damaged: {problem}") from None
            if data:
                yield data
            if not inflate.eof and inflate.needs_input:
                break
            chunk = inflate.unused_data if inflate.eof else b""
    if not inflate.eof:
        raise EOFError(f"the {packing} data is cut short")


def _zstd() -> Callable[[], Any]:
    for module in ("compression.zstd", "backports.zstd"):  # Python has it from 3.14 on
        try:
            found: Callable[[], Any] = import_module(module).ZstdDecompressor
        except ImportError:
            continue
        return found
    raise missing_extra("zstd needs backports.zstd", "zstd")


def _bzip2() -> Callable[[], Any]:
    try:
        import bz2
    except ImportError:
        raise SafeguardError("this Python was built without bzip2; unpack the file: bzip2 -dc") from None
    return bz2.BZ2Decompressor


def _xz() -> Callable[[], Any]:
    try:
        import lzma
    except ImportError:
        raise SafeguardError("this Python was built without xz; unpack the file: xz -dc") from None
    return lambda: lzma.LZMADecompressor(memlimit=_MOST_MEMORY)


_MAKERS = {"zstd": _zstd, "bzip2": _bzip2, "xz": _xz}

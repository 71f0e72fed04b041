"""Reads the header of a GGUF file and trusts nothing: every declared size is first checked against the file.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little endian).
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safeguard_cli.errors import SafeguardError, shortened

MAX_KEYS = 10_000
MAX_TENSORS = 200_000
MAX_DIMENSIONS = 4
STRING, ARRAY, BOOL = 8, 9, 7
SPLIT_NAME = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")  # llama.cpp's name for one part of several
MAX_PARTS = 1000
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}

# ggml type → (values in a block, bytes of a block); ggml_blck_size and ggml_type_size of https://github.com/ggml-org/ggml
# Types after these are asked for, see Newer.
BLOCKS = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    9: (32, 36),  # Q8_1
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
}


MOST_TYPE = 999  # a greater number is damage, not a type of tomorrow

# Tells how many values a block of a ggml type that BLOCKS lacks has, and how many bytes. Raises SafeguardError with the
# reason why it cannot be used.
Newer = Callable[[int], tuple[int, int]]


class BadModelFile(SafeguardError):
    """The file is not a GGUF file, is cut short, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's entry: `nbytes` follows from its type and shape, `offset` counts from the start of the data."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """A GGUF's metadata and tensor list; arrays of numbers are numpy arrays, arrays of strings are lists of bytes.

    For a model in parts, `path` is the first part's; `size` and `tensors` are those of all.
    """

    path: Path
    size: int
    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        name = self.metadata.get("general.architecture", "")
        return name[:100] if isinstance(name, str) else ""

    def number(self, key: str, default: int = 0) -> int:
        """Return an integer of this architecture, such as `block_count`; `default` if absent or not an integer."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        return value if isinstance(value, int) else default


class _Reader:
    """A cursor over the mapped file; every step is checked against the file's end."""

    def __init__(self, path: Path, data: mmap.mmap, newer: Newer) -> None:
        self.path, self.data, self.size, self.at, self.newer = path, data, len(data), 0, newer

    def fail(self, what: str) -> BadModelFile:
        return BadModelFile(
            f"{self.path.name} is not a usable GGUF file: {what} (at byte {self.at:,} of {self.size:,})"
        )

    def take(self, length: int, what: str) -> int:
        """Step over `length` bytes; return where they begin."""
        begin = self.at
        if length > self.size - begin:
            raise self.fail(f"it ends inside {what}; the file is cut short or damaged")
        self.at = begin + length
        return begin

    def scalar(self, kind: int, what: str) -> Any:
        form = SCALARS.get(kind)
        if form is None:
            raise self.fail(f"{what} has the unknown type {kind}")
        return struct.unpack_from(form, self.data, self.take(struct.calcsize(form), what))[0]

    def string(self, what: str) -> bytes:
        length = self.scalar(10, what)
        begin = self.take(length, what)
        return self.data[begin : begin + length]

    def strings(self, count: int, what: str) -> list[bytes]:
        """Read `count` strings, in one loop without calls, since the real vocabulary has 650,000 of them."""
        if count > (self.size - self.at) // 8:
            raise self.fail(f"{what} claims {count:,} strings; the file is cut short or damaged")
        data, at, end, unpack = self.data, self.at, self.size, struct.Struct("<Q").unpack_from
        out = []
        for _ in range(count):
            if at + 8 > end:
                raise self.fail(f"it ends inside {what}; the file is cut short or damaged")
            stop = at + 8 + unpack(data, at)[0]
            if stop > end:
                raise self.fail(f"it ends inside {what}; the file is cut short or damaged")
            out.append(data[at + 8 : stop])
            at = stop
        self.at = at
        return out

    def array(self, what: str) -> list[bytes] | npt.NDArray[Any]:
        kind, count = self.scalar(4, what), self.scalar(10, what)
        if kind == STRING:
            return self.strings(count, what)
        if kind not in SCALARS:
            raise self.fail(f"{what} is an array of the unsupported type {kind}")
        dtype = np.dtype(SCALARS[kind])
        begin = self.take(count * dtype.itemsize, what)
        return np.frombuffer(self.data[begin : self.at], dtype)

    def value(self, what: str) -> Any:
        kind = self.scalar(4, what)
        if kind == STRING:
            return self.string(what).decode("utf-8", "replace")
        return self.array(what) if kind == ARRAY else self.scalar(kind, what)

    def tensor(self) -> Tensor:
        name = self.string("a tensor's name").decode("utf-8", "replace")
        dimensions = self.scalar(4, f"tensor {name}")
        if dimensions > MAX_DIMENSIONS:
            raise self.fail(f"tensor {name} claims {dimensions} dimensions")
        shape = tuple(self.scalar(10, f"tensor {name}") for _ in range(dimensions))
        kind, offset = self.scalar(4, f"tensor {name}"), self.scalar(10, f"tensor {name}")
        block, nbytes = self.block(name, kind)
        values = 1
        for length in shape:
            values *= length
        if values % block:
            raise self.fail(f"tensor {name} does not fill whole blocks of its type")
        return Tensor(name, shape, kind, offset, values // block * nbytes)

    def block(self, name: str, kind: int) -> tuple[int, int]:
        """Return how many values and how many bytes a block of a tensor's type has."""
        if kind in BLOCKS:
            return BLOCKS[kind]
        if kind > MOST_TYPE:
            raise self.fail(f"tensor {name} has the unknown type {kind}")
        if kind < max(BLOCKS):
            raise BadModelFile(
                f"{self.path.name}: tensor {shortened(name)} has the type {kind}, which llama.cpp has given up: get a"
                " newer file of the model"
            )
        try:
            return self.newer(kind)
        except SafeguardError as problem:
            raise BadModelFile(f"{self.path.name}: tensor {shortened(name)} has the type {kind}, {problem}") from None


def not_newer(kind: int) -> tuple[int, int]:
    """Say that a type is not known where llama.cpp is not asked."""
    raise SafeguardError("which is newer than this program: update it")


def read_header(path: Path, newer: Newer = not_newer) -> Header:
    """Read metadata and tensor list of a GGUF file; it takes about 0.2 s for a vocabulary of 200,000 tokens.

    `newer` is asked about types of tensors that are newer than this program. Raises BadModelFile when the file is not a
    GGUF file, is shorter than its header says, contradicts itself, or has a type that is not known or cannot be used.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, _Reader(path, data, newer))
    except ValueError:  # mmap of an empty file
        raise BadModelFile(f"{path.name} is empty, not a GGUF file") from None
    except OSError as error:
        raise BadModelFile(f"cannot read the model file {path}: {error.strerror}") from None


def model_parts(path: Path) -> tuple[Path, ...]:
    """Return all files of a model, given one of them: `name-00001-of-00003.gguf` stands for three."""
    found = SPLIT_NAME.search(path.name)
    count = int(found[2]) if found else 1
    if not found or not 1 < count <= MAX_PARTS:
        return (path,)
    stem = path.name[: found.start()]
    return tuple(path.with_name(f"{stem}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1))


def read_model(path: Path, newer: Newer = not_newer) -> Header:
    """Read the header of a model that may be in several parts, given any of them; see `read_header`."""
    parts = model_parts(path)
    headers = []
    for i, part in enumerate(parts):
        if len(parts) > 1 and not part.is_file():
            raise BadModelFile(
                f"{part.name} is missing beside {path.name}: a model in {len(parts)} parts needs all of them"
            )
        header = read_header(part, newer)
        number, count = _split(header, "split.no"), _split(header, "split.count") or 1
        if (number, count) != (i, len(parts)):
            raise BadModelFile(
                f"{part.name} says that it is part {number + 1} of {count};"
                " the parts of a model must keep the names that they came with"
            )
        headers.append(header)
    first = headers[0]
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    wanted = _split(first, "split.tensors.count", len(tensors))
    if wanted != len(tensors):
        raise BadModelFile(
            f"the parts of {first.path.name} hold {len(tensors):,} of {wanted} tensors; fetch them again"
        )
    return replace(first, size=sum(header.size for header in headers), tensors=tensors)


def _split(header: Header, key: str, default: int = 0) -> int:
    value = header.metadata.get(key, default)
    if not isinstance(value, int):
        raise BadModelFile(f"{header.path.name} is not a usable GGUF file: its {key} is no number")
    return value


def _parse(path: Path, reader: _Reader) -> Header:
    if reader.data[:4] != b"GGUF":
        raise BadModelFile(f"{path.name} is not a GGUF file: it does not begin with GGUF")
    reader.at = 4
    version = reader.scalar(4, "the version")
    if version not in (2, 3):
        raise reader.fail(f"version {version} is not supported (2 and 3 are)")
    tensor_count, key_count = reader.scalar(10, "the tensor count"), reader.scalar(10, "the key count")
    if tensor_count > MAX_TENSORS or key_count > MAX_KEYS:
        raise reader.fail(f"it claims {tensor_count:,} tensors and {key_count:,} keys")
    metadata = {}
    for _ in range(key_count):
        key = reader.string("a key").decode("utf-8", "replace")
        metadata[key] = reader.value(key)
    tensors = tuple(reader.tensor() for _ in range(tensor_count))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment > 1 << 20:
        raise reader.fail(f"its alignment is {alignment}")
    start = -(-reader.at // alignment) * alignment
    end = start + max(t.offset + t.nbytes for t in tensors) if tensors else reader.at
    if end > reader.size:
        raise BadModelFile(
            f"{path.name} is cut short: its header asks for {end:,} bytes, the file has {reader.size:,}; fetch it again"
        )
    return Header(path, reader.size, metadata, tensors)

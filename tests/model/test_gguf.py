"""Whatever its bytes, a model file is read, or refused in a sentence, at once."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.errors import SafeguardError
from safeguard_cli.model.find import find_model, open_model
from safeguard_cli.model.gguf import BLOCKS, MOST_TYPE, BadModelFile, Header, read_header

U32, F32, STRING, ARRAY, U64 = 4, 6, 8, 9, 10


@pytest.fixture(scope="module")
def header(tiny: Path) -> Header:
    return read_header(tiny)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return path

    return write


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def key(name: str, kind: int, value: bytes) -> bytes:
    return string(name.encode()) + struct.pack("<I", kind) + value


def gguf(
    *keys: bytes, tensors: tuple[bytes, ...] = (), version: int = 3, claims: tuple[int, int] | None = None
) -> bytes:
    counts = claims or (len(tensors), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32)


def tensor(*shape: int, kind: int = 0, offset: int = 0, dimensions: int | None = None, name: bytes = b"w") -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return string(name) + struct.pack("<I", dimensions or len(shape)) + sizes + struct.pack("<IQ", kind, offset)


ARCHITECTURE = key("general.architecture", STRING, string(b"gpt-oss"))


def end_of_header(content: bytes) -> int:
    """Return a place a little after the last tensor's entry."""
    return content.rindex(b"ffn_down_exps.bias") + 64


def test_the_numbers_of_a_good_file(header: Header, tiny: Path) -> None:
    assert header.architecture == "gpt-oss"
    assert header.size == tiny.stat().st_size
    assert header.number("block_count") == 2
    assert header.number("absent", 7) == 7
    embedding = next(t for t in header.tensors if t.name == "token_embd.weight")
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert tokens[-1] == b"<|call|>"
    assert embedding.shape == (64, len(tokens))
    assert embedding.nbytes == 64 * len(tokens) // 32 * 34  # Q8_0


def test_a_file_cut_short_anywhere_is_refused(tiny: Path, write: Callable[[bytes], Path]) -> None:
    content = tiny.read_bytes()
    rng = np.random.default_rng(0)
    places = [*rng.integers(0, end_of_header(content), 150), *rng.integers(0, len(content), 49), len(content) - 1]
    for place in places:
        with pytest.raises(BadModelFile):
            read_header(write(content[:place]))


def test_changed_bytes_in_the_header_are_refused_or_read(tiny: Path, write: Callable[[bytes], Path]) -> None:
    content = tiny.read_bytes()
    head, rest = content[: end_of_header(content)], content[end_of_header(content) :]
    rng = np.random.default_rng(1)
    refused, slowest = 0, 0.0
    for _ in range(400):
        damaged = bytearray(head)
        for place in rng.integers(4, len(head), rng.integers(1, 9)):
            damaged[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
        path, begin = write(bytes(damaged) + rest), time.process_time()
        try:
            read_header(path)
        except BadModelFile:
            refused += 1
        slowest = max(slowest, time.process_time() - begin)
    assert 0 < refused < 400, "the damage should hit both what is checked and what is not"
    assert slowest < 0.5


@pytest.mark.parametrize(
    "content",
    [
        gguf(claims=(0, 2**60)),
        gguf(claims=(2**60, 0)),
        gguf(key("k", ARRAY, struct.pack("<IQ", STRING, 2**60))),
        gguf(key("k", ARRAY, struct.pack("<IQ", STRING, 2**60)) + bytes(1 << 20)),
        gguf(key("k", ARRAY, struct.pack("<IQ", F32, 2**60))),
        gguf(key("k", ARRAY, struct.pack("<IQ", ARRAY, 2**60))),
        gguf(key("k", STRING, struct.pack("<Q", 2**64 - 1))),
        gguf(struct.pack("<Q", 2**63)),
        gguf(key("k", 99, b"")),
        gguf(tensors=(tensor(2**63),)),
        gguf(tensors=(tensor(2**63, 2**63, 2**63, 2**63),)),
        gguf(tensors=(tensor(1, dimensions=2**32 - 1),)),
        gguf(tensors=(tensor(32, offset=2**64 - 1),)),
        gguf(tensors=(tensor(31, kind=8),)),
        gguf(tensors=(tensor(32, kind=4242),)),
        gguf(key("general.alignment", U32, struct.pack("<I", 0))),
        gguf(key("general.alignment", U64, struct.pack("<Q", 2**63))),
        gguf(key("general.alignment", STRING, string(b"x"))),
        gguf(version=1),
        gguf(version=3 << 24),  # big endian
    ],
)
def test_absurd_claims_are_refused_at_once(content: bytes, write: Callable[[bytes], Path]) -> None:
    path = write(content)
    tracemalloc.start()
    begin = time.process_time()
    try:
        with pytest.raises(BadModelFile):
            read_header(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - begin < 0.5
    assert peak < 16 << 20


@pytest.mark.parametrize("content", [b"", b"GG", b"GGUF", b"PK\x03\x04" + bytes(100), b"version https://git-lfs\n"])
def test_what_is_no_gguf_is_refused(content: bytes, write: Callable[[bytes], Path]) -> None:
    with pytest.raises(BadModelFile, match=r"model\.gguf"):
        open_model(write(content))


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="cannot read the model file"):
        read_header(tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="No such file"):
        read_header(tmp_path / "nothing.gguf")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_counts_as_absent(value: float, write: Callable[[bytes], Path]) -> None:
    path = write(gguf(ARCHITECTURE, key("gpt-oss.block_count", F32, struct.pack("<f", value))))
    assert read_header(path).number("block_count", 5) == 5


def test_a_list_of_numbers_is_no_number(header: Header) -> None:
    metadata = {**header.metadata, "gpt-oss.block_count": np.ones(2)}
    assert replace(header, metadata=metadata).number("block_count", 5) == 5


def test_a_good_model_is_opened(tiny: Path) -> None:
    assert open_model(tiny).tensors == read_header(tiny).tensors


def test_a_model_of_another_architecture_is_refused_by_name(write: Callable[[bytes], Path]) -> None:
    path = write(gguf(key("general.architecture", STRING, string(b"llama\x1b[2J")), tensors=(tensor(1),)) + bytes(256))
    with pytest.raises(BadModelFile, match=r"architecture 'llama\\x1b\[2J'; only gpt-oss"):
        open_model(path)


def test_a_file_without_an_architecture_is_refused(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(BadModelFile, match="architecture 'none'"):
        open_model(write(gguf()))


def test_a_file_with_a_vocabulary_only_is_refused(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(BadModelFile, match="holds no weights"):
        open_model(write(gguf(ARCHITECTURE)))


def test_a_model_that_is_not_there_is_a_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none.gguf"), str(tmp_path), "a\0b", None):
        with pytest.raises(SafeguardError, match="to fetch"):
            find_model(name)


def test_a_type_that_is_too_new_or_given_up_is_named_with_its_tensor(write: Callable[[bytes], Path]) -> None:
    def newer(kind: int) -> tuple[int, int]:
        raise SafeguardError(f"of which nobody knows the {kind}: wait for it")

    for kind, said in (
        (40, "tensor w has the type 40, which is newer than this program: update it"),
        (31, "tensor w has the type 31, which llama.cpp has given up: get a newer file of the model"),
        (1000, "not a usable GGUF file: tensor w has the unknown type 1000"),
    ):
        with pytest.raises(BadModelFile, match=said):
            open_model(write(gguf(ARCHITECTURE, tensors=(tensor(64, kind=kind),))))
    with pytest.raises(
        BadModelFile, match=r"model\.gguf: tensor w has the type 40, of which nobody knows the 40: wait"
    ):
        open_model(write(gguf(ARCHITECTURE, tensors=(tensor(64, kind=40),))), newer)


KINDS = st.integers(0, 60) | st.integers(0, 1100) | st.integers(0, 2**32 - 1)
ENTRIES = st.lists(st.tuples(st.integers(1, 8), KINDS, st.binary(max_size=300)), min_size=1, max_size=6)


@given(ENTRIES, st.dictionaries(st.integers(40, 1100), st.tuples(st.sampled_from([1, 32, 64]), st.integers(1, 99))))
def test_any_types_of_tensors_are_measured_as_llama_cpp_says_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[int, int, bytes]], known: dict[int, tuple[int, int]]
) -> None:
    asked = []

    def newer(kind: int) -> tuple[int, int]:
        asked.append(kind)
        if kind not in known:
            raise SafeguardError("which is not known")
        return known[kind]

    right = [(BLOCKS | {k: v for k, v in known.items() if k <= MOST_TYPE}).get(kind) for _, kind, _ in entries]
    path = tmp_path_factory.getbasetemp() / "types.gguf"
    made = tuple(tensor(256 * size, kind=kind, name=name) for size, kind, name in entries)
    path.write_bytes(gguf(ARCHITECTURE, tensors=made) + bytes(8 * 256 * 99))
    try:
        found = read_header(path, newer).tensors
    except BadModelFile as problem:
        wrong = right.index(None)
        assert f"type {entries[wrong][1]}" in str(problem)
        assert len(str(problem)) < 1000
    else:
        sizes = [256 * size // block[0] * block[1] for (size, *_), block in zip(entries, right, strict=True) if block]
        assert [each.nbytes for each in found] == sizes
    assert set(asked) <= set(range(max(BLOCKS) + 1, MOST_TYPE + 1)), "nothing is asked about damage"

"""Damaged or malicious model files and tokenizers: each is used, or refused in one sentence."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tokenizer_file
from helpers.tiny_model import split

from safeguard_cli.engine.local.fit import shape_run
from safeguard_cli.errors import SafeguardError
from safeguard_cli.model.find import open_model
from safeguard_cli.model.gguf import BadModelFile, read_header
from safeguard_cli.model.tokenizer import Tokenizer
from safeguard_cli.prompt.harmony import Harmony

pytestmark = pytest.mark.promise(
    "A damaged or hostile model file, `tokenizer.json` or settings file is refused in one sentence, without delay."
)

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")


# GGUF


def test_of_1000_damaged_headers_each_is_used_or_refused(tiny, tmp_path) -> None:
    data, chance, path, refused = tiny.read_bytes(), random.Random(7), tmp_path / "m.gguf", 0
    numbers = (0, 1, 8, 9, 255, 1 << 31, (1 << 32) - 1)
    for _ in range(1000):
        changed = bytearray(data)
        for _ in range(chance.choice([1, 1, 2, 5])):
            at = chance.randrange(*chance.choice([(0, 1600), (0, 40_000), (len(data) // 20, len(data) // 10)]))
            kind = chance.randrange(4)
            if kind == 0:
                changed[at] = chance.randrange(256)
            elif kind == 1:
                changed[at : at + 4] = struct.pack("<I", chance.choice(numbers))
            elif kind == 2:
                changed[at : at + 8] = struct.pack("<Q", chance.choice((*numbers, 1 << 63, (1 << 64) - 1)))
            else:
                del changed[at : at + chance.randrange(1, 9)]
        path.write_bytes(changed)
        try:
            header = open_model(path)
            Harmony(Tokenizer.from_header(header))
            shape_run(header, [100], [50], context=None, slots=None, threads=1)
        except SafeguardError:
            refused += 1
    assert 300 < refused < 1000


HOSTILE: tuple[Any, ...] = (
    *(0, 1, -1, 1 << 31, 1 << 63, (1 << 64) - 1, True, 0.5, float("nan"), float("inf"), "", "x"),
    *(np.array([], np.int32), np.array([1, 2], np.uint64), np.zeros(609, np.int32), np.full(609, 1, np.float32)),
    *([], [b"x"], [b"\xff"], [b""] * 600),
)


def test_metadata_of_another_kind_than_it_should_be_is_used_or_refused(tiny) -> None:
    header, refused = read_header(tiny), 0
    for key in header.metadata:
        for value in HOSTILE:
            other = replace(header, metadata={**header.metadata, key: value})
            try:
                Harmony(Tokenizer.from_header(other))
                shape_run(other, [100], [50], context=None, slots=None, threads=1)
            except SafeguardError:
                refused += 1
    assert refused > 100


@pytest.mark.parametrize("key", [b"split.no", b"split.count"])
def test_a_part_whose_number_is_an_array_is_refused(tiny, tmp_path, key) -> None:
    parts = split(tiny, tmp_path, 2)
    data = parts[0].read_bytes()
    at = data.index(key) + len(key)  # then the type of the value, 2 for uint16, and the value
    array = struct.pack("<IIQHH", 9, 2, 2, 0, 0)
    parts[0].write_bytes(data[:at] + array + data[at + 6 :] + bytes(64))
    with pytest.raises(BadModelFile, match=rf"its {key.decode()} is no number"):
        open_model(parts[0])


# tokenizer.json


def _set(*way: str, to: Any) -> Callable[[dict], None]:
    def change(data: dict) -> None:
        *outer, last = way
        for key in outer:
            data = data[key]
        data[last] = to

    return change


def _regex(pattern: str) -> Callable[[dict], None]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return _set("pre_tokenizer", to=split)


def _added(*tokens: Any) -> Callable[[dict], None]:
    return lambda data: data["added_tokens"].extend(tokens)


def _token(content: Any, number: Any = 5) -> dict[str, Any]:
    return {"id": number, "content": content} | dict.fromkeys(
        ("single_word", "lstrip", "rstrip", "normalized", "special"), False
    )


PADDING = {"direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "!", "pad_to_multiple_of": None}
CHANGES: dict[str, Callable[[dict], object]] = {
    "no model": lambda data: data.pop("model"),
    "no vocabulary": lambda data: data["model"].pop("vocab"),
    "no merges": lambda data: data["model"].pop("merges"),
    "no type": lambda data: data["model"].pop("type"),
    **{f"model {value!r}": _set("model", to=value) for value in (None, [], "BPE", 1)},
    **{f"type {value!r}": _set("model", "type", to=value) for value in (None, "Unigram", "WordPiece", ["BPE"])},
    **{f"vocab {value!r}": _set("model", "vocab", to=value) for value in (None, [], "a", {}, {"a": 0}, [["a", 0]])},
    **{f"id {value!r}": _set("model", "vocab", "!", to=value) for value in (None, True, "0", 1.0, -1, 1 << 40, [0])},
    **{f"merges {value!r}": _set("model", "merges", to=value) for value in (None, "a b", {}, [1], ["ab"], [["a"]])},
    "an unknown merge": lambda data: data["model"]["merges"].append("zzq qzz"),
    "a merge of three": lambda data: data["model"]["merges"].append(["a", "b", "c"]),
    "a long merge": lambda data: data["model"]["merges"].append(["a" * 1_000_000, "b"]),
    "a token of no bytes": _set("model", "vocab", "\u4e2d" * 1_000_000, to=3),
    "a lone surrogate": _set("model", "vocab", "\ud800", to=3),
    "a letter is missing": lambda data: data["model"]["vocab"].pop("!"),
    "all ids are the same": lambda data: data["model"].update(vocab=dict.fromkeys(data["model"]["vocab"], 1)),
    "added tokens are an object": _set("added_tokens", to={"content": "a", "id": 1}),
    "an added token is a text": _added("<|end|>"),
    "an added token without content": _added({"id": 1}),
    "an added token that is no text": _added(_token(None)),
    "an added token of another id": _added(_token("x", "1")),
    "an added token that is a letter": _added(_token("e")),
    "another way to split": _set("pre_tokenizer", to={"type": "ByteLevel", "add_prefix_space": True}),
    "no way to split": _set("pre_tokenizer", to=None),
    "an unknown way to split": _set("pre_tokenizer", to={"type": "Nobody"}),
    "a regex that is none": _regex("(((["),
    "a regex that never ends": _regex(r"(?:(?:(?:[\s\S]*)*)*)*#"),
    "a normalizer": _set("normalizer", to={"type": "Lowercase"}),
    "a normalizer that is none": _set("normalizer", to={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "padding without end": _set("padding", to={"strategy": {"Fixed": 10**15}, **PADDING}),
    "much padding": _set("padding", to={"strategy": {"Fixed": 10**9}, **PADDING}),
    "truncation": _set(
        "truncation", to={"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    ),
}
FILES: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "deep": b"[" * 1_000_000,
    "deep objects": b'{"model":' * 200_000,
    "no UTF-8": b'{"model": "\xff\xfe"}',
    "a number without end": b'{"model": ' + b"9" * 100_000 + b"}",
    "not a number": b'{"model": NaN}',
    "half of one": b'{"model": {"type": "BPE", "vocab": {"a": 0',
}


@pytest.fixture(scope="module")
def published(harmony: Harmony, tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("published") / "tokenizer.json"
    data: dict = json.loads(tokenizer_file.write(path, harmony.tokenizer).read_bytes())
    assert Tokenizer.from_file(path).tokens == harmony.tokenizer.tokens
    return data


@pytest.mark.parametrize("what", [*CHANGES, *FILES])
def test_a_hostile_tokenizer_json_is_refused_in_one_sentence(published, tmp_path, monkeypatch, capfd, what) -> None:
    monkeypatch.setattr("safeguard_cli.model.tokenizer.MOST_SECONDS", 3)
    path = tmp_path / "theirs.json"
    if what in FILES:
        path.write_bytes(FILES[what])
    else:
        data = json.loads(json.dumps(published))
        CHANGES[what](data)
        path.write_text(json.dumps(data))
    began = time.monotonic()
    with pytest.raises(SafeguardError, match=r"theirs\.json") as refused:
        Tokenizer.from_file(path)
    assert time.monotonic() - began < 20
    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_there_are_fifty_of_them() -> None:
    assert len(CHANGES) + len(FILES) >= 50


def test_a_tokenizer_that_is_no_file_keeps_nobody_waiting(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(SafeguardError, match="cannot be read: it is no regular file"):
            Tokenizer.from_file(path)


def test_the_command_says_it_in_one_sentence(published, tmp_path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    data = json.loads(json.dumps(published))
    CHANGES["a normalizer that is none"](data)
    (tmp_path / "theirs.json").write_text(json.dumps(data))
    command = (
        f"{SAFEGUARD} label in.jsonl --policy spam --server http://127.0.0.1:9 --tokenizer theirs.json -o out.jsonl"
    )
    done = subprocess.run(
        command.split(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == "error: theirs.json is not a tokenizer.json that can be read\n"
    assert not (tmp_path / "out.jsonl").exists()

"""Encoded text decodes to the same bytes and holds no control token; a broken vocabulary is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from helpers import tokenizer_file
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.errors import SafeguardError
from safeguard_cli.model.gguf import read_header
from safeguard_cli.model.tokenizer import NORMAL, Tokenizer, string_text
from safeguard_cli.prompt.harmony import Harmony, Marker

CONTROL = 3
TEXTS = st.lists(st.one_of(st.text(), st.sampled_from([m.value for m in Marker] + ["\0", "\r\n", " " * 70]))).map(
    "".join
)


@pytest.fixture(scope="module")
def alphabet(harmony: Harmony) -> list[str]:
    """Return one symbol for each byte: the least that a vocabulary must hold."""
    symbols = [token for token in harmony.tokenizer.tokens if len(token) == 1]
    assert len(symbols) == 256
    return symbols


def with_tokens(alphabet: list[str], *spellings: bytes) -> Tokenizer:
    """Return a tokenizer with a vocabulary of all bytes and these tokens."""
    symbol_of = {Tokenizer(alphabet, [NORMAL] * 256, []).token_bytes(i): s for i, s in enumerate(alphabet)}
    tokens = alphabet + ["".join(symbol_of[bytes([byte])] for byte in spelling) for spelling in spellings]
    return Tokenizer(tokens, [NORMAL] * len(tokens), [])


@given(TEXTS)
def test_text_comes_back_byte_for_byte(harmony: Harmony, text: str) -> None:
    tokenizer = harmony.tokenizer
    assert tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode()


@given(TEXTS)
def test_ordinary_text_never_yields_a_control_token(harmony: Harmony, text: str) -> None:
    assert not harmony.tokenizer.has_control(harmony.tokenizer.encode(text))


@given(TEXTS)
def test_a_text_of_n_bytes_has_at_least_n_by_longest_tokens(harmony: Harmony, text: str) -> None:
    tokenizer = harmony.tokenizer
    assert len(tokenizer.encode(text)) * tokenizer.longest >= len(text.encode())


def test_longest_counts_bytes_of_ordinary_tokens(alphabet: list[str]) -> None:
    tokens = [*with_tokens(alphabet, "漢".encode()).tokens, "<|a long control token|>"]
    assert Tokenizer(tokens, [NORMAL] * 257 + [CONTROL], []).longest == 3


def test_a_character_cut_short_decodes_to_the_replacement_character(harmony: Harmony) -> None:
    ids = harmony.tokenizer.encode("漢")
    assert harmony.tokenizer.decode(ids[:-1]) == "\ufffd"


def test_a_control_token_decodes_to_its_spelling(harmony: Harmony) -> None:
    assert harmony.tokenizer.decode([harmony.tokenizer.control["<|end|>"]]) == "<|end|>"


def test_a_vocabulary_that_lacks_a_byte_is_refused(alphabet: list[str]) -> None:
    with pytest.raises(SafeguardError, match="cannot spell 1 of the 256 bytes"):
        Tokenizer(alphabet[1:], [NORMAL] * 255, [])


def test_a_byte_that_only_a_control_token_spells_is_refused(alphabet: list[str]) -> None:
    with pytest.raises(SafeguardError, match="cannot spell 1 of the 256 bytes"):
        Tokenizer(alphabet, [NORMAL] * 255 + [CONTROL], [])


@pytest.mark.parametrize("merge", [("a", "b"), ("zz", "z"), ("", "a"), ("Ā", "Ā")])
def test_merges_that_do_not_fit_are_refused(alphabet: list[str], merge: tuple[str, str]) -> None:
    with pytest.raises(SafeguardError, match="merges do not fit its vocabulary"):
        Tokenizer(alphabet, [NORMAL] * 256, [merge])


def test_a_token_outside_the_byte_alphabet_is_refused_or_decodes(alphabet: list[str]) -> None:
    try:
        tokenizer = Tokenizer([*alphabet, "漢"], [NORMAL] * 257, [])
    except SafeguardError:
        return
    assert len(tokenizer.string_kinds) == 257


def test_control_tokens_of_one_spelling_are_all_control_tokens(alphabet: list[str]) -> None:
    tokenizer = Tokenizer([*alphabet, "<|unused|>", "<|unused|>"], [NORMAL] * 256 + [CONTROL] * 2, [])
    assert tokenizer.has_control([256])
    assert tokenizer.has_control([257])


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": None},
        {"merges": None},
        {"token_type": None},
        {"token_type": [1]},
        {"token_type": np.ones(3, np.int32)},
        {"model": "llama"},
        {"tokens": np.zeros(3)},
        {"merges": [b"q z"]},
        {"tokens": [b"\xff"], "token_type": np.ones(1, np.int32)},
    ],
)
def test_a_header_without_a_usable_vocabulary_is_refused(tiny: Path, change: dict[str, object]) -> None:
    header = read_header(tiny)
    metadata = {**header.metadata, **{f"tokenizer.ggml.{key}": value for key, value in change.items()}}
    with pytest.raises(SafeguardError):
        Tokenizer.from_header(replace(header, metadata=metadata))


# Tokens at the limits of what a JSON string may hold, besides all single bytes.
STRINGY = [
    b'"',
    b'"}',
    b'\\"',
    b"\\\\",
    b'\\\\"',
    b"\\u00e9",
    b"\\uD83D",
    b"\\u12",
    b"\\x",
    b'a"b',
    b"\\n",
    b"\n",
    b" \\",
]
STRINGY += ["é".encode(), b"\xc3", b"\xa9", b'\\""', b"\x7f", b"\x00", b"\\/", b'x\\u0041"', b"\\ud800\\udc00"]


@pytest.fixture(scope="module")
def stringy(alphabet: list[str]) -> Tokenizer:
    return with_tokens(alphabet, *STRINGY)


@given(st.data())
def test_tokens_of_kind_1_ended_by_kind_2_are_a_json_string(stringy: Tokenizer, data: st.DataObject) -> None:
    kinds = stringy.string_kinds
    inside = data.draw(st.lists(st.sampled_from(np.flatnonzero(kinds == 1).tolist()), max_size=12))
    end = data.draw(st.sampled_from(np.flatnonzero(kinds == 2).tolist()))
    written = stringy.decode_bytes([*inside, end])
    parsed, _ = json.JSONDecoder().raw_decode('"' + written.decode("utf-8", "replace"))
    assert string_text(written) == parsed


@given(st.data())
def test_tokens_of_kind_1_never_close_the_string(stringy: Tokenizer, data: st.DataObject) -> None:
    inside = data.draw(st.lists(st.sampled_from(np.flatnonzero(stringy.string_kinds == 1).tolist()), max_size=12))
    written = stringy.decode_bytes(inside).decode("utf-8", "replace")
    assert string_text(written.encode()) == json.loads(f'"{written}"')


GO_ON = [b"a", b"\\\\", b"\\u00e9", b"\xc3"]
CLOSE = [b'"', b'a"b', b'\\""']
BREAK = [b"\\", b"\\u12", b"\\uD83D", b"\\x", b"\n", b"\x00", b" \\"]


@pytest.mark.parametrize(("kind", "tokens"), [(1, GO_ON), (2, CLOSE), (0, BREAK)])
def test_the_kind_of_a_token_says_what_it_does_to_a_string(stringy: Tokenizer, kind: int, tokens: list[bytes]) -> None:
    kind_of = {stringy.token_bytes(i): int(stringy.string_kinds[i]) for i in range(len(stringy.tokens))}
    assert [kind_of[token] for token in tokens] == [kind] * len(tokens)


def test_control_tokens_break_a_string(harmony: Harmony) -> None:
    assert not harmony.tokenizer.string_kinds[list(harmony.tokenizer.control.values())].any()


def test_closing_quotes_are_all_tokens_that_begin_with_one(stringy: Tokenizer) -> None:
    found = {stringy.token_bytes(i) for i in stringy.closing_quote_ids}
    assert found == {b'"', b'"}'}


@pytest.fixture(scope="module")
def published(demo_harmony: Harmony, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_file.write(tmp_path_factory.mktemp("published") / "tokenizer.json", demo_harmony.tokenizer)


_read = cache(Tokenizer.from_file)


@given(TEXTS)
def test_a_tokenizer_json_gives_the_ids_of_the_model_file(demo_harmony: Harmony, published: Path, text: str) -> None:
    read = _read(published)
    assert read.tokens == demo_harmony.tokenizer.tokens
    assert read.fingerprint == demo_harmony.tokenizer.fingerprint
    assert read.control == demo_harmony.tokenizer.control
    assert read.encode(text) == demo_harmony.tokenizer.encode(text)


def _other_split(data: dict) -> None:
    data["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.pop("model"), "is not a tokenizer.json"),
        (lambda data: data["model"].update(type="Unigram"), "is not a tokenizer.json"),
        (lambda data: data["model"].update(vocab={}), "cannot spell 256 of the 256 bytes"),
        (lambda data: data["model"]["vocab"].update(a=-1), "is not a tokenizer.json"),
        (lambda data: data["model"]["vocab"].update(a=1 << 40), "is not a tokenizer.json"),
        (lambda data: data["model"]["vocab"].pop("!"), "cannot spell 1 of the 256 bytes"),
        (lambda data: data["model"]["merges"].append(["zzq", "qzz"]), "'zzq qzz' is no token"),
        (_other_split, "splits text otherwise"),
    ],
)
def test_another_tokenizer_json_is_refused_with_its_name(
    published: Path, tmp_path: Path, change: Callable[[dict], object], said: str
) -> None:
    data = json.loads(published.read_bytes())
    change(data)
    broken = tmp_path / "theirs.json"
    broken.write_text(json.dumps(data))
    with pytest.raises(SafeguardError, match=said) as refused:
        Tokenizer.from_file(broken)
    assert "theirs.json" in str(refused.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["model", "vocab", "merges", "type", "added_tokens", "content", "id", "a"]), inner
        )
    ),
    max_leaves=12,
)


@given(_JSON.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_any_file_is_a_tokenizer_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    with pytest.raises(SafeguardError, match=r"any\.json"):
        Tokenizer.from_file(path)


def test_a_tokenizer_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SafeguardError, match="cannot be read"):
        Tokenizer.from_file(tmp_path / "none.json")

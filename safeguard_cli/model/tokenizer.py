"""Text to token ids and back, with a GGUF's own vocabulary; ordinary text can never yield a control token.

llama.cpp's tokenizer is not used: it matches the spellings of harmony's markers inside ordinary text, recurses until
the stack overflows on long runs of one character class, and splits text differently from o200k.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import models, pre_tokenizers

from safeguard_cli.errors import SafeguardError
from safeguard_cli.files import read_small
from safeguard_cli.model import checks
from safeguard_cli.model.checks import Misshapen
from safeguard_cli.model.gguf import Header

NORMAL = 1  # llama.cpp's LLAMA_TOKEN_TYPE_NORMAL; every other type is kept out of ordinary text
CONTROL = 3
MOST_TOKENS = 1 << 20
MOST_BYTES = 256 << 20  # of a tokenizer.json; o200k's has 27 million
MOST_SECONDS = 60
LONG = 40  # characters of a token that are shown
MOST_MEMORY = 4 << 30
_ASK = f"""
import sys
sys.path = [folder for folder in sys.path if folder]  # nothing of the working directory is imported
import resource, tokenizers
resource.setrlimit(resource.RLIMIT_CPU, ({MOST_SECONDS}, {MOST_SECONDS}))
resource.setrlimit(resource.RLIMIT_AS, ({MOST_MEMORY}, {MOST_MEMORY}))
ids = tokenizers.Tokenizer.from_file(sys.argv[1]).encode(sys.argv[2], add_special_tokens=False).ids
print(*ids[:1000])
"""
_SAMPLE = "It's 12345 o'clock, naïve USERS;  we'Ll see\n\n  日本語 हिन्दी ไทย 🙂 x==1//2\r\n"

# The split pattern of o200k_base; https://github.com/openai/tiktoken, tiktoken_ext/openai_public.py.
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_SPLIT = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTION,
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTION,
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def _byte_of_symbol() -> dict[str, int]:
    """Return GPT-2's byte-level alphabet, which writes each byte as one printable character."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = _byte_of_symbol()


class Tokenizer:
    """The byte-pair tokenizer of one vocabulary.

    `tokens` are the spellings by id, `types` llama.cpp's token types, `merges` pairs of spellings in order. Raises
    SafeguardError when the vocabulary cannot spell every byte or the merges do not belong to it.
    """

    def __init__(self, tokens: Sequence[str], types: Sequence[int], merges: Iterable[tuple[str, str]]) -> None:
        self.tokens = tokens
        ordinary = [i for i, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind == NORMAL and token]
        self.control_ids = frozenset(range(len(tokens))).difference(ordinary)
        self.control = {tokens[i]: i for i in self.control_ids}
        vocabulary = {tokens[i]: i for i in ordinary}
        missing = sum(symbol not in vocabulary for symbol in _BYTES)
        if missing:
            raise SafeguardError(f"the model's vocabulary cannot spell {missing} of the 256 bytes; it cannot be used")
        if strange := next((token for token in vocabulary if not _BYTES.keys() >= set(token)), None):
            raise SafeguardError(f"the model's vocabulary has the token {_cut(strange)}, which stands for no bytes")
        pairs = list(merges)
        if unknown := next((pair for pair in pairs if not {*pair, "".join(pair)} <= vocabulary.keys()), None):
            raise SafeguardError(f"the model's merges do not fit its vocabulary: {_cut(' '.join(unknown))} is no token")
        self._tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=True))
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(_SPLIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    @classmethod
    def from_header(cls, header: Header) -> Tokenizer:
        """Build from a GGUF's header: `tokenizer.ggml.tokens`, `.token_type` and `.merges`."""
        data = header.metadata
        tokens, types, merges = (data.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges"))
        if not isinstance(tokens, list) or not isinstance(merges, list) or not isinstance(types, np.ndarray):
            raise SafeguardError(f"{header.path.name} has no byte-pair vocabulary (tokens, token_type, merges)")
        kind = data.get("tokenizer.ggml.model")
        if not isinstance(kind, str) or kind != "gpt2" or len(types) != len(tokens):
            raise SafeguardError(f"{header.path.name} has a vocabulary of another kind than gpt-oss's")
        spelled = [token.decode("utf-8", "replace") for token in tokens]
        pairs = (tuple(merge.decode("utf-8", "replace").split(" ", 1)) for merge in merges)
        return cls(spelled, types.tolist(), (pair for pair in pairs if len(pair) == 2))

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Build from a `tokenizer.json`; raises SafeguardError when the file is not one, or not of gpt-oss's kind."""
        try:
            tokens, types, pairs = _vocabulary_of(json.loads(read_small(path, MOST_BYTES)))
            made = cls(tokens, types, pairs)
        except SafeguardError as error:
            raise SafeguardError(f"{path.name}: {error}") from None
        except OSError as error:
            raise SafeguardError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            why = f": {error}" if isinstance(error, Misshapen) else ""
            raise SafeguardError(f"{path.name} is not a tokenizer.json with a byte-pair vocabulary{why}") from None
        if _theirs(path, _SAMPLE) != made.encode(_SAMPLE):
            raise SafeguardError(f"{path.name} splits text otherwise than gpt-oss does")
        return made

    @cached_property
    def fingerprint(self) -> str:
        """The hash of all tokens, by id."""
        return hashlib.sha256("\0".join(self.tokens).encode("utf-8", "replace")).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ordinary text without lone surrogates; 340 characters take about 0.07 ms."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def has_control(self, ids: Iterable[int]) -> bool:
        """Whether any id is a control token; never true of what `encode` returns, but checked all the same."""
        return not self.control_ids.isdisjoint(ids)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that one token stands for; for a control token, its spelling."""
        spelling = self.tokens[token]
        if token in self.control_ids:
            return spelling.encode()
        return bytes(_BYTES[symbol] for symbol in spelling)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that the ids stand for."""
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids; bytes that are not UTF-8 (a budget can end inside a character) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    @cached_property
    def longest(self) -> int:
        """The bytes of the longest ordinary token: text of n bytes has at least n / longest tokens."""
        return max(len(t) for i, t in enumerate(self.tokens) if i not in self.control_ids)

    @cached_property
    def closing_quote_ids(self) -> npt.NDArray[np.intp]:
        """The ids of all ordinary tokens that begin with a double quote: each of them closes a JSON string."""
        found = [i for i, t in enumerate(self.tokens) if t.startswith('"') and i not in self.control_ids]
        return np.array(found, np.intp)

    @cached_property
    def string_kinds(self) -> npt.NDArray[np.int8]:
        """For each token: 1 if a JSON string can continue after it, 2 if it closes the string, 0 if it would break it.

        Each token is judged alone: one that ends inside an escape sequence counts as breaking the string.
        """
        kinds = [0 if i in self.control_ids else _string_kind(self.token_bytes(i)) for i in range(len(self.tokens))]
        return np.array(kinds, np.int8)


_id = checks.integer(most=MOST_TOKENS - 1)
_merge = checks.either(checks.text, checks.each(checks.text, 2))
_model = checks.table(
    {"type": checks.one_of("BPE"), "vocab": checks.by_name(_id), "merges": checks.each(_merge)},
)
_added = checks.each(checks.table({"content": checks.text, "id": _id}))
_TOKENIZER_FILE = checks.table({"model": _model}, {"added_tokens": checks.maybe(_added)})


def _vocabulary_of(data: Any) -> tuple[list[str], list[int], list[tuple[str, str]]]:
    """Return the tokens, their types and the merges of a `tokenizer.json`. Raises Misshapen, a ValueError."""
    _TOKENIZER_FILE(data, "")
    vocabulary: dict[str, int] = data["model"]["vocab"]
    added = {each["content"]: each["id"] for each in data.get("added_tokens") or []}
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in data["model"]["merges"]]
    if wrong := next((merge for merge in merges if len(merge) != 2), None):
        raise Misshapen(f"{_cut(' '.join(wrong))} is not a merge of two tokens")
    size = max((*vocabulary.values(), *added.values()), default=-1) + 1
    tokens, types = [""] * size, [0] * size
    for found, kind in ((vocabulary, NORMAL), (added, CONTROL)):
        for token, i in found.items():
            tokens[i], types[i] = token, kind
    return tokens, types, [(one, two) for one, two in merges]


def _cut(token: str) -> str:
    return repr(token if len(token) <= LONG else token[:LONG] + "…")


def _theirs(path: Path, sample: str) -> list[int]:
    """Return the ids that the file itself gives a text, from a child process: it can hang or crash the library."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK, str(path), sample], capture_output=True, timeout=MOST_SECONDS, check=True
        )
        return [int(number) for number in done.stdout.split()]
    except subprocess.TimeoutExpired:
        raise SafeguardError(f"{path.name} takes more than {MOST_SECONDS} seconds for one line of text") from None
    except (subprocess.CalledProcessError, ValueError):
        raise SafeguardError(f"{path.name} is not a tokenizer.json that can be read") from None


_STRING = re.compile(rb'(?:[^"\\\x00-\x1f\x7f]|\\(?:["\\/bfnrt]|u(?!d[89a-f])[0-9a-f]{4}))*', re.IGNORECASE)


def _string_kind(token: bytes) -> int:
    found = _STRING.match(token)
    assert found is not None  # it matches the empty string
    rest = token[found.end() :]
    return 1 if not rest else 2 if rest[:1] == b'"' else 0


def string_text(data: bytes) -> str:
    """Return the text inside a JSON string, up to its closing quote; bytes that are not UTF-8 become U+FFFD."""
    found = _STRING.match(data)
    assert found is not None
    text: str = json.loads(b'"' + found[0].decode("utf-8", "replace").encode() + b'"')
    return text

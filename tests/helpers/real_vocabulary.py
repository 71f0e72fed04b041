"""Build gpt-oss's tokenizer from the published ranks of o200k_base (a .tiktoken file)."""

from __future__ import annotations

import base64
from pathlib import Path

from safeguard_cli.model.tokenizer import NORMAL, Tokenizer

CONTROL = 3
SIZE = 201_088
MARKERS = {
    199998: "<|startoftext|>",
    199999: "<|endoftext|>",
    200002: "<|return|>",
    200003: "<|constrain|>",
    200005: "<|channel|>",
    200006: "<|start|>",
    200007: "<|end|>",
    200008: "<|message|>",
    200012: "<|call|>",
    200018: "<|endofprompt|>",
}


def tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer; the file has no merges, so each split of a token into two is one, by the token's rank."""
    symbols = _alphabet()
    ranks = [base64.b64decode(line.split()[0]) for line in path.read_bytes().splitlines()]
    words = [word.decode("latin-1").translate(symbols) for word in ranks]
    rank = {word: i for i, word in enumerate(words)}
    merges = []
    for word in words:
        splits = [(word[:i], word[i:]) for i in range(1, len(word)) if word[:i] in rank and word[i:] in rank]
        merges += sorted(splits, key=lambda split: (rank[split[0]], rank[split[1]]))
    control = [MARKERS.get(i, f"<|reserved_{i}|>") for i in range(len(words), SIZE)]
    return Tokenizer(words + control, [NORMAL] * len(words) + [CONTROL] * len(control), merges)


def _alphabet() -> dict[int, int]:
    """Return GPT-2's byte-level alphabet: the code point that stands for each byte."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: byte for byte in printable} | {byte: 256 + i for i, byte in enumerate(others)}

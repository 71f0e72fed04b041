"""Manifests as a run writes them, and mutations with one thing wrong in each."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

HASH = "0" * 64
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1 << 31, (1 << 63) - 1, 1 << 63, 1_000_000, 0.5, 1e300),
    *("", "x", "\0", "../../etc/passwd", "-1", "\x1b[31m", "x" * 5000),
    *([], {}, [None], [[]], [0, 0], [2, 1], ["x"], {"": None}, {"x": {}}, {"x": {"y": -1}}),
)

RENAMED = "another name for it"


def make(**changes: Any) -> dict[str, Any]:
    """Return the manifest of a finished run under the policy `spam`."""
    decides = {
        "policies": {"spam": {"sha256": HASH, "labels": ["ham", "spam"], "violates": ["spam"]}},
        "model": {"bytes": 1, "sampled_sha256": HASH},
        "prompt_layout": HASH,
        "input": {
            "format": "jsonl",
            "encoding": "utf-8",
            "text_fields": [],
            "template": None,
            "max_row_bytes": 1 << 26,
            "shard": None,
        },
        "answer": {"effort": "low", "ctx": 8192, "long": "split"},
        "output": {"format": "jsonl", "columns": ["label"], "keep": None, "only": None, "csv_safe": False},
        "deterministic": None,
    }
    result = {
        "finished": "2026-01-01T00:00:01+00:00",
        "exit_code": 0,
        "rows": 0,
        "rows_in_error": 0,
        "errors": {},
        "labels": {"spam": {}},
        "violating": {"spam": 0},
        "input_exhausted": True,
        "engine_deaths": 0,
        "command": ["safeguard"],
        "input": "in.jsonl",
        "model": "model.gguf",
        "model_sha256": HASH,
        "output_sha256": HASH,
    }
    made = {"decides": decides, "machine": {"versions": {}}, "started": "2026-01-01T00:00:00+00:00", "process": 1}
    made |= dict.fromkeys(("rows", "output_bytes", "repeated_rows", "seconds"), 0)
    made |= dict.fromkeys(("policy_tokens", "prompt_tokens", "generated_tokens"), 0)
    return {**made, "input_sha256": HASH, "counts": None, "result": result, "version": 1, **changes}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every member of a JSON value, inner ones too."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield (*at, key)
        yield from places(inner, (*at, key))


def mutated(whole: Any) -> Iterator[tuple[str, bytes]]:
    """Yield what is wrong, and the file: every member missing or hostile, then bytes that are no such JSON at all."""
    for *way, last in places(whole):
        for hostile in (..., RENAMED, *(HOSTILE[:4] if "versions" in way else HOSTILE)):
            made = copy.deepcopy(whole)
            inner = made
            for key in way:
                inner = inner[key]
            if hostile is ...:
                del inner[last]
            elif hostile is not RENAMED:
                inner[last] = hostile
            elif isinstance(last, str):
                inner[f"{last}-"] = inner.pop(last)
            yield f"{'.'.join(map(str, (*way, last)))} = {str(hostile)[:40]!r}", json.dumps(made).encode()
    for hostile in HOSTILE:
        yield f"{str(hostile)[:40]!r}", json.dumps(hostile).encode()
    data = json.dumps(whole, indent=2).encode()
    for size in range(0, len(data), 37):
        yield f"{size} bytes of it", data[:size]
    for at in range(0, len(data), 41):
        yield f"another byte at {at}", data[:at] + bytes([data[at] ^ 0x15]) + data[at + 1 :]
    yield "deep", b"[" * 100_000
    yield "no UTF-8", b"\xff\xfe" + data
    yield "a member more", json.dumps({**whole, "more": 1} if isinstance(whole, dict) else [whole]).encode()

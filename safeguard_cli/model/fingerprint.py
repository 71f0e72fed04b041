"""Tells which model a file holds: a fast fingerprint, and a hash that is computed once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from safeguard_cli import files
from safeguard_cli.model import kept
from safeguard_cli.model.checks import by_name
from safeguard_cli.model.checks import sha256 as is_sha256
from safeguard_cli.model.gguf import model_parts

HASHES, MOST_HASHES = "model-hashes.json", 1000  # kept hashes of model files
SAMPLES, SAMPLE_BYTES = 64, 1 << 16


def model_fingerprint(path: Path) -> dict[str, Any]:
    """Return the size of a model's parts and a hash of their beginnings and of blocks spread over them, at once."""
    return dict(_fingerprint(path, model_key(path)))


@cache
def _fingerprint(path: Path, _: str) -> dict[str, Any]:
    total = 0
    digest = hashlib.sha256()
    for part in model_parts(path):
        size = part.stat().st_size
        total += size
        with part.open("rb") as file:
            for at in (*range(0, size, max(SAMPLE_BYTES, size // SAMPLES)), max(0, size - SAMPLE_BYTES)):
                file.seek(at)
                digest.update(file.read(SAMPLE_BYTES))
    return {"bytes": total, "sampled_sha256": digest.hexdigest()}


def model_key(path: Path) -> str:
    """Return a key for what is known about a model's present files: path, size and time of change of all parts."""
    return "|".join(map(_file_key, model_parts(path)))


def _file_key(path: Path) -> str:
    state = path.stat()
    return f"{path.resolve()}:{state.st_size}:{state.st_mtime_ns}"


def model_sha256(path: Path, tell: Callable[[float], None] | None = None) -> str:
    """Return the hash of a model's file, or those of its parts with commas between; kept, because it takes seconds.

    `tell` is called with the share of a part that is done.
    """
    return ",".join(_kept_sha256(part, tell) for part in model_parts(path))


def _kept_sha256(path: Path, tell: Callable[[float], None] | None) -> str:
    key = _file_key(path)
    known: dict[str, str] = kept.load(HASHES, by_name(is_sha256)) or {}
    if key not in known:
        last = list(known.items())[1 - MOST_HASHES :]
        known = {**dict(last), key: files.sha256(path, tell)}
        kept.save(HASHES, known)
    return known[key]

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
    """Return a key for what is known about a model's present files: path, inode, size and time of change of each."""
    return "|".join(map(_file_key, model_parts(path)))


def _file_key(path: Path) -> str:
    state = path.stat()
    return f"{path.resolve()}:{state.st_ino}:{state.st_size}:{state.st_mtime_ns}"


def model_sha256(path: Path, tell: Callable[[float], None] | None = None) -> str:
    """Return the hash of a model's file, or those of its parts with commas between; kept, because it takes seconds.

    `tell` is called with the share of a part that is done.
    """
    return ",".join(_kept_sha256(part, tell) for part in model_parts(path))


def keep_sha256(path: Path, digest: str) -> None:
    """Keep the hash that a file was just found to have, so that `model_sha256` need not read the file for it."""
    _keep(_file_key(path), digest)


def _kept_sha256(path: Path, tell: Callable[[float], None] | None) -> str:
    key = _file_key(path)
    if (digest := _known().get(key)) is None:
        digest = files.sha256(path, tell)
        _keep(key, digest)
    return digest


def _known() -> dict[str, str]:
    return kept.load(HASHES, by_name(is_sha256)) or {}


def _keep(key: str, digest: str) -> None:
    last = list(_known().items())[1 - MOST_HASHES :]
    kept.save(HASHES, {**dict(last), key: digest})

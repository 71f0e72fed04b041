"""States of decoded policies, kept between runs: a second run under the same policy starts without decoding it.

A file holds a magic line, the SHA-256 of what follows, and llama.cpp's state of the sequence. Its name is a hash of all
that the state depends on. llama.cpp sees no byte of a file whose hash is not right.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

MAGIC = b"safeguard prefix 1\n"
MOST_BYTES = 1 << 30  # of all files together; the least recently used go first


class PrefixStore:
    """States by prefix ids in `folder`; `identity` is all else that a state depends on. Fails silently: it only saves
    time."""

    def __init__(self, folder: Path, identity: str, most_bytes: int = MOST_BYTES) -> None:
        self.folder, self.identity, self.most_bytes = folder, identity, most_bytes

    def load(self, ids: Sequence[int]) -> bytes | None:
        """The state after these ids, None where there is no sound one."""
        path = self._path(ids)
        with suppress(OSError):
            data = path.read_bytes()
            digest, state = data[len(MAGIC) :][:32], data[len(MAGIC) + 32 :]
            if data.startswith(MAGIC) and hashlib.sha256(state).digest() == digest:
                os.utime(path)
                return state
            path.unlink()
        return None

    def save(self, ids: Sequence[int], state: bytes) -> None:
        """Keep a state, for this user's eyes only: a policy may be confidential."""
        if len(state) > self.most_bytes // 2:
            return
        path = self._path(ids)
        new = path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(len(state))
            try:
                with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(MAGIC + hashlib.sha256(state).digest() + state)
                new.replace(path)
            finally:
                new.unlink(missing_ok=True)

    def _path(self, ids: Sequence[int]) -> Path:
        key = hashlib.sha256(self.identity.encode() + b"\0" + np.array(ids, np.int32).tobytes())
        return self.folder / f"{key.hexdigest()}.prefix"

    def _make_room(self, wanted: int) -> None:
        kept = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self.folder.iterdir())
        total = sum(size for _, size, _ in kept) + wanted
        for _, size, path in kept:
            if total <= self.most_bytes:
                break
            path.unlink()
            total -= size

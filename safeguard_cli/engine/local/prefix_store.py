"""States of decoded policies, kept between runs: a second run under the same policy starts without decoding it.

A file holds a magic line, the SHA-256 of its key and the state, and llama.cpp's state of the sequence. Its name is the
key: a hash of all that the state depends on. llama.cpp sees no byte of a file whose hash is wrong, nor of one that
another user could have written: a wrong state gives wrong scores without any sign of it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from safeguard_cli import files

STATES = "prefixes"  # the folder in the cache folder
MAGIC = b"safeguard prefix 2\n"
MOST_BYTES = 1 << 30  # of all files together; the least recently used go first
NAME = re.compile(r"[0-9a-f]{64}\.(prefix|\d+)", re.ASCII)  # .NUMBER: being written by an older version


class PrefixStore:
    """States by prefix ids in `folder`; `identity` is all else that a state depends on.

    It fails silently, because it only saves time.
    """

    def __init__(self, folder: Path, identity: str, most_bytes: int = MOST_BYTES) -> None:
        self.folder, self.identity, self.most_bytes = folder, identity, most_bytes

    def load(self, ids: Sequence[int]) -> bytes | None:
        """Return the state after these ids, None where there is no sound one."""
        key = self._key(ids)
        path = self._path(key)
        with suppress(OSError):
            if not files.is_ours(self.folder.stat()):
                return None
            data = files.read_small(path, len(MAGIC) + 32 + self.most_bytes, ours=True)
            digest, state = data[len(MAGIC) :][:32], data[len(MAGIC) + 32 :]
            if data.startswith(MAGIC) and state and _digest(key, state) == digest:
                os.utime(path)
                return state
            path.unlink()
        return None

    def save(self, ids: Sequence[int], state: bytes) -> None:
        """Keep a state, readable by this user only: a policy may be confidential."""
        if not 0 < len(state) <= self.most_bytes // 2:
            return
        key = self._key(ids)
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not files.is_ours(self.folder.stat()):
                return
            self._make_room(len(state))
            with files.draft(self._path(key), 0o600) as new:
                new.write(MAGIC + _digest(key, state))
                new.write(state)
                new.publish(sync=False)  # what a power cut leaves has a wrong hash

    def _key(self, ids: Sequence[int]) -> bytes:
        return hashlib.sha256(self.identity.encode() + b"\0" + np.array(ids, np.int32).tobytes()).digest()

    def _path(self, key: bytes) -> Path:
        return self.folder / f"{key.hex()}.prefix"

    def _make_room(self, wanted: int) -> None:
        for path in files.drafts_in(self.folder):
            files.remove_abandoned(path)
        ours = (path for path in self.folder.iterdir() if NAME.fullmatch(path.name))
        kept = sorted((state.st_mtime, state.st_size, path) for path in ours if (state := path.lstat()))
        total = sum(size for _, size, _ in kept) + wanted
        for _, size, path in kept:
            if total <= self.most_bytes:
                break
            with suppress(OSError):
                path.unlink()
                total -= size


def _digest(key: bytes, state: bytes) -> bytes:
    digest = hashlib.sha256(key)
    digest.update(state)
    return digest.digest()

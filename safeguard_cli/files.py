"""Files: hashes, small files read within bounds, and writes that appear whole or not at all.

A file being written has a name that no other file has: `.safeguard-`, a hash of its final name, and something random.
Its writer holds a lock on it, so that a later run can tell the remains of a killed run from the file of a living one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import platformdirs

try:
    import fcntl
except ImportError:  # Windows: without locks, the remains of a killed run stay
    fcntl = None  # type: ignore[assignment]

_DRAFT = re.compile(r"\.safeguard-([0-9a-f]{8})-[0-9a-f]{8}(\.\w{1,7})?", re.ASCII)
_FOLDER, _HELD = "safeguard-", ".held"  # temporary folders, and the file in them that their maker locks
_MANY = 10_000  # entries of a folder that are looked at for a name
_NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)  # a named pipe must not keep us waiting


def cache_folder() -> Path:
    """Return the absolute path of the folder for small things that can be computed again."""
    return _of_user(platformdirs.user_cache_path) or Path(tempfile.gettempdir()) / f"safeguard-{os.getuid()}"


def config_folder() -> Path | None:
    """Return the absolute path of the folder of the user's own settings; None for a user without a home."""
    return _of_user(platformdirs.user_config_path)


def _of_user(find: Callable[..., Path]) -> Path | None:
    """Return a folder of the user's; None for a user without a home, as in containers run under a bare user number."""
    try:
        path = find("safeguard", appauthor=False)
    except RuntimeError:
        return None
    return None if path.parts[:1] == ("~",) else path.absolute()  # not a folder named ~ in the working folder


def files_beside(path: Path, ending: str) -> dict[str, str]:
    """Return the paths of the files with this ending in the folder of `path`, by name without the ending.

    Returns only some from a very large folder, and none where the folder cannot be read.
    """
    found: dict[str, str] = {}
    with suppress(OSError, ValueError), os.scandir(path.parent) as entries:  # ValueError: a NUL in the name
        for entry in islice(entries, _MANY):
            if entry.name.casefold().endswith(ending) and entry.is_file():
                found[entry.name[: -len(ending)]] = str(path.parent / entry.name)
    return dict(sorted(found.items()))


def sha256(path: Path, tell: Callable[[float], None] | None = None) -> str:
    """Return the hash of a file's bytes; calls `tell` many times with the share that is done."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = max(os.fstat(file.fileno()).st_size, 1)
        while block := file.read(1 << 20):
            digest.update(block)
            if tell:
                tell(file.tell() / size)
    return digest.hexdigest()


def sync_folder(path: Path) -> None:
    """Have the system write the name `path` to disk."""
    with suppress(OSError, AttributeError):  # not every system can
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_small(path: Path, most: int, *, ours: bool = False) -> bytes:
    """Return a file's bytes. Raises OSError where it has more than `most` or is not a regular file.

    With `ours`, also raises where it belongs to another user or others may write to it.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | _AT_ONCE), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if ours and not is_ours(state):
            raise OSError(errno.EPERM, "it belongs to another user, or others may write to it", str(path))
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return data


def is_ours(state: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user and nobody else may write to it."""
    return is_mine(state) and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def is_mine(state: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user."""
    return not hasattr(os, "geteuid") or state.st_uid == os.geteuid()


class Draft:
    """A new file beside `target`, written at `path` and then put in the target's place.

    It gets `mode`, else the permissions of the file that it replaces, else what the user's umask leaves.
    """

    def __init__(self, target: Path, mode: int | None = None) -> None:
        self.target, self.published = target, False
        suffix = target.suffix if re.fullmatch(r"\.\w{1,7}", target.suffix, re.ASCII) else ""
        while True:
            self.path = target.with_name(f".safeguard-{_key(target)}-{secrets.token_hex(4)}{suffix}")
            with suppress(FileExistsError):
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOT_FOLLOWED
                self._descriptor = os.open(self.path, flags, 0o666 if mode is None else mode)
                if _lock(self._descriptor) is not False and _is_still(self._descriptor, self.path):
                    break
                os.close(self._descriptor)  # another run's sweep took it first
        if mode is None:
            with suppress(OSError):
                state = target.stat()
                if stat.S_ISREG(state.st_mode):
                    os.fchmod(self._descriptor, stat.S_IMODE(state.st_mode))

    def write(self, data: bytes) -> None:
        """Append all of `data`."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def publish(self, *, sync: bool = True) -> None:
        """Give the file the target's name; with `sync`, have it written to disk first."""
        if sync:
            os.fsync(self._descriptor)
        self.path.replace(self.target)
        self.published = True
        if sync:
            sync_folder(self.target)

    def close(self) -> None:
        """Remove the file if it was not published."""
        try:
            if not self.published:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)


@contextmanager
def draft(target: Path, mode: int | None = None) -> Iterator[Draft]:
    """Yield a Draft of `target`, which is removed at the end unless it was published."""
    made = Draft(target, mode)
    try:
        yield made
    finally:
        made.close()


def write(target: Path, data: bytes, mode: int | None = None) -> None:
    """Write a file atomically: a reader finds the old file or the new one, whole."""
    with draft(target, mode) as made:
        made.write(data)
        made.publish()


def lock_path(target: Path) -> Path:
    """Return the path of the lock file for a target that appears only when it is whole."""
    return target.with_name(f".safeguard-{_key(target)}-lock")


def sweep(*targets: Path) -> None:
    """Remove the drafts of these targets that killed runs left behind; those of living processes stay."""
    keys: dict[Path, set[str]] = {}
    for target in targets:
        keys.setdefault(target.parent, set()).add(_key(target))
    for folder, wanted in keys.items():
        for path in drafts_in(folder, wanted):
            remove_abandoned(path)


def drafts_in(folder: Path, keys: Set[str] | None = None) -> list[Path]:
    """Return the drafts in a folder, of all targets or of those with these keys."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = _DRAFT.fullmatch(entry.name)
            if name and (keys is None or name[1] in keys) and entry.is_file(follow_symlinks=False):
                found.append(folder / entry.name)
    return found


def remove_abandoned(path: Path) -> None:
    """Remove a draft that no living process is writing."""
    with suppress(OSError):
        if is_abandoned(path):
            path.unlink()


def is_abandoned(path: Path) -> bool:
    """Whether a file of this user's is no longer being written: its writer would hold its lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | _NOT_FOLLOWED | _AT_ONCE)
    except OSError:
        return False
    try:
        state = os.fstat(descriptor)
        return is_mine(state) and stat.S_ISREG(state.st_mode) and _lock(descriptor) is True
    finally:
        os.close(descriptor)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that only this user can read, removed at the end.

    `abandoned_folders` finds one that a killed process left behind.
    """
    with tempfile.TemporaryDirectory(prefix=_FOLDER) as name:
        folder = Path(name)
        descriptor = os.open(folder / _HELD, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOT_FOLLOWED, 0o600)
        try:
            _lock(descriptor)
            yield folder
        finally:
            os.close(descriptor)


def abandoned_folders() -> list[Path]:
    """Return this user's temporary folders that killed processes left behind."""
    found = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{_FOLDER}????????")):
        with suppress(OSError):
            state = folder.lstat()
            if stat.S_ISDIR(state.st_mode) and is_ours(state) and is_abandoned(folder / _HELD):
                found.append(folder)
    return found


def _key(target: Path) -> str:
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]


def _lock(descriptor: int) -> bool | None:
    """Return True when we got the lock, False when another process holds it, None where locks do not work."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False

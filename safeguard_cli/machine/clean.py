"""`safeguard clean`: removes what is kept in the cache folder and what killed commands left in the temporary folder."""

from __future__ import annotations

import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safeguard_cli import errors, files
from safeguard_cli.engine.local.prefix_store import NAME, STATES
from safeguard_cli.engine.local.probe import LOADABLE
from safeguard_cli.errors import SafeguardError
from safeguard_cli.model.fingerprint import HASHES
from safeguard_cli.run.remarks import STAMP
from safeguard_cli.terminal import safe

# A number at the end: an older version was still writing it.
_LISTS = re.compile(rf"({re.escape(HASHES)}|{re.escape(LOADABLE)})(\.\d+)?|{STAMP}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Left:
    """Something of ours that can be removed: what it is in words, its path and its bytes."""

    kind: str
    path: Path
    size: int


def clean(dry_run: bool) -> int:
    """Remove all that is ours, or only show what would be removed. Raise SafeguardError if something could not be."""
    cache = files.cache_folder()
    found = [*_kept(cache), *_abandoned()]
    failed: list[str] = []
    if not dry_run:
        for left in tuple(found):
            try:
                _remove(left.path)
            except OSError as error:
                failed.append(f"{left.path}: {error.strerror}")
                found.remove(left)
        for folder in (cache / STATES, cache):
            with suppress(OSError):  # it holds something that is not ours
                folder.rmdir()
    for kind in dict.fromkeys(left.kind for left in found):
        sizes = [left.size for left in found if left.kind == kind]
        print(f"{sum(sizes):>15,} bytes  {kind}: {len(sizes):,}")
    total = sum(left.size for left in found)
    print(f"{total:>15,} bytes  {'would be' if dry_run else 'were'} removed; the cache folder is {safe(str(cache))}")
    if failed:
        raise SafeguardError("not everything could be removed:", *failed)
    return errors.OK


def _kept(cache: Path) -> Iterator[Left]:
    yield from _files(cache, "notes, such as which model files were checked", _LISTS.fullmatch)
    yield from _files(cache / STATES, "states of policies", NAME.fullmatch)
    for folder in (cache, cache / STATES):
        for path in files.drafts_in(folder):
            if files.is_abandoned(path):
                yield Left("files that were not completely written", path, path.lstat().st_size)


def _files(folder: Path, kind: str, ours: Callable[[str], object]) -> Iterator[Left]:
    """Yield this user's regular files with a name of ours."""
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            state = path.lstat()
            if ours(path.name) and stat.S_ISREG(state.st_mode) and files.is_mine(state):
                yield Left(kind, path, state.st_size)


def _abandoned() -> Iterator[Left]:
    for folder in files.abandoned_folders():
        size = sum(path.lstat().st_size for path in folder.rglob("*"))
        yield Left("folders with rows that a killed command left behind", folder, size)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

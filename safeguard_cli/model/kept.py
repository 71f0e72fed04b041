"""Small things kept between runs in the cache folder, trusted only if they are this user's own and have the right form.

All of it can be computed again, so bad files are ignored silently; a folder that others may write to is reported once.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli import files
from safeguard_cli.model.checks import Check
from safeguard_cli.terminal import warn

MODE, FOLDER_MODE = 0o600, 0o700
MOST_BYTES = 1 << 20  # of one file


def load(name: str, check: Check) -> Any:
    """Return the value kept under this name; None where there is none, or none that `check` accepts."""
    folder = private_folder()
    if folder is None:
        return None
    try:
        value = orjson.loads(files.read_small(folder / name, MOST_BYTES, ours=True))
        check(value, "")
    except (OSError, ValueError):  # orjson's errors and Misshapen are ValueErrors
        return None
    return value


def save(name: str, value: Any) -> None:
    """Keep a value under this name, if possible."""
    folder = private_folder(make=True)
    if folder is not None:
        with suppress(OSError):
            files.write(folder / name, orjson.dumps(value), MODE)


def private_folder(inner: str = "", *, make: bool = False) -> Path | None:
    """Return the cache folder, or one in it; None if it is missing or not safe to use."""
    folder = files.cache_folder()
    for path in (folder, folder / inner) if inner else (folder,):
        try:
            if make:
                path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            state = path.stat()
        except OSError:
            return None
        if not path.is_dir():
            return None
        if not files.is_ours(state):
            _say_once(path)
            return None
    return folder / inner if inner else folder


@cache
def _say_once(folder: Path) -> None:
    warn(
        f"{folder} belongs to another user, or others may write to it: nothing that is kept there is used;"
        f" if it is yours: chmod 700 {folder}"
    )

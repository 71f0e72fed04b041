"""Small things kept between runs in the cache folder: believed only where they are this user's own and well-shaped.

All that is kept can be computed again, so whatever is wrong with it is passed over in silence; a folder in which others
could have put it is named once.
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
    """What is kept under this name, None where there is nothing that `check` finds right."""
    folder = private_folder()
    if folder is None:
        return None
    try:
        value = orjson.loads(files.read_small(folder / name, MOST_BYTES, ours=True))
        check(value, "")
    except (OSError, ValueError):  # orjson's and ours of what is misshapen are ValueErrors
        return None
    return value


def save(name: str, value: Any) -> None:
    """Keep a value, where that can be done."""
    folder = private_folder(make=True)
    if folder is not None:
        with suppress(OSError):
            files.write(folder / name, orjson.dumps(value), MODE)


def private_folder(inner: str = "", *, make: bool = False) -> Path | None:
    """The cache folder, or one in it; None where it is not there, or not safe to use."""
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

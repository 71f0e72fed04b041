"""Checks which files a command may write: none that it reads, under any name or stream, and none its folder refuses."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.files import draft

_DESCRIPTOR = re.compile(r"/(?:dev|proc/(\d+)(?:/task/\d+)?)/fd/(\d+)")
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_MOST_LINKS = 40  # as many as Linux follows


@dataclass(frozen=True, slots=True)
class Used:
    """A file that a command reads; `what` names it to people: the input, the model, …."""

    what: str
    device: int
    inode: int

    def is_file(self, state: os.stat_result) -> bool:
        return (self.device, self.inode) == (state.st_dev, state.st_ino)


def used(what: str, *files: str | Path) -> list[Used]:
    """Return which of the files exist, `-` being standard input; pipes, terminals and other streams do not count."""
    found = []
    for file in files:
        with suppress(OSError, ValueError, AttributeError):  # standard input may be closed
            state = os.fstat(sys.stdin.fileno()) if file == "-" else Path(file).stat()
            if stat.S_ISREG(state.st_mode) or stat.S_ISBLK(state.st_mode):
                found.append(Used(what, state.st_dev, state.st_ino))
    return found


def check_streams(read: Iterable[Used]) -> None:
    """Raise UsageError if standard output or standard error goes into a file that is read.

    If standard error does, the message may not go there either: it goes to standard output, if that is another file.
    """
    read = tuple(read)
    found: dict[str, tuple[Used, os.stat_result]] = {}
    for name, stream in (("standard output", sys.stdout), ("standard error", sys.stderr)):
        with suppress(OSError, ValueError, AttributeError):  # closed, or not a stream of the system
            state = os.fstat(stream.fileno())
            if taken := next((each for each in read if each.is_file(state)), None):
                found[name] = taken, state
    for name, (taken, state) in found.items():
        if "standard error" in found and found["standard error"][1].st_size:
            other = os.open(os.devnull, os.O_WRONLY) if "standard output" in found else sys.stdout.fileno()
            os.dup2(other, sys.stderr.fileno())
        emptied = "" if state.st_size else " (which the shell has emptied already)"
        raise UsageError(f"{name} goes into {taken.what} itself{emptied}; write to another file")


def check_output(out: Path, read: Iterable[Used] = (), beside: Sequence[Path] = ()) -> None:
    """Raise UsageError if `out` or one of the files `beside` it cannot be written, or is read.

    Symlinks are followed. Nothing is touched.
    """
    if not out.name:
        raise UsageError(f"{out}: this is a folder")
    _check_lengths(out, (out, *beside))
    read = tuple(read)
    for path in (out, *beside):
        shown = str(out) if path == out else f"{out}: {path.name}, which goes beside it,"
        with suppress(OSError):  # it is not there; opening it reports any other problem
            state = path.stat()
            if stat.S_ISDIR(state.st_mode):
                raise UsageError(f"{out}: this is a folder" if path == out else f"{shown} is a folder")
            if taken := next((each for each in read if each.is_file(state)), None):
                raise UsageError(
                    f"{out}: this is {taken.what} itself; write to another file"
                    if path == out
                    else f"{shown} is {taken.what} itself; give the output another name"
                )
    for folder in dict.fromkeys((out.parent, real(out).parent)):
        if not os.path.isdir(folder):  # noqa: PTH112 Path's raises where a part of the name is too long
            raise UsageError(f"{out}: there is no folder {folder}")
    if os.path.islink(real(out)):  # noqa: PTH114
        raise UsageError(f"{out}: this link leads to itself")


def _check_lengths(out: Path, paths: Iterable[Path]) -> None:
    """Raise UsageError if a name is longer than the file system allows."""
    name_limit, path_limit = 255, 4096
    with suppress(OSError, ValueError, AttributeError):
        name_limit = os.pathconf(out.parent, "PC_NAME_MAX")
        path_limit = os.pathconf(out.parent, "PC_PATH_MAX")
    over = max(len(os.fsencode(path.name)) - name_limit for path in paths)
    over = max(over, *(len(os.fsencode(path)) + 1 - path_limit for path in paths))
    if over > 0:
        kind = ("characters" if out.name.isascii() else "bytes").removesuffix("s" if over == 1 else "")
        longest = max(paths, key=lambda path: len(path.name)).name.removeprefix(out.name)
        raise UsageError(
            f"{out}: this name must be {over} {kind} shorter, to leave room for {longest or 'all of it'}"
            f" in a name of at most {name_limit} bytes"
        )


def check_folder(*outs: Path) -> None:
    """Try whether files can be made beside these; raise SafeguardError, saying why, if not."""
    for folder, out in {out.parent: out for out in outs}.items():
        try:
            with draft(out):
                pass
        except OSError as problem:
            raise SafeguardError(f"{folder}: no file can be made there: {problem.strerror or problem}") from problem


def real(out: Path) -> Path:
    """Return the file that a symlink `out` leads to, even if it does not exist yet; else `out` itself."""
    return Path(os.path.realpath(out)) if os.path.islink(out) else out  # noqa: PTH114


def descriptor(path: Path) -> int | None:
    """Return the number of the open file that a path such as /dev/stdout or /dev/fd/3 means; None for other paths."""
    for _ in range(_MOST_LINKS):
        name = str(Path(os.path.realpath(path.parent)) / path.name)  # its own link, not followed, leads to a file
        if name in _STREAMS:
            return _STREAMS[name]
        if (found := _DESCRIPTOR.fullmatch(name)) and found[1] in (None, str(os.getpid())):
            return int(found[2])
        try:
            path = Path(name).parent / Path(name).readlink()
        except (OSError, ValueError):
            return None
    return None


def open_stream(path: Path, read: Iterable[Used]) -> BinaryIO:
    """Open a path for writing if `is_stream` is true for it; raise UsageError if it is read, or read-only."""
    if (number := descriptor(path)) is None:
        return path.open("wb", buffering=0)
    _check_descriptor(path, number, read)
    stream = os.fdopen(os.dup(number), "wb", buffering=0)  # reopened, a file would be written from its start
    stream.name = str(path)
    return stream


def _check_descriptor(path: Path, number: int, read: Iterable[Used]) -> None:
    try:
        state, writes = os.fstat(number), _writes(number)
    except OSError as problem:
        raise UsageError(f"{path}: {problem.strerror}") from problem
    if not writes:
        raise UsageError(f"{path}: this is open for reading only")
    if taken := next((each for each in read if each.is_file(state)), None):
        raise UsageError(f"{path}: this is {taken.what} itself; write to another file")


def _writes(number: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def is_stream(path: Path) -> bool:
    """Return whether writing to `path` goes into an open file, a device or a named pipe."""
    if descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # it is not there, or cannot be: opening it reports that
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)

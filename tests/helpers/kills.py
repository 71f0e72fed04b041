"""Kill work as SIGKILL does, at the n-th step that changes files on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = (
    *((Path, name) for name in ("replace", "unlink", "open", "symlink_to")),
    *((os, name) for name in ("open", "write", "fsync", "ftruncate", "symlink")),
)


def steps_of(work: Callable[[], object]) -> int:
    """Do the work, and return how many steps it has if it is not killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        taken: list[None] = []
        _count(lambda: taken.append(None))
        work()
        os.write(writing, str(len(taken)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as told:
        return int(told.read())


def killed_at(nth: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that is killed before step `nth`, counted from 0; return False if it has fewer steps."""
    child = os.fork()
    if not child:
        steps = iter(range(nth))
        _count(lambda: None if next(steps, None) is not None else os._exit(9))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def _count(step: Callable[[], object]) -> None:
    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            step()
            return real(*given, **named)

        return call

    for owner, name in STEPS:
        setattr(owner, name, counted(getattr(owner, name)))

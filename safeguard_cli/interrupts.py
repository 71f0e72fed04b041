"""Ctrl-C and SIGTERM: raised at once, except while llama.cpp works, when its work is broken off first.

Python runs a signal's handler only between two of its own instructions, so a decode of half a minute would delay it,
and an exception raised inside a callback from C would be swallowed. A thread that the signal itself wakes therefore
sets a flag which llama.cpp looks at between two operations, and `held` puts the exception off until it has returned.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# llama.cpp's abort callback is C's strlen on this buffer: 0 means go on, 1 stop. No Python runs between operations.
FLAG = ctypes.create_string_buffer(2)

_pending: int | None = None
_holding = False


class Interrupted(BaseException):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def listen() -> None:
    """Handle the signals from now on; the second one ends the process at once."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, _handle)


def _watch(reader: int) -> None:
    while number := os.read(reader, 1):
        if number[0] in SIGNALS:
            FLAG[0] = b"\1"


def _handle(number: int, _: object) -> None:
    global _pending
    if _pending is not None:
        os._exit(128 + number)
    _pending = number
    if not _holding:
        raise Interrupted(number)


@contextmanager
def held() -> Iterator[None]:
    """Within it a signal only sets the flag; Interrupted is raised on leaving."""
    global _holding
    _holding = True
    try:
        yield
    finally:
        _holding = False
    if _pending is not None:
        raise Interrupted(_pending)


def pending() -> bool:
    """Whether a signal waits to be raised."""
    return _pending is not None

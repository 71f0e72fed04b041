"""The standard streams, made safe to use: always open, and wide enough for every character."""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
import time
from contextlib import suppress
from typing import Any

from safeguard_cli.errors import SafeguardError
from safeguard_cli.terminal import ClosedStream

PATIENCE = 5.0  # seconds that a reader of standard error has to make room
_NARROW = "safeguard-narrow"
_PLAIN = {"·": "-", "…": ".", "–": "-", "→": ">", "×": "x", "−": "-"}
PIECE = 512  # bytes that a pipe with room takes at once, by POSIX


def prepare() -> None:
    """Make the three standard streams safe. Call it once, before anything is read or printed.

    A stream that was closed when the program began is opened on the null device. Otherwise one of our files would get
    its descriptor, and C code would print into that file. Reading or writing such a stream raises UsageError, but
    messages to a closed or full standard error are dropped, since they are no reason to lose data.
    """
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name) == "0":  # a terminal without a size: nothing could be fitted to it
            del os.environ[name]
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor: this one
            os.set_inheritable(descriptor, True)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(ClosedStream("standard input")))
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(ClosedStream("standard output")))
    elif (stdout := sys.__stdout__) is sys.stdout and stdout:  # a caller's own streams stay
        sys.stdout = _text(stdout.encoding, _Output(1, "stdout"), stdout.isatty())
    if sys.stderr is None:
        sys.stderr = _text("utf-8", _Messages(_message_descriptor(), "stderr"), True)
    elif (stderr := sys.__stderr__) is sys.stderr and stderr:
        sys.stderr = _text(stderr.encoding, _Messages(_message_descriptor(), "stderr"), True)


def give_up_output() -> None:
    """Discard what is still buffered for standard output: it cannot be written, and Python would complain at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):
        os.dup2(null, sys.stdout.fileno())
    sys.stdout = os.fdopen(null, "w")


def _text(encoding: str, raw: io.FileIO, line_buffering: bool) -> io.TextIOWrapper:
    """Return a text stream that replaces a character missing in its encoding by one of the same width or an escape."""
    codecs.register_error(_NARROW, _narrow)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, _NARROW, line_buffering=line_buffering)


def _narrow(problem: UnicodeError) -> tuple[str | bytes, int]:
    """Handle a codec's error: turn our own punctuation, which has one cell in a display, into ASCII."""
    if isinstance(problem, UnicodeEncodeError) and (plain := _PLAIN.get(problem.object[problem.start])):
        return plain, problem.start + 1
    return codecs.backslashreplace_errors(problem)


class _Standard(io.FileIO):
    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.name = f"<{name}>"  # as Python itself names them


class _Output(_Standard):
    """Standard output: a failed write ends the command with a sentence."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise SafeguardError(f"standard output cannot be written: {error.strerror}") from None


class _Messages(_Standard):
    """Standard error: what cannot be written is dropped, even if a reader is there but does not read."""

    _patience = PATIENCE

    def write(self, data: Any) -> int:
        rest, deadline = memoryview(data), time.monotonic() + self._patience
        with suppress(OSError):
            while rest and self._has_room(deadline - time.monotonic()):
                if taken := super().write(rest[:PIECE]):
                    rest, self._patience = rest[taken:], PATIENCE
                    deadline = time.monotonic() + PATIENCE
                elif time.monotonic() >= deadline:
                    break
                else:
                    time.sleep(0.02)  # a terminal has room, but not enough
        if rest:
            self._patience = 0.0  # waiting was in vain: do not wait again until something can be written
        return len(data)

    def _has_room(self, seconds: float) -> bool:
        """Wait for room in a full pipe or a stopped terminal, and return whether there is some."""
        try:
            return bool(select.select([], [self], [], max(0.0, seconds))[1])
        except (OSError, ValueError):  # too many descriptors for select, or one that it cannot wait for
            return True


def _message_descriptor() -> int:
    """Return the descriptor for messages; a terminal is opened anew, so that writing to a stopped one never waits."""
    with suppress(OSError, AttributeError):
        if os.isatty(2):
            return os.open(os.ttyname(2), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    return 2

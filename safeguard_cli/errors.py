"""Failures that end a command, and the exit codes that users rely on."""

from __future__ import annotations

OK = 0
FATAL = 1
USAGE = 2
ROWS_IN_ERROR = 3
RESUME_REFUSED = 4
CHECK_FAILED = 5
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143


class SafeguardError(Exception):
    """A failure with a sentence for the user: what happened, where, what to do. Ends the command with `exit_code`."""

    exit_code = FATAL


class UsageError(SafeguardError):
    """The command was called wrongly; nothing was loaded or written."""

    exit_code = USAGE


class EngineError(SafeguardError):
    """The engine cannot do what it was asked; the run ends."""


class Interrupted(BaseException):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number

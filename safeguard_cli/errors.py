"""The failures that end a command, and the exit codes that users rely on."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

OK = 0
FATAL = 1
USAGE = 2
ROWS_IN_ERROR = 3
RESUME_REFUSED = 4
CHECK_FAILED = 5
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143

_FROM_BEST_TO_WORST = (OK, ROWS_IN_ERROR, USAGE, RESUME_REFUSED, FATAL)
LONG = 300  # characters of a name that a sentence shows


class SafeguardError(Exception):
    """A failure in sentences for the user: what happened, where, what to do. Ends the command with `exit_code`.

    Each sentence is shown on its own line; a line end within one (perhaps from a file's name) is shown as an escape.
    """

    exit_code = FATAL

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)

    def __str__(self) -> str:
        return "\n".join(self.args)

    def of(self, name: str) -> str:
        """Return the sentences as one that begins with a file's name, once."""
        sentence = "; ".join(self.args)
        return sentence if sentence.startswith(name) else f"{name}: {sentence}"


class UsageError(SafeguardError):
    """The command was called incorrectly; nothing was loaded or written."""

    exit_code = USAGE


class EngineError(SafeguardError):
    """The engine cannot do what it was asked; the run ends."""


def worst(codes: Iterable[int]) -> int:
    """Return the worst of several exit codes: that of a failure, then of a refusal, then of rows in error."""
    return max(
        codes, key=lambda code: _FROM_BEST_TO_WORST.index(code) if code in _FROM_BEST_TO_WORST else 99, default=OK
    )


class Interrupted(BaseException):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = INTERRUPTED if number == signal.SIGINT else TERMINATED


@contextmanager
def sentences(what: object = "the system") -> Iterator[None]:
    """Raise an OSError as a SafeguardError that names the file, or else `what`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SafeguardError(told(error, what)) from error


def told(error: OSError, what: object = "the system") -> str:
    """Return a sentence on an OSError that names its file, or else `what`."""
    if isinstance(error, FileNotFoundError) and not error.filename and not Path().stat().st_nlink:
        return "the working folder was deleted: start in another one, or give whole paths"
    return f"{error.filename or what}: {error.strerror or error}"


def missing_extra(what: str, extra: str) -> SafeguardError:
    """Return the failure for a missing package: `what` needs it, the extra `extra` installs it."""
    return SafeguardError(f"{what}: in a clone of safeguard, pip install '.[{extra}]'")


def no_file(name: str | Path) -> UsageError:
    """Return the failure for an input that is no file, of a command that takes one."""
    what = "this is a folder, and this command takes one file" if Path(name).is_dir() else "there is no such file"
    return UsageError(f"{name}: {what}")


def quoted(name: str) -> str:
    """Return a name as a sentence shows it: in quotes, of bounded length, without control characters."""
    return repr(shortened(name))


def shortened(name: str) -> str:
    """Return a name, cut where it is too long for a sentence."""
    return name if len(name) <= LONG else name[:LONG] + "…"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that is spelled most like `name`, ignoring case; None where none is close."""
    from difflib import get_close_matches  # not at the top: --help does without it

    plain = {known.strip().casefold(): known for known in reversed([*names])}
    near = get_close_matches(name[:LONG].strip().casefold(), plain, 1)
    return plain[near[0]] if near else None

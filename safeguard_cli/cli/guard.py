"""Runs a command; a failure in it becomes a sentence on standard error and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

import typer

from safeguard_cli import errors
from safeguard_cli.cli import streams


def run(command: Callable[[], int], debug: bool = False) -> None:
    """Run a command as `guarded` does, and exit with its code."""
    raise typer.Exit(guarded(command, debug))


def guarded(command: Callable[[], int], debug: bool) -> int:
    """Run a command and return its exit code; a failure becomes one sentence on standard error and an exit code."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        streams.give_up_output()  # our reader has seen enough
        return errors.BROKEN_PIPE
    except errors.Interrupted as stop:
        return stop.exit_code
    except Exception as error:
        return _told(error, debug)


def _told(error: Exception, debug: bool) -> int:
    """Print a failure as a sentence, with `debug` after the traceback, and return its exit code."""
    from safeguard_cli.terminal import fail, note

    try:
        sys.stdout.flush()
    except (OSError, errors.SafeguardError):
        streams.give_up_output()
    if debug:
        for line in "".join(traceback.format_exception(error)).splitlines():
            note(line)
    if isinstance(error, OSError):
        fail(errors.told(error))
        return errors.FATAL
    if not isinstance(error, errors.SafeguardError):
        fail(f"internal error: {type(error).__name__}: {error}; run again with --debug for the traceback")
        return errors.FATAL
    for line in error.args:
        fail(line)
    return error.exit_code

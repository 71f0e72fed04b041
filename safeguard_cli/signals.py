"""The signals that ask a command to end: raised as Interrupted at once, or after the row that is being written."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from safeguard_cli.errors import Interrupted

STOPPING = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class _Unbroken:
    """A `with` block that a signal does not interrupt: it is raised at the block's end."""

    def __init__(self) -> None:
        self._held = False
        self._number: int | None = None

    def __enter__(self) -> None:
        self._held = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._held = False
        if kind is None:
            self.give_up()

    def give_up(self) -> None:
        """Raise Interrupted if a signal is waiting."""
        if self._number is not None:
            number, self._number = self._number, None
            raise Interrupted(number)

    def stop(self, number: int, _: FrameType | None) -> None:
        """Handle a signal: raise the first one; let the second one end the process at once."""
        for each in STOPPING:
            if signal.getsignal(each) == self.stop:
                signal.signal(each, signal.SIG_DFL)
        self._number = number
        if not self._held:
            self.give_up()


UNBROKEN = _Unbroken()


def install() -> None:
    """Have SIGINT, SIGTERM and SIGHUP raise Interrupted in the main thread from now on.

    A signal that was ignored when the program began stays ignored, as `nohup` and background jobs of shells expect.
    """
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, UNBROKEN.stop)

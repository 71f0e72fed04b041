"""Count the rows of an input without holding up the run: a few before it begins, the rest beside its work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

AT_ONCE = 1000  # with more rows than this, their number is not known when a run begins
# So many rows take half a millisecond; then Python's lock and the processor are the run's for so many seconds.
# Without the pauses, the demo model labels half as many rows meanwhile.
_SLICE, _PAUSE = 200, 0.002


class Counting:
    """Counts rows: `counts` yields how many there are so far, of which at most `most` matter."""

    def __init__(self, counts: Iterable[int], most: int | None = None) -> None:
        self.rows: int | None = None  # the number of rows, when it is known
        self._so_far = 0
        self._counts = _up_to(counts, most)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def at_once(self) -> int | None:
        """Return the number of rows, None if there are more than AT_ONCE."""
        while self._so_far <= AT_ONCE and self._next():
            pass
        return self.rows

    def all(self) -> int:
        """Return the number of rows, as long as that takes."""
        while self._next():
            pass
        return self._so_far

    def go_on(self, tell: Callable[[int], None]) -> None:
        """Count the rest in a thread, and tell how many rows there are; whoever reads the rows sees what fails here."""

        def count() -> None:
            with suppress(Exception):
                while self._next():
                    if self._so_far % _SLICE == 0 and self._over.wait(_PAUSE):
                        return
                tell(self._so_far)

        if self.rows is None and self._thread is None and not self._over.is_set():
            self._thread = threading.Thread(target=count, name="counting", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Count no more."""
        self._over.set()

    def _next(self) -> bool:
        """Count a row; return False if there is none."""
        rows = next(self._counts, None)
        if rows is None:
            self.rows = self._so_far
            return False
        self._so_far = rows
        return True


def _up_to(counts: Iterable[int], most: int | None) -> Iterator[int]:
    for rows in counts:
        yield rows if most is None else min(rows, most)
        if most is not None and rows >= most:
            return

"""How many rows a server works on at once: as many as make it faster, and fewer where it says stop."""

from __future__ import annotations

MOST = 256  # rows at one server at once, whatever it promises
START = 8
GROWTH = 1.5  # from one limit to the next
WORTH = 1.05  # what that must bring to go on rising
FELL = 0.7  # of the best rate: then look anew
_ROWS = 3  # finished rows that a measurement takes, for each row at once


class Pace:
    """A server's limit of rows at once; `running` of them are under way.

    While the rate of finished work grows with the limit, the limit rises; where it does not, more rows at once would
    only wait longer. A refusal takes a third of them away and lets one after the other come back. Times are in seconds.
    """

    def __init__(self, most: int = MOST, start: int = START, fixed: int | None = None) -> None:
        self._most = most
        self._fixed = fixed is not None
        self.limit = fixed or min(start, most)
        self.running = 0
        self._rising, self._best, self._before = True, 0.0, self.limit
        self._passing = 1  # rows that finish before a measurement begins: they were begun under another limit
        self._rows, self._work, self._began = 0, 0.0, 0.0
        self._refused = float("-inf")

    @property
    def room(self) -> int:
        return max(0, self.limit - self.running)

    def finished(self, now: float, work: float = 1.0) -> None:
        """A row was decided. `work` is about how much of it there was: rows differ."""
        if self._fixed:
            return
        if self._passing:
            self._passing -= 1
            self._began = now
            return
        self._rows += 1
        self._work += work
        if self._rows >= _ROWS * self.limit and now > self._began:
            rate = self._work / (now - self._began)
            self._rows, self._work, self._began = 0, 0.0, now
            self._adjust(rate)

    def refused(self, now: float) -> None:
        """The server asked for less; several refusals within a second are one."""
        if self._fixed or now - self._refused < 1.0:
            return
        self._refused = now
        self._rising, self._best = False, 0.0
        self._change(max(1, self.limit * 2 // 3))

    def _adjust(self, rate: float) -> None:
        if self._rising and rate > self._best * WORTH and self.limit < self._most:
            self._best, self._before = rate, self.limit
            self._change(min(self._most, int(self.limit * GROWTH + 0.5)))
        elif self._rising:
            self._rising = False
            if rate < self._best:
                self._change(self._before)
            self._best = max(rate, self._best)
        elif rate < self._best * FELL:
            self._rising, self._best = True, 0.0
            self._change(max(1, self.limit * 2 // 3))
        else:
            self._best = max(rate, self._best)
            if self._refused > float("-inf"):
                self.limit = min(self._most, self.limit + 1)

    def _change(self, limit: int) -> None:
        self.limit = self._passing = limit
        self._rows, self._work = 0, 0.0

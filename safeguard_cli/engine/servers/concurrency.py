"""How many rows a server works on at once: as many as make it faster, and fewer after a refusal."""

from __future__ import annotations

MOST = 256  # rows at one server at once, whatever it promises
START = 8
GROWTH = 1.5  # from one limit to the next
WORTH = 1.05  # the gain in rate that a step must bring for the limit to rise further
FELL = 0.7  # of the best rate: below it, the search starts anew
_ROWS = 3  # finished rows in a measurement, for each row at once


class Pace:
    """A server's limit of rows at once; `running` of them are under way.

    The limit rises while the rate of finished work grows with it; beyond that, more rows at once would only wait
    longer. A refusal lowers the limit by a third, after which it rises one by one. Times are in seconds.
    """

    def __init__(self, most: int = MOST, start: int = START, fixed: int | None = None) -> None:
        self._most = most
        self._fixed = fixed is not None
        self.limit = fixed or min(start, most)
        self.running = 0
        self._rising, self._best, self._before = True, 0.0, self.limit
        self._passing = 1  # rows to finish before a measurement begins: they started under another limit
        self._rows, self._work, self._began = 0, 0.0, 0.0
        self._refused = float("-inf")

    @property
    def room(self) -> int:
        return max(0, self.limit - self.running)

    def finished(self, now: float, work: float = 1.0) -> None:
        """Note that a row was decided. `work` is about how much work it took: rows differ."""
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
        """Note that the server refused a row; several refusals within a second count as one."""
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

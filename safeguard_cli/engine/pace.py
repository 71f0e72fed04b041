"""How many rows a server works on at once: as many as make it faster, and fewer where it says stop."""

from __future__ import annotations

MOST = 256  # rows at one server at once, whatever it promises
START = 8
WORTH = 1.1  # twice the rows at once must bring this much, or it is enough
FELL = 0.7  # of the best rate: then look anew
_ROWS = 3  # finished rows that a measurement takes, for each row at once


class Pace:
    """A server's limit of rows at once; `running` of them are under way.

    While the rate of finished rows grows with the limit, the limit doubles; where it does not, more rows at once would
    only wait longer. A refusal takes a third of them away and lets one after the other come back. Times are in seconds.
    """

    def __init__(self, most: int = MOST, start: int = START, fixed: int | None = None) -> None:
        self._most = most
        self._fixed = fixed is not None
        self.limit = fixed or min(start, most)
        self.running = 0
        self._rising, self._best = True, 0.0
        self._finished, self._began = 0, 0.0
        self._refused = float("-inf")

    @property
    def room(self) -> int:
        return max(0, self.limit - self.running)

    def finished(self, now: float) -> None:
        """A row was decided."""
        if self._fixed:
            return
        if not self._began:
            self._began = now
            return
        self._finished += 1
        if self._finished >= _ROWS * self.limit and now > self._began:
            self._adjust(self._finished / (now - self._began))
            self._finished, self._began = 0, now

    def refused(self, now: float) -> None:
        """The server asked for less; several refusals within a second are one."""
        if self._fixed or now - self._refused < 1.0:
            return
        self._refused = now
        self.limit = max(1, self.limit * 2 // 3)
        self._rising, self._best = False, 0.0
        self._finished, self._began = 0, 0.0

    def _adjust(self, rate: float) -> None:
        if self._rising and rate > self._best * WORTH:
            self._best = rate
            self.limit = min(self._most, self.limit * 2)
        elif self._rising:
            self._rising, self._best = False, max(rate, self._best)
        elif rate < self._best * FELL:
            self._rising, self._best = True, 0.0
            self.limit = max(1, self.limit // 2)
        else:
            self._best = max(rate, self._best)
            if self._refused > float("-inf"):
                self.limit = min(self._most, self.limit + 1)

"""What an engine says of itself while it works: how much is loaded, read and written, inside a long batch too."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Stage = Literal["loading", "policy", "rows"]


@dataclass(frozen=True, slots=True)
class Report:
    """How far an engine is; the counts are those since it was started.

    `loaded` is the share of the model file that is loaded. Of a policy that is being read now, `policy` tokens of
    `policy_size` are read; without one both are 0. `kept` tokens of policies were read by an earlier run.
    `under_way` are the rows being decided; of these and of those decided before, the model `read` so many tokens and
    `written` are those that it chose freely.
    """

    loaded: float = 1.0
    policy: int = 0
    policy_size: int = 0
    kept: int = 0
    under_way: int = 0
    read: int = 0
    written: int = 0

    @property
    def stage(self) -> Stage:
        """What is being done."""
        return "loading" if self.loaded < 1 else "policy" if self.policy_size else "rows"


Listen: TypeAlias = Callable[[Report], None]

SECONDS = 0.25  # between two reports


class Reporter:
    """Passes Reports on a few times a second, and makes no others."""

    def __init__(self, listen: Listen, clock: Callable[[], float] = time.monotonic) -> None:
        self._listen, self._clock, self._next = listen, clock, 0.0

    def offer(self, make: Callable[[], Report]) -> None:
        """Pass on what `make` returns, if it is time to."""
        if self._clock() >= self._next:
            self.now(make())

    def now(self, report: Report) -> None:
        """Pass a Report on."""
        self._next = self._clock() + SECONDS
        self._listen(report)

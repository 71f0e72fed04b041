"""How an engine reports its progress: what is loaded, read and written, during a long batch too."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Stage = Literal["loading", "policy", "rows"]


@dataclass(frozen=True, slots=True)
class Report:
    """An engine's progress; counts begin with its start.

    `loaded` is the share of the model file that is loaded. `policy` of `policy_size` tokens are read of the policy that
    is being read; without one both are 0. `kept` counts tokens of policies that an earlier run read. `under_way` counts
    rows being decided. For these and the rows decided before, `read` counts the tokens that the model read, `written`
    those that it chose freely.
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
        """What the engine is doing."""
        return "loading" if self.loaded < 1 else "policy" if self.policy_size else "rows"


Listen: TypeAlias = Callable[[Report], None]

SECONDS = 0.25  # between two reports


class Reporter:
    """Passes on a few Reports a second, and has no others made."""

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

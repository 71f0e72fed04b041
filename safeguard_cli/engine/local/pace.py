"""Keeps decoding fast beside other programs.

ggml's threads meet some thousand times a decode, and OpenMP has those that wait spin for up to 10 ms. While a core is
theirs that is the fastest way. When another program has taken the core of the thread that all wait for, they burn what
it needs. libgomp reads how long to spin only when it is loaded, but spins shortly as long as it has more threads in all
than there are cores: a team of idle threads makes it do so, and their end undoes it. Neither changes a result.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

import psutil

INTERVAL = 0.5  # seconds between two looks at the machine
LOOKS = 4  # a wait too long costs far more than one too short: it spins again only after so many quiet looks
SLACK = 0.2  # of a core that other programs may take: up to here spinning is faster all the same

_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")  # a virtual machine's stolen time is others' too


@dataclass(frozen=True, slots=True)
class Look:
    """CPU seconds since the start that the cores of this process were `busy`, and that it took itself (`own`)."""

    at: float
    busy: float
    own: float


def look() -> Look | None:
    """Return what the cores that this process may run on have done; None where the system does not tell."""
    try:
        cores = psutil.cpu_times(percpu=True)
        mine = [cores[core] for core in _allowed()]
    except (OSError, RuntimeError, IndexError, psutil.Error):
        return None
    busy = sum(getattr(core, name, 0.0) for core in mine for name in _BUSY)
    return Look(time.monotonic(), busy, time.process_time())


def used_by_others(before: Look, now: Look) -> float:
    """Return how many cores other programs kept busy between two looks."""
    seconds = now.at - before.at
    return max(0.0, now.busy - before.busy - (now.own - before.own)) / seconds if seconds > 0 else 0.0


def crowded(others: Iterable[float], threads: int, cores: int) -> bool:
    """Whether threads lose their cores now and then, by how many cores others used at the last looks."""
    return any(used + threads > cores + SLACK for used in others)


class Pace:
    """Has ggml's threads wait as the load of the machine asks for, until it is closed.

    `library` is llama.cpp's. Nothing is done where it has no OpenMP, for one thread, and where the load is unknown.
    """

    def __init__(self, library: ctypes.CDLL, threads: int, looked: Callable[[], Look | None] = look) -> None:
        self._library, self._threads, self._look = library, threads, looked
        self._cores = len(_allowed())
        self._closed = threading.Event()
        self._follower: threading.Thread | None = None
        self._idle: _IdleTeam | None = None
        if threads > 1 and hasattr(library, "GOMP_parallel"):
            self._follower = threading.Thread(target=self._follow, daemon=True)
            self._follower.start()

    @property
    def crowded(self) -> bool:
        """Whether threads wait without spinning now."""
        return self._idle is not None

    def close(self) -> None:
        """Let threads wait as they did before; safe to call twice."""
        self._closed.set()
        if self._follower:
            self._follower.join()

    def __enter__(self) -> Pace:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _follow(self) -> None:
        others: deque[float] = deque(maxlen=LOOKS)
        before = self._look()
        while before and not self._closed.wait(INTERVAL) and (now := self._look()):
            others.append(used_by_others(before, now))
            before = now
            self._switch(crowded(others, self._threads, self._cores))
        self._switch(False)

    def _switch(self, on: bool) -> None:
        if on and not self._idle:
            # All of libgomp's threads count, with the first of the process and without the ones that start a team.
            self._idle = _IdleTeam(self._library, max(2, self._cores - self._threads + 2))
        elif self._idle and not on:
            self._idle.end()
            self._idle = None


class _IdleTeam:
    """Threads of OpenMP that sleep until `end`; libgomp ends them with the thread that started them."""

    def __init__(self, library: ctypes.CDLL, size: int) -> None:
        self._ended, made = threading.Event(), threading.Event()

        def own() -> None:
            nothing = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p)  # some function without effect
            library.GOMP_parallel(nothing, None, ctypes.c_uint(size), ctypes.c_uint(0))
            made.set()
            self._ended.wait()

        self._owner = threading.Thread(target=own, daemon=True)
        self._owner.start()
        made.wait()

    def end(self) -> None:
        self._ended.set()
        self._owner.join()


def _allowed() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))

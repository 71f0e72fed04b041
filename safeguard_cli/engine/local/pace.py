"""Keeps decoding fast beside other programs.

ggml's threads meet some thousand times a decode, and OpenMP has those that wait spin for up to 10 ms. While a core is
theirs that is the fastest way. When another program has taken the core of the thread that all wait for, they burn what
it needs: a decode takes 2 to 40 times as long. libgomp reads how long to spin only when it is loaded, but spins for
only some microseconds as long as it has more threads in all than there are cores: a team of idle threads makes it do
so, and their end undoes it. Where others leave few cores, fewer threads may be faster still. Neither changes a result.
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
SLACK = 0.4  # of a core that others may take: measured, spinning is faster up to 0.5, and far slower from 0.7 on
KEEP, TRY = 15.0, 1.0  # seconds of decoding with a number of threads, and of trying the other one
YIELD = 0.8  # of the CPU time of threads that wait for each other on shared cores; the rest they lose by it
_BETTER = 1.1  # times as fast as what it replaces

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


def fewer(others: Iterable[float], threads: int, cores: int) -> int:
    """Return how many threads the others leave a core for: at least one, and at least one less than all."""
    used = list(others)
    return min(threads - 1, max(1, round(cores - sum(used) / max(1, len(used)))))


class Choice:
    """Chooses between all threads and fewer by the CPU time that the system grants to either.

    How it shares cores differs: between processes of one session each thread has its share, so that more of them get
    more; between sessions or control groups each of these has, and a second thread may only slow the first. No rule
    knows this beforehand. CPU time tells it whatever is in the batches that are compared.
    """

    def __init__(self) -> None:
        self.few = False
        self._began: tuple[float, float] | None = None  # when the present number began, in time and CPU time
        self._period = TRY
        self._kept: float | None = None  # what the other number gives, while this one is tried

    def ask(self, at: float, own: float) -> bool:
        """Return whether the next decode is to use fewer threads, at a time and with so much CPU time taken."""
        if self._began and at - self._began[0] >= self._period:
            given = (own - self._began[1]) / (at - self._began[0]) * (1.0 if self.few else YIELD)
            if self._kept is None:
                self._kept, self._period, self.few = given, TRY, not self.few
            else:
                self.few = self.few if given > _BETTER * self._kept else not self.few
                self._kept, self._period = None, KEEP
            self._began = None
        self._began = self._began or (at, own)
        return self.few


class Pace:
    """Has ggml's threads wait as the load of the machine asks for, until it is closed.

    `library` is llama.cpp's. With `follow`, `threads` is the most threads, else their number. Nothing is done for one
    thread, and where the load is unknown. Threads of a library without OpenMP always spin: there can be fewer of them.
    """

    def __init__(
        self, library: ctypes.CDLL, threads: int, follow: bool = False, looked: Callable[[], Look | None] = look
    ) -> None:
        self._library, self._all, self._follow, self._look = library, threads, follow, looked
        self._cores, self._few = len(_allowed()), threads
        self.crowded = False  # whether others need the cores now
        self._choice: Choice | None = None
        self._closed = threading.Event()
        self._sleeps = hasattr(library, "GOMP_parallel")
        self._idle: _IdleTeam | None = None
        self._watcher: threading.Thread | None = None
        if threads > 1 and (self._sleeps or follow):
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()

    def threads(self) -> int:
        """Return how many threads the next decode is to use; ask before each."""
        if not (self._follow and self.crowded):
            self._choice = None
            return self._all
        self._choice = self._choice or Choice()
        few = not self._sleeps or self._choice.ask(time.monotonic(), time.process_time())
        return self._few if few else self._all

    def close(self) -> None:
        """Let threads wait as they did before; safe to call twice."""
        self._closed.set()
        if self._watcher:
            self._watcher.join()

    def __enter__(self) -> Pace:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _watch(self) -> None:
        others: deque[float] = deque(maxlen=LOOKS)
        before = self._look()
        while before and not self._closed.wait(INTERVAL) and (now := self._look()):
            others.append(used_by_others(before, now))
            before = now
            self._few = fewer(others, self._all, self._cores)
            self._switch(crowded(others, self._all, self._cores))
        self._switch(False)

    def _switch(self, on: bool) -> None:
        self.crowded = on
        if on and self._sleeps and not self._idle:
            # All of libgomp's threads count: the process's first one, and each that a team has beside who starts it.
            self._idle = _IdleTeam(self._library, max(2, self._cores - self._all + 2))
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

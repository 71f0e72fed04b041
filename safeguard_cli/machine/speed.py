"""Measures how fast one setting of slots, threads and batch labels rows, on the engine that runs use."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle, pairwise, product
from pathlib import Path

import psutil

from safeguard_cli.engine.local.process import EngineSpec, LocalEngine
from safeguard_cli.errors import EngineError
from safeguard_cli.prompt.contract import Prompt
from safeguard_cli.terminal import note

ROUNDS = 5  # the most parts that a measurement is divided into for its median
TIE = 0.03  # two runs of the same setting differ by so much: a smaller difference between settings means nothing


@dataclass(frozen=True, slots=True)
class Setting:
    """What can be set for a machine: rows decoded together, CPU threads, tokens decoded at once.

    `engine` is the library that decodes, "" where there is no choice.
    """

    slots: int
    threads: int
    batch: int
    engine: str = ""

    @property
    def options(self) -> str:
        """The options of `safeguard label` that choose this setting."""
        engine = f"--engine {self.engine} " if self.engine else ""
        return f"{engine}--slots {self.slots} --threads {self.threads} --batch {self.batch}"


@dataclass(frozen=True, slots=True)
class Round:
    """A part of a measurement: the rows that ended in it, its seconds, the tokens decoded in it."""

    rows: int
    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured of a setting.

    `rounds` all have the same number of rows. `load` is the seconds to load, `first` those from there until the first
    row was done, its policy decoded. `memory` is the engine's peak resident bytes, `generated` the tokens a row.
    """

    setting: Setting
    rounds: tuple[Round, ...]
    load: float
    first: float
    memory: int
    generated: float

    @property
    def seconds(self) -> float:
        """Seconds of the median round."""
        return statistics.median(part.seconds for part in self.rounds)

    @property
    def rows_per_second(self) -> float:
        return self.rounds[0].rows / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """All tokens decoded a second, for whatever purpose; the median of the rounds."""
        return statistics.median(part.tokens / part.seconds for part in self.rounds)

    @property
    def wave(self) -> float:
        """Seconds that one row for each slot takes."""
        return self.setting.slots / self.rows_per_second

    def seconds_for(self, rows: int, tokens_per_row: float) -> float:
        """Return how long so many rows will take with so many decoded tokens each, the start included."""
        return self.load + (self.first + (rows - 1) * tokens_per_row / self.tokens_per_second if rows else 0.0)


def best(figures: Sequence[Figure]) -> Figure:
    """Return the fastest; among those within TIE of it, the one with the least memory and the fewest threads.

    The fastest in tokens/s, not rows/s: settings see more or fewer of the rows, and some rows take many times as long.
    """
    least = (1 - TIE) * max(figure.tokens_per_second for figure in figures)
    good = [figure for figure in figures if figure.tokens_per_second >= least]
    return min(good, key=lambda figure: (figure.setting.slots, figure.setting.batch, figure.setting.threads))


def tokens_per_row(figures: Sequence[Figure]) -> float:
    """Return the tokens decoded for a row, over all that was measured."""
    parts = [part for figure in figures for part in figure.rounds]
    return sum(part.tokens for part in parts) / sum(part.rows for part in parts)


def sweep(
    slots: Sequence[int],
    threads: Sequence[int],
    batches: Sequence[int],
    attempt: Callable[[Setting], Figure | None],
    engines: Sequence[str] = ("",),
) -> None:
    """Try all `slots` with the first of `threads` and `batches`, then the others of these, each with the best so far.

    `engines` take turns, so that what changes on the machine meanwhile is the same for both. `attempt` measures a
    setting, or returns None if it cannot.
    """
    found: list[Figure] = []

    def try_one(setting: Setting) -> None:
        if figure := attempt(setting):
            found.append(figure)

    for count, engine in product(slots, engines):
        try_one(Setting(count, threads[0], batches[0], engine))
    for count in threads[1:] if found else ():
        try_one(replace(best(found).setting, threads=count))
    for count in batches[1:] if found else ():
        try_one(replace(best(found).setting, batch=count))


def measure(spec: EngineSpec, rows: Sequence[Sequence[Prompt]], seconds: float, name: str = "") -> Figure:
    """Label `rows` (each as its prompts) over and over for about `seconds`, and until one for each slot is done.

    The first row is labelled alone, since it decodes the policy. `name` is the engine of the Setting. Raise EngineError
    if the engine fails.
    """
    slots = spec.plan.slots
    waiting: dict[int, int] = {}
    ended: list[float] = []  # when rows ended, since the engine last reported how many tokens it had decoded
    generated = 0

    def enough() -> bool:
        return len(marks) > slots and marks[-1][0] - start >= seconds

    def prompts(engine: LocalEngine) -> Iterator[Prompt]:
        for number, row in enumerate(cycle(rows)):
            waiting[number] = len(row)
            for prompt in row:
                # When the engine asks for a prompt, it has just reported what it has decoded.
                marks.extend((at, engine.decoded_tokens) for at in ended)
                ended.clear()
                if enough():
                    return
                yield replace(prompt, row=number)

    begin = time.perf_counter()
    with LocalEngine(spec, note) as engine:
        loaded = time.perf_counter()
        for _ in engine.complete(iter(rows[-1])):
            pass
        start = time.perf_counter()
        marks = [(start, engine.decoded_tokens)]
        for completion in engine.complete(prompts(engine)):
            if completion.error or engine.deaths:
                raise EngineError(completion.error or "the engine died while it was measured")
            generated += completion.generated
            row = completion.prompt.row
            waiting[row] -= 1
            if not waiting[row]:
                del waiting[row]
                ended.append(time.perf_counter())
            if enough():
                break
        memory = peak_memory()
    setting = Setting(slots, spec.loading.threads, spec.plan.batch, name)
    done = len(marks) - 1 + len(ended)
    return Figure(setting, rounds(marks, slots), loaded - begin, start - loaded, memory, generated / done)


def rounds(marks: Sequence[tuple[float, int]], slots: int) -> tuple[Round, ...]:
    """Divide a measurement into equal rounds. `marks` are time and tokens decoded at its start and at each row's end.

    Rows of similar length end in waves, one row for each slot, so a round is whole waves. The first wave is left out if
    there are more: it reads all texts while none is decided yet.
    """
    done = len(marks) - 1
    begin = slots if done >= 2 * slots else 0
    waves = (done - begin) // slots
    count = min(ROUNDS, waves)
    step = waves // count * slots
    ends = [marks[begin + i * step] for i in range(count + 1)]
    return tuple(Round(step, after[0] - before[0], after[1] - before[1]) for before, after in pairwise(ends))


def peak_memory() -> int:
    """Return the peak resident bytes of the one running engine; if the system does not keep them, those of now."""
    (child,) = multiprocessing.active_children()
    with suppress(OSError):
        for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process(child.pid).memory_info().rss)

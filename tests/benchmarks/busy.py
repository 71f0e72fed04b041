"""Compares decoding with and without `engine/local/pace.py` while other programs keep cores busy.

    python tests/benchmarks/busy.py MODEL.gguf [--spinning 0,1,2,3] [--pairs 10] [--only steps|run] [--one] [--together]

For each number of spinning processes, pairs of measurements take turns in who goes first: `before`, in which threads
always spin, and `paced`. `--one` measures one thread too, which runs got that were started on a busy machine. `steps`
is the time of some steps of 16 rows, `run` that of labeling 64 short rows with the model loaded and the policy decoded;
what all runs give must be equal to the last digit. `others` are the cores that all other processes kept busy meanwhile:
on a quiet machine no more than were told to. The processes are in sessions of their own as those of other programs are,
between which Linux shares the cores where it groups by session; with `--together` they are in this one's. Times are
medians; the ratio is the median of the pairs' with its exact interval.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from safeguard_cli.engine.local.llama import C, LlamaModel
from safeguard_cli.engine.local.pace import INTERVAL, TRY, Pace, look, used_by_others
from safeguard_cli.engine.local.scheduler import Scheduler
from safeguard_cli.prompt.contract import Prompt
from safeguard_cli.run.prepare import load_policies, prepare
from safeguard_cli.run.settings import Settings

SETTLE = 4 * INTERVAL + 2 * TRY  # seconds until the load is known and both numbers of threads were tried
ROWS, SLOTS, CONTENT = 64, 16, (8, 40)  # tokens of a text, from and to
TOKEN = np.array([1000], np.int32)

Work = Callable[[], object]


@contextmanager
def spinning(count: int, together: bool) -> Iterator[None]:
    """Keep so many cores busy as long as this is open, each process in a session of its own unless `together`."""
    found: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            # They end by themselves when this process is killed.
            command = [sys.executable, "-c", f"import os\nwhile os.getppid() == {os.getpid()}: pass"]
            found.append(subprocess.Popen(command, start_new_session=not together))
        yield
    finally:
        for process in found:
            process.kill()
            process.wait()


class Bench:
    """A loaded model, and rows for it."""

    def __init__(self, model: Path, threads: int, reasoning: int, folder: Path) -> None:
        policy = folder / "p.md"
        policy.write_text("Answer 0 or 1.")
        effort = "low" if reasoning else "none"
        settings = Settings(
            "", (str(policy),), model=str(model), effort=effort, slots=SLOTS, threads=threads, quiet=True
        )
        if reasoning:
            settings = replace(settings, max_reasoning=reasoning)
        prepared = prepare(settings, load_policies(settings), {})
        rules, shape = prepared.labeling.rules, prepared.shape
        self.model = LlamaModel(model, shape.plan.context(len(rules.prefixes)), shape.loading)
        self.model.pace.close()
        self.scheduler = Scheduler(self.model, rules.prefixes, prepared.options, shape.plan)
        rng, harmony = np.random.default_rng(0), prepared.labeling.harmony
        sizes = rng.integers(*CONTENT, ROWS)
        texts = [rng.integers(200, 5000, size).tolist() for size in sizes]
        self.prompts = [Prompt(row, 0, 0, harmony.content_ids(ids)) for row, ids in enumerate(texts)]
        self.run()  # decodes the policy

    def run(self) -> list[str]:
        """Label all rows; return all that is known of each."""
        return [str(done) for done in self.scheduler.complete(self.prompts)]

    def steps(self, count: int) -> None:
        """Decode so many tokens more of each of 16 rows under the policy."""
        model = self.model
        begin = model.length(0)
        for row in range(SLOTS):
            model.copy(0, row + 1)
        for step in range(count):
            model.batch.clear()
            for row in range(SLOTS):
                model.batch.add(row + 1, begin + step, TOKEN + row, (0,))
            model.decode()
        for row in range(SLOTS):
            model.drop(row + 1)


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Return an interval for the median of which these are a sample, by order statistics, and its confidence."""
    values, count = sorted(ratios), len(ratios)

    def missed(out: int) -> float:
        return 2 * sum(math.comb(count, i) for i in range(out + 1)) / 2**count

    out = max((k for k in range(count // 2) if missed(k) <= 0.05), default=0)
    return values[out], values[-1 - out], max(0.0, 1 - missed(out))


def measure(name: str, work: Work, bench: Bench, threads: int, pairs: int, one: bool, busy: int, settle: Work) -> None:
    """Measure pairs of one kind of work and print a line for each way to do it."""
    found: dict[str, list[float]] = defaultdict(list)
    others: list[float] = []
    ways = ["before", "paced", *["one thread"] * one]
    for number in range(pairs):
        for way in ways if number % 2 else reversed(ways):
            count = 1 if way == "one thread" else threads
            follow = way == "paced"
            with Pace(C._lib, count, follow) as bench.model.pace:
                if not follow:
                    bench.model.pace.close()
                end = time.monotonic() + SETTLE
                while time.monotonic() < end:
                    settle()
                before, began = look(), time.perf_counter()
                work()
                found[way].append(time.perf_counter() - began)
                if before and (after := look()):
                    others.append(used_by_others(before, after))
    told = f"{busy} spinning, others {statistics.median(others):.2f}: {name:5}"
    for way in ways:
        ratios = [a / b for a, b in zip(found["before"], found[way], strict=True)]
        low, high, sure = interval(ratios)
        ratio = "" if way == "before" else f"  before/this {statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}]"
        print(
            f"{told}  {way:10} {statistics.median(found[way]):7.3f} s{ratio}" + f" ({sure:.0%})" * bool(ratio),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--spinning", type=lambda text: [int(n) for n in text.split(",")], default=[0, 1, 2, 3])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=12, help="steps of a measurement, default 12")
    parser.add_argument("--reasoning", type=int, default=8, help="tokens of reasoning in a run, default 8")
    parser.add_argument("--only", choices=("steps", "run"))
    parser.add_argument("--one", action="store_true")
    parser.add_argument("--together", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        bench = Bench(given.model.resolve(), given.threads, given.reasoning, Path(name))
    first = bench.run()

    def run() -> None:
        if bench.run() != first:
            sys.exit("labels or scores differ")

    work: dict[str, Work] = {"steps": lambda: bench.steps(given.steps), "run": run}
    for count, kind in itertools.product(given.spinning, [given.only] if given.only else work):
        with spinning(count, given.together):
            measure(
                kind, work[kind], bench, given.threads, given.pairs, given.one, count, settle=lambda: bench.steps(1)
            )
    bench.model.close()


if __name__ == "__main__":
    main()

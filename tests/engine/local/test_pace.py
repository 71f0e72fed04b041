"""How threads wait for each other follows what other programs leave of the machine, and changes no result."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psutil
import pytest
from helpers.prompts import prefix_of, prompts_of
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.engine.decoding import Options
from safeguard_cli.engine.local import pace
from safeguard_cli.engine.local.llama import C, LlamaModel
from safeguard_cli.engine.local.pace import (
    KEEP,
    LOOKS,
    SLACK,
    TRY,
    YIELD,
    Choice,
    Look,
    Pace,
    crowded,
    fewer,
    look,
    used_by_others,
)
from safeguard_cli.engine.local.plan import Loading, Plan
from safeguard_cli.engine.local.scheduler import Scheduler
from safeguard_cli.engine.sampling import Logits

SHARES = st.lists(st.floats(0, 512), max_size=6)
COUNTS = st.integers(1, 512)


@given(SHARES, COUNTS, COUNTS, st.floats(0, 512))
def test_more_load_more_threads_and_fewer_cores_never_make_a_machine_less_crowded(others, threads, cores, more) -> None:
    if crowded(others, threads, cores):
        assert crowded([*others, more], threads, cores)
        assert crowded([used + more for used in others], threads, cores)
        assert crowded(others, threads + 1, cores)
    else:
        assert not crowded(others, threads, cores + 1)
        assert not crowded(others, max(1, threads - 1), cores)


@given(st.lists(st.floats(0, SLACK), max_size=6), COUNTS, st.integers(0, 512))
def test_a_machine_with_a_core_for_each_thread_is_not_crowded(others, threads, free) -> None:
    assert not crowded([used + free for used in others], threads, threads + free)


@pytest.mark.parametrize(
    ("others", "threads", "cores", "expected"),
    [
        ([], 2, 2, False),
        ([1.0], 2, 2, True),
        ([0.1, 0.1], 2, 2, False),
        ([0.0, 0.9, 0.0, 0.0], 2, 2, True),  # a build pauses now and then
        ([0.9], 1, 2, False),
        ([3.9], 4, 8, False),
        ([4.5], 4, 8, True),
        ([0.0], 3, 2, True),  # more threads were asked for than there are cores
    ],
)
def test_machines_as_people_have_them(others, threads, cores, expected) -> None:
    assert crowded(others, threads, cores) is expected


@given(SHARES, st.integers(2, 512), COUNTS)
def test_fewer_threads_are_at_least_one_and_never_all(others, threads, cores) -> None:
    assert 1 <= fewer(others, threads, cores) < threads


@pytest.mark.parametrize(
    ("others", "threads", "cores", "expected"),
    [([1.0], 2, 2, 1), ([2.0], 2, 2, 1), ([3.0, 3.2], 8, 8, 5), ([0.3], 8, 8, 7), ([6.1], 4, 8, 2), ([9.0], 4, 4, 1)],
)
def test_others_keep_the_cores_that_they_use(others, threads, cores, expected) -> None:
    assert fewer(others, threads, cores) == expected


SHARE = st.floats(0.02, 64)


def time_with_few(every: float, few: float, step: float, seconds: float) -> float:
    """Return the share of time with fewer threads on a machine that grants so much CPU time a second to either."""
    choice, at, own, spent = Choice(), 0.0, 0.0, 0.0
    while at < seconds:
        asked = choice.ask(at, own)
        at, own, spent = at + step, own + step * (few if asked else every), spent + step * asked
    return spent / at


@given(SHARE, SHARE, st.floats(0.001, 0.5))
def test_what_gets_more_done_is_used_most_of_the_time(every, few, step) -> None:
    spent = time_with_few(every, few, step, seconds=20 * KEEP)
    rest = (TRY + 2 * step) / KEEP  # in which the other number is tried
    if few > 1.2 * YIELD * every:
        assert spent > 1 - 2 * rest
    elif YIELD * every > 1.2 * few:
        assert 0 < spent < 2 * rest


@given(SHARE, SHARE, st.floats(0.5, 100))
def test_long_decodes_are_compared_as_well(every, few, step) -> None:
    spent = time_with_few(every, few, step, seconds=40 * max(KEEP, step))
    if few > 1.2 * YIELD * every:
        assert spent > 0.4
    elif YIELD * every > 1.2 * few:
        assert 0 < spent < 0.6


def test_a_machine_that_changes_is_noticed() -> None:
    choice, at, own = Choice(), 0.0, 0.0
    seen = []
    for second in range(120):
        few = choice.ask(at, own)
        seen.append(few)
        at, own = at + 1, own + (0.6 if few else 0.4 if second < 60 else 1.2)
    assert sum(seen[10:60]) > 40
    assert sum(seen[80:]) < 8


@given(st.floats(0, 1e9), st.floats(0.01, 1e5), st.floats(0, 64), st.floats(0, 64))
def test_what_others_used_is_what_was_used_without_our_own(at, seconds, own, others) -> None:
    after = Look(at + seconds, (own + others) * seconds, own * seconds)
    expected = others * seconds / (at + seconds - at) if at + seconds > at else 0.0
    assert used_by_others(Look(at, 0, 0), after) == pytest.approx(expected, abs=1e-6, rel=1e-6)


def test_a_clock_that_stands_still_and_counters_that_run_backwards_tell_of_no_load() -> None:
    assert used_by_others(Look(1, 5, 0), Look(1, 9, 0)) == 0
    assert used_by_others(Look(1, 5, 0), Look(2, 4, 0)) == 0


@contextmanager
def spinning() -> Iterator[None]:
    """Keep a core busy as long as this is open."""
    code = f"import os\nwhile os.getppid() == {os.getpid()}: pass"  # ends by itself when this process is killed
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_own_work_is_not_taken_for_that_of_others_and_others_work_is_seen() -> None:
    def busy(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    before, cpu = look(), time.process_time()
    assert before
    with spinning():
        busy(1.0)
        now = look()
    assert now
    assert now.own - before.own == pytest.approx(time.process_time() - cpu, abs=0.2)
    assert used_by_others(before, now) > 0.2  # half a core at least on a single one that is shared
    assert used_by_others(before, now) < len(pace._allowed()) + 0.1


@pytest.mark.parametrize("failure", [OSError, RuntimeError, psutil.AccessDenied, list])
def test_where_the_system_does_not_tell_the_load_nothing_is_done(monkeypatch, failure) -> None:
    def times(percpu: bool) -> list[object]:
        if failure is list:
            return []  # no core of those that the process may use
        raise failure

    monkeypatch.setattr(psutil, "cpu_times", times)
    assert look() is None
    with Pace(C._lib, 2, looked=look) as kept:
        assert kept._watcher
        kept._watcher.join(10)
        assert not kept._watcher.is_alive()
        assert not kept.crowded


def test_one_thread_and_a_number_that_was_asked_for_without_openmp_are_left_alone() -> None:
    for kept in (Pace(C._lib, 1, follow=True), Pace(ctypes.CDLL(None), 2)):
        with kept:
            assert kept._watcher is None
            assert not kept.crowded
            assert kept.threads() == kept._all


class Machine:
    """Looks at a machine on which others use `used` cores, once a second."""

    def __init__(self) -> None:
        self.used = 0.0
        self._looks, self._busy = 0, 0.0

    def __call__(self) -> Look:
        self._looks, self._busy = self._looks + 1, self._busy + self.used
        return Look(self._looks, self._busy, 0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(pace, "INTERVAL", 0.02)
    return Machine()


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def spun() -> float:
    """Return for how many ms of CPU time a thread waits for more work before it sleeps."""
    nothing = ctypes.cast(C._lib.omp_get_thread_num, ctypes.c_void_p)
    before = time.process_time()
    for _ in range(10):
        C._lib.GOMP_parallel(nothing, None, 2, 0)
        time.sleep(0.03)
    return (time.process_time() - before) * 100


needs_libgomp = pytest.mark.skipif(
    not hasattr(C._lib, "GOMP_parallel") or any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")),
    reason="needs a llama.cpp with OpenMP, and no setting of how it waits",
)


@needs_libgomp
def test_threads_spin_on_a_free_machine_and_hardly_on_a_crowded_one(machine) -> None:
    free, threads = spun(), psutil.Process().num_threads()
    with Pace(C._lib, 2, looked=machine) as kept:
        assert spun() > free / 5
        machine.used = float(len(pace._allowed()))
        wait(lambda: kept.crowded)
        assert spun() < free / 5
        machine.used = 0.0
        wait(lambda: not kept.crowded)
        assert spun() > free / 5
        machine.used = 512.0
        wait(lambda: kept.crowded)
    assert not kept.crowded
    assert spun() > free / 5
    wait(lambda: psutil.Process().num_threads() == threads)  # none of the idle ones is left


@needs_libgomp
def test_it_spins_again_only_after_some_quiet_looks(machine) -> None:
    seen: list[bool] = []
    made: list[Pace] = []

    def looked() -> Look:
        seen.append(bool(made and made[0].crowded))
        machine.used = 512.0 if len(seen) == 3 else 0.0
        return machine()

    with Pace(C._lib, 2, looked=looked) as kept:
        made.append(kept)
        wait(lambda: len(seen) > 4 + LOOKS)
    assert seen[: 4 + LOOKS] == [False] * 3 + [True] * LOOKS + [False]


def test_threads_that_always_spin_leave_others_their_cores(machine) -> None:
    cores = len(pace._allowed())
    with Pace(ctypes.CDLL(None), cores + 2, follow=True, looked=machine) as kept:
        machine.used = cores - 1.0
        wait(lambda: kept.crowded and kept._few == 1)
        assert kept.threads() == 1
        assert kept._idle is None


@needs_libgomp
@pytest.mark.parametrize("follow", [True, False])
def test_a_number_that_was_asked_for_is_kept(machine, follow, monkeypatch) -> None:
    monkeypatch.setattr(pace, "TRY", 0.01)
    with Pace(C._lib, 2, follow, machine) as kept:
        assert kept.threads() == 2
        machine.used = 512.0
        wait(lambda: kept.crowded)
        seen = set()
        for _ in range(100):
            seen.add(kept.threads())
            time.sleep(0.002)
        assert seen == ({1, 2} if follow else {2})
        machine.used = 0.0
        wait(lambda: not kept.crowded)
        assert kept.threads() == 2


@pytest.mark.parametrize("flash", [True, False])
def test_completions_are_the_same_to_the_last_digit_however_and_how_many_threads_wait(tiny, harmony, flash) -> None:
    prefixes, prompts = [prefix_of(harmony, 300)], prompts_of(harmony, [1, 40, 200, 513, 80, 80, 80, 5])
    plan = Plan(3, 4096)

    def run(threads: Sequence[int], waits: Sequence[bool]) -> list[str]:
        count, wait = itertools.cycle(threads), itertools.cycle(waits)
        with LlamaModel(tiny, plan.context(1), Loading(2, flash=flash)) as model:
            model.pace.close()
            decode = model.decode

            def changing() -> Logits:
                model.pace._switch(next(wait))
                return decode()

            model.decode, model.pace.threads = changing, lambda: next(count)
            found = list(Scheduler(model, prefixes, Options(6), plan).complete(prompts))
            model.pace._switch(False)
        return [str(done) for done in found]  # they are equal only to themselves

    plain = run([2], [False])
    assert len(plain) == len(prompts)
    assert run([2], [True]) == plain
    assert run([2], [True, False, False]) == plain
    assert run([1, 2, 3], [False, True]) == plain


def test_an_engine_is_paced_as_long_as_it_is_open(tiny) -> None:
    with LlamaModel(tiny, Plan(1, 512).context(1), Loading(2)) as model:
        watcher = model.pace._watcher
        assert bool(watcher and watcher.is_alive()) is hasattr(C._lib, "GOMP_parallel")
    assert not (watcher and watcher.is_alive())

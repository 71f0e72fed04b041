"""The engine's child process: its death costs time, never a row."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_engine import prefix_of, prompts_of

from safeguard_cli.engine.decoding import Options
from safeguard_cli.engine.plan import Loading, Plan
from safeguard_cli.engine.process import MOST_DEATHS, Engine, EngineSpec
from safeguard_cli.errors import EngineError
from safeguard_cli.prompt import Feed, Prompt


@pytest.fixture
def spec(tiny: Path, harmony) -> EngineSpec:
    return EngineSpec(tiny, (prefix_of(harmony, 60),), Options(6), Plan(4, 2048), Loading(1))


class Deadly(Engine):
    """An engine whose child dies while one of the rows `lethal` is in flight."""

    lethal: frozenset[int] = frozenset()

    def _converse(self, source, flying):
        return super()._converse(self._dying(source), flying)

    def _dying(self, source: Iterator[Prompt | Feed]) -> Iterator[Prompt | Feed]:
        for prompt in source:
            yield prompt
            if isinstance(prompt, Prompt) and prompt.row in self.lethal:
                os.kill(self._process.pid, signal.SIGKILL)


def by_row(completions):
    return sorted(completions, key=lambda c: c.prompt.row)


def test_the_child_gives_what_the_scheduler_gives(spec, harmony) -> None:
    prompts = prompts_of(harmony, [5, 30, 12, 80, 7, 9])
    with Engine(spec) as first, Engine(spec) as second:
        ours, again = by_row(first.complete(prompts)), by_row(second.complete(prompts))
        assert first.decoded_tokens == second.decoded_tokens > sum(len(p.ids) for p in prompts)
    assert [c.scores for c in ours] == [c.scores for c in again]
    assert len(ours) == 6


def test_a_child_killed_once_costs_no_row(spec, harmony) -> None:
    prompts = prompts_of(harmony, [5, 30, 12, 80, 7, 9, 11, 3])
    said: list[str] = []

    def source(engine: Engine) -> Iterator[Prompt]:
        for prompt in prompts:
            if prompt.row == 5:
                os.kill(engine._process.pid, signal.SIGKILL)
            yield prompt

    with Engine(spec, said.append) as engine:
        done = by_row(engine.complete(source(engine)))
        assert engine.deaths == 1
    assert [c.prompt.row for c in done] == list(range(8))
    assert all(c.error is None for c in done)
    assert "memory" in said[0]


def test_a_row_that_kills_twice_becomes_an_error_and_the_run_goes_on(spec, harmony) -> None:
    engine = Deadly(spec)
    engine.lethal = frozenset([1])
    with engine:
        done = by_row(engine.complete(prompts_of(harmony, [5, 30, 12, 80, 7, 9, 11, 3])))
    assert [c.prompt.row for c in done] == list(range(8))
    assert [c.prompt.row for c in done if c.error] == [1]


def test_an_engine_that_only_dies_ends_the_run(spec, harmony) -> None:
    engine = Deadly(spec)
    engine.lethal = frozenset(range(20))
    with engine, pytest.raises(EngineError, match=f"died {MOST_DEATHS + 1} times"):
        list(engine.complete(prompts_of(harmony, [5] * 20)))


def test_a_model_that_cannot_be_loaded_is_a_sentence(spec, tmp_path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(spec.path.read_bytes()[:5000])
    with pytest.raises(EngineError, match=r"broken\.gguf"):
        Engine(EngineSpec(broken, spec.prefixes, spec.options, spec.plan, Loading(1)))


def test_a_reset_makes_what_follows_as_if_nothing_had_been_before(spec, harmony) -> None:
    early, late = prompts_of(harmony, [5, 30, 12, 80, 7, 9, 300, 3]), prompts_of(harmony, [40, 8, 90, 21])

    def drained(first: list[Prompt], then: list[Prompt], done: list) -> Iterator[Prompt | Feed]:
        yield from first
        while len(done) < len(first):
            yield Feed.HOLD
        yield Feed.RESET
        yield from then

    def run(first: list[Prompt]) -> list:
        done: list = []
        with Engine(spec) as engine:
            for completion in engine.complete(drained(first, late, done)):
                done.append(completion)
        return [(c.prompt.row, c.scores, c.analysis) for c in done[len(first) :]]

    assert run(early) == run([])


def test_the_child_ends_with_its_parent(spec) -> None:
    engine = Engine(spec)
    pid = engine._process.pid
    engine.close()
    time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)

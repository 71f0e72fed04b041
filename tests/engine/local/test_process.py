"""The engine's child process: if it dies, that costs time but never a row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from helpers import tiny_model
from helpers.engines import ENGINES
from helpers.prompts import prefix_of, prompts_of

from safeguard_cli.engine.decoding import Options
from safeguard_cli.engine.local.plan import Loading, Plan
from safeguard_cli.engine.local.process import MOST_DEATHS, EngineSpec, LocalEngine
from safeguard_cli.engine.reports import Report
from safeguard_cli.errors import EngineError
from safeguard_cli.prompt.contract import Feed, Prompt


@pytest.fixture(params=ENGINES)
def spec(tiny: Path, harmony, request: pytest.FixtureRequest) -> EngineSpec:
    loading = Loading(1, engine=request.param)
    return EngineSpec(tiny, (prefix_of(harmony, 60),), Options(6), Plan(4, 2048), loading)


class Deadly(LocalEngine):
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
    with LocalEngine(spec) as first, LocalEngine(spec) as second:
        ours, again = by_row(first.complete(prompts)), by_row(second.complete(prompts))
        assert first.decoded_tokens == second.decoded_tokens > sum(len(p.ids) for p in prompts)
    assert [c.scores for c in ours] == [c.scores for c in again]
    assert len(ours) == 6


def test_rows_beside_others_are_decided_as_alone(spec, harmony, tmp_path) -> None:
    # Weights that need no rounding of what they meet, and all experts used: only the cache rounds.
    path = tiny_model.write(tmp_path / "model.gguf", used=4, as_floats=True)
    prompts = prompts_of(harmony, [5, 150, 12, 80, 7, 300, 9, 40])
    with LocalEngine(replace(spec, path=path, options=Options(0))) as engine:
        together = by_row(engine.complete(prompts))
        alone = [next(iter(engine.complete([prompt]))) for prompt in prompts]
    for row, single in zip(together, alone, strict=True):
        assert row.scores == pytest.approx(single.scores, abs=0.01)
    assert max(abs(a.scores[0] - b.scores[0]) for a in alone for b in alone) > 0.05  # texts do matter


def test_a_cache_full_of_gaps_holds_what_was_planned_for_it(spec, harmony, tmp_path) -> None:
    """Rows end at different times and leave gaps; the longest that may start then fits in no single one of them."""
    path = tiny_model.write(tmp_path / "model.gguf", used=4, as_floats=True)
    prompts = prompts_of(harmony, [5, 40, 90, 7, 120, 30, 400, 9, 60, 380, 15, 100, 390, 3, 420, 50] * 4)
    with LocalEngine(replace(spec, path=path, options=Options(0))) as engine:
        alone = [next(iter(engine.complete([prompt]))) for prompt in prompts]
    tight = replace(spec, path=path, options=Options(0), plan=Plan(4, 768))
    with LocalEngine(tight) as engine:
        together = by_row(engine.complete(prompts))
        assert not engine.deaths
    assert [c.error for c in together] == [None] * len(prompts)
    for row, single in zip(together, by_row(alone), strict=True):
        assert row.scores == pytest.approx(single.scores, abs=0.01)


@pytest.mark.promise("A crash of llama.cpp costs time, never a row.")
def test_a_child_killed_once_costs_no_row(spec, harmony) -> None:
    prompts = prompts_of(harmony, [5, 30, 12, 80, 7, 9, 11, 3])
    said: list[str] = []

    def source(engine: LocalEngine) -> Iterator[Prompt]:
        for prompt in prompts:
            if prompt.row == 5:
                os.kill(engine._process.pid, signal.SIGKILL)
            yield prompt

    with LocalEngine(spec, said.append) as engine:
        done = by_row(engine.complete(source(engine)))
        assert engine.deaths == 1
    assert [c.prompt.row for c in done] == list(range(8))
    assert all(c.error is None for c in done)
    assert "memory" in said[0]


@pytest.mark.promise("A crash of llama.cpp costs time, never a row.")
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
        LocalEngine(EngineSpec(broken, spec.prefixes, spec.options, spec.plan, spec.loading))


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
        with LocalEngine(spec) as engine:
            for completion in engine.complete(drained(first, late, done)):
                done.append(completion)
        return [(c.prompt.row, c.scores, c.analysis) for c in done[len(first) :]]

    assert run(early) == run([])


def test_the_child_ends_with_its_parent(spec) -> None:
    engine = LocalEngine(spec)
    pid = engine._process.pid
    engine.close()
    time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def reports_of(spec, prompts) -> tuple[list[Report], list]:
    reports: list[Report] = []
    with LocalEngine(spec, report=reports.append) as engine:
        done = list(engine.complete(prompts))
        assert engine.policy_tokens in (0, len(spec.prefixes[0].ids))
    return reports, done


def test_reports_tell_of_loading_the_policy_and_the_rows(spec, harmony, monkeypatch) -> None:
    prompts = prompts_of(harmony, [5, 30, 12, 80, 7, 9, 700, 3])
    reports, done = reports_of(replace(spec, plan=Plan(4, 4096)), prompts)
    loaded = [report.loaded for report in reports]
    assert loaded == sorted(loaded) and loaded[0] == 0.0 and loaded[-1] == 1.0
    reading = [report for report in reports if report.stage == "policy"]
    assert {report.policy_size for report in reading} == {60}
    assert all(0 <= report.policy <= 60 for report in reading)
    assert max(report.under_way for report in reports) <= 4
    last = reports[-1]
    assert (last.stage, last.under_way, last.kept) == ("rows", 0, 0)
    assert last.read == sum(len(prompt.ids) for prompt in prompts)
    assert last.written == sum(completion.generated for completion in done) > 0


def test_a_policy_kept_from_an_earlier_run_is_reported(spec, harmony, tmp_path) -> None:
    spec = replace(spec, model="tiny", states=tmp_path / "states")
    first, _ = reports_of(spec, prompts_of(harmony, [5]))
    second, _ = reports_of(spec, prompts_of(harmony, [5]))
    assert any(report.stage == "policy" for report in first) and first[-1].kept == 0
    assert not any(report.stage == "policy" for report in second) and second[-1].kept == 60


def test_who_listens_changes_no_score(spec, harmony) -> None:
    prompts = prompts_of(harmony, [5, 30, 12, 80, 7, 9])
    _, listened = reports_of(spec, prompts)
    with LocalEngine(spec) as engine:
        alone = list(engine.complete(prompts))
    assert [(c.prompt.row, c.scores, c.analysis) for c in listened] == [
        (c.prompt.row, c.scores, c.analysis) for c in alone
    ]


def test_reports_go_on_where_a_child_died(spec, harmony) -> None:
    reports: list[Report] = []
    engine = Deadly(spec, report=reports.append)
    engine.lethal = frozenset([3])
    with engine:
        done = list(engine.complete(prompts_of(harmony, [5, 30, 12, 80, 7, 9])))
    assert len(done) == 6 and engine.deaths
    read = [report.read for report in reports]
    assert read == sorted(read)
    assert [report.loaded for report in reports].count(0.0) > engine.deaths  # loading again is reported


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_while_it_loads_ends_at_once_and_leaves_no_file(tiny, tmp_path, number) -> None:
    source, temporary = tmp_path / "in.jsonl", tmp_path / "temporary"
    source.write_text('{"text": "see you at noon"}\n')
    temporary.mkdir()
    command = [Path(sys.executable).parent / "safeguard", "label", source, "-p", "spam", "--model", tiny]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen([*command, "-o", tmp_path / "out.jsonl"], stderr=subprocess.PIPE, env=environment) as process:
        parent, child, deadline = psutil.Process(process.pid), None, time.monotonic() + 60
        while child is None and time.monotonic() < deadline:
            for other in parent.children():
                with suppress(psutil.Error):  # children that answer questions come and go
                    if "spawn_main" in " ".join(other.cmdline()):
                        child = other
        process.send_signal(number)
        began = time.monotonic()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if number == signal.SIGINT else -9), said
    assert time.monotonic() - began < 10
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()
    assert not list(temporary.iterdir())
    if number == signal.SIGINT:
        assert not (tmp_path / "out.jsonl").exists() and b"Traceback" not in said

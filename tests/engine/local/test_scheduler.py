"""The batched engine gives what a plain evaluation of the same tokens gives, one row at a time."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_model
from helpers.prompts import prefix_of, prompts_of

from safeguard_cli.engine.decoding import Options, Step, decide
from safeguard_cli.engine.local import llama
from safeguard_cli.engine.local import model as loaded_model
from safeguard_cli.engine.local import scheduler as scheduling
from safeguard_cli.engine.local.llama import LlamaModel
from safeguard_cli.engine.local.model import LOG
from safeguard_cli.engine.local.plan import MOST_SEQUENCES, ContextSize, Loading, Plan
from safeguard_cli.engine.local.scheduler import Scheduler
from safeguard_cli.errors import EngineError
from safeguard_cli.prompt.contract import Completion, Feed, Prompt

# Logits of the tiny models range over about 15. In other batches they differ by rounding alone: by up to 0.04 with
# weights that are not quantized, by up to 0.6 with quantized ones, for which inputs are rounded to 8 bits.
TOLERANCE = 0.1
QUANTIZED_TOLERANCE = 1.0


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model without quantized weights and with all experts in use, so that rounding stays rounding."""
    path = tmp_path_factory.mktemp("model") / "exact.gguf"
    return tiny_model.write(path, dense="F32", experts="F32", used=4)


@dataclass
class Trace:
    """What one row was fed and what it got in return."""

    steps: list[tuple[Step, np.ndarray]] = field(default_factory=list)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> dict[Prompt, Trace]:
    """Return every row's steps and logits, recorded while the scheduler runs."""
    seen: dict[Prompt, Trace] = {}

    def recording(prompt, trie, options):
        inner, trace = decide(prompt, trie, options), seen.setdefault(prompt, Trace())
        step = next(inner)
        while True:
            logits = yield step
            trace.steps.append((step, logits.copy()))
            try:
                step = inner.send(logits)
            except StopIteration as stop:
                return stop.value

    monkeypatch.setattr(scheduling, "decide", recording)
    return seen


def run(path: Path, prefixes, prompts, options=Options(12), slots=4, cells=None) -> list[Completion]:  # noqa: B008
    if cells is None:
        cells = sum(len(p.ids) for p in prefixes) + sum(len(p.ids) + 200 for p in prompts)
    plan = Plan(slots, -(-cells // 256) * 256)
    with LlamaModel(path, plan.context(len(prefixes)), Loading(1)) as model:
        return list(Scheduler(model, prefixes, options, plan).complete(prompts))


def plain_logits(model: LlamaModel, ids: Sequence[int], wanted: Sequence[int]) -> np.ndarray:
    """Return the logits at the places `wanted` of one sequence, evaluated alone."""
    rows = []
    for begin in range(0, len(ids), model.batch.capacity):
        part = np.array(ids[begin : begin + model.batch.capacity], np.int32)
        model.batch.clear()
        model.batch.add(0, begin, part, tuple(i - begin for i in wanted if begin <= i < begin + len(part)))
        rows.append(model.decode().copy())
    model.drop(0)
    return np.concatenate(rows)


def assert_equal_to_plain(path: Path, prefixes, traces: dict[Prompt, Trace], tolerance: float = TOLERANCE) -> None:
    longest = max(sum(len(s.tokens) for s, _ in t.steps) for t in traces.values()) + max(len(p.ids) for p in prefixes)
    size = ContextSize(-(-longest // 256) * 256, 1, 512, 512)
    checked = 0
    with LlamaModel(path, size, Loading(1, extra_buffers=False)) as model:
        for prompt, trace in traces.items():
            fed = list(prefixes[prompt.policy].ids)
            wanted: list[int] = []
            batched: list[np.ndarray] = []
            for step, logits in trace.steps:
                places = [len(fed) + i for i in step.outputs]
                if step.branch:
                    alone = plain_logits(model, [*fed, *step.tokens], places)
                    np.testing.assert_allclose(logits, alone, atol=tolerance)
                    continue
                fed += step.tokens
                wanted += places
                batched += list(logits)
            alone = plain_logits(model, fed, wanted)
            assert len(alone) == len(batched)
            for mine, theirs in zip(batched, alone, strict=True):
                np.testing.assert_allclose(mine, theirs, atol=tolerance)
                first, second = np.sort(theirs)[[-1, -2]]
                if first - second > 2 * tolerance:
                    assert mine.argmax() == theirs.argmax()
                checked += 1
    assert checked


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_rows_of_all_lengths_equal_plain_evaluation(exact, harmony, traces, slots) -> None:
    prefixes = [prefix_of(harmony, 300)]
    prompts = prompts_of(harmony, [1, 2, 40, 127, 128, 129, 200, 511, 513, 700, 1500, 5, 80, 80, 80, 80])
    done = run(exact, prefixes, prompts, slots=slots)
    assert sorted(c.prompt.row for c in done) == list(range(len(prompts)))
    assert len({len(c.analysis[0]) for c in done}) > 1, "rows should end at different times"
    assert_equal_to_plain(exact, prefixes, traces)


@pytest.mark.parametrize("length", [50, 127, 1200, 6000])
def test_policies_of_all_lengths_equal_plain_evaluation(exact, harmony, traces, length) -> None:
    prefixes = [prefix_of(harmony, length)]
    run(exact, prefixes, prompts_of(harmony, [3, 60, 150, 30]), slots=4)
    assert_equal_to_plain(exact, prefixes, traces)


def test_interleaved_policies_equal_plain_evaluation(exact, harmony, traces) -> None:
    prefixes = [prefix_of(harmony, 200), prefix_of(harmony, 450, ("0", "1", "10"), seed=9)]
    prompts = prompts_of(harmony, [10, 150, 33, 600, 7], policies=2)
    done = run(exact, prefixes, prompts, slots=4)
    assert len(done) == len(prompts)
    assert_equal_to_plain(exact, prefixes, traces)


def test_prefixes_that_do_not_fit_together_are_decoded_again(exact, harmony, traces) -> None:
    prefixes = [prefix_of(harmony, 400), prefix_of(harmony, 500, seed=9)]
    prompts = prompts_of(harmony, [10, 60, 20], policies=2)
    done = run(exact, prefixes, prompts, slots=4, cells=768)
    assert len(done) == len(prompts)
    assert_equal_to_plain(exact, prefixes, traces)


@pytest.mark.parametrize("dense", ["Q8_0", "Q4_1"])
def test_weights_that_crash_on_amx_decode(tmp_path, harmony, traces, dense) -> None:
    path = tiny_model.write(tmp_path / "model.gguf", dense=dense, hidden=256, used=4)
    prefixes = [prefix_of(harmony, 100)]
    run(path, prefixes, prompts_of(harmony, [20, 30]))
    assert_equal_to_plain(path, prefixes, traces, QUANTIZED_TOLERANCE)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AMX is of x86")
def test_with_an_amx_build_weights_are_repacked_without_it(tmp_path, monkeypatch) -> None:
    path = tiny_model.write(tmp_path / "model.gguf", dense="Q4_0", hidden=256, used=4)
    size, ids = ContextSize(256, 1, 512, 512), np.random.default_rng(0).integers(0, 300, 100).tolist()
    lines: list[str] = []
    monkeypatch.setattr(LOG, "sink", lines.append)

    def logits(repack: bool) -> np.ndarray:
        lines.clear()
        with LlamaModel(path, size, Loading(1, extra_buffers=repack)) as model:
            return plain_logits(model, ids, range(100))

    as_ever, without = logits(repack=True), logits(repack=False)
    monkeypatch.setattr(llama, "amx_build", lambda: True)
    here = logits(repack=True)
    moved = {line.split()[1] for line in lines if "overridden to CPU_REPACK" in line}
    layer = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
    assert moved == {f"blk.{i}.{name}.weight" for i in range(2) for name in layer}  # the output has 609 rows
    np.testing.assert_array_equal(here, as_ever)
    np.testing.assert_array_equal(logits(repack=False), without)


def test_labels_that_share_a_start_are_scored_on_branches(exact, harmony, traces) -> None:
    labels = ("VALID", "INVALID", "INVALID + ESCALATE", "INVALID, no", "V", "недействительно", 'a "b"')
    prefixes = [prefix_of(harmony, 100, labels)]
    done = run(exact, prefixes, prompts_of(harmony, [20, 30, 40]))
    assert any(step.branch for trace in traces.values() for step, _ in trace.steps)
    for completion in done:
        assert len(completion.scores) == len(labels)
        assert sum(completion.scores) == pytest.approx(1)
        assert all(0 <= score <= 1 for score in completion.scores)
    assert_equal_to_plain(exact, prefixes, traces)


def test_more_labels_than_a_decode_has_logits_for(exact, harmony, traces) -> None:
    prefixes = [prefix_of(harmony, 50, ['"' * i for i in range(1, 71)])]
    done = run(exact, prefixes, prompts_of(harmony, [5, 6]), Options(0), slots=1)
    assert all(sum(completion.scores) == pytest.approx(1) for completion in done)
    assert_equal_to_plain(exact, prefixes, traces)


def test_a_row_is_admitted_only_when_its_worst_case_fits(tiny, harmony) -> None:
    prefixes = [prefix_of(harmony, 100)]
    prompts = prompts_of(harmony, [1200, 10, 900, 10, 10, 10, 1000, 10])
    done = run(tiny, prefixes, prompts, options=Options(40), slots=8, cells=1536)
    assert sorted(c.prompt.row for c in done) == list(range(8))


def test_a_row_that_cannot_fit_is_refused_before_decoding(tiny, harmony) -> None:
    with pytest.raises(ValueError, match="cannot fit"):
        run(tiny, [prefix_of(harmony, 100)], prompts_of(harmony, [900]), cells=512)


def test_the_schedule_depends_on_the_rows_alone(exact, harmony) -> None:
    prefixes = [prefix_of(harmony, 150)]
    prompts = prompts_of(harmony, [20, 90, 5, 300, 41, 12, 8])
    first, second = (run(exact, prefixes, prompts, slots=3) for _ in range(2))
    assert [(c.prompt.row, c.scores, c.analysis) for c in first] == [
        (c.prompt.row, c.scores, c.analysis) for c in second
    ]


def test_a_held_feed_lets_rows_finish_and_goes_on(tiny, harmony) -> None:
    prompts = prompts_of(harmony, [10, 11, 12, 13])
    done: list[int] = []

    def feed():
        for prompt in prompts:
            while prompt.row > len(done):
                yield Feed.HOLD
            yield prompt

    plan = Plan(4, 2048)
    with LlamaModel(tiny, plan.context(1), Loading(1)) as model:
        for completion in Scheduler(model, [prefix_of(harmony, 60)], Options(5), plan).complete(feed()):
            done.append(completion.prompt.row)
    assert done == [0, 1, 2, 3]


def test_sampling_depends_on_the_seed_and_the_row_alone(exact, harmony) -> None:
    prefixes = [prefix_of(harmony, 150)]
    prompts = prompts_of(harmony, [20, 90, 5, 30])

    def texts(seed: int, slots: int) -> list[tuple[tuple[int, ...], ...]]:
        done = run(exact, prefixes, prompts, Options(8, temperature=1.0, seed=seed), slots=slots)
        return [c.analysis for c in sorted(done, key=lambda c: c.prompt.row)]

    assert texts(1, 4) == texts(1, 4)
    assert texts(1, 4) != texts(2, 4)


def test_a_missing_model_file_is_a_sentence(tmp_path) -> None:
    with pytest.raises(EngineError, match=r"cannot load nothing\.gguf"):
        LlamaModel(tmp_path / "nothing.gguf", Plan(1, 256).context(1), Loading(1))


def test_a_slow_decode_tells_how_much_of_it_is_computed_and_computes_the_same(tiny: Path, monkeypatch) -> None:
    tokens = np.arange(300, dtype=np.int32)
    shares: list[list[float]] = []

    def decode(model: LlamaModel) -> np.ndarray:
        shares.append([])
        model.batch.clear()
        model.batch.add(0, 0, tokens, (299,))
        return model.decode().copy()

    with LlamaModel(tiny, Plan(1, 1024).context(1), Loading(1)) as model:
        alone = decode(model)
    monkeypatch.setattr(loaded_model, "SLOW_DECODE", 0.0)
    with LlamaModel(tiny, Plan(1, 1024).context(1), Loading(1)) as model:
        shares.append([])
        model.watch(lambda share: shares[-1].append(share))
        told = decode(model)
        heard = shares[-1]
        model.clear()
        monkeypatch.setattr(loaded_model, "SLOW_DECODE", 1000.0)
        decode(model)
    assert np.array_equal(alone, told)
    assert heard == sorted(heard) and len(set(heard)) > 20 and heard[-1] == 1.0
    assert shares[-1] == []  # a fast decode is not watched


def test_the_share_of_the_file_that_is_loaded_is_told(tiny: Path) -> None:
    shares: list[float] = []
    with LlamaModel(tiny, Plan(1, 1024).context(1), Loading(1), shares.append):
        pass
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_llama_cpp_tells_as_many_sequences_apart_as_the_plan_counts_on() -> None:
    assert llama.C.llama_max_parallel_sequences() == MOST_SEQUENCES

"""Whatever the model does, a row ends in well-formed scores within its budget; the logits here are made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from safeguard_cli.engine.decoding import MAX_RATIONALE, Options, Step, Trie, _write_string, decide, overhead
from safeguard_cli.engine.sampling import BadLogits, sampler
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Completion, Contract, Prompt
from safeguard_cli.prompt.harmony import Harmony

LABELS = ("VALID", "INVALID", "INVALID + ESCALATE", 'say "no"', "нет", "V")
PROMPT = Prompt(0, 0, 0, (5, 6, 7))
LogitsOf = Callable[[tuple[int, ...]], np.ndarray]


@pytest.fixture(scope="module")
def contract(harmony: Harmony) -> Contract:
    return contract_of(harmony, LABELS)


def contract_of(harmony: Harmony, labels: Sequence[str]) -> Contract:
    return harmony.prefix(Policy("p", "x", tuple(labels), (labels[0],)), "low").contract


def noisy(harmony: Harmony, seed: int, boost: float = 0.0) -> LogitsOf:
    """Return a model whose logits are a function of all earlier tokens; `boost` raises the control tokens."""
    control = list(harmony.tokenizer.control.values())

    def logits_of(sequence: tuple[int, ...]) -> np.ndarray:
        logits = np.random.default_rng((seed, *sequence)).normal(0, 4, len(harmony.tokenizer.tokens))
        logits[control] += boost
        return logits.astype(np.float32)

    return logits_of


@dataclass
class Run:
    completion: Completion
    fed: tuple[int, ...]  # all tokens that stay in the row's sequence, the prompt included
    steps: list[Step]
    most_cells: int


def run(trie: Trie, options: Options, logits_of: LogitsOf, prompt: Prompt = PROMPT) -> Run:
    """Decide one prompt, and count the cells that its sequence and its branches take."""
    coroutine, fed, steps, most = decide(prompt, trie, options), (), [], 0
    step = next(coroutine)
    while True:
        steps.append(step)
        most = max(most, len(fed) + len(step.tokens))
        logits = np.array([logits_of(fed + step.tokens[: i + 1]) for i in step.outputs])
        if not step.branch:
            fed += step.tokens
        try:
            step = coroutine.send(logits)
        except StopIteration as stop:
            return Run(stop.value, fed, steps, most)


def scripted(harmony: Harmony, *script: str) -> LogitsOf:
    """Return a model that wants the script's tokens one after the other, then no token in particular."""
    wanted = iter([harmony.tokenizer.control.get(s) or harmony.tokenizer.encode(s)[0] for s in script])

    def logits_of(sequence: tuple[int, ...]) -> np.ndarray:
        logits = np.zeros(len(harmony.tokenizer.tokens), np.float32)
        if (token := next(wanted, None)) is not None:
            logits[token] = 9
        return logits

    return logits_of


def answer(harmony: Harmony, script: Sequence[str], budget: int = 50, labels: Sequence[str] = ("ham", "spam")) -> Run:
    contract = contract_of(harmony, labels)
    return run(Trie(contract), Options(budget), scripted(harmony, *script))


HEAD = "<|channel|>analysis<|message|>"
AGAIN = "<|end|><|start|>assistant<|channel|>"
FINAL = 'final<|message|>{"label":"'


def said(harmony: Harmony, found: Run) -> str:
    return harmony.readable(found.fed[len(PROMPT.ids) :])


@pytest.mark.parametrize(
    "stop", ["<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"]
)
def test_any_control_token_ends_the_reasoning(harmony: Harmony, stop: str) -> None:
    found = answer(harmony, ["a", "b", stop, "final"])
    assert said(harmony, found) == HEAD + "ab" + AGAIN + FINAL
    assert found.completion.ended


def test_reasoning_goes_on_in_another_message_where_the_model_wants_one(harmony: Harmony) -> None:
    found = answer(harmony, ["a", "<|end|>", "analysis", "b", "<|end|>", "commentary", "c", "<|call|>", "final"])
    assert [harmony.readable(ids) for ids in found.completion.analysis] == ["a", "b", "c"]
    again = AGAIN + "analysis<|message|>b" + AGAIN + "commentary<|message|>c" + AGAIN
    assert said(harmony, found) == HEAD + "a" + again + FINAL


def test_an_empty_reasoning_goes_straight_to_the_answer(harmony: Harmony) -> None:
    found = answer(harmony, ["<|end|>"])
    assert said(harmony, found) == HEAD + AGAIN + FINAL
    assert len(found.steps) == 2


def test_empty_messages_cannot_go_on_for_ever(harmony: Harmony) -> None:
    found = answer(harmony, ["a", "<|end|>", "analysis", "<|end|>", "analysis"])
    assert said(harmony, found) == HEAD + "a" + AGAIN + "analysis<|message|>" + AGAIN + FINAL


@pytest.mark.parametrize("budget", [1, 2, 7])
def test_a_spent_budget_closes_the_reasoning(harmony: Harmony, budget: int) -> None:
    found = answer(harmony, ["a"] * 20, budget)
    assert said(harmony, found) == HEAD + "a" * budget + AGAIN + FINAL
    assert not found.completion.ended
    assert found.completion.generated == budget


def test_effort_none_asks_once(harmony: Harmony) -> None:
    found = answer(harmony, [], budget=0)
    assert said(harmony, found) == "<|channel|>" + FINAL
    assert found.completion.analysis == ()
    assert [(len(step.outputs), step.branch) for step in found.steps] == [(1, False)]


# Labels as tokens: with a small alphabet they share beginnings, and some begin others.
SETS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=2, max_size=10, unique_by=tuple)
SETS = SETS.map(lambda labels: tuple(map(tuple, labels)))


def brute_force(contract: Contract, label: tuple[int, ...], before: tuple[int, ...], logits_of: LogitsOf) -> float:
    """Return a label's score straight from its definition: the product of renormalised probabilities along its path."""
    score = 1.0
    for depth in range(len(label) + 1):
        path = label[:depth]
        following = {other[depth] for other in contract.labels if other[:depth] == path and len(other) > depth}
        ends = path in contract.labels
        if len(following) + ends < 2:
            continue
        p = np.exp(logits_of(before + path).astype(np.float64))
        closing = p[contract.quote_ids].sum() if ends else 0.0
        chosen = closing if depth == len(label) else p[label[depth]]
        score *= chosen / (p[list(following)].sum() + closing)
    return score


@given(SETS, st.integers(0, 9))
@example(((0,), (1,)), 0)
@example(tuple((0,) * n for n in range(1, 12)), 0)
@example(((0, 0, 1), (0, 0, 2), (0, 0)), 0)
def test_scores_are_the_renormalised_products_along_each_label(
    harmony: Harmony, contract: Contract, labels: tuple[tuple[int, ...], ...], seed: int
) -> None:
    contract = replace(contract, labels=labels)
    logits_of = noisy(harmony, seed)
    found = run(Trie(contract), Options(0), logits_of)
    before = (*PROMPT.ids, *contract.open_final_at_once)
    expected = [brute_force(contract, label, before, logits_of) for label in labels]
    assert found.completion.scores == pytest.approx(expected)
    assert sum(found.completion.scores) == pytest.approx(1)


LABEL_TEXTS = st.text(st.sampled_from('ab" \\é漢+'), min_size=1, max_size=12)


@given(st.lists(LABEL_TEXTS, min_size=2, max_size=8, unique=True), st.integers(0, 9))
def test_scores_of_any_labels_sum_to_one(harmony: Harmony, labels: list[str], seed: int) -> None:
    found = run(Trie(contract_of(harmony, labels)), Options(0), noisy(harmony, seed))
    assert sum(found.completion.scores) == pytest.approx(1)
    assert len(found.completion.scores) == len(labels)


def test_labels_of_the_greatest_length_are_scored(harmony: Harmony) -> None:
    found = run(Trie(contract_of(harmony, ['"' * 200, '"' * 199 + "a"])), Options(0), noisy(harmony, 0))
    assert sum(found.completion.scores) == pytest.approx(1)


def test_many_labels_that_continue_each_other_are_scored(harmony: Harmony, contract: Contract) -> None:
    labels = tuple((0,) * n for n in range(1, 201))
    found = run(Trie(replace(contract, labels=labels)), Options(0), noisy(harmony, 0))
    assert sum(found.completion.scores) == pytest.approx(1)


def test_labels_that_differ_in_their_first_token_cost_one_row_of_logits(harmony: Harmony) -> None:
    found = answer(harmony, [], budget=0, labels=("ham", "spam", "0"))
    assert sum(len(step.outputs) for step in found.steps) == 1


def kinds_of(harmony: Harmony, rationale: bool) -> np.ndarray | None:
    return harmony.tokenizer.string_kinds if rationale else None


SURE = st.none() | st.floats(0.5, 1)  # a number stands for --effort auto


@given(SETS, st.integers(0, 40), st.booleans(), st.floats(0, 20), st.integers(0, 99), SURE)
def test_a_row_never_takes_more_cells_than_it_was_admitted_with(
    harmony: Harmony, contract: Contract, labels, budget: int, rationale: bool, boost: float, seed: int, sure
) -> None:
    trie = Trie(replace(contract, labels=labels))
    options = Options(budget, kinds_of(harmony, rationale), sure=sure if budget else None)
    found = run(trie, options, noisy(harmony, seed, boost))
    assert found.most_cells <= len(PROMPT.ids) + overhead(trie, options)


@given(st.integers(1, 40), st.booleans(), st.integers(0, 99), st.floats(0.5, 1))
def test_auto_decides_at_once_where_it_is_sure_and_else_as_if_it_had_not_asked(
    harmony: Harmony, contract: Contract, budget: int, rationale: bool, seed: int, sure: float
) -> None:
    trie, logits_of, kinds = Trie(contract), noisy(harmony, seed), kinds_of(harmony, rationale)
    at_once, reasoned = (run(trie, Options(most, kinds), logits_of) for most in (0, budget))
    found = run(trie, Options(budget, kinds, sure=sure), logits_of)
    p_violates = sum(at_once.completion.scores[i] for i in contract.violating)
    clear = max(p_violates, 1 - p_violates) >= sure
    expected = at_once if clear else reasoned
    assert found.completion.at_once == clear
    assert found.completion.scores == pytest.approx(expected.completion.scores)
    assert (found.completion.analysis, found.completion.rationale) == (
        expected.completion.analysis,
        expected.completion.rationale,
    )
    kept = [token for step in found.steps if not step.branch for token in step.tokens]
    # Without a rationale a clear row ends on the branch, so that no needless token is decoded.
    assert kept == list(found.fed) == list(PROMPT.ids if clear and not rationale else expected.fed)


@given(st.integers(0, 60), st.booleans(), st.floats(0, 20), st.integers(0, 99))
def test_the_structure_is_ours_whatever_the_model_wants(
    harmony: Harmony, contract: Contract, budget: int, rationale: bool, boost: float, seed: int
) -> None:
    found = run(Trie(contract), Options(budget, kinds_of(harmony, rationale)), noisy(harmony, seed, boost))
    fed = [harmony.readable([i]) for i in found.fed if harmony.tokenizer.has_control([i])]
    between = ["<|end|>", "<|start|>", "<|channel|>", "<|message|>"]
    messages = len(found.completion.analysis)
    assert fed == ["<|channel|>", "<|message|>", *between * messages]
    assert messages == 0 or budget
    assert said(harmony, found).count(FINAL) == 1
    assert not any(map(harmony.tokenizer.has_control, found.completion.analysis))


@given(st.floats(-20, 20), st.integers(0, 99))
def test_a_rationale_is_bounded_json_text(harmony: Harmony, contract: Contract, boost: float, seed: int) -> None:
    kinds = harmony.tokenizer.string_kinds
    plain = noisy(harmony, seed)
    found = run(Trie(contract), Options(0, kinds), lambda sequence: plain(sequence) + boost * (kinds == 2))
    ids = found.completion.rationale
    assert ids is not None and 1 <= len(ids) <= MAX_RATIONALE
    assert all(kinds[list(ids[:-1])] == 1)
    assert kinds[ids[-1]] == 2 or len(ids) == MAX_RATIONALE
    closed = f'"{harmony.readable(ids)}' + '"' * int(kinds[ids[-1]] == 1)
    assert harmony.string_text(ids) == json.JSONDecoder().raw_decode(closed)[0].strip()


WILD = st.floats(-50, 50, width=32) | st.sampled_from([np.nan, np.inf, -np.inf])


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), WILD), min_size=1, max_size=700), st.data())
def test_a_rationale_chooses_as_if_every_token_that_breaks_the_string_had_no_chance(
    contract: Contract, tokens: list[tuple[int, float]], data: st.DataObject
) -> None:
    kinds, values = np.array([kind for kind, _ in tokens], np.int8), np.array([value for _, value in tokens])
    logits = values.astype(np.float32)[: data.draw(st.integers(1, len(values)), "logits")]  # servers may give fewer
    logits.flags.writeable = False  # as llama.cpp's memory should be to us
    temperature, seed = data.draw(st.sampled_from([0.0, 0.3, 1.0, 5.0])), data.draw(st.integers(0, 9))
    choose, as_defined, expected = sampler(temperature, (seed,)), sampler(temperature, (seed,)), []
    writing, failed = _write_string((1,), Options(0, kinds, temperature), choose), None
    next(writing)
    while failed is None:
        try:  # the definition
            expected.append(as_defined(np.where(kinds[: len(logits)] > 0, logits, -np.inf).astype(np.float32)))
        except BadLogits as problem:
            failed = problem
        try:
            writing.send(logits[np.newaxis])
        except StopIteration as stop:
            assert failed is None
            assert list(stop.value) == expected
            assert kinds[expected[-1]] == 2 or len(expected) == MAX_RATIONALE
            return
        except BadLogits:
            assert failed is not None


def test_the_rationale_follows_the_best_label(harmony: Harmony, contract: Contract) -> None:
    for seed in range(20):
        found = run(Trie(contract), Options(0, harmony.tokenizer.string_kinds), noisy(harmony, seed))
        best = contract.labels[int(np.argmax(found.completion.scores))]
        forced = (*PROMPT.ids, *contract.open_final_at_once, *best, *contract.open_rationale)
        assert found.fed[: len(forced)] == forced


class Broken:
    """A model that returns logits without numbers once; `asked` counts its answers."""

    def __init__(self, logits_of: LogitsOf, at: int, value: float) -> None:
        self.logits_of, self.at, self.value, self.asked = logits_of, at, value, 0

    def __call__(self, sequence: tuple[int, ...]) -> np.ndarray:
        self.asked += 1
        logits = self.logits_of(sequence)
        return np.full_like(logits, self.value) if self.asked - 1 == self.at else logits


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_an_error_at_any_place(
    harmony: Harmony, contract: Contract, value: float
) -> None:
    script = ["a", "<|end|>", "analysis", "b", "<|end|>", "final"]
    trie, options = Trie(contract), Options(30, harmony.tokenizer.string_kinds)
    whole = Broken(scripted(harmony, *script), -1, value)
    run(trie, options, whole)
    survived = []
    for at in range(whole.asked):
        try:
            with np.errstate(invalid="ignore"):
                run(trie, options, Broken(scripted(harmony, *script), at, value))
        except BadLogits:
            continue
        survived.append(at)
    assert not survived


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_labels_without_numbers_are_an_error_and_no_warning(harmony: Harmony, contract: Contract, value: float) -> None:
    with pytest.raises(BadLogits):  # numpy's warnings are errors here, and noise on a user's screen
        run(Trie(contract), Options(0), Broken(scripted(harmony), 0, value))


def test_without_a_temperature_the_seed_is_nothing(harmony: Harmony, contract: Contract) -> None:
    runs = [run(Trie(contract), Options(20, seed=seed), noisy(harmony, 0)).fed for seed in range(3)]
    assert runs[0] == runs[1] == runs[2]


def test_a_temperature_samples_by_probability(harmony: Harmony, contract: Contract) -> None:
    p = {17: 0.6, 18: 0.3, 19: 0.1}
    logits = np.full(len(harmony.tokenizer.tokens), -50, np.float32)
    logits[list(p)] = np.log(list(p.values()))
    rows = [Prompt(row, 0, 0, (5,)) for row in range(600)]
    runs = [run(Trie(contract), Options(1, temperature=1.0), lambda _: logits, prompt) for prompt in rows]
    chosen = [found.completion.analysis[0][0] for found in runs]
    assert [chosen.count(token) / 600 for token in p] == pytest.approx(list(p.values()), abs=0.06)


def test_the_scores_have_no_temperature(harmony: Harmony, contract: Contract) -> None:
    cold, hot = (run(Trie(contract), Options(0, temperature=t), noisy(harmony, 1)) for t in (0.0, 2.0))
    assert cold.completion.scores == hot.completion.scores

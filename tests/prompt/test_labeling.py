"""A long text becomes windows, and what the windows say becomes one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.output.labelled import verdict_of
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Completion, Prompt
from safeguard_cli.prompt.harmony import ControlTokenError, Harmony
from safeguard_cli.prompt.labeling import OVERLAP, Answer, Labeling, Rules, split
from safeguard_cli.rows.turns import Turns
from safeguard_cli.rows.verdict import RowError, Verdict

TWO = (Policy("spam", "x", ("ham", "spam"), ("spam",)), Policy("hate", "y", ("no", "hint", "yes"), ("hint", "yes")))


def labeling(harmony: Harmony, *window: int, policies: Sequence[Policy] = TWO, **rules: object) -> Labeling:
    """Return a Labeling with one policy for each given window."""
    chosen = tuple(policies[: len(window)])
    prefixes = tuple(harmony.prefix(policy, "low") for policy in chosen)
    return Labeling(harmony, Rules(chosen, prefixes, window, "low", **rules))  # type: ignore[arg-type]


def contents(harmony: Harmony, prompts: Sequence[Prompt]) -> list[bytes]:
    """Return the bytes of each prompt's text."""
    return [harmony.tokenizer.decode_bytes(prompt.ids[: -len(harmony.suffix)]) for prompt in prompts]


def finish(
    job: Labeling, answer: Answer, prompts: Sequence[Prompt], *scores: tuple[float, ...], **more: object
) -> None:
    for prompt, found in zip(prompts, scores, strict=True):
        job.finish(answer, Completion(prompt, found, **more))  # type: ignore[arg-type]


def verdict(harmony: Harmony, *scores: float, policy: Policy = TWO[0], **rules: object) -> Verdict:
    """Return the verdict on a short text for which the model gave these scores."""
    job = labeling(harmony, 100, policies=[policy], **rules)
    answer, (prompts,) = job.start("x", 0)
    finish(job, answer, prompts, scores)
    assert answer.done
    return answer.verdicts[policy.name]


STARTS = st.lists(st.integers(1, 4), min_size=1, max_size=120)  # how many tokens each character has


@given(STARTS, st.integers(4, 700))
def test_windows_cover_all_tokens_in_order_and_begin_at_characters(lengths: list[int], size: int) -> None:
    first = [i == 0 for length in lengths for i in range(length)]
    ids = range(len(first))
    windows = split(ids, size, lambda token: first[token], 10_000)
    assert windows[0][0] == 0
    assert windows[-1][-1] == ids[-1]
    assert all(first[window[0]] for window in windows)
    assert all(0 < len(window) <= size for window in windows)
    assert all(list(window) == list(range(window[0], window[-1] + 1)) for window in windows)
    for window, following in pairwise(windows):
        assert window[0] < following[0] <= window[-1] + 1
        assert window[-1] < following[-1]


@given(st.integers(16, 2_000), st.integers(1, 5_000))
def test_neighbouring_windows_overlap(size: int, count: int) -> None:
    windows = split(range(count), size, lambda _: True, 10_000)
    for window, following in pairwise(windows):
        assert window[-1] + 1 - following[0] == min(OVERLAP, size // 8)


def test_no_more_windows_are_made_than_asked_for() -> None:
    assert len(split(range(1_000_000), 16, lambda _: True, 17)) == 17


@given(st.text(st.sampled_from("aé漢🚀 "), max_size=300), st.integers(16, 60))
def test_windows_of_a_text_hold_whole_characters(harmony: Harmony, text: str, size: int) -> None:
    _, (prompts,) = labeling(harmony, size, max_windows=1_000).start(text, 0)
    parts = [content.decode() for content in contents(harmony, prompts)]  # raises if a character is cut
    assert all(part in text for part in parts)
    assert text.startswith(parts[0])
    assert text.endswith(parts[-1])


def test_a_text_that_fits_is_one_window(harmony: Harmony) -> None:
    answer, (prompts,) = labeling(harmony, 16).start("!" * 16, 3)
    assert contents(harmony, prompts) == [b"!" * 16]
    assert (prompts[0].row, prompts[0].policy, prompts[0].window) == (3, 0, 0)
    assert not answer.done


def test_an_empty_text_is_labelled(harmony: Harmony) -> None:
    _, (prompts,) = labeling(harmony, 16).start("", 0)
    assert [prompt.ids for prompt in prompts] == [harmony.suffix]


def test_more_windows_than_allowed_are_too_long(harmony: Harmony) -> None:
    job = labeling(harmony, 16, max_windows=2)  # 16 tokens, then 14 new ones after an overlap of 2
    assert len(job.start("!" * 30, 0)[1][0]) == 2
    answer, (prompts,) = job.start("!" * 31, 0)
    assert answer.done
    assert not prompts
    assert answer.verdicts["spam"].error == RowError("too_long", "the text has 31 tokens, 16 fit --ctx in 2 windows")


@pytest.mark.parametrize("rules", [{"max_windows": 2}, {"long": "error"}])
def test_size_is_checked_in_bytes_before_tokenizing(
    harmony: Harmony, monkeypatch: pytest.MonkeyPatch, rules: dict[str, object]
) -> None:
    job = labeling(harmony, 16, 20, **rules)
    monkeypatch.setattr(harmony, "text_ids", lambda text: pytest.fail("tokenized"))
    answer, _ = job.start("é" * (20 * harmony.tokenizer.longest + 1), 0)
    assert {name: found.error and found.error.code for name, found in answer.verdicts.items()} == {
        "spam": "too_long",
        "hate": "too_long",
    }


def test_a_long_text_is_an_error_where_that_is_asked_for(harmony: Harmony) -> None:
    answer, _ = labeling(harmony, 16, long="error").start("!" * 17, 0)
    assert answer.verdicts["spam"].error == RowError("too_long", "the text has 17 tokens, 16 fit --ctx")


@pytest.mark.parametrize("length", [17, 1_000_000])
def test_truncation_keeps_the_beginning_and_says_so(harmony: Harmony, length: int) -> None:
    job = labeling(harmony, 16, long="truncate")
    answer, (prompts,) = job.start("!" * length, 0)
    assert contents(harmony, prompts) == [b"!" * 16]
    finish(job, answer, prompts, (0.5, 0.5))
    assert answer.verdicts["spam"].truncated


@given(st.text(st.sampled_from("aé漢🚀"), min_size=1, max_size=100), st.integers(16, 60))
def test_truncation_cuts_between_characters(harmony: Harmony, text: str, size: int) -> None:
    _, (prompts,) = labeling(harmony, size, long="truncate").start(text, 0)
    assert text.startswith(contents(harmony, prompts)[0].decode())


def test_a_text_that_fits_is_not_called_truncated(harmony: Harmony) -> None:
    assert not verdict(harmony, 0.5, 0.5, long="truncate").truncated


def test_truncation_under_one_policy_says_nothing_of_another(harmony: Harmony) -> None:
    job = labeling(harmony, 100, 16, long="truncate")
    answer, (whole, cut) = job.start("!" * 50, 0)
    finish(job, answer, whole, (0.5, 0.5))
    finish(job, answer, cut, (0.2, 0.3, 0.5))
    assert {name: found.truncated for name, found in answer.verdicts.items()} == {"spam": False, "hate": True}


def test_each_policy_has_windows_of_its_own_size(harmony: Harmony) -> None:
    job = labeling(harmony, 100, 16)
    answer, (whole, parts) = job.start("!" * 44, 0)
    assert (len(whole), len(parts)) == (1, 3)
    finish(job, answer, whole, (0.5, 0.5))
    assert not answer.done
    finish(job, answer, parts, (0.2, 0.3, 0.5), (1, 0, 0), (1, 0, 0))
    assert answer.done
    assert {name: found.windows for name, found in answer.verdicts.items()} == {"spam": 1, "hate": 3}


def test_a_text_too_long_for_one_policy_is_labelled_under_the_other(harmony: Harmony) -> None:
    job = labeling(harmony, 100, 16, max_windows=2)
    answer, (whole, parts) = job.start("!" * 50, 0)
    assert not parts
    finish(job, answer, whole, (0.5, 0.5))
    assert answer.done
    assert answer.verdicts["spam"].label == "ham"
    assert answer.verdicts["hate"].error is not None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_the_window_of_highest_p_violates_speaks_for_the_row(harmony: Harmony, order: tuple[int, ...]) -> None:
    job = labeling(harmony, 100, 16)
    answer, (_, parts) = job.start("!" * 44, 0)
    scores = [(0.4, 0.0, 0.6), (0.35, 0.33, 0.32), (0.9, 0.1, 0.0)]  # by highest label, the first would win
    finish(job, answer, [parts[i] for i in order], *(scores[i] for i in order))
    found = answer.verdicts["hate"]
    assert (found.label, found.p_violates, found.windows) == ("no", 0.65, 3)


def test_among_equal_windows_the_first_speaks(harmony: Harmony) -> None:
    job = labeling(harmony, 16, reasoning=True)
    answer, (parts,) = job.start("!" * 30, 0)
    for prompt, text in reversed(list(zip(parts, "ab", strict=True))):
        finish(job, answer, [prompt], (0.5, 0.5), analysis=(harmony.tokenizer.encode(text),))
    assert answer.verdicts["spam"].reasoning == "a"


def test_an_engine_error_in_one_window_makes_the_row_an_error(harmony: Harmony) -> None:
    job = labeling(harmony, 16)
    answer, (parts,) = job.start("!" * 30, 0)
    finish(job, answer, parts[:1], (0.1, 0.9))
    finish(job, answer, parts[1:], (), error="it failed")
    assert answer.verdicts["spam"] == Verdict(error=RowError("engine", "it failed"))


def test_a_row_without_text_is_done_at_once_with_its_error(harmony: Harmony) -> None:
    answer, prompts = labeling(harmony, 16, 16).start(RowError("no_text", "m"), 0)
    assert answer.done
    assert prompts == [[], []]
    assert answer.verdicts == {name: Verdict(error=RowError("no_text", "m")) for name in ("spam", "hate")}


def test_a_control_token_in_ordinary_text_makes_the_row_an_error(
    harmony: Harmony, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forge(text: str) -> list[int]:
        raise ControlTokenError

    job = labeling(harmony, 16)
    monkeypatch.setattr(harmony, "text_ids", forge)
    error = job.start("x", 0)[0].verdicts["spam"].error
    assert error is not None
    assert error.code == "control_token"


def test_the_label_is_the_one_of_highest_score_and_p_violates_the_sum(harmony: Harmony) -> None:
    found = verdict(harmony, 0.4, 0.35, 0.25, policy=TWO[1])
    assert (found.label, found.violates, found.p_violates) == ("no", False, 0.6)
    assert found.scores == {"no": 0.4, "hint": 0.35, "yes": 0.25}


@pytest.mark.parametrize(("threshold", "violates"), [(None, False), (0.3, True), (0.4, True), (0.41, False)])
def test_violates_means_p_violates_at_or_over_the_threshold(
    harmony: Harmony, threshold: float | None, violates: bool
) -> None:
    assert verdict(harmony, 0.6, 0.4, threshold=threshold).violates is violates


@pytest.mark.parametrize(
    ("scores", "threshold"), [((0.5000004, 0.1, 0.3999996), 0.5), ((1e-12, 0.4, 0.6 - 1e-12), 1.0)]
)
def test_the_threshold_agrees_with_the_p_violates_that_is_shown(
    harmony: Harmony, scores: tuple[float, ...], threshold: float
) -> None:
    found = verdict(harmony, *scores, policy=TWO[1], threshold=threshold)
    assert found.p_violates == threshold
    assert found.violates is True


def test_a_rationale_is_the_text_of_its_string(harmony: Harmony) -> None:
    job = labeling(harmony, 16)
    answer, (prompts,) = job.start("x", 0)
    finish(job, answer, prompts, (0.9, 0.1), rationale=tuple(harmony.tokenizer.encode(' a \\"b\\" \\u00e9"}')))
    assert answer.verdicts["spam"].rationale == 'a "b" é'


def test_reasoning_is_shown_only_where_it_is_asked_for(harmony: Harmony) -> None:
    analysis = tuple(tuple(harmony.tokenizer.encode(text)) for text in ("one", "two"))
    found = []
    for reasoning in (False, True):
        job = labeling(harmony, 16, reasoning=reasoning)
        answer, (prompts,) = job.start("x", 0)
        finish(job, answer, prompts, (0.9, 0.1), analysis=analysis)
        found.append(answer.verdicts["spam"].reasoning)
    assert found == [None, "one\ntwo"]


@pytest.mark.parametrize("ended", [(True, True), (True, False), (False, True)])
def test_a_row_is_cut_where_the_budget_ended_the_reasoning_about_any_window(harmony: Harmony, ended) -> None:
    job = labeling(harmony, 40, policies=TWO[:1])
    answer, (prompts,) = job.start("a bc " * 10, 0)
    assert len(prompts) == 2
    for prompt, whole in zip(prompts, ended, strict=True):
        job.finish(answer, Completion(prompt, (0.9, 0.1), ended=whole))
    verdict = answer.verdicts["spam"]
    assert verdict.cut is (not all(ended))
    assert verdict.as_dict().get("cut", False) is verdict.cut
    assert verdict_of(verdict.as_dict()).cut is verdict.cut


def test_of_a_conversation_the_latest_turns_that_fit_come_with_the_turn(harmony: Harmony) -> None:
    earlier = tuple(f"user: number {n} says{' something' * (n % 3)}" for n in range(40))
    whole = Turns("bot: the last", earlier, 3)
    for size in range(60, 700, 9):
        job = labeling(harmony, size + 50, size)
        answer, (wide, narrow) = job.start(whole, 0)
        text = contents(harmony, narrow)[0].decode()
        assert contents(harmony, wide) == [text.encode()], "all policies see the same"
        kept = text.count("number")
        assert text == str(whole.last(kept))
        assert len(harmony.text_ids(text)) <= size
        assert kept == 40 or len(harmony.text_ids(str(whole.last(kept + 1)))) > size - 2, "one more would have fitted"
        finish(job, answer, [*wide, *narrow], (0.5, 0.5), (0.4, 0.3, 0.3))
        assert {found.turns_left_out for found in answer.verdicts.values()} == {43 - kept}


def test_a_turn_that_fits_no_window_is_split_without_those_before_it(harmony: Harmony) -> None:
    job = labeling(harmony, 40)
    answer, (prompts,) = job.start(Turns("user: " + "word " * 90, ("user: hi",)), 0)
    assert len(prompts) > 1
    assert b"hi" not in b"".join(contents(harmony, prompts))
    finish(job, answer, prompts, *[(0.5, 0.5)] * len(prompts))
    assert answer.verdicts["spam"].turns_left_out == 1

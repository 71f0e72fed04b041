"""Turns a row's text into prompts under each policy, and the model's completions into Verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Completion, Prefix, Prompt
from safeguard_cli.prompt.harmony import ControlTokenError, Harmony
from safeguard_cli.rows.verdict import RowError, Verdict

OVERLAP = 64  # tokens that neighbouring windows of a long text share, at most an eighth of a window


@dataclass(frozen=True, slots=True)
class Rules:
    """How texts become prompts and completions become Verdicts.

    A prompt asks about a group of policies: about one, or about all of them if `together`. `prefixes` and `window`,
    the most text tokens of a prompt, are by group. `long` says what to do with longer texts.
    """

    policies: tuple[Policy, ...]
    prefixes: tuple[Prefix, ...]
    window: tuple[int, ...]
    effort: str
    long: str = "split"
    max_windows: int = 16
    threshold: float | None = None
    reasoning: bool = False
    together: bool = False

    @property
    def groups(self) -> tuple[tuple[Policy, ...], ...]:
        return (self.policies,) if self.together else tuple((policy,) for policy in self.policies)


@dataclass(slots=True, eq=False)
class Answer:
    """The answer to a row: Verdicts by policy name, and the windows that are still being decoded."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    waiting: dict[int, int] = field(default_factory=dict)  # group → windows not yet decided
    windows: dict[int, list[Completion]] = field(default_factory=dict)
    truncated: set[int] = field(default_factory=set)  # groups

    @property
    def done(self) -> bool:
        return not self.waiting


class Labeling:
    """Makes prompts from texts and Verdicts from completions, for one run."""

    def __init__(self, harmony: Harmony, rules: Rules) -> None:
        self.harmony, self.rules = harmony, rules

    def start(self, text: str | RowError, number: int, part: int = 0) -> tuple[Answer, list[list[Prompt]]]:
        """Return the Answer to row `number` of an input and its prompts by group.

        A row without a text is done, with its error.
        """
        answer = Answer()
        prompts: list[list[Prompt]] = [[] for _ in self.rules.groups]
        ids = text if isinstance(text, RowError) else self._tokens(text)
        for index, group in enumerate(self.rules.groups):
            found = ids if isinstance(ids, RowError) else self._windows(ids, index, answer)
            if isinstance(found, RowError):
                answer.verdicts |= {policy.name: Verdict(error=found) for policy in group}
                continue
            answer.waiting[index] = len(found)
            answer.windows[index] = []
            prompts[index] = [
                Prompt(number, index, i, self.harmony.content_ids(window), part) for i, window in enumerate(found)
            ]
        return answer, prompts

    def finish(self, answer: Answer, completion: Completion) -> None:
        """Add a completion; with the last window of a group, make the Verdicts of its policies."""
        index = completion.prompt.policy
        answer.windows[index].append(completion)
        answer.waiting[index] -= 1
        if not answer.waiting[index]:
            del answer.waiting[index]
            windows, begin = answer.windows.pop(index), 0
            for policy in self.rules.groups[index]:
                answer.verdicts[policy.name] = self._verdict(policy, windows, begin, index in answer.truncated)
                begin += len(policy.labels)
            if not answer.waiting:  # in the policies' order, whichever finished first
                answer.verdicts = {policy.name: answer.verdicts[policy.name] for policy in self.rules.policies}

    def _tokens(self, text: str) -> list[int] | RowError:
        rules, tokenizer = self.rules, self.harmony.tokenizer
        size = len(text.encode())
        most = max(rules.window) * (rules.max_windows if rules.long == "split" else 1)
        # Safe to decide before tokenizing: no token is longer than the longest. Truncation needs only the beginning.
        if size > most * tokenizer.longest and rules.long != "truncate":
            return RowError("too_long", f"the text has {size:,} bytes, more than {most:,} tokens can hold")
        if rules.long == "truncate":
            text = text[: (most + 1) * tokenizer.longest]
        try:
            return self.harmony.text_ids(text)
        except ControlTokenError:
            return RowError("control_token", "the tokenizer gave a control token for ordinary text")

    def _windows(self, ids: Sequence[int], group: int, answer: Answer) -> list[Sequence[int]] | RowError:
        size, rules = self.rules.window[group], self.rules
        if len(ids) <= size:
            return [ids]
        if rules.long == "truncate":
            answer.truncated.add(group)
            return [ids[: self._boundary(ids, size)]]
        if rules.long == "split":
            windows = split(ids, size, self._starts_character, rules.max_windows + 1)
            if len(windows) <= rules.max_windows:
                return windows
        limit = f"{size:,} fit --ctx" + (f" in {rules.max_windows} windows" if rules.long == "split" else "")
        return RowError("too_long", f"the text has {len(ids):,} tokens, {limit}")

    def _boundary(self, ids: Sequence[int], cut: int) -> int:
        while cut > 1 and not self._starts_character(ids[cut]):
            cut -= 1
        return cut

    def _starts_character(self, token: int) -> bool:
        return self.harmony.tokenizer.token_bytes(token)[0] & 0xC0 != 0x80  # not a UTF-8 continuation byte

    def _verdict(self, policy: Policy, completions: list[Completion], begin: int, truncated: bool) -> Verdict:
        """Return the row's Verdict: that of the window with the highest p_violates, or an error if a window failed.

        The policy's scores begin at `begin` among those of a completion.
        """
        for completion in completions:
            if completion.error is not None:
                return Verdict(error=RowError(completion.code, completion.error))
        bad = [i for i, label in enumerate(policy.labels, begin) if label in policy.violates]

        def p_violates(completion: Completion) -> float:
            return sum(completion.scores[i] for i in bad)

        worst = max(sorted(completions, key=lambda c: c.prompt.window), key=p_violates)
        own = worst.scores[begin : begin + len(policy.labels)]
        scores = {name: round(score, 6) for name, score in zip(policy.labels, own, strict=True)}
        label = max(zip(own, policy.labels, strict=True), key=lambda pair: pair[0])[1]
        # The sum of the rounded scores, so that a reader's own sum equals it.
        p = min(1.0, round(sum(scores[name] for name in policy.labels if name in policy.violates), 6))
        threshold = self.rules.threshold
        decode = self.harmony.tokenizer.decode
        return Verdict(
            label=label,
            violates=label in policy.violates if threshold is None else p >= threshold,
            p_violates=p,
            scores=scores,
            effort="none" if worst.at_once else "low" if self.rules.effort == "auto" else self.rules.effort,
            windows=len(completions),
            truncated=truncated,
            cut=not all(completion.ended for completion in completions),
            rationale=None if worst.rationale is None else self.harmony.string_text(worst.rationale),
            reasoning="\n".join(map(decode, worst.analysis)).strip() if self.rules.reasoning else None,
        )


def split(ids: Sequence[int], size: int, starts_character: Callable[[int], bool], most: int) -> list[Sequence[int]]:
    """Return at most `most` overlapping windows of up to `size` tokens; each begins at a character's first token."""
    overlap = min(OVERLAP, size // 8)
    windows: list[Sequence[int]] = []
    begin = 0
    while len(windows) < most:
        end = begin + size
        if end >= len(ids):
            windows.append(ids[begin:])
            break
        while end > begin + 1 and not starts_character(ids[end]):
            end -= 1
        windows.append(ids[begin:end])
        following = max(begin + 1, end - overlap)
        while following < end and not starts_character(ids[following]):
            following += 1
        begin = following
    return windows

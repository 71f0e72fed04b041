"""Turns a row's text into prompts under each policy, and the model's completions into Verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Completion, Prefix, Prompt
from safeguard_cli.prompt.harmony import ControlTokenError, Harmony
from safeguard_cli.prompt.votes import elected, p_votes
from safeguard_cli.rows.turns import Turns
from safeguard_cli.rows.verdict import RowError, Verdict

OVERLAP = 64  # tokens that neighbouring windows of a long text share, at most an eighth of a window


@dataclass(frozen=True, slots=True)
class Rules:
    """How texts become prompts and completions become Verdicts.

    A prompt asks about a group of policies: about one, or about all of them if `together`. `prefixes` and `window`,
    the most text tokens of a prompt, are by group. `long` says what to do with longer texts. `calibrate` turns
    p_violates into a probability, by policy name; empty without a calibration.
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
    rationale: bool = False
    until_decided: bool = False
    calibrate: Mapping[str, Callable[[float], float]] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[tuple[Policy, ...], ...]:
        return (self.policies,) if self.together else tuple((policy,) for policy in self.policies)

    def violated(self, policy: Policy, label: str, p_violates: float) -> bool:
        """Return whether a row violates a policy: by the threshold, if there is one, else by its label."""
        return label in policy.violates if self.threshold is None else p_violates >= self.threshold

    def calibrated(self, policy: Policy, p_violates: float) -> float | None:
        """Return the probability that a row violates a policy, None without a calibration."""
        curve = self.calibrate.get(policy.name)
        return None if curve is None else curve(p_violates)


@dataclass(slots=True, eq=False)
class Answer:
    """The answer to a row: Verdicts by policy name, and the windows that are still being decoded."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    waiting: dict[int, int] = field(default_factory=dict)  # group → windows not yet decided
    windows: dict[int, list[Completion]] = field(default_factory=dict)
    truncated: set[int] = field(default_factory=set)  # groups
    turns_left_out: int = 0
    characters: int = 0  # of the text

    @property
    def done(self) -> bool:
        return not self.waiting


class Labeling:
    """Makes prompts from texts and Verdicts from completions, for one run."""

    def __init__(self, harmony: Harmony, rules: Rules) -> None:
        self.harmony, self.rules = harmony, rules

    def start(
        self, text: str | Turns | RowError, number: int, known: Mapping[str, Verdict] | None = None, part: int = 0
    ) -> tuple[Answer, list[list[Prompt]]]:
        """Return the Answer to row `number` of an input and its prompts by group.

        A row without a text is done, with its error. Groups whose Verdicts are all `known`, by policy name, get no
        prompt.
        """
        answer = Answer(dict(known or {}), characters=0 if isinstance(text, RowError) else len(str(text)))
        prompts: list[list[Prompt]] = [[] for _ in self.rules.groups]
        if isinstance(text, Turns):
            text = self._fitting(text)
            answer.turns_left_out = text.more
        everything = len(answer.verdicts) == len(self.rules.policies)
        ids = text if isinstance(text, RowError) else [] if everything else self._tokens(str(text))
        for index, group in enumerate(self.rules.groups):
            if all(policy.name in answer.verdicts for policy in group):
                continue
            found = ids if isinstance(ids, RowError) else self._windows(ids, index, answer)
            if isinstance(found, RowError):
                answer.verdicts |= {policy.name: Verdict(error=found) for policy in group}
                continue
            answer.waiting[index] = len(found)
            answer.windows[index] = []
            prompts[index] = [
                Prompt(number, index, i, self.harmony.content_ids(window), part) for i, window in enumerate(found)
            ]
        self._put_in_order(answer)
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
                answer.verdicts[policy.name] = self._verdict(policy, windows, begin, answer, index)
                begin += len(policy.labels)
            self._put_in_order(answer)

    def _put_in_order(self, answer: Answer) -> None:
        """Put an Answer that is done in the policies' order, whichever finished first."""
        if answer.done:
            answer.verdicts = {policy.name: answer.verdicts[policy.name] for policy in self.rules.policies}

    def _fitting(self, turns: Turns) -> Turns:
        """Return a turn with as many of the turns before it as fit every group's window, the latest ones."""
        if not turns.earlier and not turns.more:
            return turns
        size, kept = min(self.rules.window), 0
        left = size - self._size(str(Turns(turns.turn, ("",))))
        for earlier in reversed(turns.earlier):
            left -= self._size(f"{earlier}\n")
            if left < 0:
                break
            kept += 1
        # The tokens of a text can be more than those of its parts together, so the whole is measured too.
        while kept and self._size(str(turns.last(kept))) > size:
            kept -= 1
        return turns.last(kept)

    def _size(self, text: str) -> int:
        """Return a text's size in tokens, without a limit where the tokenizer cannot be trusted with it."""
        try:
            return len(self.harmony.text_ids(text))
        except ControlTokenError:
            return max(self.rules.window) + 1

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

    def _verdict(
        self, policy: Policy, completions: list[Completion], begin: int, answer: Answer, group: int
    ) -> Verdict:
        """Return the row's Verdict: that of the window that violates most, or an error if a window failed.

        That is the window with the most votes that violate, and of these the one with the highest p_violates. The
        policy's scores and votes begin at `begin` among those of a completion.
        """
        for completion in completions:
            if completion.error is not None:
                return Verdict(error=RowError(completion.code, completion.error))
        end = begin + len(policy.labels)
        bad = [i for i, label in enumerate(policy.labels, begin) if label in policy.violates]

        def p_violates(completion: Completion) -> float:
            return sum(completion.scores[i] for i in bad)

        def violating_votes(completion: Completion) -> float:
            votes = completion.votes[begin:end]
            return sum(completion.votes[i] for i in bad) / sum(votes) if votes else p_violates(completion)

        in_order = sorted(completions, key=lambda c: c.prompt.window)
        worst = max(in_order, key=lambda c: (violating_votes(c), p_violates(c)))
        own, votes = worst.scores[begin:end], worst.votes[begin:end]
        scores = {name: round(score, 6) for name, score in zip(policy.labels, own, strict=True)}
        violating = [i - begin for i in bad]
        label = policy.labels[elected(votes, own, violating) if votes else own.index(max(own))]
        # The sum of the rounded scores, so that a reader's own sum equals it.
        p = min(1.0, round(sum(scores[name] for name in policy.labels if name in policy.violates), 6))
        decode = self.harmony.tokenizer.decode
        return Verdict(
            label=label,
            violates=self.rules.violated(policy, label, p),
            p_violates=p,
            p_calibrated=self.rules.calibrated(policy, p),
            scores=scores,
            votes=dict(zip(policy.labels, votes, strict=True)) if votes else None,
            p_votes=self._p_votes(votes, violating),
            effort="none" if worst.at_once else "low" if self.rules.effort == "auto" else self.rules.effort,
            windows=len(completions),
            truncated=group in answer.truncated,
            turns_left_out=answer.turns_left_out,
            characters=answer.characters,
            cut=not all(completion.ended for completion in completions),
            rationale=None if worst.rationale is None else self.harmony.string_text(worst.rationale),
            reasoning="\n".join(map(decode, worst.analysis)).strip() if self.rules.reasoning else None,
        )

    def _p_votes(self, votes: Sequence[int], violating: Sequence[int]) -> float | None:
        """Return what votes tell, None where they may have stopped early."""
        if not votes or self.rules.until_decided:
            return None
        return round(p_votes(sum(votes[i] for i in violating), sum(votes)), 6)


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

"""Turns examples into token rows behind a policy's prompt, and rows into batches, which a training step sees."""

from __future__ import annotations

import bisect
import itertools
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import orjson

from safeguard_cli.demo.training import data
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Prefix
from safeguard_cli.prompt.harmony import Harmony, Marker

POOL = 192  # examples of one policy that are sorted by length at a time
BATCH_TOKENS = 4000  # padding included; a step has one batch for each core
MAX_CONTENT = 250  # tokens of a text; longer ones are cut
# Loss weights of a label, in tokens of analysis: after the text alone, after its own analysis, and after one that
# argues for the other label. The last must count for less, or an analysis would be evidence against its own conclusion.
LABEL_WEIGHT, REASONED_WEIGHT, MISLED_WEIGHT = 20.0, 10.0, 5.0
FORCED_SHARE, FORCED_WEIGHT = 0.15, 0.5  # rows that also learn what the program forces, for tools that do not
QUOTE = ' "'  # opens a quote
SPACE = "Ġ"  # a space in a byte-level vocabulary
_QUOTED = re.compile(r'"[^"]+"')
_OPENING = re.compile(r'[^\s"\\]{1,20}(?: [^\s"\\]+){0,2}')


@dataclass(slots=True)
class Row:
    """Tokens behind the prefix; `weights[i]` is the loss weight of predicting `ids[i]`.

    If `soft` > 0, that share of the probability at `label_at` should go to `other`.
    """

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    label_at: int = -1
    other: int = 0
    soft: float = 0.0

    def add(self, ids: Sequence[int], weight: float) -> None:
        """Append tokens, all with one weight."""
        self.ids.extend(ids)
        self.weights.extend([weight] * len(ids))


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of about one length behind one prefix."""

    prefix: Sequence[int]
    rows: list[Row]


class RowBuilder:
    """Writes examples as the program's prompts, with the completions to learn."""

    def __init__(self, harmony: Harmony, policies: dict[str, Policy], tokens: list[str], seed: int) -> None:
        self.harmony = harmony
        self.policies = policies
        self.words = [t[1:] for t in tokens if t[:1] == SPACE and t[1:].isascii() and t[1:].isalpha()]
        self.random = random.Random(seed)
        self.closing = harmony.ids(('"}', Marker.RETURN))
        self.text_tokens = [token for token in range(len(tokens)) if token not in harmony.tokenizer.control_ids]
        self.before_quote, self.after_quote = harmony.text_ids(f"Here:{QUOTE}"), harmony.text_ids('".')

    def row(self, example: data.Example, prefix: Prefix, effort: str, rationale: bool) -> Row:
        """Return one example: the label at once, or after an analysis, which sometimes argues for the wrong label."""
        contract, kind, row = prefix.contract, self.random.random(), Row()
        at_once, misled = effort == "low" and kind < 0.55, kind > 0.82
        learnt = 0.0 if misled else 1.0
        forced_weight = FORCED_WEIGHT if self.random.random() < FORCED_SHARE else 0.0
        content = self.harmony.text_ids(example.content)[:MAX_CONTENT]
        row.add(self.harmony.content_ids(content), 0.0)
        if at_once:
            row.add(contract.open_final_at_once, 0.0)
        else:
            text = data.opposite_analysis(example, self.random) if misled else data.analysis(example)
            row.add(contract.open_analysis, forced_weight * learnt)
            row.add(self.quoting_ids(_QUOTED.sub(lambda _: f'"{opening(example.content)}"', text), content), learnt)
            for forced in (contract.next_message, contract.open_final):  # the first token of each is the model's choice
                row.add(forced[:1], learnt)
                row.add(forced[1:], forced_weight * learnt)
        policy = self.policies[example.policy]
        gold = contract.labels[policy.labels.index(example.label)]
        row.label_at = len(row.ids)
        row.other = next(ids[0] for ids in contract.labels if ids != gold)
        if example.soft is not None:
            row.soft = 1 - example.soft if example.label in policy.violates else example.soft
        row.add(gold, LABEL_WEIGHT if at_once else MISLED_WEIGHT if misled else REASONED_WEIGHT)
        if rationale:
            row.add(contract.open_rationale, forced_weight)
            escaped = orjson.dumps(data.rationale(example)).decode()[1:-1]
            row.add(self.harmony.text_ids(escaped), 0.0 if misled else 0.5)
        row.add(self.closing, forced_weight)
        row.weights = [w * example.weight for w in row.weights]
        return row

    def copying(self, prefix: Prefix) -> Row:
        """Return a text of random words or tokens, and quotes of it: its opening, or spans of it.

        Any token may open the text, even one that hardly ever does in the training data.
        """
        row, start = Row(), 0
        if openings := self.random.random() < 0.6:
            content = self.random.choices(self.text_tokens, k=self.random.randint(4, 16))
        else:
            content = self.harmony.text_ids(" ".join(self._word() for _ in range(self.random.randint(6, 40))))
        row.add(self.harmony.content_ids(content), 0.0)
        row.add(prefix.contract.open_analysis, 0.0)
        for _ in range(1 if openings else 3):
            start = 0 if openings else self.random.randrange(len(content) - 3)
            span = content[start : start + self.random.randint(2, 8)]
            row.add([*self.before_quote, *span, *self.after_quote], 1.0)
        return row

    def quoting_ids(self, text: str, content: Sequence[int]) -> list[int]:
        """Return the ids of an analysis, with the text's own tokens as its quote, the space before it included.

        Copying is then one thing to learn: encoded anew, the first word would have other tokens than in the text.
        """
        before, mark, rest = text.partition(QUOTE)
        quote, _, after = rest.partition('"')
        tokenizer = self.harmony.tokenizer
        ends = list(itertools.accumulate(len(tokenizer.token_bytes(token)) for token in content))
        start = tokenizer.decode_bytes(content).find(quote.encode()) if mark else -1
        if start < 0:
            return self.harmony.text_ids(text)
        first, last = bisect.bisect_right(ends, start), bisect.bisect_left(ends, start + len(quote.encode()))
        return [*self.harmony.text_ids(before + mark), *content[first : last + 1], *self.harmony.text_ids('"' + after)]

    def _word(self) -> str:
        word, kind = self.random.choice(self.words), self.random.random()
        if kind < 0.1:
            return word.upper()
        return word.capitalize() if kind < 0.2 else str(self.random.randrange(10**5)) if kind < 0.25 else word


def opening(content: str) -> str:
    """Return the first one to three words of a text, at most some 20 characters, for an analysis to quote.

    A model this small finds the beginning of the text reliably, but any other place in only a third of the rows.
    """
    found = _OPENING.search(content)
    words = found[0].split(" ") if found else []
    while len(words) > 1 and len(" ".join(words)) > 20:
        words.pop()
    return " ".join(words)


def batches(stream: Iterable[tuple[str, data.Example]], builder: RowBuilder) -> Iterator[Batch]:
    """Yield endless batches: examples are pooled by policy, given an effort and a response format, sorted by length."""
    prefixes = {
        (name, effort, rationale): builder.harmony.prefix(policy, effort, rationale=rationale)
        for name, policy in builder.policies.items()
        for effort, rationale in itertools.product(("low", "medium", "high"), (False, True))
    }
    pools: dict[str, list[data.Example]] = {name: [] for name in builder.policies}
    for name, example in stream:
        pools[name].append(example)
        if len(pools[name]) < POOL:
            continue
        effort = builder.random.choices(("low", "medium", "high"), (8, 1, 1))[0]
        rationale = builder.random.random() < 0.2
        prefix = prefixes[name, effort, rationale]
        rows = [builder.row(e, prefix, effort, rationale) for e in pools[name]]
        pools[name] = []
        cut = cut_to_size(rows)
        builder.random.shuffle(cut)
        for part in cut:
            yield Batch(prefix.ids, part)


def cut_to_size(rows: Sequence[Row]) -> list[list[Row]]:
    """Group rows by length, in as few groups as fit a step, all about equally large: the cores wait for the largest."""
    ordered = sorted(rows, key=lambda row: len(row.ids), reverse=True)
    few = len(_cut(ordered, BATCH_TOKENS))
    limits = range(BATCH_TOKENS // 2, BATCH_TOKENS + 1, BATCH_TOKENS // 20)
    return next(groups for limit in limits if len(groups := _cut(ordered, limit)) <= few)


def _cut(ordered: Sequence[Row], limit: int) -> list[list[Row]]:
    groups: list[list[Row]] = []
    for row in ordered:
        if not groups or (len(groups[-1]) + 1) * len(groups[-1][0].ids) > limit:
            groups.append([])
        groups[-1].append(row)
    return groups


def copy_batches(builder: RowBuilder, prefix: Prefix) -> Iterator[Batch]:
    """Yield endless batches of copying exercises behind the last words of a prompt."""
    while True:
        for rows in cut_to_size([builder.copying(prefix) for _ in range(POOL)]):
            yield Batch(prefix.ids[-8:], rows)

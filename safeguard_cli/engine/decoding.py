"""One row's way through the model: analysis → final → label → rationale, on token ids and never on text.

`decide` is a coroutine: it yields the tokens to decode next and receives the logits that it asked for. The model
reasons freely; everything else is forced or chosen among the policy's labels, so that every answer is well-formed.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from safeguard_cli.engine.sampling import Choose, Logits, check, sampler, seeds
from safeguard_cli.engine.voting import Votes
from safeguard_cli.prompt.contract import Completion, Contract, Prompt

MAX_RATIONALE = 96
MOST_OUTPUTS = 32  # logits rows that one step of a row may ask for


@dataclass(frozen=True, slots=True)
class Options:
    """How rows are decided.

    `budget` is the most analysis tokens, 0 for effort none. With `sure`, the model does not reason about a row whose
    label is clear at once: the greater of p_violates and 1 - p_violates is at least `sure`. `string_kinds` tells for
    each token whether it may stand in a JSON string (see Tokenizer.string_kinds); only rationales need it.

    With `votes`, a row is reasoned about so many times, sampled at `temperature`; with `until_decided`, only until the
    other votes cannot change its label.
    """

    budget: int
    string_kinds: npt.NDArray[np.int8] | None = None
    temperature: float = 0.0
    seed: int = 0
    sure: float | None = None
    votes: int | None = None
    until_decided: bool = False
    unfit: npt.NDArray[np.intp] = field(init=False, compare=False)  # tokens that would break a string, found once

    def __post_init__(self) -> None:
        kinds = () if self.string_kinds is None else self.string_kinds
        object.__setattr__(self, "unfit", np.flatnonzero(np.less_equal(kinds, 0)))


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """Tokens to decode next, with logits wanted at the indices `outputs` of them, which may be none.

    With `branch`, the tokens go onto a copy of the row's sequence, which is dropped as soon as the logits are read.
    `among` lists for each output the only tokens that will be looked at, the most important first. Without `among` the
    model continues freely, for at most `most` tokens including the next one, and is done where it writes `until`.
    """

    tokens: tuple[int, ...]
    outputs: tuple[int, ...]
    branch: bool = False
    among: tuple[tuple[int, ...], ...] = ()
    most: int = 0
    until: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Votes to be cast by number, each by a coroutine of its own on a copy of the row's sequence as it is now.

    The row goes on, with no logits, when `cast` has the completions of all. It does not decode again: what follows is
    another Split or the row's end.
    """

    votes: Mapping[int, Vote]
    cast: dict[int, Completion] = field(default_factory=dict)


Vote: TypeAlias = Generator[Step, Logits, Completion]
Coroutine: TypeAlias = "Generator[Step | Split, Logits, Completion]"

NO_LOGITS: Logits = np.empty((0, 0), np.float32)


def overhead(trie: Trie, options: Options) -> int:
    """Return the most cells that a row, or each vote on it, can take beyond its prefix and its prompt.

    Label branches are included.
    """
    contract = trie.contract
    cells = len(contract.open_final_at_once)
    if options.budget:
        reasoned = len(contract.open_analysis) + options.budget + len(contract.next_message) + len(contract.open_final)
        cells = max(cells, reasoned)
    cells += _choice_cells(trie) + sum(len(opening) + _choice_cells(other) for opening, other in trie.more)
    if options.string_kinds is not None:
        cells += len(contract.open_rationale) + MAX_RATIONALE
    return cells


def _choice_cells(trie: Trie) -> int:
    return max(map(len, trie.labels)) + max((len(chain.tokens) for chain in trie.chains), default=0)


def undivided(trie: Trie, options: Options) -> int:
    """Return the length in tokens of the longest step on a branch, which must fit one batch whole."""
    opening = 0 if options.sure is None else len(trie.contract.open_final_at_once) + len(trie.common)
    chains = [opening, *(opening + len(chain.tokens) for chain in trie.chains)]
    return max(chains + [len(chain.tokens) for _, other in trie.more for chain in other.chains])


def decide(prompt: Prompt, trie: Trie, options: Options) -> Coroutine:
    """Decide one prompt. Raises BadLogits when the model's logits are not numbers."""
    choose = sampler(options.temperature, seeds(prompt, options.seed, 0 if options.votes else None))
    begin, choice = prompt.ids, None
    if options.sure is not None:
        begin, choice = (), (yield from _screen(prompt, trie, options.sure))
    if options.votes and choice is None:
        if begin:
            yield Step(begin, ())
        return (yield from _hold_votes(prompt, trie, options))
    return (yield from _answer(prompt, trie, options, choose, begin, choice))


def _hold_votes(prompt: Prompt, trie: Trie, options: Options) -> Generator[Split, Logits, Completion]:
    """Have votes cast on a text that is read, as many at a time as can decide the label."""
    votes = Votes(trie.contract, options.votes or 0, options.until_decided)
    while numbers := votes.next():
        split = Split({number: _vote(prompt, trie, options, number) for number in numbers})
        yield split
        votes.cast += (split.cast[number] for number in numbers)
        if failed := next((vote for vote in votes.cast if vote.error is not None), None):
            return failed
    return votes.counted(prompt)


def _vote(prompt: Prompt, trie: Trie, options: Options, number: int) -> Vote:
    choose = sampler(options.temperature, seeds(prompt, options.seed, number))
    return _answer(prompt, trie, options, choose, (), None)


def _answer(
    prompt: Prompt,
    trie: Trie,
    options: Options,
    choose: Choose,
    begin: tuple[int, ...],
    choice: npt.NDArray[np.float64] | None,
) -> Vote:
    """Reason and answer after the tokens `begin`; answer at once where there is a `choice` of the first label."""
    contract = trie.contract
    analysis: list[list[int]] = []
    at_once, ended = choice is not None or not options.budget, True
    if at_once:
        forced = (*begin, *contract.open_final_at_once)
    else:
        ended, forced = yield from _reason(begin, contract, options.budget, choose, analysis)
    ahead = (*forced, *trie.common)
    if choice is None:
        logits = yield _step(ahead, trie.root.wanted)
        choice = yield from _score(trie, logits[0])
        ahead = ()
    scores, best = choice, trie.rest_of_best(choice)
    for opening, other in trie.more:
        logits = yield _step((*best, *opening, *other.common), other.root.wanted)
        choice = yield from _score(other, logits[0])
        scores, best = np.append(scores, choice), other.rest_of_best(choice)
    rationale = None
    if options.string_kinds is not None:
        rationale = yield from _write_string((*ahead, *best, *contract.open_rationale), options, choose)
    generated = sum(map(len, analysis)) + len(rationale or ())
    reasoned = tuple(map(tuple, analysis))
    return Completion(prompt, tuple(scores.tolist()), reasoned, at_once, ended, rationale, generated)


def _step(tokens: tuple[int, ...], among: tuple[int, ...]) -> Step:
    return Step(tokens, (len(tokens) - 1,), among=(among,))


def _go_on(tokens: tuple[int, ...], most: int, until: str | None = None) -> Step:
    return Step(tokens, (len(tokens) - 1,), most=most, until=until)


def _screen(prompt: Prompt, trie: Trie, sure: float) -> Generator[Step, Logits, npt.NDArray[np.float64] | None]:
    """Return the scores without reasoning, or None if unclear; asked on a branch, so that the row can still reason."""
    yield Step(prompt.ids, ())
    opening = (*trie.contract.open_final_at_once, *trie.common)
    logits = yield Step(opening, (len(opening) - 1,), branch=True, among=(trie.root.wanted,))
    scores = yield from _score(trie, logits[0], opening)
    p_violates = scores[list(trie.contract.violating)].sum()
    return scores if max(p_violates, 1 - p_violates) >= sure else None


def _reason(
    begin: tuple[int, ...], contract: Contract, budget: int, choose: Choose, analysis: list[list[int]]
) -> Generator[Step, Logits, tuple[bool, tuple[int, ...]]]:
    """Let the model reason after `begin`; return whether it ended by itself, and the tokens that then open `final`.

    Any control token ends a message: an early <|return|> or <|call|> and a stray header are no worse than <|end|>.
    Then the model chooses the next channel, and may continue to reason while the budget lasts.
    """
    analysis.append([])
    spent, again = 0, len(contract.next_message) + max(map(len, contract.channels.values()))
    channels = (contract.final_token, *contract.channels)
    logits = yield _go_on((*begin, *contract.open_analysis), budget)
    while True:
        token = choose(logits[0])
        if token not in contract.stops:
            analysis[-1].append(token)
            spent += 1
            if spent >= budget:
                return False, (token, *contract.next_message, *contract.open_final)
            logits = yield _go_on((token,), budget - spent)
            continue
        if not analysis[-1] or spent + again >= budget:
            return True, (*contract.next_message, *contract.open_final)
        logits = yield _step(contract.next_message, channels)
        channel = max(channels, key=logits[0].__getitem__)
        check(logits[0][channel])
        if channel == contract.final_token:
            return True, contract.open_final
        analysis.append([])
        spent += again
        logits = yield _go_on(contract.channels[channel], budget - spent)


def _score(trie: Trie, root: Logits, opening: tuple[int, ...] = ()) -> Generator[Step, Logits, npt.NDArray[np.float64]]:
    """Return the probabilities of all labels: the product of the children's renormalised ones at each branching node.

    `opening` are the tokens before the first choice that are not decoded yet.
    """
    log_scores = np.zeros(len(trie.labels))
    trie.root.add_scores(root, log_scores)
    for chain in trie.chains:
        # MOST_OUTPUTS nodes at a time: a decode has room for no more logits, see Plan.context.
        for begin in range(0, len(chain.nodes), MOST_OUTPUTS):
            nodes = chain.nodes[begin : begin + MOST_OUTPUTS]
            outputs = tuple(len(opening) + index for index, _ in nodes)
            among = tuple(node.wanted for _, node in nodes)
            logits = yield Step((*opening, *chain.tokens), outputs, branch=True, among=among)
            for row, (_, node) in zip(logits, nodes, strict=True):
                node.add_scores(row, log_scores)
    scores: npt.NDArray[np.float64] = np.exp(log_scores)
    scores /= scores.sum()
    return scores


def _write_string(
    opening: tuple[int, ...], options: Options, choose: Choose
) -> Generator[Step, Logits, tuple[int, ...]]:
    """Write a JSON string of bounded length: only tokens that keep it valid are chosen, and a closing quote ends it."""
    kinds, unfit = options.string_kinds, options.unfit
    assert kinds is not None
    ids: list[int] = []
    logits = yield _go_on(opening, MAX_RATIONALE, '"}')
    while len(ids) < MAX_RATIONALE:
        fit = np.array(logits[0], np.float32)  # a copy: the logits are the engine's memory
        fit[unfit[: unfit.searchsorted(len(fit))]] = -np.inf
        token = choose(fit)
        ids.append(token)
        if kinds[token] == 2 or len(ids) == MAX_RATIONALE:
            break
        logits = yield _go_on((token,), MAX_RATIONALE - len(ids), '"}')
    return tuple(ids)


@dataclass(slots=True, eq=False)
class Node:
    """A place in the trie of the labels' tokens, with what can follow: tokens, or the quote that closes label `end`."""

    children: dict[int, Node] = field(default_factory=dict)
    end: int | None = None
    under: list[list[int]] = field(default_factory=list)  # the labels below each alternative, children first
    quote_ids: npt.NDArray[np.intp] | None = None
    wanted: tuple[int, ...] = ()  # the tokens that `add_scores` looks at

    @property
    def branching(self) -> bool:
        return len(self.children) + (self.end is not None) > 1

    def add_scores(self, logits: Logits, log_scores: npt.NDArray[np.float64]) -> None:
        """Add each alternative's renormalised log-probability to the labels below it."""
        if not self.branching:
            return
        values = logits[list(self.children)].astype(np.float64)
        if self.end is not None and self.quote_ids is not None:
            closing = logits[self.quote_ids].astype(np.float64)  # every token that closes the string counts
            check(closing.max())
            values = np.append(values, np.logaddexp.reduce(closing))
        check(values.max())
        values -= np.logaddexp.reduce(values)
        for value, labels in zip(values, self.under, strict=True):
            log_scores[labels] += value


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Tokens from the root to a last branching node, with those branching nodes on the way that no other chain has."""

    tokens: tuple[int, ...]
    nodes: tuple[tuple[int, Node], ...]


class Trie:
    """The labels' tokens as a tree: `common` begins all of them, `root` is the first choice, `chains` hold the others.

    `more` are the choices that follow in the same answer, each with the tokens that lead to it.
    """

    def __init__(self, contract: Contract, labels: tuple[tuple[int, ...], ...] | None = None) -> None:
        self.contract = contract
        self.labels = labels or contract.labels
        self.more = () if labels else tuple((other.opening, Trie(contract, other.labels)) for other in contract.more)
        top = Node()
        for index, ids in enumerate(self.labels):
            node = top
            for token in ids:
                node = node.children.setdefault(token, Node())
            node.end = index
            node.quote_ids = contract.quote_ids
        common: list[int] = []
        while not top.branching:
            token, top = next(iter(top.children.items()))
            common.append(token)
        self.common, self.root = tuple(common), top
        _collect(top)
        self.chains = tuple(_chains(top))

    def rest_of_best(self, scores: npt.NDArray[np.float64]) -> tuple[int, ...]:
        """Return the likeliest label's tokens after `common`."""
        return self.labels[int(np.argmax(scores))][len(self.common) :]


def _collect(node: Node) -> list[int]:
    """Fill `under` and `wanted` from the leaves up; return all labels at and below the node."""
    node.under = [_collect(child) for child in node.children.values()]
    node.wanted = tuple(node.children)
    if node.end is not None and node.quote_ids is not None:
        node.under.append([node.end])
        node.wanted += tuple(node.quote_ids.tolist())
    return [label for labels in node.under for label in labels]


def _chains(root: Node) -> list[Chain]:
    """Return one chain for each branching node without a branching node below it."""
    chains: list[Chain] = []
    seen: set[int] = {id(root)}

    def walk(node: Node, tokens: tuple[int, ...], nodes: Sequence[tuple[int, Node]]) -> bool:
        here = [*nodes, (len(tokens) - 1, node)] if node.branching and tokens else list(nodes)
        deeper = [walk(child, (*tokens, token), here) for token, child in node.children.items()]
        if any(deeper):
            return True
        if not node.branching or not tokens:
            return False
        new = tuple((index, n) for index, n in here if id(n) not in seen)
        seen.update(id(n) for _, n in new)
        chains.append(Chain(tokens, new))
        return True

    walk(root, (), [])
    return chains

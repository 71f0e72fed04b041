"""What an engine takes and returns: prompts with the contract of their answers, and completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from safeguard_cli.rows.verdict import ErrorCode


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A further label in the same answer: the ids that lead to it, and those of the labels to choose from.

    `violating` are the indices of the labels that violate.
    """

    opening: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]
    violating: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Contract:
    """The answer that the engine must produce, as token ids: what is forced, what is chosen, what ends a message.

    `labels` are the ids of the JSON-escaped labels in the policy's order, `violating` the indices of those that
    violate. `quote_ids` are all tokens that begin with the closing quote. `channels` maps the first token of each
    channel's name, except the final one's, to the ids that open such a message. `stops` are all control ids: any of
    them ends a reasoning message.
    """

    labels: tuple[tuple[int, ...], ...]
    violating: tuple[int, ...]
    open_analysis: tuple[int, ...]
    next_message: tuple[int, ...]
    channels: Mapping[int, tuple[int, ...]]
    final_token: int
    open_final: tuple[int, ...]
    open_final_at_once: tuple[int, ...]
    open_rationale: tuple[int, ...]
    quote_ids: npt.NDArray[np.intp]
    stops: frozenset[int]
    more: tuple[Question, ...] = ()  # with several policies in one prompt: one for each after the first


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """The tokens shared by all rows under one policy, decoded once, with the contract of their answers."""

    ids: tuple[int, ...]
    contract: Contract


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One window of a text under one policy: `ids` follow the prefix.

    `row`, `policy` and `window` identify it within an input, `part` tells in which one if several are under way.
    """

    row: int
    policy: int
    window: int
    ids: tuple[int, ...]
    part: int = 0


class Feed(Enum):
    """What may come among a run's prompts: start nothing until something finishes, begin anew, or no more prompts."""

    HOLD = "hold"
    RESET = "reset"
    END = "end"


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """What the model answered to one prompt.

    `scores` are the labels' probabilities in the policy's order, with a sum of 1; for several policies, one such list
    after the other. `analysis` has the ids of the reasoning messages. `at_once` tells whether none was needed, `ended`
    whether the model ended its reasoning itself. `generated` counts the tokens that it chose freely. With `error`,
    only `code` is set too.

    `votes` counts the votes for each label, in the same order; then `scores` are their mean, and `analysis` and
    `rationale` those of the first vote for the label. It is empty where nothing was voted on.
    """

    prompt: Prompt
    scores: tuple[float, ...]
    analysis: tuple[tuple[int, ...], ...] = ()
    at_once: bool = False
    ended: bool = True
    rationale: tuple[int, ...] | None = None
    generated: int = 0
    error: str | None = None
    code: ErrorCode = "engine"
    votes: tuple[int, ...] = ()

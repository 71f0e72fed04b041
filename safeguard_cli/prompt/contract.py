"""What an engine is given and gives back: prompts with the contract of their answers, and completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from safeguard_cli.rows.verdict import ErrorCode


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A further label that the same answer gives: the ids that lead to it, and those of its labels."""

    opening: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Contract:
    """The answer that the engine must produce, as token ids: what is forced, what is chosen, what ends a message.

    `labels` are the JSON-escaped labels' ids in the policy's order, `violating` the indices of those that violate.
    `quote_ids` are all tokens that begin with the
    closing quote. `channels` maps the first token of a channel's name to the ids that open such a message, the final
    one apart. `stops` are all control ids: in a reasoning message each of them ends it.
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
    more: tuple[Question, ...] = ()  # with several policies in one prompt: those after the first


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """The tokens shared by all rows under one policy, decoded once, with the contract of their answers."""

    ids: tuple[int, ...]
    contract: Contract


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One content under one policy: `ids` follow the prefix. `row`, `policy` and `window` say whose content it is."""

    row: int
    policy: int
    window: int
    ids: tuple[int, ...]


class Feed(Enum):
    """What may stand among the prompts of a run: start nothing until something finished; begin anew; no more."""

    HOLD = "hold"
    RESET = "reset"
    END = "end"


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """What the model said about one prompt.

    `scores` are the labels' probabilities in the policy's order, summing to 1; where an answer holds labels of several
    policies, one such list after the other. `analysis` are the reasoning messages'
    ids, `at_once` whether none was needed, `ended` whether the model ended its reasoning itself, `generated` counts the
    tokens that it chose freely. With `error`, there is nothing else, but its code.
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

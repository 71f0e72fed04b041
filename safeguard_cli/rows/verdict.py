"""The Verdict on one row under one policy: a label with its scores, or an error from a closed list of codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

ErrorCode = Literal[
    "bad_json",
    "bad_row",
    "bad_encoding",
    "no_text",
    "not_text",
    "row_too_big",
    "too_long",
    "control_token",
    "engine",
    "server",
]
# When a row gets each code, for people: a table in the manual.
WHEN: Mapping[ErrorCode, str] = {
    "bad_json": "the line is not JSON, or holds NaN, Infinity or a lone surrogate",
    "bad_row": "JSON that is not an object, has a number beyond 1.8e308, or is nested deeper than 1,024 levels; a CSV"
    " row with an unclosed quote, or with more cells than the header",
    "bad_encoding": "bytes that are not valid in the input's encoding",
    "no_text": "the text field is missing, null or blank, or the whole row is",
    "not_text": "the text field holds something that is not text",
    "row_too_big": "the row is larger than `--max-row-bytes`",
    "too_long": "more tokens than `--ctx`, `--long` and `--max-windows` allow",
    "control_token": "the tokenizer gave a control token for ordinary text (this should never happen)",
    "engine": "the model gave no usable numbers for this row, or the engine died on it twice",
    "server": "with `--server`: no server gave a usable answer for this row in 5 tries, one refused the row, or all"
    " were too busy for 15 minutes",
}
ERROR_CODES: tuple[str, ...] = get_args(ErrorCode)
EFFORTS = ("none", "low", "medium", "high")  # that a label is made with: `auto` ends as none or low

# The parts of a verdict in the order of an output's CSV columns, each after the policy's name.
COLUMNS = (
    *("label", "violates", "p_violates", "p_calibrated", "score", "scores", "votes", "p_votes"),
    *("effort", "windows", "truncated", "turns_left_out"),
    *("rationale", "reasoning", "error"),
)


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no label; `message` is for people and never holds the row's text.

    `blank` marks a row that holds nothing at all, which is not an error of the run.
    """

    code: ErrorCode
    message: str
    blank: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one row under one policy; with `error`, there is no label and no score.

    `votes` counts the votes for each label, None where none were cast; then `scores` and `p_violates` are their mean.
    """

    label: str | None = None
    violates: bool | None = None
    p_violates: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    effort: str | None = None
    windows: int = 1
    truncated: bool = False
    turns_left_out: int = 0  # of the conversation, before the turns that fitted
    cut: bool = False  # the budget ended the reasoning about a window
    rationale: str | None = None
    reasoning: str | None = None
    error: RowError | None = None
    p_calibrated: float | None = None  # the probability that it violates, with --calibration
    characters: int = field(default=0, compare=False)  # of the text; of a verdict that was read back, not known
    votes: Mapping[str, int] | None = None
    p_votes: float | None = None  # that the row violates, as its votes tell it

    def as_dict(self) -> dict[str, Any]:
        """Return the object that JSONL output has under the policy's name."""
        if self.error is not None:
            return {"label": None, "error": {"code": self.error.code, "message": self.error.message}}
        assert self.label is not None
        out: dict[str, Any] = {
            "label": self.label,
            "violates": self.violates,
            "p_violates": self.p_violates,
            **({"p_calibrated": self.p_calibrated} if self.p_calibrated is not None else {}),
            "score": self.scores[self.label],
            "scores": dict(self.scores),
        }
        if self.votes is not None:
            out["votes"] = dict(self.votes)
        if self.p_votes is not None:
            out["p_votes"] = self.p_votes
        out["effort"] = self.effort
        if self.windows > 1:
            out["windows"] = self.windows
        if self.truncated:
            out["truncated"] = True
        if self.turns_left_out:
            out["turns_left_out"] = self.turns_left_out
        if self.cut:
            out["cut"] = True
        if self.rationale is not None:
            out["rationale"] = self.rationale
        if self.reasoning is not None:
            out["reasoning"] = self.reasoning
        return out

"""Read a verdict back from an output: as this program wrote it, or as another program saved it again.

Every part is read strictly, and refused by name if it is not what it may be: a text such as `False` is never taken for
true because it is not empty.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import orjson

from safeguard_cli.output.spelled import boolean, is_missing, number, one_of, plain
from safeguard_cli.rows.layouts import unguard
from safeguard_cli.rows.verdict import COLUMNS, EFFORTS, ERROR_CODES, RowError, Verdict

_JSON_CELLS = (
    *("violates", "p_violates", "p_calibrated", "score", "scores", "votes", "p_votes"),
    *("windows", "truncated", "turns_left_out"),
)
_PARTS = (*COLUMNS, "cut")  # of an object; a CSV has no column for the last
_SHOWN = 40  # characters of a value in an error
_CLOSE = 2e-6  # scores are written with six digits


class BadPart(ValueError):
    """A part of a verdict that is not what it may be: its name, its value, and what was expected."""

    def __init__(self, part: str, value: Any, expected: str) -> None:
        text = plain(value)
        self.part = part
        self.sentence = f"{text if len(text) <= _SHOWN else text[:_SHOWN] + '…'!r} is not {expected}"
        super().__init__(f"{part}: {self.sentence}")


def verdict_of(parts: Any, labels: Collection[str] = ()) -> Verdict:
    """Return the Verdict of the object under a policy's name, which another program may have saved again.

    `labels` are the policy's, if they are known. A row without any part counts as one in error. Raise BadPart if a part
    is not what it may be.
    """
    return _verdict(_parts(parts, labels), labels)


def _verdict(parts: Mapping[str, Any], labels: Collection[str]) -> Verdict:
    if not any(name in parts for name in ("label", "violates", "p_violates", "scores", "error")):
        return Verdict(error=RowError("bad_row", "the row holds no verdict"))
    if "error" in parts:
        return _failed(parts)
    label = _label(parts.get("label"), labels)
    return Verdict(
        label=label,
        violates=_boolean("violates", parts.get("violates")),
        p_violates=_share("p_violates", parts.get("p_violates")),
        p_calibrated=_share("p_calibrated", parts["p_calibrated"]) if "p_calibrated" in parts else None,
        scores=_scores(parts, label, labels),
        votes=_votes(parts, label, labels),
        p_votes=None if "p_votes" not in parts else _share("p_votes", parts["p_votes"]),
        effort=_effort(parts.get("effort")),
        windows=_whole("windows", parts.get("windows", 1), 1),
        truncated=_boolean("truncated", parts.get("truncated", False)),
        turns_left_out=_whole("turns_left_out", parts.get("turns_left_out", 0), 0),
        cut=_boolean("cut", parts.get("cut", False)),
        rationale=_text("rationale", parts.get("rationale")),
        reasoning=_text("reasoning", parts.get("reasoning")),
    )


def verdict_of_cells(cells: Mapping[str, Any], labels: Collection[str] = ()) -> Verdict:
    """Return the Verdict of the cells of a policy's columns, by their names in COLUMNS, as `verdict_of` does."""
    return verdict_of({name: unguard(cell) if isinstance(cell, str) else cell for name, cell in cells.items()}, labels)


def verdict_as_written(parts: Any, labels: Collection[str]) -> Verdict:
    """Return the Verdict of an object as this program wrote it; raise BadPart if it was changed."""
    if not isinstance(parts, dict):
        raise BadPart("", parts, "a verdict")
    verdict = _verdict({name: value for name, value in parts.items() if value is not None}, labels)
    again = verdict.as_dict() if verdict.error or verdict.label in verdict.scores else {}
    for name in (*parts, *again):
        value = parts.get(name)
        if name not in again or isinstance(value, bool) != isinstance(again[name], bool) or value != again[name]:
            raise BadPart(name, value, "as the run wrote it")
    if verdict.label and not verdict.votes and verdict.scores[verdict.label] < max(verdict.scores.values()) - _CLOSE:
        raise BadPart("label", verdict.label, "the label of the highest score")
    return verdict


def verdict_of_cells_as_written(cells: Mapping[str, str], labels: Collection[str]) -> Verdict:
    """Return the Verdict of CSV cells, by their COLUMNS, as this program wrote them; raise BadPart if any changed."""
    parts: dict[str, Any] = {}
    for name, cell in cells.items():
        if not cell:
            continue
        if name in _JSON_CELLS:
            try:
                parts[name] = orjson.loads(cell)
            except orjson.JSONDecodeError:
                parts[name] = None
            if orjson.dumps(parts[name]).decode() != cell:
                raise BadPart(name, cell, "as the run wrote it")
        else:
            parts[name] = unguard(cell)
    if "error" in parts:
        parts["error"] = _error_of_cell(parts["error"])
        parts = {"label": parts.get("label"), **parts}
    if parts.get("windows") == 1:  # in every row of a CSV, in JSONL only if there are several
        del parts["windows"]
    return verdict_as_written(parts, labels)


def _parts(parts: Any, labels: Collection[str]) -> dict[str, Any]:
    """Return the parts that are there."""
    if is_missing(parts):
        return {}
    if not isinstance(parts, Mapping):
        raise BadPart("", parts, "an object with a label or an error")
    found = {name: parts[name] for name in _PARTS if name in parts and not is_missing(parts[name])}
    label = parts.get("label")
    # A label may be called None or NA: it counts as one if the policy has it, or if it has a score beside it.
    if isinstance(label, str) and (label in labels or (label and not labels and "p_violates" in found)):
        found["label"] = label
    return found


def _failed(parts: Mapping[str, Any]) -> Verdict:
    error = parts["error"]
    if isinstance(error, str):
        error = _error_of_cell(error)
    code, message = (error.get("code"), error.get("message")) if isinstance(error, Mapping) else (None, None)
    if code not in ERROR_CODES:
        raise BadPart("error", parts["error"], "an error of ours, which begins with a known code")
    if "label" in parts:
        raise BadPart("label", parts["label"], "empty, as it must be beside an error")
    return Verdict(error=RowError(code, str(message or "")))


def _error_of_cell(cell: str) -> dict[str, str]:
    code, _, message = cell.partition(": ")
    return {"code": code, "message": message}


def _label(value: Any, labels: Collection[str]) -> str:
    found = one_of(value, labels) if labels else plain(value)
    if not found:
        raise BadPart("label", value, f"one of the labels {', '.join(labels)}" if labels else "a label")
    return found


def _boolean(part: str, value: Any) -> bool:
    found = boolean(value)
    if found is None:
        raise BadPart(part, value, "true or false")
    return found


def _share(part: str, value: Any) -> float:
    found = number(value)
    if found is None or not 0 <= found <= 1:
        raise BadPart(part, value, "a number from 0 to 1")
    return found


def _scores(parts: Mapping[str, Any], label: str, labels: Collection[str]) -> dict[str, float]:
    if "score" in parts:
        _share("score", parts["score"])
    value = _by_label(parts.get("scores", {}))
    if value is None or (value and label not in value):
        raise BadPart("scores", parts["scores"], "an object with the score of each label")
    if unknown := [name for name in value if labels and name not in labels]:
        raise BadPart("scores", unknown[0], f"one of the labels {', '.join(labels)}")
    return {name: _share("scores", score) for name, score in value.items()}


def _votes(parts: Mapping[str, Any], label: str, labels: Collection[str]) -> dict[str, int] | None:
    if "votes" not in parts:
        return None
    found = _by_label(parts["votes"])
    if found is None or not found.get(label) or any(labels and name not in labels for name in found):
        raise BadPart(
            "votes", parts["votes"], "an object with the number of votes for each label, some for the row's own"
        )
    return {name: _whole("votes", votes, 0) for name, votes in found.items()}


def _by_label(value: Any) -> Mapping[str, Any] | None:
    """Return an object of labels, which a cell has as text; None if it is none."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    return value if isinstance(value, Mapping) else None


def _effort(value: Any) -> str | None:
    if value is not None and value not in EFFORTS:
        raise BadPart("effort", value, f"one of {', '.join(EFFORTS)}")
    return None if value is None else str(value)


def _whole(part: str, value: Any, least: int) -> int:
    found = number(value)
    if found is None or found < least or not found.is_integer():
        raise BadPart(part, value, f"a whole number, {least} or more")
    return int(found)


def _text(part: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):  # a text such as `1` in a column of numbers
        return plain(value)
    raise BadPart(part, value, "a text")

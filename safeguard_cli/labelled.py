"""Reads a finished output back: each row's own fields and its Verdicts, and what answers each policy allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.errors import UsageError
from safeguard_cli.layouts import unguard
from safeguard_cli.manifest import Manifest
from safeguard_cli.records import Record, open_source
from safeguard_cli.resume import find_manifest
from safeguard_cli.verdict import RowError, Verdict

_COLUMNS = ("label", "violates", "p_violates", "score", "scores", "effort", "windows", "truncated", "rationale")
_LAST_COLUMNS = ("reasoning", "error")
TOGETHER = "all policies in one prompt and one answer"
APART = "one prompt for each policy"


@dataclass(frozen=True, slots=True)
class Answers:
    """What one policy could answer: its labels in order, and those that violate."""

    name: str
    labels: tuple[str, ...]
    violates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """One row of an output: its own fields, and its Verdicts by policy name. `number` counts from 1."""

    number: int
    fields: Mapping[str, Any]
    verdicts: Mapping[str, Verdict]


@dataclass(frozen=True, slots=True)
class Labels:
    """An output: its rows, its policies' answers, and its manifest where it has one."""

    path: Path
    rows: tuple[Labelled, ...]
    answers: tuple[Answers, ...]
    manifest: Manifest | None

    @property
    def prompting(self) -> str:
        """Whether the policies were asked about together, as its figures must say."""
        decides = self.manifest.decides if self.manifest else {}
        return TOGETHER if decides.get("answer", {}).get("together") else APART


def read_labels(path: Path, *, format: str | None = None, encoding: str = "utf-8") -> Labels:
    """Read an output of `safeguard label`. Raises UsageError when it holds no verdicts."""
    with open_source(path, format=format, encoding=encoding) as source:
        records = list(source)
        names = verdict_names(records, source.names)
    if not names:
        raise UsageError(f"{path}: no row holds a verdict; is it an output of `safeguard label`?")
    rows = tuple(_labelled(record, number, names) for number, record in enumerate(records, 1))
    manifest = find_manifest(path)
    known = manifest.decides.get("policies", {}) if manifest else {}
    answers = tuple(
        Answers(name, tuple(known[name]["labels"]), tuple(known[name]["violates"]))
        if name in known
        else _inferred(name, rows)
        for name in names
    )
    return Labels(path, rows, answers, manifest)


def verdict_names(records: Iterable[Record], header: Sequence[str]) -> tuple[str, ...]:
    """The names under which verdicts stand: in JSONL by what they hold, in CSV by their columns."""
    if header:
        suffixes = ("_label", "_violates", "_p_violates", "_error")
        stems = (name.removesuffix("_p_violates") for name in header if name.endswith("_p_violates"))
        return tuple(stem for stem in stems if all(f"{stem}{suffix}" in header for suffix in suffixes))
    for record in records:
        found = tuple(
            key
            for key, value in (record.fields or {}).items()
            if isinstance(value, dict) and "label" in value and ("p_violates" in value or "error" in value)
        )
        if found:
            return found
    return ()


def _labelled(record: Record, number: int, names: Sequence[str]) -> Labelled:
    fields = dict(record.fields or {})
    verdicts = {}
    for name in names:
        value = fields.pop(name, None)
        if value is None:
            columns = {column: fields.pop(f"{name}_{column}", "") for column in (*_COLUMNS, *_LAST_COLUMNS)}
            value = _from_cells(columns) if columns["label"] or columns["error"] else None
        verdicts[name] = verdict_of(value)
    return Labelled(number, fields, verdicts)


def _from_cells(cells: Mapping[str, str]) -> dict[str, Any]:
    """A verdict's object from its CSV columns; the ' that guards against formulas is taken away."""
    bare = {key: unguard(cell) for key, cell in cells.items()}
    if bare["error"]:
        code, _, message = bare["error"].partition(": ")
        return {"label": None, "error": {"code": code, "message": message}}
    value: dict[str, Any] = {key: cell for key, cell in bare.items() if cell}
    for key in ("violates", "p_violates", "scores", "windows", "truncated"):
        with suppress(orjson.JSONDecodeError):
            value[key] = orjson.loads(bare[key])
    return value


def verdict_of(value: Any) -> Verdict:
    """The Verdict that an object stands for; one that lacks a part, or is none, counts as an error row."""
    try:
        if error := value.get("error"):
            return Verdict(error=RowError(error["code"], error["message"]))
        p_violates = float(value["p_violates"])
        if not 0 <= p_violates <= 1:  # NaN too
            raise ValueError
        return Verdict(
            label=str(value["label"]),
            violates=bool(value["violates"]),
            p_violates=p_violates,
            scores=value.get("scores") or {},
            effort=value.get("effort"),
            windows=value.get("windows") or 1,
            truncated=bool(value.get("truncated")),
            cut=bool(value.get("cut")),
            rationale=value.get("rationale"),
            reasoning=value.get("reasoning"),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return Verdict(error=RowError("bad_row", "the row holds no whole verdict"))


def _inferred(name: str, rows: Sequence[Labelled]) -> Answers:
    """Without a manifest, what the rows themselves tell."""
    verdicts = [row.verdicts[name] for row in rows if row.verdicts[name].error is None]
    labels = dict.fromkeys(label for v in verdicts for label in (*v.scores, v.label) if label is not None)
    violates = {v.label for v in verdicts if v.violates and v.label is not None}
    if not labels:
        raise UsageError(f"no row is labelled under {name}, so there is nothing to measure")
    return Answers(name, tuple(labels), tuple(label for label in labels if label in violates))

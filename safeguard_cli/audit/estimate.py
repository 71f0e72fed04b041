"""What the rows of an audit tell about their file: shares with 95 % intervals, as the model reads the policy.

    found = estimate(read_audit(Path("posts.audit.jsonl")))
    found.policies["spam"].violates.share, found.policies["spam"].violates.low

The interval is exact if the number of rows was fixed before the audit began. It is a confidence sequence, which may be
looked at after every row, if a clock, the interval itself or a person ended the audit, or if it went on after its
figures had been seen: what is looked at until it looks good is no longer right 19 times of 20.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safeguard_cli.audit.slices import By
from safeguard_cli.errors import UsageError, missing_extra
from safeguard_cli.measure.statistics import LEVEL, sample_interval
from safeguard_cli.output.labelled import LabeledFile, LabeledRow, read_labels
from safeguard_cli.output.manifest import find_manifest
from safeguard_cli.output.spelled import number
from safeguard_cli.rows.formats import FORMATS, extension
from safeguard_cli.rows.records import SAMPLE
from safeguard_cli.rows.text import BLANK_ROW
from safeguard_cli.rows.verdict import Verdict

Kind = Literal["all rows", "exact", "sequence"]
FEW = 20  # rows of a slice: with fewer, even the share of a file that never violates has an interval of 17 points
_MULTIPLES = (2, 4, 10)  # of the rows so far, of which two are looked ahead to
_SLACK = 1e-6  # of a row, for rounding


@dataclass(frozen=True, slots=True)
class Share:
    """Rows of the sample that count, and the share of the file's rows that they stand for, with its bounds.

    `share` is that among the rows without an error, None if there are none. The bounds take the error rows for rows
    that do not count (`low`) and for rows that do (`high`). `rows` are the bounds in rows of the file, None for a
    slice, whose number of rows in the file is not known.
    """

    count: int
    share: float | None
    low: float
    high: float
    rows: tuple[int, int] | None = None

    @property
    def reach(self) -> float:
        """How far the bounds lie from the share, on the longer side."""
        share = (self.low + self.high) / 2 if self.share is None else self.share
        return max(self.high - share, share - self.low)


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of the sample with one value of a field; `violates` is None if there are too few to say."""

    value: str
    seen: int
    violating: int
    violates: Share | None


@dataclass(frozen=True, slots=True)
class Ahead:
    """What an audit of `rows` rows in all would tell, if the share stays: the `reach` of its interval.

    `seconds` more are needed for that, by this machine's rate so far; None if that is not known.
    """

    rows: int
    reach: float
    seconds: float | None


@dataclass(frozen=True, slots=True)
class OfPolicy:
    """What the rows tell under one policy; `slices` are by what was told apart, as it is written after --by."""

    violates: Share
    labels: Mapping[str, Share]
    violating_labels: tuple[str, ...]
    in_error: int
    slices: Mapping[str, Sequence[Slice]]
    ahead: Sequence[Ahead]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an audit tells about a file of `total` rows, from `rows` rows drawn at random.

    `blank` rows hold nothing: they count as rows that do not violate. `in_error` rows have no label under some policy.
    """

    kind: Kind
    level: float
    seed: int
    total: int
    rows: int
    planned: int
    finished: bool
    blank: int
    in_error: int
    seconds: float
    policies: Mapping[str, OfPolicy]

    def record(self) -> dict[str, Any]:
        """Return the estimate as JSON has it."""
        return asdict(self)


def check_installed() -> None:
    """Raise SafeguardError, naming the extra, if what computes intervals is missing."""
    try:
        import scipy.stats  # noqa: F401
    except ImportError:
        raise missing_extra("an audit needs scipy", "eval") from None


def read_audit(path: Path) -> LabeledFile:
    """Read an audit's output, or its journal, with the verdicts of its own policies only."""
    manifest = find_manifest(path)
    known = extension(path) in FORMATS
    return of_own_policies(
        read_labels(path, format=None if known or manifest is None else manifest.identity.output.format)
    )


def of_own_policies(labels: LabeledFile) -> LabeledFile:
    """Return the labels of an audit under its own policies: its rows may hold those of an earlier run as fields."""
    ours = labels.manifest.identity.policies if labels.manifest else {each.name: None for each in labels.answers}
    rows = (
        replace(row, verdicts={name: verdict for name, verdict in row.verdicts.items() if name in ours})
        for row in labels.rows
    )
    return replace(labels, rows=tuple(rows), answers=tuple(each for each in labels.answers if each.name in ours))


def estimate(labels: LabeledFile, by: Iterable[By] = ()) -> Estimate:
    """Return what the rows of an audit tell, as `read_audit` gives them. Raise UsageError if they are no sample."""
    sample = labels.manifest.identity.sample if labels.manifest else None
    if labels.manifest is None or sample is None:
        raise UsageError(f"{labels.path} is not the output of an audit: its rows are not known to be drawn at random")
    done, rows = labels.manifest.progress, [row for row in labels.rows if is_random(row)]
    n, total = len(rows), sample.rows
    planned = done.planned or 0
    kind: Kind = "all rows" if n == total else "exact" if n == planned else "sequence"
    counting = Counting(kind, total, done.seconds / done.rows if done.rows else None)
    failed = [any(verdict.error for verdict in row.verdicts.values()) and not was_blank(row) for row in rows]
    return Estimate(
        kind=kind,
        level=LEVEL,
        seed=sample.seed,
        total=total,
        rows=n,
        planned=planned,
        finished=labels.manifest.finished,
        blank=sum(map(was_blank, rows)),
        in_error=sum(failed),
        seconds=done.seconds,
        policies={
            answers.name: counting.of_policy(
                [row.verdicts[answers.name] for row in rows],
                [was_blank(row) for row in rows],
                answers.labels,
                answers.violates,
                {str(one): [one.value(row.fields) for row in rows] for one in by},
            )
            for answers in labels.answers
        },
    )


def is_random(row: LabeledRow) -> bool:
    """Return whether a row of an audit's output was drawn at random, and not picked for another reason."""
    return rank_of(row) is not None


def rank_of(row: LabeledRow) -> float | None:
    """Return at which place a row of an audit was drawn, None if it was not drawn at random."""
    sample = row.fields.get(SAMPLE)
    return number(sample.get("rank") if isinstance(sample, Mapping) else row.fields.get(f"{SAMPLE}_rank"))


def was_blank(row: LabeledRow) -> bool:
    """Return whether a row held nothing at all in the input; its fields may not have been kept."""
    errors = [verdict.error for verdict in row.verdicts.values()]
    return all(error is not None and error.message.endswith(BLANK_ROW) for error in errors)


@dataclass(frozen=True, slots=True)
class Counting:
    """How rows are counted: the kind of interval, the file's rows, and the seconds that a row takes."""

    kind: Kind
    total: int
    seconds: float | None

    def of_policy(
        self,
        verdicts: Sequence[Verdict],
        blank: Sequence[bool],
        labels: Sequence[str],
        violates: Sequence[str],
        slices: Mapping[str, Sequence[str]],
    ) -> OfPolicy:
        """Return what verdicts tell under one policy; `slices` has the value of each row."""
        n = len(verdicts)
        failed = [verdict.error is not None and not empty for verdict, empty in zip(verdicts, blank, strict=True)]
        counts = Counter(verdict.label for verdict in verdicts if verdict.label is not None)
        bad = [bool(verdict.violates) for verdict in verdicts]
        whole = self.share(sum(bad), n, sum(failed))
        return OfPolicy(
            violates=whole,
            labels={label: self.share(counts[label], n, sum(failed)) for label in labels},
            violating_labels=tuple(violates),
            in_error=sum(failed),
            slices={name: self._slices(values, bad, failed) for name, values in slices.items()},
            ahead=tuple(self._ahead(whole, n)),
        )

    def share(self, count: int, n: int, failed: int) -> Share:
        """Return the share of the file's rows that `count` of `n` rows stand for, `failed` of which are in error."""
        total = self.total
        if self.kind == "all rows":
            low, high = count / n if n else 0.0, (count + failed) / n if n else 0.0
        else:
            low, high = self._bounds(count, n, failed, total)
        # What was seen is in the file for sure.
        rows = (
            max(count, math.ceil(low * total - _SLACK)),
            min(total - (n - count - failed), math.floor(high * total + _SLACK)),
        )
        return Share(count, _ratio(count, n - failed), low, high, rows)

    def _bounds(self, count: int, n: int, failed: int, total: int | None) -> tuple[float, float]:
        sequence = self.kind == "sequence"
        low = sample_interval(count, n, total, sequence=sequence)
        high = low if not failed else sample_interval(count + failed, n, total, sequence=sequence)
        return low.low, high.high

    def _slices(self, values: Sequence[str], bad: Sequence[bool], failed: Sequence[bool]) -> list[Slice]:
        seen = Counter(values)
        violating = Counter(value for value, found in zip(values, bad, strict=True) if found)
        errors = Counter(value for value, found in zip(values, failed, strict=True) if found)
        return [
            Slice(value, n, violating[value], self._slice(violating[value], n, errors[value]))
            for value, n in sorted(seen.items(), key=lambda item: (-item[1], item[0]))
        ]

    def _slice(self, count: int, n: int, failed: int) -> Share | None:
        if self.kind == "all rows":
            return Share(count, _ratio(count, n - failed), count / n, (count + failed) / n)
        if n < FEW:
            return None
        return Share(count, _ratio(count, n - failed), *self._bounds(count, n, failed, None))

    def _ahead(self, now: Share, n: int) -> Iterable[Ahead]:
        """Yield what two larger audits would tell, both more than this one.

        To go on from figures that have been seen takes a confidence sequence, so that twice as many rows may not do.
        """
        if self.kind == "all rows" or now.share is None or not n:
            return
        found = 0
        for rows in dict.fromkeys(min(n * more, self.total) for more in _MULTIPLES):
            reach = 0.0
            if rows < self.total:
                count = round(now.share * rows)
                then = sample_interval(count, rows, self.total, sequence=True)
                reach = then.reach(count / rows)
            if rows > n and reach < now.reach and found < 2:
                found += 1
                yield Ahead(rows, reach, None if self.seconds is None else self.seconds * (rows - n))


def _ratio(count: int, n: int) -> float | None:
    return count / n if n > 0 else None

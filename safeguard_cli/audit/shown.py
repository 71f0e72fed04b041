"""What an audit prints: the figures for people, in the order of an Estimate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from safeguard_cli.audit.estimate import FEW, Estimate, OfPolicy, Share, Slice
from safeguard_cli.audit.reviewed import ByPeople, shown_people
from safeguard_cli.output.labelled import LabeledFile
from safeguard_cli.terminal import Figures, cut, facts, per_cent, span

MOST_SLICES = 20  # values of a field that are shown
AS_READ = "Shares are of what the model calls violating as it reads the policy; how right it is, safeguard eval tells."
BESIDE_PEOPLE = "Shares but those by people's judgement are of what the model calls violating as it reads the policy."


def shown(
    found: Estimate, labels: LabeledFile, input: str, people: Mapping[str, ByPeople] | None = None
) -> Iterator[RenderableType]:
    """Yield the figures of an audit, with those by people's judgement where there are any."""
    drawn = f"{found.rows:,} of {found.total:,} rows, drawn at random (seed {found.seed})"
    if found.kind == "all rows":
        drawn = f"all {found.total:,} rows" if found.total > 1 else "its only row"
    yield from heading(f"{cut(Path(input).name, 60)}: {drawn}", labels, finished=found.finished)
    for name, policy in found.policies.items():
        yield from _of_policy(name, policy, found, (people or {}).get(name))
    yield Text()
    for line in (*notes(found), BESIDE_PEOPLE if people else AS_READ):
        yield facts(line, style="dim")


def heading(told: str, labels: LabeledFile, *, finished: bool) -> Iterator[RenderableType]:
    """Yield what figures are of, the model and the effort, and what a reader must know of the rows."""
    yield facts(
        told,
        f"model {labels.model or 'not on record'}",
        labels.effort and f"effort {labels.effort}",
        "" if finished else "not finished",
    )
    for doubt in labels.doubts if finished else ():
        yield facts(doubt, style="yellow")


def _of_policy(name: str, policy: OfPolicy, found: Estimate, people: ByPeople | None) -> Iterator[RenderableType]:
    yield Text.assemble("\n", (cut(name, 60), "bold"))
    bounds = "bounds" if found.kind == "all rows" else "95 % interval"
    table = Figures("", "rows seen", "share", bounds, "rows of the file")
    table.add_row(Text("violates", "bold red"), *_figures(policy.violates, found))
    for label, share in policy.labels.items():
        table.add_row(
            Text("  " + cut(label, 24), "red" if label in policy.violating_labels else ""), *_figures(share, found)
        )
    yield table
    if people is not None:
        yield from shown_people(people)
    if policy.in_error:
        yield facts(
            f"rows in error: {policy.in_error:,}; the lower bounds take them for rows that do not count, the upper ones"
            " for rows that do",
            style="red",
        )
    for field, slices in policy.slices.items():
        yield _by(field, slices, found)
    for ahead in policy.ahead:
        time = f", about {span(ahead.seconds)} more" if ahead.seconds is not None else ""
        precise = f"± {100 * ahead.reach:.1f} points" if ahead.reach else "no interval left"
        yield facts(f"with {ahead.rows:,} rows in all: {precise} (now ± {100 * policy.violates.reach:.1f}){time}")


def _figures(share: Share, found: Estimate) -> tuple[str, str, str, str]:
    return f"{share.count:,}", _share(share, found.total), _bounds(share, found.total), _rows(share)


def _share(share: Share, total: int) -> str:
    return "–" if share.share is None else f"{100 * share.share:.{_digits(share)}f} %"


def _digits(share: Share) -> int:
    """Return how many decimals a share of so many per cent needs: one more than usual if it is a rare one."""
    return 1 if share.high >= 0.02 or not share.high else 2 if share.high >= 0.002 else 3


def _bounds(share: Share, total: int) -> str:
    if share.low == share.high:
        return "–"
    digits = _digits(share)
    return f"{100 * share.low:.{digits}f} to {100 * share.high:.{digits}f} %"


def _rows(share: Share) -> str:
    if share.rows is None:
        return "–"
    low, high = share.rows
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _by(field: str, slices: Sequence[Slice], found: Estimate) -> RenderableType:
    bounds = "bounds" if found.kind == "all rows" else "95 % interval"
    table = Figures(f"by {field}", "rows seen", "violating", "share", bounds)
    listed = slices[:MOST_SLICES]
    if ":" in field:  # dates, in their order
        listed = sorted(listed, key=lambda each: each.value)
    for each in listed:
        share = each.violates
        last = ("too few", "–") if share is None else (per_cent(share.share), _bounds(share, found.total))
        table.add_row(cut(each.value, 30), f"{each.seen:,}", f"{each.violating:,}", *last)
    if rest := slices[MOST_SLICES:]:
        seen, bad = sum(each.seen for each in rest), sum(each.violating for each in rest)
        table.add_row(f"… {len(rest):,} more", f"{seen:,}", f"{bad:,}", "–", "–")
    return table


def notes(found: Estimate) -> Iterator[str]:
    """Yield what a reader of the figures must know."""
    if found.kind == "all rows":
        yield (
            "No interval: every row of the file was read." if found.in_error else "No interval: every row is labelled."
        )
    elif found.kind == "exact":
        yield f"The intervals are exact: {found.planned:,} rows were set before the audit began."
    else:
        yield (
            "The intervals are confidence sequences, which hold however long an audit goes on and whatever ends it;"
            " they are wider than those of a number of rows that was set beforehand."
        )
    if any(each.violates is None for one in found.policies.values() for part in one.slices.values() for each in part):
        yield f"Too few: under {FEW} rows seen, a share says next to nothing. Each value's interval stands alone."
    if found.blank:
        yield f"Blank rows: {found.blank:,}; they count as rows that do not violate."

"""Which share of an output's rows violates, in all and by slices: an audit's estimate, or of any other output a count.

Rows that were not drawn at random tell about themselves alone. A run that is not finished has labelled the first rows
of its file: files are grouped, sorted, by date, so that these are no sample, and no interval would make them one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from safeguard_cli import errors
from safeguard_cli.audit.estimate import (
    Counting,
    Estimate,
    OfPolicy,
    Share,
    check_installed,
    estimate,
    of_own_policies,
    was_blank,
)
from safeguard_cli.audit.found import settled
from safeguard_cli.audit.shown import AS_READ, MOST_SLICES, heading, shown
from safeguard_cli.audit.slices import By, parse_by
from safeguard_cli.errors import UsageError
from safeguard_cli.output.labelled import LabeledFile, read_labels
from safeguard_cli.output.manifest import rows_path
from safeguard_cli.rows.source import open_source
from safeguard_cli.terminal import Figures, cut, facts, per_cent, print_json, show


@dataclass(frozen=True, slots=True)
class Counted:
    """The rows of an output that are no sample, counted; `which` says what rows of the file they are.

    `blank` rows count as rows that do not violate, as in an Estimate.
    """

    which: str
    finished: bool
    rows: int
    blank: int
    in_error: int
    policies: Mapping[str, OfPolicy]

    def record(self) -> dict[str, Any]:
        """Return the counts as JSON has them."""
        return {"kind": "counted", **asdict(self)}


def show_shares(output: Path, by: Sequence[str], *, as_json: bool) -> int:
    """Print the shares in an output by the slices that `by` names; raise UsageError if it does not tell them."""
    path = rows_path(output)
    if not path.is_file():
        raise UsageError(f"{output}: there is no such file")
    labels = read_labels(path)
    found = shares(labels, slices(path, by))
    if as_json:
        about = {"output": str(output), "model": labels.model, "effort": labels.effort}
        print_json({**about, **found.record(), "doubts": list(labels.doubts)})
    elif isinstance(found, Estimate):
        show(*shown(found, labels, str(output)))
    else:
        show(*_shown(found, labels))
    return errors.OK


def slices(path: Path, by: Sequence[str], *, format: str | None = None, encoding: str = "utf-8") -> tuple[By, ...]:
    """Return what --by names, checked against an output's fields."""
    if not by:
        return ()
    with open_source(path, format=format, encoding=encoding) as source:
        return tuple(parse_by(text, source, None) for text in by)


def shares(labels: LabeledFile, by: Sequence[By] = ()) -> Estimate | Counted:
    """Return what an output tells of shares. Raise UsageError if it lacks the rows that do not violate."""
    made = labels.manifest
    if made and made.identity.sample:
        check_installed()
        return estimate(settled(of_own_policies(labels)), by)
    if made and made.identity.output.only:
        raise UsageError(
            f"{labels.path} was written with --only violates: without the other rows it does not tell a share;"
            " safeguard show prints the run's counts"
        )
    rows = labels.rows
    blank = [was_blank(row) for row in rows]
    failed = sum(any(one.error for one in row.verdicts.values()) and not was_blank(row) for row in rows)
    counting = Counting("all rows", len(rows), None)
    return Counted(
        which=_which(labels),
        finished=made is None or made.finished,
        rows=len(rows),
        blank=sum(blank),
        in_error=failed,
        policies={
            one.name: counting.of_policy(
                [row.verdicts[one.name] for row in rows],
                blank,
                one.labels,
                one.violates,
                {str(part): [part.value(row.fields) for row in rows] for part in by},
            )
            for one in labels.answers
        },
    )


def _which(labels: LabeledFile) -> str:
    """Return a sentence on which rows of their file an output's rows are."""
    made = labels.manifest
    if made is None:
        return "Nothing is on record beside the file: these are the counts of its rows."
    part, parts = made.identity.input.shard
    shard = f" of shard {part}/{parts}" if parts > 1 else ""
    if made.result is None:
        return f"The run is not finished: these are the first rows{shard}, no random sample of the file."
    if not made.result.input_exhausted:
        return f"Labelled with --limit: these are the first rows{shard}, no random sample of the file."
    if parts > 1:
        return f"These are the rows{shard}, one of every {parts:,}: no random sample of the file."
    return "Every row of the file is labelled: the shares are counts, and have no interval."


def _shown(found: Counted, labels: LabeledFile) -> Iterator[RenderableType]:
    yield from heading(f"{cut(labels.path.name, 60)}: {found.rows:,} rows", labels, finished=found.finished)
    for name, policy in found.policies.items():
        yield Text.assemble("\n", (cut(name, 60), "bold"))
        yield _table(policy, found)
        for field, parts in policy.slices.items():
            yield _by(field, parts)
    yield Text()
    yield facts(found.which, style="dim")
    if found.in_error:
        yield facts(
            f"Rows in error: {found.in_error:,}; the bounds take them for rows that do not count, and for rows that"
            " do.",
            style="dim",
        )
    if found.blank:
        yield facts(f"Blank rows: {found.blank:,}; they count as rows that do not violate.", style="dim")
    yield facts(AS_READ, style="dim")


def _table(policy: OfPolicy, found: Counted) -> RenderableType:
    bounds = ("bounds",) if policy.in_error else ()
    table = Figures("", "rows", "share", *bounds)
    for name, style, share in (
        ("violates", "bold red", policy.violates),
        *(
            (f"  {cut(label, 24)}", "red" if label in policy.violating_labels else "", share)
            for label, share in policy.labels.items()
        ),
    ):
        table.add_row(Text(name, style), f"{share.count:,}", per_cent(share.share), *([_bounds(share)] * bool(bounds)))
    return table


def _by(field: str, parts: Sequence[Any]) -> RenderableType:
    table = Figures(f"by {field}", "rows", "violating", "share")
    listed = sorted(parts[:MOST_SLICES], key=lambda part: part.value) if ":" in field else parts[:MOST_SLICES]
    for part in listed:
        table.add_row(cut(part.value, 30), f"{part.seen:,}", f"{part.violating:,}", per_cent(part.violates.share))
    if rest := parts[MOST_SLICES:]:
        seen, bad = sum(part.seen for part in rest), sum(part.violating for part in rest)
        table.add_row(f"… {len(rest):,} more", f"{seen:,}", f"{bad:,}", per_cent(bad / seen))
    return table


def _bounds(share: Share) -> str:
    return "–" if share.low == share.high else f"{100 * share.low:.1f} to {100 * share.high:.1f} %"

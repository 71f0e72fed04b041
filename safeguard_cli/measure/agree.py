"""`safeguard agree`: how far people agree on the rows that several of them labelled, with each other and the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from safeguard_cli import errors
from safeguard_cli.errors import UsageError, missing_extra
from safeguard_cli.measure import agreement
from safeguard_cli.measure.agreement import Agreement, Labels
from safeguard_cli.measure.evaluate import number
from safeguard_cli.measure.reviewed import ReviewedFile, ReviewedRow, alike, read_reviewed
from safeguard_cli.output.spelled import plain
from safeguard_cli.rows.writable import check_streams, used
from safeguard_cli.terminal import Figures, cut, facts, figure, interval, line_of, print_json, show

OF_TWO: Mapping[str, tuple[str, Callable[[Labels], Agreement]]] = {
    "raw_agreement": ("raw agreement", agreement.raw_agreement),
    "cohen_kappa": ("Cohen's kappa", agreement.cohen_kappa),
    "gwet_ac1": ("Gwet's AC1", agreement.gwet_ac1),
    "krippendorff_alpha": ("Krippendorff's alpha", agreement.krippendorff_alpha),
}
OF_ALL = {key: figure for key, figure in OF_TWO.items() if key != "cohen_kappa"}
INTERVALS = (
    "95 % intervals: of raw agreement by Clopper-Pearson; of the others by the jackknife, and no narrower than the raw"
    " agreement's. One label that is nearly all there is makes kappa and alpha low, not AC1."
)


@dataclass(frozen=True, slots=True)
class SharedRow:
    """A row that people labelled, with all their labels; `proposed` is what each had been shown as the model's."""

    row: int
    line: int
    fields: Mapping[str, Any]
    labels: Mapping[str, str]
    proposed: Mapping[str, str]
    random: bool
    settled: str | None

    @property
    def disputed(self) -> bool:
        return len(set(self.labels.values())) > 1


def agree(paths: Sequence[Path], *, format: str | None, encoding: str, disputes: int, json: bool) -> int:
    """Run `safeguard agree` and return the exit code. Raise SafeguardError with a sentence for the user."""
    try:
        import scipy.stats  # noqa: F401
    except ImportError:
        raise missing_extra("intervals need scipy", "eval") from None
    for path in paths:
        if not path.is_file():
            raise UsageError(f"{path}: there is no such file")
    check_streams(used("a golden file", *paths))
    golden = [read_reviewed(path, format=format, encoding=encoding) for path in paths]
    result = agreed(golden)
    if json:
        print_json(result)
    else:
        show(*_shown(result, disputes))
    return errors.OK


def agreed(golden: Sequence[ReviewedFile]) -> dict[str, Any]:
    """Return how far the people of golden files agree; raise UsageError if no two of them labelled the same row."""
    rows = put_side_by_side(golden)
    people = tuple(dict.fromkeys(name for row in rows for name in row.labels))
    several = [row for row in rows if len(row.labels) > 1]
    if not several:
        named = ", ".join(str(each.path) for each in golden)
        why = f"only {people[0]} labelled rows" if len(people) == 1 else "no row has the labels of two people"
        raise UsageError(f"{named}: {why if people else 'no row is labelled'}, so there is nothing to agree on")
    labels = sorted({label for row in rows for label in row.labels.values()})
    return {
        "files": [str(each.path) for each in golden],
        "people": list(people),
        "rows": len(rows),
        "rows_of_several": len(several),
        "rows_of_several_at_random": sum(row.random for row in several),
        "doubts": list(_doubts(golden, several)),
        "labels": labels,
        "intervals": agreement.METHODS,
        **_figures(several, people, OF_ALL),
        "pairs": [_pair(rows, a, b, labels) for a, b in combinations(people, 2)],
        "with_model": [_with_model(rows, name) for name in people],
        "disputes": [
            {
                "row": row.row,
                "line": row.line,
                **({"id": row.fields["id"]} if "id" in row.fields else {}),
                "labels": dict(row.labels),
                "proposed": next(iter(row.proposed.values()), None),
                "settled": row.settled,
                "text": plain(row.fields.get("text")),
            }
            for row in several
            if row.disputed
        ],
    }


def put_side_by_side(golden: Sequence[ReviewedFile]) -> list[SharedRow]:
    """Return the rows that somebody labelled, by their numbers in the output, with the labels of all files.

    Raise UsageError for files of different outputs, and for a person who says two things about one row.
    """
    found: dict[int, list[tuple[ReviewedFile, ReviewedRow]]] = {}
    for file in golden:
        for row in file.rows:
            found.setdefault(row.key, []).append((file, row))
    return [shared for _, same in sorted(found.items()) if (shared := _shared(same)).labels]


def _shared(same: Sequence[tuple[ReviewedFile, ReviewedRow]]) -> SharedRow:
    first_file, first = same[0]
    labels: dict[str, str] = {}
    proposed: dict[str, str] = {}
    for file, row in same:
        if not alike(first.fields, row.fields):
            raise UsageError(
                f"row {first.row} of {first_file.path} (line {first.at}) is another row in {file.path} (line {row.at}):"
                " these are not reviews of one output"
            )
        for name, label in row.labels.items():
            if labels.setdefault(name, label) != label:
                raise UsageError(
                    f"{file.path}, line {row.at}: {name} says {label!r} about row {row.row}, and {labels[name]!r} in"
                    " another file: two people need two names, and of one person's files give the one that counts"
                )
            if row.proposed.label is not None:
                proposed.setdefault(name, row.proposed.label)
    settled = next((row.label for _, row in same if row.settled_by), None)
    random = any(row.picked.how == "random" for _, row in same)
    return SharedRow(first.row, first.line, first.fields, labels, proposed, random, settled)


def _doubts(golden: Sequence[ReviewedFile], several: Sequence[SharedRow]) -> Iterator[str]:
    counts = Counter(name for file in golden for name in file.people)
    for name in (name for name, count in counts.items() if count > 1):
        yield f"{name} has labels in {counts[name]} files: they count as one person's"
    if chosen := sum(not row.random for row in several):
        yield (
            f"{chosen:,} of the {len(several):,} rows were not picked at random: agreement on the whole file is another"
        )
    for name in counts:
        rows = [row for file in golden for row in file.rows if name in row.labels and row.proposed.label is not None]
        if seen := sum(not row.blind for row in rows):
            yield f"{name} saw the model's answer first on {seen:,} of {len(rows):,} rows, which draws people to it"
    for file in golden:
        if file.torn:
            yield f"{file.path}: the last line was cut off, and counts as not there"


def _figures(
    rows: Sequence[SharedRow], people: Sequence[str], of: Mapping[str, tuple[str, Callable[[Labels], Agreement]]]
) -> dict[str, Any]:
    labels = [[row.labels.get(name) for name in people] for row in rows]
    return {key: _as_dict(work_out(labels)) for key, (_, work_out) in of.items()}


def _as_dict(found: Agreement) -> dict[str, Any]:
    return {"value": number(found.value), "low": number(found.low), "high": number(found.high)}


def _pair(rows: Sequence[SharedRow], a: str, b: str, labels: Sequence[str]) -> dict[str, Any]:
    both = [row for row in rows if a in row.labels and b in row.labels]
    table = Counter((row.labels[a], row.labels[b]) for row in both)
    return {
        "a": a,
        "b": b,
        "rows": len(both),
        **_figures(both, (a, b), OF_TWO),
        "confusion": [[table[x, y] for y in labels] for x in labels],
    }


def _with_model(rows: Sequence[SharedRow], name: str) -> dict[str, Any]:
    """Return how far a person agrees with the model, on the rows whose model's label is known."""
    both = [[row.labels[name], row.proposed[name]] for row in rows if name in row.labels and name in row.proposed]
    figures = {key: _as_dict(work_out(both)) for key, (_, work_out) in OF_TWO.items()}
    return {"person": name, "rows": len(both), **figures}


def _shown(result: Mapping[str, Any], disputes: int) -> Iterator[RenderableType]:
    several, people = result["rows_of_several"], result["people"]
    yield facts(f"{result['rows']:,} rows labelled", f"{several:,} by more than one person", f"{len(people)} people")
    for doubt in result["doubts"]:
        yield facts(doubt, style="yellow")
    pairs = [pair for pair in result["pairs"] if pair["rows"]]
    whole, of = (pairs[0], OF_TWO) if len(people) == 2 else (result, OF_ALL)
    table = Figures("", "", "95 % interval")
    for key, (title, _) in of.items():
        table.add_row(title, figure(whole[key]["value"]), interval(whole[key]))
    yield table
    if len(people) > 2:
        yield _side_by_side("pair", [(f"{pair['a']}, {pair['b']}", pair) for pair in pairs])
    with_model = [(each["person"], each) for each in result["with_model"] if each["rows"]]
    if with_model:
        yield _side_by_side("with the model", with_model)
    for pair in pairs:
        table = Figures(f"{pair['a']} ↓  {pair['b']} →", *(cut(label, 24) for label in result["labels"]))
        for i, (label, counts) in enumerate(zip(result["labels"], pair["confusion"], strict=True)):
            table.add_row(cut(label, 24), *(Text(f"{n:,}", "bold" if i == j else "") for j, n in enumerate(counts)))
        yield Text()
        yield table
    yield from _shown_disputes(result["disputes"], disputes)
    yield facts(INTERVALS, style="dim")


def _side_by_side(title: str, each: Sequence[tuple[str, Mapping[str, Any]]]) -> RenderableType:
    table = Figures(title, "rows", "raw", "95 % interval", "kappa", "AC1", "alpha")
    for name, found in each:
        others = (figure(found[key]["value"]) for key in ("cohen_kappa", "gwet_ac1", "krippendorff_alpha"))
        raw = found["raw_agreement"]
        table.add_row(cut(name, 30), f"{found['rows']:,}", figure(raw["value"]), interval(raw), *others)
    return table


def _shown_disputes(rows: Sequence[Mapping[str, Any]], most: int) -> Iterator[RenderableType]:
    if not rows:
        yield facts("no row is in dispute")
        return
    listed = f", {min(len(rows), most):,} shown" if len(rows) > most else ""
    yield facts(f"rows in dispute: {len(rows):,}{listed}; safeguard review --pick disputed settles them")
    for row in rows[:most]:
        named = f", id {cut(plain(row['id']), 24)}" if "id" in row else ""
        said = ", ".join(f"{cut(name, 20)} {cut(label, 24)}" for name, label in row["labels"].items())
        model = f", the model {cut(row['proposed'], 24)}" if row["proposed"] is not None else ""
        settled = f" (settled: {cut(row['settled'], 24)})" if row["settled"] is not None else ""
        text = f": {cut(row['text'], 100)}" if row["text"] else ""
        yield line_of(f"  row {row['row']}, line {row['line']}{named}: {said}{model}{settled}{text}")

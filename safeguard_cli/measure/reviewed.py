"""The golden files of `safeguard review`: the names of their fields, and their reader.

A file has a JSON line or a CSV row for each answer; of those to one row, the last counts. An answer taken back is a
line with `undone`. A last line that was cut off counts as not there. Another program may have saved the file again:
values are read strictly, or refused with file and line.

In CSV the people's labels stand in the columns between `label` and `note`, each under `label_` and a name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.measure.label_studio import is_export, open_answers
from safeguard_cli.output.spelled import boolean, is_missing, mapping, normal, number, one_of, plain
from safeguard_cli.rows.layouts import guard, unguard
from safeguard_cli.rows.records import Record

ROW, LINE = "_row", "_line"
SAMPLE = "_sample"  # what an audit wrote about how it drew the row
BEFORE = "_before"  # after the name of a row's own field that is called like one of ours
PERSON = "label_"  # before a name, in a column of CSV
FIELDS = (
    *(ROW, LINE, "label", "labels", "note", "rule", "picked", "proposed", "blind", "skipped", "settled_by", "undone"),
)
_COMPARED = 1000  # characters of a field that show whether two rows are the same
_PICKED, _PROPOSED = ("probability", "seed", "of"), ("label", "violates", "p_violates", "policy")
_LATE = ("note", "rule", "picked", *(f"picked_{name}" for name in _PICKED), *(f"proposed_{name}" for name in _PROPOSED))
_LAST = ("blind", "skipped", "settled_by", "undone")


def columns(people: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of ours in a CSV golden file with these people's labels."""
    return (ROW, LINE, "label", *(f"{PERSON}{name}" for name in people), *_LATE, *_LAST)


@dataclass(frozen=True, slots=True)
class Picked:
    """How a row was picked: at `random`, as one of `of` rows, or for its label.

    `probability` is that of a random row to be among those picked; None for a row that was not drawn.
    """

    how: str = ""
    probability: float | None = None
    seed: int | None = None
    of: int | None = None


@dataclass(frozen=True, slots=True)
class Proposed:
    """What the model had said; all None where its answer was an error, or is not known."""

    label: str | None = None
    violates: bool | None = None
    p_violates: float | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class ReviewedRow:
    """A row with people's answer to it.

    `row` and `line` count the rows and lines of the output that was reviewed, `at` the lines of the golden file, all
    from 1. `label` is the one that counts, None for a row that was skipped; `labels` has each person's. `blind` says
    whether the label was given before the model's was shown.
    """

    row: int
    line: int
    fields: Mapping[str, Any]  # the row's own
    label: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    rule: str = ""
    picked: Picked = Picked()
    proposed: Proposed = Proposed()
    blind: bool = False
    skipped: bool = False
    settled_by: str | None = None
    undone: bool = False
    at: int = 0

    @property
    def answered(self) -> bool:
        """Whether a person gave the row a label, or skipped it."""
        return self.label is not None or self.skipped

    @property
    def disputed(self) -> bool:
        """Whether people differ on the row and nobody has begun to settle it: in an export of Label Studio."""
        return not self.answered and bool(self.labels) and not (self.note or self.rule)

    @property
    def key(self) -> int:
        """The number that stays with a row while an audit's output grows: the one in the whole input, else `row`."""
        return sample_of(self.fields).get("row") or self.row

    def as_dict(self) -> dict[str, Any]:
        """Return the row as it stands in JSON lines."""
        return {
            **self.fields,
            ROW: self.row,
            LINE: self.line,
            "label": self.label,
            "labels": dict(self.labels),
            "note": self.note,
            "rule": self.rule,
            "picked": {"how": self.picked.how} | {name: getattr(self.picked, name) for name in _PICKED},
            "proposed": {name: getattr(self.proposed, name) for name in _PROPOSED},
            "blind": self.blind,
            **({"skipped": True} if self.skipped else {}),
            **({"settled_by": self.settled_by} if self.settled_by else {}),
            **({"undone": True} if self.undone else {}),
        }

    def as_cells(self, own: Sequence[str], people: Iterable[str]) -> list[str]:
        """Return the row as CSV cells: its `own` fields, then our `columns`."""
        known = {
            ROW: self.row,
            LINE: self.line,
            "label": self.label,
            "note": self.note,
            "rule": self.rule,
            "picked": self.picked.how,
            **{f"picked_{name}": getattr(self.picked, name) for name in _PICKED},
            **{f"proposed_{name}": getattr(self.proposed, name) for name in _PROPOSED},
            "blind": self.blind,
            "skipped": self.skipped or None,
            "settled_by": self.settled_by,
            "undone": self.undone or None,
        }
        ours = known | {f"{PERSON}{name}": self.labels.get(name) for name in people}
        return [plain(self.fields.get(name)) for name in own] + [guard(plain(ours[name])) for name in columns(people)]


@dataclass(frozen=True, slots=True)
class ReviewedFile:
    """A golden file: the rows that people answered, in the order of their last answers.

    `begun` are rows with a note and no answer yet. `outdated` counts lines that no longer count, `torn` says whether a
    last one was cut off.
    """

    path: Path
    rows: tuple[ReviewedRow, ...]
    begun: tuple[ReviewedRow, ...] = ()
    outdated: int = 0
    torn: bool = False

    @property
    def people(self) -> tuple[str, ...]:
        """Return the names of those whose labels stand in the file."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.labels))


def sample_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an audit wrote about how it drew a row: `seed`, `row`, `rank`, `probability`, `picked`; else nothing.

    `fields` are a row's own, of JSON lines or of a CSV. Parts that are missing are left out.
    """
    parts = mapping(fields.get(SAMPLE))
    if parts is None:
        names = ("seed", "row", "rank", "probability", "picked")
        parts = {name: fields.get(f"{SAMPLE}_{name}") for name in names}
    found: dict[str, Any] = {}
    for name, value in parts.items():
        if name == "picked":
            found |= {} if is_missing(value) else {name: plain(value)}
        elif (read := number(value)) is not None:
            found[name] = read if name == "probability" else int(read)
    return found


def holds_reviewed(path: Path, *, format: str | None = None, encoding: str = "utf-8") -> bool:
    """Return whether a file is one that `safeguard review` wrote, or an export of Label Studio."""
    if is_export(path):
        return True
    try:
        with open_answers(path, format=format, encoding=encoding) as source:
            first = source.first()
            names = source.names or tuple((first and first.fields) or ())
    except SafeguardError:  # reading it as what it is reports what is wrong
        return False
    return {ROW, "label", "picked"} <= set(names)


def read_reviewed(
    path: Path,
    *,
    format: str | None = None,
    encoding: str = "utf-8",
    labels: Collection[str] = (),
    policies: Collection[str] = (),
) -> ReviewedFile:
    """Read a golden file that `safeguard review` wrote; `labels` are the policy's, if they are known.
    It may be a JSON export of Label Studio, whose choices have the name of one of `policies`.

    Raise UsageError with the line for what is not as it may be, and for files that do not belong into one: rows of
    several outputs, or several people's files put together.
    """
    if path.is_file() and not path.stat().st_size:  # every answer was taken back
        return ReviewedFile(path, ())
    if not holds_reviewed(path, format=format, encoding=encoding):
        raise UsageError(
            f"{path}: this is no golden file of `safeguard review`: its rows have no {ROW}, label and picked"
        )
    with open_answers(path, format=format, encoding=encoding, policies=policies) as source:
        names, csv = source.names, source.format == "csv"
        records = list(source)
    whole = len(records) - _torn(records, names, path)
    last: dict[int, ReviewedRow] = {}
    for record in records[:whole]:
        row = _row(record, names if csv else None, labels, path)
        if (before := last.pop(row.key, None)) is not None:
            _check_same(before, row, path)
        last[row.key] = row  # popped first: the order is that of the last answers
    standing = [row for row in last.values() if not row.undone]
    answered = tuple(row for row in standing if row.answered or row.disputed)
    begun = tuple(row for row in standing if not row.answered and (row.note or row.rule))
    return ReviewedFile(path, answered, begun, whole - len(answered) - len(begun), whole < len(records))


def _torn(records: Sequence[Record], names: Sequence[str], path: Path) -> int:
    """Return how many records at the end are remains of a line that was being written.

    A CSV row that was cut off within a quoted cell comes as one record for each of its lines.
    """
    broken = next((at for at, record in enumerate(records) if record.error), None)
    ended = path.read_bytes()[-1:] == b"\n"
    if broken is None:
        return int(bool(records and names) and not ended and _lacks_cells(records[-1].cells, names))
    later = records[broken + 1 :]
    if any(_whole_number((record.fields or {}).get(ROW)) for record in later) or (ended and not names):
        error = records[broken].error
        raise UsageError(f"{path}: {error.message if error else ''}")
    return len(records) - broken


def _lacks_cells(cells: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a CSV row without a line end lacks cells, or the end of our last one."""
    return len(cells) < len(names) or (names[-1] == "undone" and bool(cells[-1]) and boolean(cells[-1]) is None)


def _check_same(before: ReviewedRow, row: ReviewedRow, path: Path) -> None:
    where = f"{path}: row {row.row} stands in line {before.at} and in line {row.at}"
    if not alike(before.fields, row.fields):
        raise UsageError(f"{where} with different fields: rows of several outputs do not go into one golden file")
    if before.labels and row.labels and not before.labels.keys() & row.labels.keys():
        people = f"{', '.join(before.labels)} and {', '.join(row.labels)}"
        raise UsageError(f"{where}, labelled by {people}: keep a file for each person, for `safeguard agree`")


def _row(record: Record, header: Sequence[str] | None, labels: Collection[str], path: Path) -> ReviewedRow:
    """Return the row of a record; `header` are the columns of a CSV."""
    found: Mapping[str, Any] = record.fields or {}
    where = f"{path}, line {record.line}"
    people = _people(found, header)
    ours = {*FIELDS, *columns(())} if header is not None else {*FIELDS}
    ours |= {*people}
    own = {name: value for name, value in found.items() if name not in ours}

    def read(name: str, as_what: str, how: Any, missing: Any = None, parts: Mapping[str, Any] = found) -> Any:
        value = parts.get(name)
        if isinstance(value, str) and header is not None:
            value = unguard(value)
        if is_missing(value) and not (isinstance(value, str) and value and value in labels):
            return missing
        if (meant := how(value)) is None:
            raise UsageError(f"{where}: {name} is {plain(value)[:40]!r}, which is not {as_what}")
        return meant

    def label(value: Any) -> str | None:
        return one_of(value, labels) if labels else plain(value) or None

    if (row := read(ROW, "the number of a row", _whole_number)) is None:
        raise UsageError(f"{where}: {ROW} is empty, so it is not known which row this is")
    one = f"one of the labels {', '.join(labels)}" if labels else "a label"
    each = _persons(found, people)
    picked, proposed = (_parts(found, name) for name in ("picked", "proposed"))
    return ReviewedRow(
        row=row,
        line=read(LINE, "the number of a line", _whole_number, row),
        fields=own,
        label=read("label", one, label),
        labels={name: said for name in each if (said := read(name, one, label, parts=each)) is not None},
        note=read("note", "a text", plain, ""),
        rule=read("rule", "a text", plain, ""),
        picked=Picked(
            read("how", "a text", plain, "", picked),
            read("probability", "a number from 0 to 1", _share, None, picked),
            read("seed", "a whole number", _integer, None, picked),
            read("of", "a whole number", _integer, None, picked),
        ),
        proposed=Proposed(
            read("label", "a label", lambda value: plain(value) or None, None, proposed),
            read("violates", "true or false", boolean, None, proposed),
            read("p_violates", "a number from 0 to 1", _share, None, proposed),
            read("policy", "a text", plain, None, proposed),
        ),
        blind=read("blind", "true or false", boolean, False),
        skipped=read("skipped", "true or false", boolean, False),
        settled_by=read("settled_by", "a name", plain),
        undone=read("undone", "true or false", boolean, False),
        at=record.line,
    )


def _people(found: Mapping[str, Any], header: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns with people's labels: an own field such as `label_source` stands before `label`."""
    if header is None or "labels" in found or "label" not in header:
        return ()
    late = header[header.index("label") + 1 :]
    return tuple(name for name in late[: late.index("note") if "note" in late else None] if name.startswith(PERSON))


def _persons(found: Mapping[str, Any], people: Sequence[str]) -> Mapping[str, Any]:
    inside = mapping(found.get("labels"))
    return {name.removeprefix(PERSON): found.get(name) for name in people} if inside is None else inside


def _parts(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the parts of `picked` or `proposed`, from an object or from columns."""
    inside = mapping(found.get(name))
    if inside is not None:
        return inside
    return {"how": found.get(name)} | {part: found.get(f"{name}_{part}") for part in (*_PICKED, *_PROPOSED)}


def _whole_number(value: Any) -> int | None:
    found = _integer(value)
    return found if found is not None and found >= 1 else None


def _integer(value: Any) -> int | None:
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def _share(value: Any) -> float | None:
    found = number(value)
    return found if found is not None and 0 <= found <= 1 else None


def alike(one: Mapping[str, Any], other: Mapping[str, Any], names: Collection[str] | None = None) -> bool:
    """Return whether the fields that two rows have in common, or those of `names`, are the same.

    What spreadsheets change is overlooked: the spelling of numbers, white space, the end of a very long text. So is
    `_sample`, in which a probability changes while an audit's output grows.
    """
    common = one.keys() & other.keys() & (one.keys() if names is None else set(names))
    return all(_words(one[name]) == _words(other[name]) for name in common if not name.startswith(SAMPLE))


def _words(value: Any) -> str:
    return " ".join(normal(value).split())[:_COMPARED]


def own_fields(fields: Mapping[str, Any], taken: Collection[str]) -> dict[str, Any]:
    """Return a row's own fields under the names that they have in a golden file, where ours are `taken`."""
    return {own_name(name, taken): value for name, value in fields.items()}


def own_name(name: str, taken: Collection[str]) -> str:
    """Return the name of a row's own field in a golden file, where ours are `taken`: `label_before` for `label`."""
    moves = name in taken or _is_moved(name, taken)
    while moves:
        name = f"{name}{BEFORE}"
        moves = name in taken
    return name


def _is_moved(name: str, taken: Collection[str]) -> bool:
    """Whether a name is one that another own field may be moved to, so that it has to move on itself."""
    return name.endswith(BEFORE) and (name.removesuffix(BEFORE) in taken or _is_moved(name.removesuffix(BEFORE), taken))

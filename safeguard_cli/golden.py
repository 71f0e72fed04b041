"""Reads a golden set, however messy: title rows above its header, section rows, other names for fields and labels."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeguard_cli.content import make_selector
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.labelled import Answers
from safeguard_cli.records import Record, Source, open_source
from safeguard_cli.verdict import RowError

DEFAULT_FIELD = "label"
_TITLE_ROWS = 20  # where a header is looked for


@dataclass(frozen=True, slots=True)
class GoldenRow:
    """A row that counts: the text to be labelled, and the right label by policy name."""

    number: int  # of the row in its file, from 1
    line: int
    fields: Mapping[str, Any]
    text: str
    gold: Mapping[str, str]


@dataclass(slots=True)
class Golden:
    """A golden set, and the account of what in it was not used: how many rows for each reason."""

    rows: list[GoldenRow] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)


def gold_fields(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """The field with the right label by policy: FIELD for one policy, NAME=FIELD for each of several."""
    if len(names) == 1:
        if len(given) > 1:
            raise UsageError("--gold-field is given twice, and there is one policy")
        return {names[0]: given[0].removeprefix(f"{names[0]}=") if given else DEFAULT_FIELD}
    fields = {name: f"{name}_gold" for name in names}
    for item in given:
        name, equals, column = item.partition("=")
        if not equals or name not in fields:
            raise UsageError(f"--gold-field {item!r}: with several policies write POLICY=FIELD ({', '.join(names)})")
        fields[name] = column
    return fields


def parse_map(given: Sequence[str]) -> dict[str, str]:
    """`SP2,SP3=spam;SP0=ham` as a mapping from what the file says to the policy's labels."""
    found: dict[str, str] = {}
    for part in ";".join(given).split(";"):
        if not part.strip():
            continue
        values, equals, label = part.rpartition("=")
        if not equals or not label.strip() or not values.strip():
            raise UsageError(f"--map {part!r}: write VALUE,VALUE=LABEL;VALUE=LABEL, such as 'SP2,SP3=spam;SP0=ham'")
        for value in values.split(","):
            if found.setdefault(value.strip(), label.strip()) != label.strip():
                raise UsageError(f"--map gives {value.strip()!r} two labels")
    return found


def read_golden(
    path: Path,
    answers: Sequence[Answers],
    fields: Mapping[str, str],
    *,
    mapping: Mapping[str, str] | None = None,
    skip_rows: int | None = None,
    format: str | None = None,
    encoding: str = "utf-8",
    text_fields: Sequence[str] = (),
    template: str | None = None,
) -> Golden:
    """Read a golden set. Raises UsageError when a field is not there or no row can be used, saying what the file has.

    `skip_rows` lines stand above the header; by default a CSV's header is the first line that has the gold fields.
    """
    mapping = mapping or {}
    golden = Golden()
    values: Counter[str] = Counter()
    with _open(path, fields, golden, skip_rows, format, encoding) as source:
        first = source.first()
        present = source.names or tuple(first.fields if first and first.fields else {})
        if missing := [name for name in fields.values() if name not in present]:
            listed = ", ".join(map(repr, present)) or "none"
            raise UsageError(f"{path}: no field {missing[0]!r} for --gold-field; its fields are {listed}")
        selector = make_selector(source, text_fields=text_fields, template=template)
        for number, record in enumerate(source, 1):
            text = selector.select(record)
            gold, reason = _gold(record, answers, fields, mapping, values)
            if record.fields is not None and not any(as_text(value) for value in record.fields.values()):
                golden.unused["blank"] += 1
            elif reason:
                golden.unused[reason] += 1
            elif isinstance(text, RowError):
                golden.unused[f"cannot be read ({text.code})"] += 1
            elif not text.strip():
                golden.unused["no text"] += 1
            else:
                golden.rows.append(GoldenRow(number, record.line, record.fields or {}, text, gold))
    if not golden.rows:
        said = ", ".join(f"{value!r}" for value, _ in values.most_common(8)) or "nothing"
        labels = "; ".join(f"{answer.name}: {', '.join(answer.labels)}" for answer in answers)
        raise UsageError(
            f"{path}: no row can be used. Its gold says {said}; the labels are {labels} (--map translates)"
        )
    return golden


def _gold(
    record: Record,
    answers: Sequence[Answers],
    fields: Mapping[str, str],
    mapping: Mapping[str, str],
    values: Counter[str],
) -> tuple[dict[str, str], str | None]:
    """The row's right labels, or why it has none."""
    gold: dict[str, str] = {}
    for answer in answers:
        value = as_text((record.fields or {}).get(fields[answer.name]))
        if not value:
            return {}, "no gold label"
        values[value] += 1
        label = mapping.get(value, value)
        if label not in answer.labels:
            return {}, f"gold {value[:40]!r} is no label of {answer.name}"
        gold[answer.name] = label
    return gold, None


def as_text(value: Any) -> str:
    """A value as text; JSON's true and 1 are the labels `true` and `1`."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _open(
    path: Path,
    fields: Mapping[str, str],
    golden: Golden,
    skip_rows: int | None,
    format: str | None,
    encoding: str,
) -> Source:
    """The file from its header on."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix[1:]
    if (format or suffix) not in ("csv", "tsv"):
        if skip_rows:
            raise UsageError("--skip-rows is for CSV: JSONL has no header")
        return open_source(path, format=format, encoding=encoding)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode(encoding)
    except (OSError, EOFError, ValueError, LookupError) as problem:
        raise SafeguardError(f"{path}: cannot be read: {problem}") from None
    lines = text.removeprefix("\ufeff").splitlines(keepends=True)
    above = _header_line(lines, fields) if skip_rows is None else skip_rows
    golden.unused["above the header"] += sum(bool(line.strip(",;\t| \r\n")) for line in lines[:above])
    # Blank lines in their place, so that line numbers stay those of the file.
    return open_source(io.BytesIO(("\n" * above + "".join(lines[above:])).encode()), format=format or suffix)


def _header_line(lines: Sequence[str], fields: Mapping[str, str]) -> int:
    wanted = set(fields.values())
    for number, line in enumerate(lines[:_TITLE_ROWS]):
        for delimiter in ",;\t|":
            if wanted <= set(next(csv.reader([line], delimiter=delimiter), [])):
                return number
    return 0

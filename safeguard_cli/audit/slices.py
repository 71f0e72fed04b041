"""`--by`: the parts of a file, by the values of a field or by the dates in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any, Literal, get_args

from safeguard_cli.errors import UsageError
from safeguard_cli.rows.paths import field_value, has_field
from safeguard_cli.rows.records import is_blank, json_text
from safeguard_cli.rows.source import Source, no_field

Unit = Literal["day", "week", "month", "year"]
MISSING, NO_DATE = "(none)", "(no date)"
_DATE = re.compile(r"\s*(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)", re.ASCII)
_EPOCH = re.compile(r"\s*(\d{9,10}|\d{12,13})(\.\d*)?\s*", re.ASCII)  # seconds or milliseconds since 1970
_MOST_SECONDS = 10**11


@dataclass(frozen=True, slots=True)
class By:
    """A field whose values are told apart; with `unit`, the dates in it by day, week, month or year."""

    field: str
    unit: Unit | None = None

    def __str__(self) -> str:
        return f"{self.field}:{self.unit}" if self.unit else self.field

    def value(self, fields: Mapping[str, Any]) -> str:
        """Return which part of the file a row belongs to."""
        value = field_value(fields, self.field)
        if is_blank(value):
            return MISSING
        if self.unit:
            return _period(value, self.unit)
        return _text(value)


def parse_by(text: str, source: Source, kept: Sequence[str] | None) -> By:
    """Return the By that an option names. Raise UsageError if no row has the field, or if the output lacks it."""
    name, colon, unit = text.rpartition(":")
    found = By(text)
    if source.lacks([text], has_field) and colon:
        if unit not in get_args(Unit):
            raise UsageError(f"--by {text!r}: a date is told apart by {', '.join(get_args(Unit))}, not by {unit!r}")
        found = By(name, unit)  # type: ignore[arg-type]
    if source.lacks([found.field], has_field):
        raise no_field(source.name, "--by", found.field, source.fields())
    if kept is not None and not {found.field, found.field.partition(".")[0]}.intersection(kept):
        raise UsageError(f"--by {found.field} needs the field in the output: add it to --keep")
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)


def _period(value: Any, unit: Unit) -> str:
    day = _day(value)
    if day is None:
        return NO_DATE
    if unit == "week":
        year, week, _ = day.isocalendar()
        return f"{year}-W{week:02}"
    return day.isoformat()[: {"day": 10, "month": 7, "year": 4}[unit]]


def _day(value: Any) -> date | None:
    """Return the date that a value begins with, as it is written; of a number, seconds since 1970, the one in UTC."""
    text = _text(value)
    try:
        if found := _DATE.match(text):
            return date(*map(int, found.groups()))
        if found := _EPOCH.fullmatch(text):
            number = float(found[1])
            return datetime.fromtimestamp(number / (1000 if number >= _MOST_SECONDS else 1), timezone.utc).date()
    except (ValueError, OverflowError, OSError):
        pass
    return None

"""The parts of a file by the values of a field, and times and points as they are written on the command line."""

from __future__ import annotations

import io
from datetime import date, datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.audit.options import _points, _seconds
from safeguard_cli.audit.slices import By, parse_by
from safeguard_cli.errors import UsageError
from safeguard_cli.rows.source import open_source

ROW = b'{"at": "2026-03-01", "a:b": 1, "user": {"joined": "2026-01-02T03:04:05Z"}, "tags": ["x"]}\n'


@pytest.mark.parametrize(
    ("value", "unit", "part"),
    [
        ("2026-01-01T00:00:00Z", "day", "2026-01-01"),
        ("2026-01-01 23:59", "month", "2026-01"),
        ("2026/1/1", "week", "2026-W01"),
        ("2027-01-01", "week", "2026-W53"),  # ISO weeks belong to the year of their Thursday
        ("2026-01-01", "year", "2026"),
        (1767225600, "day", "2026-01-01"),
        ("1767225600000", "day", "2026-01-01"),
        (1767225600.5, "day", "2026-01-01"),
        ("31.12.2026", "day", "(no date)"),
        ("2026-02-30", "day", "(no date)"),
        ("2026-01-011", "day", "(no date)"),
        (True, "day", "(no date)"),
        (None, "day", "(none)"),
        ("  ", "month", "(none)"),
        ("NA", None, "NA"),
        (None, None, "(none)"),
        (1.0, None, "1.0"),
        (1 << 70, "day", "(no date)"),
        (True, None, "true"),
        (["x", 1], None, '["x",1]'),
    ],
)
def test_a_row_belongs_to_the_part_that_its_field_says(value, unit, part) -> None:
    assert By("at", unit).value({"at": value}) == part


@given(st.dates(date(1971, 1, 1)), st.sampled_from(["day", "week", "month", "year"]))
def test_a_date_is_the_same_as_text_and_as_seconds(day, unit) -> None:
    by = By("at", unit)
    text = by.value({"at": day.isoformat()})
    assert by.value({"at": f"{day.isoformat()}T12:00:00+02:00"}) == text
    seconds = int(datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp())
    if 10**8 <= seconds < 10**10:
        assert by.value({"at": seconds}) == text


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers())))
def test_every_value_belongs_to_some_part(value) -> None:
    for unit in (None, "day", "week", "month", "year"):
        assert isinstance(By("at", unit).value({"at": value}), str)


def parsed(text: str, kept: list[str] | None = None) -> By:
    with open_source(io.BytesIO(ROW)) as source:
        return parse_by(text, source, kept)


def test_a_field_may_have_a_colon_in_its_name_or_be_a_path() -> None:
    assert parsed("at") == By("at")
    assert parsed("at:week") == By("at", "week")
    assert parsed("a:b") == By("a:b")
    assert parsed("user.joined:month") == By("user.joined", "month")
    assert str(parsed("user.joined:month")) == "user.joined:month"
    assert parsed("user.joined:month", ["user"]) == By("user.joined", "month")


@pytest.mark.parametrize("text", ["", ":", "at:", "at:Week", "nope", "nope:day", "user.left"])
def test_what_no_row_has_is_refused(text) -> None:
    with pytest.raises(UsageError):
        parsed(text)


def test_a_field_that_is_not_kept_is_refused() -> None:
    with pytest.raises(UsageError, match="add it to --keep"):
        parsed("at", ["tags"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172_800)]
)
def test_a_time_is_written_with_its_units(text, seconds) -> None:
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2x", "-1h", "0s", "1h30", "nans", "infs", "9999999d", "1..5h"])
def test_what_is_no_time_is_refused(text) -> None:
    with pytest.raises(ValueError, match="is no time"):
        _seconds(text)


def test_points_are_per_cent() -> None:
    assert (_points("1%"), _points("0.5"), _points(" 2 % ".strip())) == (0.01, 0.005, 0.02)
    for text in ("", "0", "-1%", "50%", "nan", "one", "inf"):
        with pytest.raises(ValueError, match="percentage points"):
            _points(text)

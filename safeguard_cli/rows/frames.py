"""Takes rows from a program's memory: Python values as texts, and tables, to which it adds verdicts as columns.

A table is a pandas or polars frame, a pyarrow.Table, or anything that gives an Arrow stream. Pandas and polars are
imported only once such a frame comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from numbers import Number
from typing import Any

import orjson

from safeguard_cli.errors import UsageError, missing_extra
from safeguard_cli.rows.records import Record, row_error
from safeguard_cli.rows.text import Selector
from safeguard_cli.rows.verdict import RowError, Verdict

_NOTHING = {"NoneType", "NAType", "NaTType"}  # None, and what pandas uses instead
_LISTED = 20


def text_of(value: object, line: int, field: str = "text", alone: bool = True) -> str | RowError:
    """Return the text in a value, or the error of a row that holds the value in its field `field`.

    `line` is the row's line, from 1 on; `alone` means that the row has no other field.
    """
    plain = _plain(value, line)
    if isinstance(plain, RowError):
        return plain
    fields = {field: plain} if alone else {field: plain, f"not {field}": 0}
    found = Selector((field,)).select(Record(line - 1, line, b"", fields))
    if isinstance(found, str) and not found.isascii():
        try:
            found.encode()
        except UnicodeEncodeError:
            return row_error("not_text", line, f"the field {field!r} holds a lone surrogate, which is not valid text")
    return found


def _plain(value: object, line: int) -> Any:
    """Return a value as JSON has it (NaN is null there), or the error of a value that JSON cannot hold."""
    if hasattr(value, "as_py"):  # an Arrow scalar
        value = _value(value)
    if isinstance(value, str):
        return str(value)
    if type(value).__name__ in _NOTHING:
        return None
    if isinstance(value, Number):
        return None if _is_nan(value) else value if isinstance(value, bool) else 1  # any number does: it is not text
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return row_error("bad_encoding", line, "the text is in bytes that are not valid UTF-8")
    try:
        if isinstance(value, (list, tuple, dict)):  # chat messages
            return orjson.loads(orjson.dumps(value))
    except (TypeError, ValueError, RecursionError):
        return row_error("not_text", line, "the value is nested too deep, or holds something that is not text")
    return row_error("not_text", line, f"the value is not text, but of type {type(value).__name__}")


def _is_nan(value: Any) -> bool:
    try:
        return bool(value != value)
    except ArithmeticError:  # a signalling NaN
        return True


def table_of(frame: Any) -> Any:
    """Return a pandas or polars frame as it is, and anything else that gives an Arrow stream as a pyarrow.Table.

    Raise UsageError for anything that is not a table.
    """
    pa = pyarrow()
    if isinstance(frame, pa.Table) or _is_of(frame, "pandas", "polars"):
        return frame
    if hasattr(frame, "__arrow_c_stream__") or isinstance(frame, pa.RecordBatch):
        with suppress(TypeError, pa.ArrowException):  # a single column gives a stream too
            return pa.table(frame)
    raise UsageError(
        f"this is not a table, but of type {type(frame).__name__}: give a pandas or polars DataFrame or a pyarrow.Table"
    )


def names_of(table: Any) -> list[Any]:
    """Return the names of a table's columns."""
    return list(table.columns if _is_of(table, "pandas", "polars") else table.schema.names)


def values_of(table: Any, name: str) -> list[object]:
    """Return the values of a table's column; raise UsageError if the table lacks it or has two of that name."""
    names = names_of(table)
    if name not in names:
        plain = {str(each).strip().casefold(): each for each in names}
        near = get_close_matches(str(name).strip().casefold(), plain, n=1)
        hint = f"did you mean {plain[near[0]]!r}? " if near else ""
        more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
        listed = ", ".join(map(repr, names[:_LISTED])) + more
        raise UsageError(f"the table has no column {name!r}; {hint}its columns are {listed or 'none'}")
    if names.count(name) > 1:
        raise UsageError(f"the table has {names.count(name)} columns named {name!r}: rename one of them")
    if _is_of(table, "pandas", "polars"):
        return list(table[name].to_list())
    column = table.column(names.index(name))
    try:
        return list(column.to_pylist())
    except ValueError:  # a value that Python cannot hold, such as a string that is not valid UTF-8
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes()
    except ValueError:
        return scalar


def check_free(table: Any, columns: Sequence[str]) -> None:
    """Raise UsageError if the table already has a column that verdicts need, or if two verdicts need the same one."""
    names = names_of(table)
    if taken := next((column for column in columns if column in names), None):
        raise UsageError(f"the table already has {taken!r}; Labeler(…, rename=NAME) gives the labels another name")
    if len(set(columns)) < len(columns):
        raise UsageError(f"the policies' names give two columns the same name: {max(columns, key=columns.count)!r}")


def columns_of(verdicts: Sequence[Mapping[str, Verdict]], names: Sequence[str], columns: Sequence[str]) -> Any:
    """Return verdicts as a pyarrow.Table: the columns of a CSV output, but typed."""
    pa = pyarrow()
    kinds = {
        "violates": pa.bool_(),
        "p_violates": pa.float64(),
        "p_calibrated": pa.float64(),
        "score": pa.float64(),
        "p_votes": pa.float64(),
        "windows": pa.int32(),
        "truncated": pa.bool_(),
    }
    return pa.table(
        {
            f"{name}_{column}": pa.array([_cell(row[name], column) for row in verdicts], kinds.get(column, pa.string()))
            for name in names
            for column in columns
        }
    )


def _cell(verdict: Verdict, column: str) -> object:
    if verdict.error is not None:
        return f"{verdict.error.code}: {verdict.error.message}" if column == "error" else None
    if column in ("scores", "votes"):
        parts = getattr(verdict, column)
        return None if parts is None else orjson.dumps(dict(parts)).decode()
    return getattr(verdict, column) if column in ("windows", "truncated") else verdict.as_dict().get(column)


def with_columns(table: Any, added: Any) -> Any:
    """Return a table of the same kind, with the columns of a pyarrow.Table added after its own."""
    if _is_of(table, "pandas"):
        pa, pandas = pyarrow(), import_module("pandas")
        nullable = {pa.bool_(): pandas.BooleanDtype(), pa.int32(): pandas.Int32Dtype()}
        columns = added.to_pandas(types_mapper=nullable.get)
        columns.index = table.index
        return table.assign(**{name: columns[name] for name in columns.columns})
    if _is_of(table, "polars"):
        return table.hstack(import_module("polars").from_arrow(added))
    for name in added.schema.names:
        table = table.append_column(added.schema.field(name), added.column(name))
    return table


def _is_of(frame: object, *packages: str) -> bool:
    """Return whether an object is a DataFrame of one of these packages, or of a subclass."""
    bases = {(base.__module__.partition(".")[0], base.__name__) for base in type(frame).__mro__}
    return any((package, "DataFrame") in bases for package in packages)


def pyarrow() -> Any:
    """Return the pyarrow package; raise SafeguardError, which names the extra, if it is missing."""
    try:
        import pyarrow
    except ImportError:
        raise missing_extra("tables need pyarrow", "parquet") from None
    return pyarrow

"""Reads Parquet: a file's rows as JSON lines, so that the rest of the program sees them like any others.

Values that JSON lacks: times become ISO text, decimals keep their digits, NaN and infinities become null. Binary
becomes text if it is valid UTF-8, else `{"base64": "…"}`, which is never taken for a text. A string that is not valid
UTF-8 makes its line invalid too, so that the row is in error.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.errors import UsageError, missing_extra
from safeguard_cli.rows.sniff import HEAD_BYTES, refuse_other_kinds

BATCH_ROWS, BATCH_BYTES = 64, 4 << 20  # decoded at once, whatever the size of a row group

GROUP_ROWS, GROUP_BYTES = 1 << 16, 64 << 20  # a row group ends at whichever limit comes first


def pyarrow() -> Any:
    """Return the pyarrow package with its Parquet part; raise SafeguardError, naming the extra, if it is missing."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError:
        raise missing_extra("Parquet needs pyarrow", "parquet") from None
    return pyarrow


def open_parquet(path: Path) -> Any:
    """Return a `ParquetFile` to be read piece by piece; raise UsageError if the file cannot be opened or is not one."""
    pa = pyarrow()
    try:
        file = pa.parquet.ParquetFile(path, buffer_size=1 << 16, pre_buffer=False)
        _ = file.schema_arrow.names
    except OSError as problem:
        raise UsageError(f"{path}: {problem.strerror or first_line(problem)}") from None
    except Exception as problem:  # a damaged file raises Arrow's errors and any others
        _refuse_what_is_none(path)
        raise UsageError(f"{path}: not a Parquet file that can be read: {first_line(problem)}") from None
    return file


def _refuse_what_is_none(path: Path) -> None:
    """Raise UsageError, saying what the file is, if it does not begin as Parquet does."""
    with path.open("rb") as file:
        start = file.read(HEAD_BYTES)
    if not start.startswith(b"PAR"):
        refuse_other_kinds(str(path), start)
        raise UsageError(f"{path}: not a Parquet file; if it is JSON lines or CSV, use --format jsonl or csv")


def read_batches(file: Any) -> Iterator[Any]:
    """Yield the record batches of an open file, at most BATCH_ROWS rows each; raise OSError if the file is damaged."""
    metadata = file.metadata
    try:
        for group in range(metadata.num_row_groups):
            part = metadata.row_group(group)
            rows = max(1, min(BATCH_ROWS, BATCH_BYTES * part.num_rows // max(1, part.total_byte_size)))
            yield from file.iter_batches(batch_size=rows, row_groups=[group], use_threads=False)
    except Exception as problem:
        raise OSError(first_line(problem)) from None


def pick(column: Any, rows: Sequence[int]) -> Any:
    """Return some rows of an array of any type as a new one: Arrow's `take` knows few types, but slices of all join."""
    return pyarrow().concat_arrays([column.slice(row, 1) for row in rows]) if rows else column.slice(0, 0)


def join_rows(rows: Sequence[tuple[Any, int]], schema: Any) -> Any:
    """Return rows as one record batch; each is given as its record batch and its place there."""
    pa = pyarrow()
    columns = range(len(schema))
    joined = [pa.concat_arrays([batch.column(column).slice(row, 1) for batch, row in rows]) for column in columns]
    return pa.RecordBatch.from_arrays(joined, schema=schema)


def count_parquet(path: Path) -> int:
    """Return how many rows the file's metadata states."""
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def parquet_lines(file: Any, names: Sequence[str]) -> Iterator[bytes]:
    """Yield the rows of an open file as JSON lines, a batch at a time, with `names` for its columns.

    Raise OSError if the file is damaged.
    """
    with file:
        for batch in read_batches(file):
            try:
                yield b"".join(_line(row) for row in _rows(batch, names))
            except orjson.JSONEncodeError as problem:  # nested too deep
                raise OSError(str(problem)) from None


def _rows(batch: Any, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    columns = [_values(column) for column in batch.columns]
    for row in range(batch.num_rows):
        yield {name: column[row] for name, column in zip(names, columns, strict=True)}


def _line(row: dict[str, Any]) -> bytes:
    return orjson.dumps(row, default=_plain) + b"\n"


def _values(column: Any) -> list[Any]:
    pa = pyarrow()
    try:
        if pa.types.is_temporal(column.type):
            # As Arrow writes them: Python's times have fewer digits and years, and pandas would give other types.
            column = pa.compute.replace_substring_regex(column.cast(pa.string()), r"^(\d{4}-\d\d-\d\d) ", r"\1T")
        return list(column.to_pylist())
    except (ValueError, OverflowError, TypeError, pa.ArrowException):  # a value that Python cannot hold
        return [_value(scalar) for scalar in column]


def _plain(value: Any) -> Any:
    """Return a value that orjson cannot write as one that it can."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f").encode())
    return str(value)


def _value(scalar: Any) -> Any:
    """Return a scalar's value, for a column that could not be converted as a whole."""
    pa = pyarrow()
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_dictionary(kind) or isinstance(scalar, pa.ExtensionScalar):
        return _value(scalar.value)
    if pa.types.is_struct(kind):
        return {kind.field(at).name: _value(scalar[at]) for at in range(kind.num_fields)}
    if pa.types.is_map(kind):
        return [[_value(entry[0]), _value(entry[1])] for entry in scalar.values]
    if pa.types.is_nested(kind):
        return [_value(item) for item in scalar.values]
    try:
        if pa.types.is_timestamp(kind) and kind.unit == "ns":  # pandas, if it is there, gives a type of its own
            raise ValueError
        return scalar.as_py()
    except UnicodeDecodeError:
        text = json.dumps(scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape"), ensure_ascii=False)
        return orjson.Fragment(text.encode("utf-8", "surrogateescape"))
    except (ValueError, OverflowError):
        zone = "Z" if pa.types.is_timestamp(kind) and kind.tz else ""
        scalar = scalar.cast(pa.timestamp(kind.unit)) if zone else scalar
        text = scalar.cast(pa.string()).as_py()
        return (text if text.startswith("<") else text.replace(" ", "T")) + zone


def first_line(problem: BaseException) -> str:
    return next(iter(str(problem).splitlines()), type(problem).__name__)


def write_parquet(path: Path, schema: Any, batches: Iterator[Any]) -> None:
    """Write record batches to a file and to disk, in row groups of a bounded size."""
    pa = pyarrow()
    with path.open("wb") as file:
        with pa.parquet.ParquetWriter(file, schema) as writer:
            group: list[Any] = []
            rows = size = 0
            for batch in batches:
                group.append(batch)
                rows, size = rows + batch.num_rows, size + batch.nbytes
                if rows >= GROUP_ROWS or size >= GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(group, schema))
                    group, rows, size = [], 0, 0
            if group:
                writer.write_table(pa.Table.from_batches(group, schema))
        file.flush()
        os.fsync(file.fileno())

"""`safeguard merge`: merge the outputs of all shards of an input into the output that an unsharded run would give."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from safeguard_cli.address import shown_command
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.files import draft, sha256, sweep
from safeguard_cli.output.manifest import (
    Manifest,
    Refused,
    beside,
    changes,
    check_beside,
    find_manifest,
    is_what_was_written,
    load,
    manifest_path,
    not_ours,
    now,
    run_path,
)
from safeguard_cli.output.manifest_shape import Done, Identity, Part, Result
from safeguard_cli.output.resume import InputHash
from safeguard_cli.output.written import whole_lines
from safeguard_cli.rows.lines import STANDARD_INPUT
from safeguard_cli.rows.parquet import BATCH_ROWS, join_rows, open_parquet, read_batches, write_parquet
from safeguard_cli.rows.records import in_shard
from safeguard_cli.rows.sink import output_format
from safeguard_cli.rows.source import extension, open_source
from safeguard_cli.rows.writable import check_output, check_streams, is_stream, real, used
from safeguard_cli.terminal import note, warn


def merge(outputs: Sequence[Path], out: Path, *, overwrite: bool, quiet: bool) -> int:
    """Write the rows of finished shards to `out` in the input's order, and return the exit code of a run over them all.

    Raise UsageError, writing nothing, if they are not all shards of one input or were changed since they finished.
    """
    check_beside(out)
    shards = _in_order(outputs)
    paths = [shard.path for shard in shards]
    format, input = shards[0].made.identity.output.format, shards[0].result.input
    read = [
        *used("a shard", *paths),
        *used("the record of a shard", *map(manifest_path, paths)),
        *used("the input", _found(input)),
    ]
    check_streams(read)
    if is_stream(out):
        raise UsageError(f"{out}: shards are merged into a file")
    check_output(out, read, beside(out, format))
    if extension(out) != extension(paths[0]) or output_format(out, format) != format:
        raise UsageError(f"{out}: shards are merged as they are: name it *{paths[0].suffix}, as they are named")
    existing = [path for path in (out, run_path(out), manifest_path(out)) if path.exists()]
    if existing and not overwrite:
        if find_manifest(out) is None:
            raise Refused(not_ours(out))
        raise UsageError(f"{existing[0]} exists; --overwrite replaces it")
    sweep(real(out), manifest_path(out))
    try:
        with draft(real(out)) as new:
            if format == "parquet":
                _merge_parquet(paths, new.path)
            else:
                _merge_lines(paths, format, new.path)
            made, result = _one_manifest(shards, new.path)
            _check_input(made, result)
            manifest_path(out).unlink(missing_ok=True)
            new.publish()
            made.save(manifest_path(out))
            run_path(out).unlink(missing_ok=True)
    except OSError as problem:
        raise SafeguardError(f"{out}: cannot be written: {problem.strerror or problem}") from problem
    if not quiet:
        note(f"{result.rows:,} rows of {len(paths)} shards are in {out}")
    return result.exit_code


@dataclass(frozen=True, slots=True)
class _Shard:
    """A finished output of a part of the input."""

    path: Path
    made: Manifest
    result: Result


def _in_order(outputs: Sequence[Path]) -> list[_Shard]:
    """Return the shards with their manifests, first to last."""
    found: dict[int, _Shard] = {}
    first: Manifest | None = None
    for path in outputs:
        made = load(manifest_path(path))
        if made is None or made.result is None:
            raise UsageError(f"{path}: not a finished output of `safeguard label --shard`")
        if not is_what_was_written(path, made, made.result):
            raise UsageError(f"{path} was changed after it was finished")
        if made.identity.output.only:
            raise UsageError(f"{path}: labelled with --only, so the places of its rows are unknown")
        if made.identity.sample:
            raise UsageError(f"{path}: the rows of an audit are a sample, not all rows of a shard")
        if not made.result.input_exhausted:
            raise UsageError(f"{path}: labelled with --limit; run the same command without it first")
        first = first or made
        if different := changes(_common(first), _common(made)):
            raise UsageError(f"{path} was labelled differently from {outputs[0]}:", *different)
        part, parts = made.identity.input.shard
        if part in found:
            raise UsageError(f"{path} and {found[part].path} are both shard {part}/{parts}")
        found[part] = _Shard(path, made, made.result)
    if missing := [f"{part}/{parts}" for part in range(1, parts + 1) if part not in found]:
        raise UsageError(f"missing: shard {', '.join(missing)}")
    rows = sum(shard.made.progress.rows for shard in found.values())
    for part, shard in found.items():
        if (has := shard.made.progress.rows) != in_shard(rows, (part, parts)):
            raise UsageError(f"{shard.path} has {has:,} rows, which does not fit the others: the input has changed")
    return [found[part] for part in range(1, parts + 1)]


def _common(made: Manifest) -> dict[str, Any]:
    """Return what all shards must share."""
    return _of_shard(made.identity, made.identity.input.shard[1]).record


def _of_shard(identity: Identity, shard: int | None) -> Identity:
    return identity.changed(input=identity.input.changed(shard=shard).record)


def _merge_lines(paths: Sequence[Path], format: str, new: Path) -> None:
    rows = [whole_lines(path, format) for path in paths]
    with new.open("wb") as file:
        if format == "csv":
            headers = {next(each, b"") for each in rows}
            if len(headers) > 1:
                raise UsageError("the shards' CSV headers differ")
            file.write(headers.pop())
        for row in _alternating(rows):
            file.write(row)
        file.flush()
        os.fsync(file.fileno())


def _merge_parquet(paths: Sequence[Path], new: Path) -> None:
    files = [open_parquet(path) for path in paths]
    schema = files[0].schema_arrow
    for path, file in zip(paths, files, strict=True):
        if not file.schema_arrow.equals(schema):
            raise UsageError(f"{path}: its columns have other types than those of {paths[0]}; label to JSONL instead")
    rows = [((batch, at) for batch in read_batches(file) for at in range(batch.num_rows)) for file in files]
    merged = _alternating(rows)

    def batches() -> Iterator[Any]:
        while some := list(islice(merged, BATCH_ROWS)):
            yield join_rows(some, schema)

    write_parquet(new, schema, batches())


def _alternating(rows: Sequence[Iterator[Any]]) -> Iterator[Any]:
    """Yield one row of each in turn, until one has no more."""
    for each in cycle(rows):
        row = next(each, None)
        if row is None:
            return
        yield row


def _one_manifest(shards: Sequence[_Shard], new: Path) -> tuple[Manifest, Result]:
    first = shards[0].made
    results = [shard.result for shard in shards]

    def total(counts: Iterator[Mapping[str, int]]) -> dict[str, int]:
        return dict(sum(map(Counter, counts), Counter()))

    def added(parts: Iterable[Part], *names: str) -> dict[str, Any]:
        read = [part.record for part in parts]
        return {name: sum(record.get(name, 0) for record in read) for name in names}

    result = results[0].changed(
        finished=now(),
        exit_code=max(result.exit_code for result in results),
        errors=total(result.errors for result in results),
        labels={name: total(result.labels.get(name, {}) for result in results) for name in first.identity.policies},
        cut=sum(result.cut for result in results),
        violating=total(result.violating for result in results),
        command=shown_command(sys.argv),
        output_sha256=sha256(new),
        **added(results, "rows", "rows_in_error", "blank", "engine_deaths"),
    )
    sums = ("rows", "cut_rows", "repeated_rows", "seconds", "policy_tokens", "prompt_tokens", "generated_tokens")
    done = first.progress.changed(
        output_bytes=new.stat().st_size,
        input_sha256="",
        **_reused(shard.made.progress for shard in shards),
        **added((shard.made.progress for shard in shards), *sums),
    )
    made = replace(
        first,
        identity=_of_shard(first.identity, None),
        started=min(shard.made.started for shard in shards),
        process=os.getpid(),
        progress=done,
        result=result,
    )
    return made, result


def _reused(runs: Iterable[Done]) -> dict[str, Any]:
    """Return the outputs whose verdicts the shards' runs copied, each once, with all its rows; nothing if none did."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for each in (each for run in runs for each in run.reused or ()):
        known = found.setdefault((each["output"], each["sha256"]), {**each, "rows": 0})
        known["rows"] += each["rows"]
    return {"reused": [*found.values()]} if found else {}


def _check_input(made: Manifest, result: Result) -> None:
    """Hash the input, so that the merged output can be resumed; raise UsageError if its number of rows has changed."""
    digest, rows, asked = InputHash(), 0, made.identity.input
    try:
        if result.input == STANDARD_INPUT:
            raise SafeguardError("the rows were read from standard input")
        if not Path(_found(result.input)).is_file():  # the manifest could name a pipe, which would keep us waiting
            raise SafeguardError(f"{result.input} is missing or not a file")
        with open_source(
            _found(result.input),
            format=result.input_format,
            encoding=asked.encoding,
            max_row_bytes=asked.max_row_bytes,
        ) as source:
            for record in source:
                digest.add(record)
                rows += 1
    except (SafeguardError, OSError) as problem:  # a name that no file can have raises OSError
        reason = getattr(problem, "strerror", None) or problem
        warn(f"the merged output cannot be checked against its input, nor resumed: {reason}")
        return
    if rows != made.progress.rows:
        raise UsageError(f"{result.input} has {rows:,} rows, and the shards {made.progress.rows:,}: it has changed")
    made.progress.input_sha256 = digest.value()


def _found(name: str) -> Path:
    """Return the file that a manifest names; a name that is not UTF-8 stands there with its bytes as escapes."""
    path = Path(name)
    if os.path.exists(path):  # noqa: PTH110 Path's raises OSError for a name that no file can have
        return path
    return Path(re.sub(r"\\u(dc[89a-f][0-9a-f])", lambda found: chr(int(found[1], 16)), name))

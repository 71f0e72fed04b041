"""`safeguard merge`: the outputs of all shards of an input as the one output that an unsharded run would have given."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
    load,
    manifest_path,
    not_ours,
    now,
    run_path,
)
from safeguard_cli.output.resume import InputHash
from safeguard_cli.output.written import whole_lines
from safeguard_cli.rows.lines import STANDARD_INPUT
from safeguard_cli.rows.parquet import BATCH_ROWS, join_rows, open_parquet, read_batches, write_parquet
from safeguard_cli.rows.records import Shard, in_shard
from safeguard_cli.rows.sink import Written, output_format
from safeguard_cli.rows.source import extension, open_source
from safeguard_cli.rows.writable import check_output, check_streams, is_stream, real, used
from safeguard_cli.terminal import note, warn


def merge(outputs: Sequence[Path], out: Path, *, overwrite: bool, quiet: bool) -> int:
    """Write the rows of finished shards to `out` in the input's order. Returns the exit code of a run with them all.

    Raises UsageError, and writes nothing, when they are not all shards of one input or were changed since.
    """
    check_beside(out)
    shards = _in_order(outputs)
    paths, manifests = list(shards), list(shards.values())
    first = manifests[0]
    format: Written = first.decides["output"]["format"]
    input = first.result["input"] if first.result else ""
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
            made = _one_manifest(manifests, new.path)
            _check_input(made)
            manifest_path(out).unlink(missing_ok=True)
            new.publish()
            made.save(manifest_path(out))
            run_path(out).unlink(missing_ok=True)
    except OSError as problem:
        raise SafeguardError(f"{out}: cannot be written: {problem.strerror or problem}") from problem
    if not quiet:
        note(f"{made.rows:,} rows of {len(paths)} shards are in {out}")
    assert made.result is not None
    return int(made.result["exit_code"])


def _in_order(outputs: Sequence[Path]) -> dict[Path, Manifest]:
    """The shards' outputs with their manifests, first to last."""
    found: dict[int, tuple[Path, Manifest]] = {}
    first: Manifest | None = None
    for path in outputs:
        made = load(manifest_path(path))
        if made is None or made.result is None:
            raise UsageError(f"{path}: not a finished output of `safeguard label --shard`")
        if (path.stat().st_size, sha256(path)) != (made.output_bytes, made.result["output_sha256"]):
            raise UsageError(f"{path} was changed after it was finished")
        if made.decides["output"]["only"]:
            raise UsageError(f"{path}: with --only the rows' places are not known any more")
        if not made.result["input_exhausted"]:
            raise UsageError(f"{path}: labelled with --limit; run the same command without it first")
        first = first or made
        if different := changes(_common(first), _common(made)):
            raise UsageError(f"{path} was labelled differently from {outputs[0]}:", *different)
        part, parts = _shard(made)
        if part in found:
            raise UsageError(f"{path} and {found[part][0]} are both shard {part}/{parts}")
        found[part] = path, made
    if missing := [f"{part}/{parts}" for part in range(1, parts + 1) if part not in found]:
        raise UsageError(f"missing: shard {', '.join(missing)}")
    rows = sum(made.rows for _, made in found.values())
    for part, (path, made) in found.items():
        if made.rows != in_shard(rows, (part, parts)):
            raise UsageError(f"{path} has {made.rows:,} rows, which does not fit the others: the input has changed")
    return dict(found[part] for part in range(1, parts + 1))


def _common(made: Manifest) -> dict[str, Any]:
    """What all shards must share."""
    return {**made.decides, "input": {**made.decides["input"], "shard": _shard(made)[1]}}


def _shard(made: Manifest) -> Shard:
    part, parts = made.decides["input"].get("shard") or (1, 1)
    return part, parts


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
    """One of each in turn, up to the first that has no more."""
    for each in cycle(rows):
        row = next(each, None)
        if row is None:
            return
        yield row


def _one_manifest(shards: Sequence[Manifest], new: Path) -> Manifest:
    first = shards[0]
    results = [shard.result for shard in shards if shard.result is not None]

    def total(counts: Iterator[Mapping[str, int]]) -> dict[str, int]:
        return dict(sum(map(Counter, counts), Counter()))

    result = {
        **results[0],
        "finished": now(),
        "exit_code": max(result["exit_code"] for result in results),
        "errors": total(result["errors"] for result in results),
        "labels": {name: total(r["labels"].get(name, {}) for r in results) for name in first.decides["policies"]},
        "cut": sum(result.get("cut", 0) for result in results),
        "violating": total(result["violating"] for result in results),
        "command": shown_command(sys.argv),
        "output_sha256": sha256(new),
        **{name: sum(r.get(name, 0) for r in results) for name in ("rows", "rows_in_error", "blank", "engine_deaths")},
    }
    sums = ("rows", "cut_rows", "repeated_rows", "seconds", "policy_tokens", "prompt_tokens", "generated_tokens")
    return replace(
        first,
        decides={**first.decides, "input": {**first.decides["input"], "shard": None}},
        started=min(shard.started for shard in shards),
        process=os.getpid(),
        output_bytes=new.stat().st_size,
        input_sha256="",
        result=result,
        **{name: sum(getattr(shard, name) for shard in shards) for name in sums},
    )


def _check_input(made: Manifest) -> None:
    """Hash the input, so that the merged output can be gone on with. UsageError when it has other rows by now."""
    assert made.result is not None
    digest, rows, asked = InputHash(), 0, made.decides["input"]
    format = made.result.get("input_format")
    try:
        if made.result["input"] == STANDARD_INPUT:
            raise SafeguardError("they were read from standard input")
        if not Path(_found(made.result["input"])).is_file():  # the manifest says it, and a pipe would keep us waiting
            raise SafeguardError(f"{made.result['input']} is not there, or no file")
        with open_source(
            _found(made.result["input"]),
            format=format,
            encoding=asked["encoding"],
            max_row_bytes=asked["max_row_bytes"],
        ) as source:
            for record in source:
                digest.add(record)
                rows += 1
    except (SafeguardError, OSError) as problem:  # a name that no file can have raises OSError
        reason = getattr(problem, "strerror", None) or problem
        warn(f"the merged output cannot be checked against its input, nor continued: {reason}")
        return
    if rows != made.rows:
        raise UsageError(f"{made.result['input']} has {rows:,} rows, and the shards {made.rows:,}: it has changed")
    made.input_sha256 = digest.value()


def _found(name: str) -> Path:
    """The file that a manifest names: one whose name is not UTF-8 stands there with its bytes as escapes."""
    path = Path(name)
    if path.exists():
        return path
    return Path(re.sub(r"\\u(dc[89a-f][0-9a-f])", lambda found: chr(int(found[1], 16)), name))

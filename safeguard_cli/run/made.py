"""Outputs that are made at the end of a run: files that cannot be appended to row by row.

A Parquet file or a workbook cannot be read without its index at the end, and a JSON array not without its last bracket.
So the run writes a journal, `OUT.rows.jsonl`, an output like any other with all that is promised of one. When the
journal is finished, it is turned into OUT, which appears whole or not at all. To resume a finished OUT
(`--append-input`, `--retry-errors`, more `--limit`), the journal is made again from OUT's verdicts and the input's
rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import orjson

from safeguard_cli.errors import SafeguardError
from safeguard_cli.files import draft, sha256
from safeguard_cli.output.manifest import (
    START_OVER,
    Manifest,
    Refused,
    is_what_was_written,
    load,
    load_finished,
    manifest_path,
    run_path,
)
from safeguard_cli.output.manifest_shape import Identity, Result
from safeguard_cli.output.readback import verdict_of
from safeguard_cli.output.unchanged import check_unchanged
from safeguard_cli.output.written import whole_lines
from safeguard_cli.rows.formats import FORMATS, Written, extension
from safeguard_cli.rows.layouts import members
from safeguard_cli.rows.parquet import first_line
from safeguard_cli.rows.sink import open_sink
from safeguard_cli.rows.writable import real
from safeguard_cli.run.prepare import open_input
from safeguard_cli.run.settings import Settings

EXTRA = "_extra"


class Maker(Protocol):
    """What makes a file of one format of a journal."""

    format: Written
    rereads: bool  # an input of the same format is read once more at the end, for its values' own types

    def check(self, settings: Settings, keep: Sequence[str] | None) -> None:
        """Raise SafeguardError if the file could not be made in the end; `keep` are the fields that are written."""

    def most_rows(self) -> int | None:
        """Return how many rows such a file can have, None if there is no bound."""

    def write(self, settings: Settings, done: Manifest, journal: Path, part: Path) -> str:
        """Write the file and put it on disk; return what to tell the user about it, mostly nothing."""

    def verdicts(self, output: Path, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """Yield the verdicts of each row of a finished file, by policy, as `readback.verdict_of` reads them."""

    def failures(self) -> tuple[type[Exception], ...]:
        """Return what the packages that write the file raise."""


def written_of(settings: Settings) -> Written | None:
    """Return the format of output that the input's own format stands for, None if only its first bytes tell."""
    if settings.input == "-":
        return None
    kind = FORMATS.get(settings.format or extension(Path(settings.input)))
    return kind.written if kind else None


def rereads(maker: Maker, settings: Settings) -> bool:
    """Return whether the input is read once more at the end."""
    return maker.rereads and written_of(settings) == maker.format


def make_file(
    maker: Maker,
    settings: Settings,
    done: Manifest,
    result: Result,
    journal: Path,
    output: Path,
    before: os.stat_result | None,
) -> str:
    """Turn the journal into the output with its manifest; `done` and `result` are the journal's.

    `before` is the state of an input that is read once more. Return what to tell the user about the file. Raise
    SafeguardError if the output cannot be written, or if the input has changed meanwhile.
    """
    failures: tuple[type[Exception], ...] = (OSError, *maker.failures())
    try:
        with draft(real(output)) as new:
            remark = maker.write(settings, done, journal, new.path)
            if before:
                now, reopen = Path(settings.input).stat, partial(open_input, settings)
                rows, digest = done.progress.rows, done.progress.input_sha256
                check_unchanged(settings.input, before, now, reopen, rows, digest)
            new.publish()
    except failures as problem:
        raise SafeguardError(
            f"{output}: cannot be written: {getattr(problem, 'strerror', None) or first_line(problem)};"
            f" the labels are in {journal}; run the same command to resume from there"
        ) from problem
    hashes = {"output_sha256": sha256(output), "rows_sha256": result.output_sha256}
    described(done, result, maker.format, output, **hashes).save(manifest_path(output))
    return remark


def unpack(maker: Maker, settings: Settings, output: Path, journal: Path) -> None:
    """Make the journal of a finished output again; raise Refused if the output is not as a run of ours wrote it."""
    done, result = load_finished(output)
    if not is_what_was_written(output, done, result):
        raise Refused(
            f"{output} was changed after it was finished; to keep it, write to another file with -o; {START_OVER}"
        )
    if settings.input == "-":
        raise Refused(f"{output} was made from a pipe, which cannot be read again; {START_OVER}")
    names, keep = list(done.identity.policies), done.identity.output.keep
    with draft(journal) as new:
        with (
            open_input(settings) as source,
            open_sink(new.path, source=source, format="jsonl", names=names, columns=(), keep=keep) as sink,
        ):
            rows = maker.verdicts(output, names)
            for record, row in zip(islice(source, done.progress.rows), rows, strict=False):
                sink.write(record, {name: verdict_of(row[name]) for name in names})
        hashes = {"output_sha256": sha256(new.path)}
        described(done, result, "jsonl", new.path, **hashes).save(manifest_path(journal))
        new.publish()


def is_made_from(output: Path, journal: Result) -> bool:
    """Return whether an output was made from the journal with this result."""
    made = load(manifest_path(output)) if output.exists() else None
    return bool(made and made.result and made.result.rows_sha256 == journal.output_sha256)


def described(done: Manifest, result: Result, format: str, path: Path, **members: Any) -> Manifest:
    """Return the manifest of the same rows in a file of another format."""
    identity = done.identity.changed(output=done.identity.output.changed(format=format).record)
    progress = done.progress.changed(output_bytes=path.stat().st_size)
    return replace(done, identity=identity, progress=progress, result=result.changed(**members))


def remove(journal: Path) -> None:
    """Remove a journal with its manifests."""
    # The rows go first: without them, what remains after a kill counts for nothing.
    for path in (journal, run_path(journal), manifest_path(journal)):
        path.unlink(missing_ok=True)


def verdict_members(identity: Identity) -> list[str]:
    """Return the members of a verdict: the columns, and `cut` if there is a budget that can cut the reasoning."""
    names = list(identity.output.columns)
    if identity.answer.most_reasoning:
        names.insert(names.index("effort") + 1, "cut")
    return names


def filled(verdict: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a verdict with the members that JSON leaves out where they are as always."""
    return verdict if "label" not in verdict or "error" in verdict else {"windows": 1, "truncated": False, **verdict}


def journal_rows(journal: Path, policies: Sequence[str]) -> Iterator[tuple[dict[str, bytes], dict[str, Any]]]:
    """Yield each row's own fields, as the JSON text of their values, and its verdicts, which are the last members.

    Parsing the values would lose what JSON can hold and the types of other formats cannot. If a key comes twice, its
    last value counts, as for other readers of JSON.
    """
    for line in whole_lines(journal, "jsonl"):
        yield split_row(line, policies)


def split_row(line: bytes, policies: Sequence[str]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the own fields of a row, as JSON, and its verdicts."""
    found = [(name, value) for name, _, value in members(line)]
    own = len(found) - len(policies)
    return dict(found[:own]), {name: orjson.loads(value) for name, value in found[own:]}


def own_fields(row: Mapping[str, bytes], policies: Sequence[str]) -> tuple[str, ...]:
    """Return the fields of a row that become columns; none if it is a line that could not be read."""
    return () if set(row) <= {"_line", "_raw"} else tuple(name for name in row if name not in policies)

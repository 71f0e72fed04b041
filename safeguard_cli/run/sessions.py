"""How a run takes up what an earlier session left, and what it leaves itself: stopped, or finished."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import orjson

from safeguard_cli import errors
from safeguard_cli.address import shown_command
from safeguard_cli.engine.engine import Engine
from safeguard_cli.errors import SafeguardError
from safeguard_cli.files import Draft, sha256
from safeguard_cli.model.fingerprint import model_sha256
from safeguard_cli.output.journal import Journal
from safeguard_cli.output.manifest import START_OVER, Refused
from safeguard_cli.output.resume import InputHash, check_input
from safeguard_cli.output.written import read_output
from safeguard_cli.rows.records import Record
from safeguard_cli.rows.sink import Disturbed, Sink, make_layout
from safeguard_cli.rows.source import Source
from safeguard_cli.run.destination import Output
from safeguard_cli.run.pipeline import Pipeline
from safeguard_cli.run.prepare import Prepared
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import note, shell_line


def take_up(
    journal: Journal, records: Iterator[Record], again: Iterator[Record], source: Source, output: Output, run: Pipeline
) -> None:
    """Take the rows that are done out of `records`, making sure that they are those of the earlier session."""
    shape, progress = journal.shape, run.progress
    fields = (output["names"], output["columns"], output["keep"], shape.delimiter, output["csv_safe"])
    layout = make_layout(source, output["format"], *fields)
    mark = orjson.dumps(output["names"][0]) + b":" if shape.format == "jsonl" else b""
    written = (row for row in read_output(journal.output, shape) if row.verdicts)
    run.digest = check_input(
        records,
        again,
        written if shape.every_row else iter(()),
        journal.rows,
        journal.manifest,
        lambda record: layout.beginning(record) + mark,
        progress.row,
    )
    run.written = journal.rows
    if journal.rows and (counts := journal.manifest.counts):
        progress.restore(counts)


def stopped(run: Pipeline, sink: Sink, stop: BaseException, target: Path | BinaryIO, lasting: bool) -> None:
    """Save what a run that ends early has, and say how to go on. What ended it is the failure to tell of."""
    if run.journal is None or run.kept is not None:
        return
    try:
        run.journal.save(sink.sync)
    except SafeguardError as problem:
        if not isinstance(stop, SafeguardError):
            raise
        if isinstance(problem, Disturbed):
            return
    if run.settings.scratch:
        note(f"{run.written:,} rows were labelled, and none is kept: run the command again")
    elif lasting:
        note(f"{run.written:,} rows are in {target}; to go on: {_same_command()}")
    else:
        note(f"{run.written:,} rows are in {target}")


def _same_command() -> str:
    """The command that goes on with this run: as it was called, but not over again from the start."""
    program, *arguments = sys.argv
    found = shutil.which(Path(program).name)
    name = [Path(program).name if found and Path(found).resolve() == Path(program).resolve() else program]
    if Path(program).name == "__main__.py":
        name = [sys.executable, "-m", "safeguard_cli"]
    shown = shown_command(arguments)
    command = shell_line([*name, *(argument for argument in shown if argument != "--overwrite")])
    return command if shown == arguments else f"{command} (with what is secret in its URLs put back)"


def finished_already(settings: Settings, journal: Journal, records: Iterator[Record]) -> int:
    """The output is finished already: say so, if the input is still the one that it was made from."""
    digest, rows, done = InputHash(), 0, journal.manifest
    for record in islice(records, done.rows):
        digest.add(record)
        rows += 1
    if (rows, digest.value()) != (done.rows, done.input_sha256):
        raise Refused(f"{journal.output} is finished, and the input is not the one that it was made from; {START_OVER}")
    assert done.result is not None
    if done.result["input_exhausted"] and settings.limit is None and next(records, None) is not None:
        raise Refused(
            f"{journal.output} is finished, and the input has grown since: --append-input labels what is new;"
            f" {START_OVER}"
        )
    if not settings.quiet:
        note(f"{journal.output} is finished already: {rows:,} rows; {START_OVER}")
    return int(done.result["exit_code"])


def finish(
    settings: Settings,
    prepared: Prepared,
    journal: Journal,
    run: Pipeline,
    engine: Engine,
    source: Source,
    retried: Draft | None,
) -> None:
    """Leave the record of the finished run, whose output is complete and on disk."""
    journal.count_time()  # hashing a large model for the first time is no part of it
    before, done = journal.manifest.result, (run.written, run.digest.value())
    if retried and (journal.manifest.rows, journal.manifest.input_sha256) != done:
        raise Refused(f"the input is not the one that {journal.output} was made from; {START_OVER}")
    hashing = partial(run.progress.does, "hashing the model file")
    journal.manifest.rows, journal.manifest.input_sha256 = done
    journal.manifest.policy_tokens += engine.policy_tokens
    journal.manifest.cut_rows = run.progress.written.cut
    exhausted = settings.limit is None or run.written < settings.limit
    journal.finish(
        {
            "exit_code": errors.ROWS_IN_ERROR if run.progress.written.rows_in_error else errors.OK,
            **run.counts(),
            **({"untrained": prepared.untrained} if prepared.untrained else {}),
            "rows": run.written,
            "input_exhausted": before["input_exhausted"] if before else exhausted,
            "engine_deaths": engine.deaths,
            "command": shown_command(sys.argv),
            "input": str(Path(source.path).absolute()) if source.path else source.name,
            "input_format": settings.format,
            "model": str(prepared.header.path) if not prepared.remote else journal.manifest.decides["model"]["served"],
            "model_sha256": model_sha256(prepared.header.path, hashing) if not prepared.remote else None,
            "output_sha256": sha256(retried.path if retried else journal.output),
        },
        retried,
    )

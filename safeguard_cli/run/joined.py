"""Several files labelled into one output, whose field `_file` tells which file a row is from.

They are read as one input, in the order of a list beside the output, to which files that are found later are added at
the end. So the run is that of a single file, with its journal and its checks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from safeguard_cli import errors
from safeguard_cli.address import shown_command
from safeguard_cli.engine.local.process import LocalEngine
from safeguard_cli.errors import SafeguardError, UsageError, sentences
from safeguard_cli.files import sha256
from safeguard_cli.output.manifest import START_OVER, Refused, find_manifest, journal_path
from safeguard_cli.output.set_record import FileOnRecord, SetRecord, marks, open_record, same_file
from safeguard_cli.rows.joined import Joined
from safeguard_cli.rows.sink import output_format
from safeguard_cli.run.engines import EngineMaker, Preparer
from safeguard_cli.run.files import LIST, Found, find_files
from safeguard_cli.run.label import label
from safeguard_cli.run.prepare import open_input, prepare
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import note, warn


@dataclass(frozen=True, slots=True)
class _Listed:
    """The files in the output's list, and the exit codes of those that cannot be read."""

    files: tuple[tuple[str, str, int], ...]
    codes: tuple[int, ...]


def label_joined(settings: Settings, make_engine: EngineMaker = LocalEngine, prepare: Preparer = prepare) -> int:
    """Label the files that `settings.inputs` mean into the file `settings.output`, and return the exit code.

    Raise SafeguardError with a sentence for the user.
    """
    if settings.shard != (1, 1):
        raise UsageError("--shard is for one input: give each job of an array its own files")
    with sentences(), ExitStack() as stack:
        output = Path(str(settings.output))
        path = output.with_name(output.name + LIST)
        found = find_files(settings.inputs, output.absolute())
        record = stack.enter_context(open_record(path))
        if settings.overwrite or not _is_begun(output):
            record.files.clear()
        _check_listed(record.files.values(), found, output)
        listed = _list(settings, record, found)
        if not listed.files:
            raise SafeguardError("none of the files can be read")
        joined = replace(settings, input=str(path), inputs=(), joined=listed.files)
        _check_columns(joined, output)
        rows = sum(rows for *_, rows in listed.files)
        if not settings.dry_run:
            record.save(shown_command(sys.argv))
        try:
            code = label(
                replace(joined, append_input=joined.append_input or _has_less(output, rows)), make_engine, prepare
            )
        finally:
            if not settings.dry_run:
                _note_states(record, output)
                record.save(shown_command(sys.argv))
    if listed.codes:
        warn(f"files not labelled: {len(listed.codes):,}; run the same command to label them")
    elif not settings.quiet:
        note(f"{len(listed.files):,} files are in {output}; see {path}")
    return errors.worst([code, *listed.codes])


def _is_begun(output: Path) -> bool:
    return find_manifest(output) is not None or find_manifest(journal_path(output)) is not None


def _has_less(output: Path, rows: int) -> bool:
    """Return whether an output is finished, but with fewer rows than its files have now."""
    done = find_manifest(output)
    return bool(done and done.result and done.result.input_exhausted and done.progress.rows < rows)


def _check_listed(listed: Iterable[FileOnRecord], found: Sequence[Found], output: Path) -> None:
    """Raise Refused if a file whose rows are in the output is not named any more, or has changed."""
    named = {str(file.path) for file in found}
    for file in listed:
        if file.input not in named:
            raise Refused(f"{output} has rows of {file.input}, which this command does not find; {START_OVER}")
        if not same_file(Path(file.input), file.read) and sha256(Path(file.input)) != file.asked:
            raise Refused(f"{file.input} has changed since it was labelled into {output}; {START_OVER}")


def _list(settings: Settings, record: SetRecord, found: Sequence[Found]) -> _Listed:
    """Add the files that are not in the list; those that cannot be read to their end are told and left out."""
    known = {file.input for file in record.files.values()}
    codes = []
    for file in found:
        if str(file.path) in known:
            continue
        try:
            with sentences(file.name):
                state = marks(file.path.stat())
                with open_input(replace(settings, input=file.name)) as source:
                    rows = sum(1 for _ in source)  # raises if it cannot be read to its end
                digest = sha256(file.path)
        except SafeguardError as problem:
            warn(problem.of(file.name))
            codes.append(problem.exit_code)
            continue
        record.put(input=str(file.path), output=file.name, state="waiting", rows=rows, read=state, asked=digest)
    return _Listed(tuple((file.input, file.output, file.rows) for file in record.files.values()), tuple(codes))


def _check_columns(joined: Settings, output: Path) -> None:
    """Raise UsageError if a CSV output cannot have the columns of all its files."""
    with open_input(joined) as source:
        assert isinstance(source, Joined)
        if output_format(output, "jsonl") == "csv" and source.format == "jsonl" and source.tables:
            raise UsageError(
                f"{output}: these files have not all the same columns; a CSV would lose some: name the output *.jsonl,"
                " or a folder (-o DIR/)"
            )


def _note_states(record: SetRecord, output: Path) -> None:
    """Put on record which files are labelled, as far as the output's manifest tells."""
    made = find_manifest(output) or find_manifest(journal_path(output))
    left = made.progress.rows if made else 0
    for file in record.files.values():
        state = "finished" if left >= file.rows else "begun" if left > 0 else "waiting"
        record.put(**{**file.record, "state": state})
        left -= file.rows

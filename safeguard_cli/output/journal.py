"""The durable side of a run that writes a file: what an earlier session left, and what this one leaves behind.

Wherever the run is killed, the files beside the output fit it. To resume, a session first cuts the output, then writes
the manifest that describes it, and deletes the manifest of the finished output last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safeguard_cli import files
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.output.manifest import (
    START_OVER,
    Manifest,
    Refused,
    find_manifest,
    locked,
    manifest_path,
    not_ours,
    now,
    run_path,
)
from safeguard_cli.output.manifest_shape import Footing, Identity, Result, Tallies
from safeguard_cli.output.resume import InputHash, check_same, truncate
from safeguard_cli.output.written import OutputShape, whole_rows
from safeguard_cli.rows.writable import check_folder, real

SYNC_SECONDS = 10.0  # between two fsyncs of the output: the most work that a power cut can cost

Start = Literal["new", "continue", "retry", "finished"]


@dataclass(slots=True)
class Journal:
    """An output file under this run's lock.

    `start` says what this session does with it: begin at row 0, resume after `rows` rows and `offset` bytes, label the
    error rows of a finished output again, or do nothing because it is finished.
    """

    output: Path
    shape: OutputShape
    manifest: Manifest
    start: Start
    rows: int = 0
    offset: int = 0
    _synced: float = 0.0
    _began: float = 0.0

    @property
    def result(self) -> Result:
        """Return the result of the finished output; raise Refused if it is not finished."""
        if self.manifest.result is None:
            raise Refused(f"{self.output} is not finished; run the same command again")
        return self.manifest.result

    def begin(self) -> None:
        """Make the files on disk fit `start`; called when all else is ready, so that a refusal touches nothing."""
        self._synced = self._began = time.monotonic()
        if self.start != "retry":
            truncate(self.output, self.offset)
            self.unfinish()

    def unfinish(self) -> None:
        """Replace the manifest of a finished output with that of an unfinished one, which is to be resumed."""
        self.manifest.process, self.manifest.result = os.getpid(), None
        self.manifest.save(run_path(self.output))
        manifest_path(self.output).unlink(missing_ok=True)

    def written(self, rows: int, digest: InputHash, size: int, cut: int, counts: Callable[[], dict[str, Any]]) -> None:
        """Note how far the output is, for the next `save`, at rows from which the run can be resumed."""
        if rows % (self.manifest.identity.deterministic or 1):
            return
        done = self.manifest.progress
        done.rows, done.input_sha256, done.output_bytes, done.cut_rows = rows, digest.value(), size, cut
        if not self.shape.every_row:
            done.counts = Tallies(counts())

    def save_now_and_then(self, sync: Callable[[], None]) -> None:
        """Save what was noted, if a save is due."""
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self.save(sync)

    def save(self, sync: Callable[[], None]) -> None:
        """Sync the output to disk, then save its manifest."""
        if self.start == "retry":
            return
        sync()
        self.count_time()
        self.manifest.save(run_path(self.output))
        self._synced = time.monotonic()

    def finish(self, result: dict[str, Any], instead: files.Draft | None = None) -> None:
        """Finish an output that is complete and on disk, or the draft that takes its place."""
        self.manifest.progress.output_bytes = (instead.path if instead else self.output).stat().st_size
        self.manifest.process, self.manifest.progress.counts = os.getpid(), None
        self.manifest.result = Result({"finished": now(), **result})
        if instead:  # killed from here on, the run leaves the old output with its manifest, or the new one with this
            self.manifest.save(run_path(self.output))
            instead.publish()
        self.manifest.save(manifest_path(self.output))
        run_path(self.output).unlink(missing_ok=True)

    def count_time(self) -> None:
        """Add the seconds since the last call to the run's."""
        here, done = time.monotonic(), self.manifest.progress
        done.seconds, self._began = round(done.seconds + here - self._began, 3), here


@contextmanager
def open_journal(
    output: Path,
    shape: OutputShape,
    identity: Identity,
    machine: Footing,
    *,
    limit: int | None,
    overwrite: bool,
    append_input: bool,
    retry_errors: bool,
    warn: Callable[[str], None],
) -> Iterator[Journal]:
    """Lock the output and decide how to start; raise Refused, touching nothing, if it cannot be resumed."""
    existed = output.exists()
    with locked(output, run_path(output)):
        try:
            files.sweep(real(output), run_path(output), manifest_path(output))
            new = Manifest(identity, machine, now(), os.getpid())
            old = None if overwrite else find_manifest(output)
            if old and old.result and run_path(output).exists():  # killed just before this
                old.save(manifest_path(output))
                run_path(output).unlink()
            empty = not output.stat().st_size and not (old and old.finished and not old.progress.output_bytes)
            if overwrite or empty:
                journal = Journal(output, shape, new, "new")
            elif old is None:
                raise Refused(not_ours(output))
            else:
                for difference in check_same(old, new, output):
                    warn(f"changed since {output} was begun: {difference}")
                old.machine = machine
                journal = Journal(output, shape, old, _start(old, output, limit, append_input, retry_errors))
                if old.result and not shape.every_row:
                    old.progress.counts = old.result.tallies
                if journal.start == "continue":
                    journal.rows, journal.offset = whole_rows(output, shape, old)
            if retry_errors and journal.start != "retry":
                raise UsageError(f"--retry-errors: {output} is not a finished output; run the same command without it")
            if journal.start != "finished":
                check_folder(real(output), run_path(output))
            yield journal
        finally:
            with suppress(OSError, SafeguardError):
                if not existed and not output.stat().st_size and find_manifest(output) is None:
                    real(output).unlink()  # the lock alone created it


def _start(old: Manifest, output: Path, limit: int | None, append_input: bool, retry_errors: bool) -> Start:
    size = output.stat().st_size
    if old.result is None or size < old.progress.output_bytes:
        return "continue"
    if size > old.progress.output_bytes:
        raise Refused(
            f"{output} was changed after it was finished; to keep it, write to another file with -o; {START_OVER}"
        )
    if retry_errors:
        return "retry"
    if limit is not None and limit <= old.progress.rows:
        return "finished"
    return "continue" if append_input or not old.result.input_exhausted else "finished"

"""The work of an audit: rows of the input in a random order, labelled until enough of them are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from rich.console import RenderableType

from safeguard_cli.audit import destination
from safeguard_cli.audit.draw import Drawn, Spool, draw
from safeguard_cli.audit.estimate import Estimate
from safeguard_cli.audit.ordering import PROBABILITY, Mark
from safeguard_cli.audit.slices import By, parse_by
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.files import sha256
from safeguard_cli.measure.statistics import confidence_sequence
from safeguard_cli.output.journal import Journal
from safeguard_cli.output.labelled import LabeledFile
from safeguard_cli.output.unchanged import marks
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.records import Record
from safeguard_cli.rows.source import Source
from safeguard_cli.rows.text import Selects
from safeguard_cli.rows.writable import Used, real
from safeguard_cli.run.destination import kept_fields
from safeguard_cli.run.prepare import open_input
from safeguard_cli.run.progress import Progress
from safeguard_cli.run.settings import Settings
from safeguard_cli.run.work import Work

PORTION = 1000  # rows drawn at first if it is not known how many it will be; then each time this many times more:
GROWTH = 4
_LOOKS = 50  # --within looks at its intervals each time that the rows have grown by one in so many


@dataclass(frozen=True, slots=True)
class Stop:
    """What ends an audit, whichever comes first: a number of rows, a time, or how well the shares are known."""

    rows: int | None = None
    seconds: float | None = None
    within: float | None = None

    @property
    def planned(self) -> int:
        """Return the number of rows that is fixed before the audit begins, 0 if there is none."""
        return self.rows if self.rows is not None and self.seconds is None and self.within is None else 0


class Sample(Work):
    """Rows drawn at random, in the order of their ranks; another order is a subclass with other `records`."""

    how = "uniform"
    columns: tuple[str, ...] = ("seed", "row", "rank", "probability")  # of a CSV output

    def __init__(
        self, seed: int, stop: Stop, by: Sequence[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seed, self.stop = seed, stop
        self.by: tuple[By, ...] = ()
        self._asked_by, self._clock = by, clock
        self._began: float | None = None
        self._drawn = Drawn(0, np.empty(0, np.int64), np.empty(0, np.int64))
        self._spool: Spool | None = None
        self._settings: Settings | None = None
        self._progress: Progress | None = None
        self._source: Source | None = None
        self._sha256 = ""
        self._known, self._spent = 0, 0.0  # rows and seconds of earlier sessions
        self._looked, self._portion = 0, PORTION

    # The rows

    def open(self, settings: Settings, stream: BinaryIO | None = None) -> Source:
        """Open the input, whose iteration yields drawn rows."""
        source = open_input(settings, stream)
        source.give_instead(self.records, self.columns)
        if source.state is None or source.path is None:
            source.close()
            raise UsageError(f"{source.name}: an audit draws its rows from a file, which it reads more than once")
        return source

    def total(self, settings: Settings, source: Source, selector: Selects, progress: Progress) -> int | None:
        """Draw the first rows, and return how many there will be, None if that is not known yet."""
        self._settings, self._progress, self._source = settings, progress, source
        assert source.path is not None
        self._sha256 = sha256(source.path, lambda share: progress.does("hashing the input", share))
        self._draw(self._portion if settings.limit is None else settings.limit)
        if not self._drawn.total:
            raise UsageError(f"{source.name} has no rows to draw from")
        return None if self.stop.seconds or self.stop.within else self._most

    def draw_for(self, settings: Settings, drawn: Sequence[Mark]) -> Iterator[Record]:
        """Yield the rows of an output, in the order in which they were drawn, before the run begins."""
        rows = len(drawn)
        with open_input(settings) as source:
            self._settings, self._source, self._known = settings, source, rows
            self._draw(rows)
            yield from (self.record(rank) for rank in range(min(rows, len(self._drawn))))

    def _draw(self, most: int) -> None:
        settings, source, progress = self._settings, self._source, self._progress
        assert settings is not None and source is not None
        if self._spool is None:
            self._spool = Spool(real(Path(settings.output or "")).parent)
        self._spool.clear()
        with open_input(settings) as whole:
            if progress:
                progress.does("drawing rows", 0.0)
            size = max(whole.total_bytes or 0, 1)
            tell = (lambda: progress.does("drawing rows", whole.bytes_read / size)) if progress else lambda: None
            self._drawn = draw(iter(whole), self.seed, most, self._spool, tell)
        if source.state is None or marks(source.state) != marks(source.now()):
            raise SafeguardError(f"{source.name} was changed while rows were drawn from it: run the command again")
        if progress:
            progress.doing = None

    @property
    def rows_in_file(self) -> int:
        """The number of rows of the file, or of its shard."""
        return self._drawn.total

    @property
    def _most(self) -> int:
        return min(self._drawn.total, self._drawn.total if self.stop.rows is None else self.stop.rows)

    def records(self) -> Iterator[Record]:
        """Yield the rows in the order in which they are to be labelled, until the audit ends."""
        rank = 0
        while rank < self._drawn.total and not (rank >= self._known and self.enough()):
            if rank == len(self._drawn):
                self._draw(GROWTH * len(self._drawn))
            yield self.record(rank)
            rank += 1

    def record(self, rank: int) -> Record:
        """Return the row of a rank, counted from 0, with how it came into the sample."""
        assert self._spool is not None
        found = self._spool.read(int(self._drawn.places[rank]))
        return replace(found, sample={"seed": self.seed, "row": found.index + 1, "rank": rank + 1})

    # The end

    def enough(self) -> bool:
        """Return whether no further row is to be begun: the time is over, or the shares are known well enough.

        The time is that of labeling, in all sessions: loading a model and drawing rows do not count.
        """
        seconds, now = self.stop.seconds, self._clock()
        self._began = now if self._began is None else self._began
        if seconds is not None and self._spent + now - self._began >= seconds:
            return self._progress is None or self._progress.decided.rows > 0
        return self.stop.within is not None and self._within(self.stop.within)

    def _within(self, within: float) -> bool:
        assert self._progress is not None
        counts = self._progress.written
        if counts.rows < self._looked + self._looked // _LOOKS + 1:
            return False
        self._looked, total = counts.rows, self._drawn.total
        for name, labels in counts.labels.items():
            violating, in_error = counts.violating[name], counts.rows - counts.blank - sum(labels.values())
            low = confidence_sequence(violating, counts.rows, total).low
            high = confidence_sequence(violating + in_error, counts.rows, total).high
            share = violating / max(counts.rows - in_error, 1)
            if max(high - share, share - low) > within:
                return False
        return True

    def exhausted(self, settings: Settings, rows: int) -> bool:
        """Return whether all rows of the file are labelled."""
        return rows >= self._drawn.total

    def expect(self, rows: int) -> None:
        """Draw so many rows and more at first: an earlier session came as far."""
        self._portion = max(self._portion, GROWTH * rows)

    def take_up(self, journal: Journal) -> None:
        """Take note of what earlier sessions did."""
        done = journal.manifest.progress
        self._known, self._spent = max(journal.rows, done.rows), done.seconds
        if journal.start == "retry":
            self.stop = Stop()
        elif done.planned is None:
            done.planned = self.stop.planned

    # The record

    def on_record(self) -> Mapping[str, Any]:
        """Return what another person needs to draw the same rows."""
        assert self._source is not None
        of_file = {"rows": self._drawn.total, "bytes": self._source.total_bytes, "sha256": self._sha256}
        return {"sample": {"draw": self.how, "seed": self.seed, **of_file}}

    def grown(self, settings: Settings, source: Source, rows: int, digest: str) -> str:
        """Raise SafeguardError if the input is no longer the file that the rows were drawn from."""
        assert source.state is not None and source.path is not None
        try:
            same = marks(source.now()) == marks(source.state) or sha256(source.path) == self._sha256
        except OSError as problem:
            raise SafeguardError(f"{source.name} was moved or deleted while it was read ({problem.strerror})") from None
        if not same:
            raise SafeguardError(
                f"{source.name} was changed while it was read, so the rows are no sample of it any more: restore it and"
                " run the same command to resume, or start over with --overwrite"
            )
        return ""

    # The output

    def place(self, mark: Mark) -> int:
        """Return where a row stands in the journal, from its `_sample`."""
        return int(mark["rank"])

    def settle(self, labels: LabeledFile) -> LabeledFile:
        """Return the labels of the rows that an audit ends with, with all that is known of how they were drawn."""
        return labels

    def at_end(self, mark: Mark, rows: int) -> Mark:
        """Return the `_sample` of a row in the output, which has `rows` rows."""
        return {**mark, PROBABILITY: rows / max(self.rows_in_file, 1)}

    def in_journal(self, mark: Mark) -> Mark:
        """Return the `_sample` of a row in the journal, from that in the output."""
        return {part: value for part, value in mark.items() if part != PROBABILITY}

    def told(self, found: Estimate) -> Estimate:
        """Return the part of an estimate that is of use."""
        return found

    def further(self, labels: LabeledFile) -> dict[str, Any]:
        """Return what else the labels tell, as the manifest has it beside the estimate."""
        return {}

    def shown(self, labels: LabeledFile) -> Iterator[RenderableType]:
        """Yield what else the labels tell, for people."""
        return iter(())

    def hold(self, settings: Settings, read: Sequence[Used]) -> AbstractContextManager[Any]:
        """Hold the output, and the journal that it is made of."""
        return destination.hold(self, settings, read)

    def destination(
        self, settings: Settings, source: Source, policies: Sequence[Policy], read: Sequence[Used], held: Any
    ) -> AbstractContextManager[Any]:
        """Open the journal that the output is made of."""
        self.by = tuple(parse_by(each, source, kept_fields(settings)) for each in self._asked_by)
        return destination.open_audit(self, settings, source, policies, read, held)

    def close(self) -> None:
        """Remove the drawn rows from the disk."""
        if self._spool:
            self._spool.close()

"""What a run reads and what it makes of it; another kind of run is another Work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from safeguard_cli.output.unchanged import check_unchanged
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.source import Source
from safeguard_cli.rows.text import Selects
from safeguard_cli.rows.writable import Used
from safeguard_cli.run.destination import Destination, Held, hold_made, open_destination
from safeguard_cli.run.prepare import Prepared, input_counts, open_input
from safeguard_cli.run.progress import Progress
from safeguard_cli.run.reuse import Reuse
from safeguard_cli.run.settings import Settings

COUNTABLE_BYTES = 256 << 20  # larger files are not read an extra time only to count their rows


class Work:
    """The work of `safeguard label`: every row of the input, in its order, into the output that the settings name."""

    def open(self, settings: Settings, stream: BinaryIO | None = None) -> Source:
        """Open the rows, from `stream` if the input is standard input that is read again."""
        return open_input(settings, stream)

    def hold(self, settings: Settings, read: Sequence[Used]) -> AbstractContextManager[Any]:
        """Hold an output that is made of a journal; see hold_made."""
        return hold_made(settings, read)

    def destination(
        self,
        settings: Settings,
        source: Source,
        policies: Sequence[Policy],
        read: Sequence[Used],
        held: Held | None,
    ) -> AbstractContextManager[Destination]:
        """Open what the rows are written to, before anything is loaded."""
        return open_destination(settings, source, policies, read, held)

    def round_end(self, rows: int) -> int | None:
        """Return after how many rows, when `rows` are begun, all must be written before more can be begun.

        None if rows do not depend on what was said of others.
        """
        return None

    def total(self, settings: Settings, source: Source, selector: Selects, progress: Progress) -> int | None:
        """Return the number of rows to come, at most --limit; None if there are more than can be counted at once.

        Those are counted beside the work. Of a pipe or a large file, only --limit is known.
        """
        if source.path is None or (source.total_bytes or 0) > COUNTABLE_BYTES:
            return settings.limit
        return progress.count(input_counts(settings), settings.limit)

    def on_record(self) -> Mapping[str, Any]:
        """Return what the run's identity has beside the settings."""
        return {}

    def exhausted(self, settings: Settings, rows: int) -> bool:
        """Return whether a run that has come to its end after so many rows has done all there are."""
        return settings.limit is None or rows < settings.limit

    def grown(self, settings: Settings, source: Source, rows: int, digest: str) -> str:
        """Return by how much the input has grown since it was opened, empty if it has not.

        Raise SafeguardError if it is no longer what was read of it: `digest` is the hash over the first `rows` rows.
        """
        if source.state is None:
            return ""
        with ExitStack() as stack:
            again = source.again()
            anew = partial(self.open, settings, stack.enter_context(again) if again else None)
            return check_unchanged(source.name, source.state, source.now, anew, rows, digest)


EVERY_ROW = Work()


@dataclass(frozen=True, slots=True)
class Job:
    """What all sessions of a run work with; `text_fields` are the text's fields as the manifest has them."""

    settings: Settings
    prepared: Prepared
    source: Source
    selector: Selects
    text_fields: tuple[str, ...]
    progress: Progress
    work: Work
    reuse: Reuse | None = None

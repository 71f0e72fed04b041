"""The work of `safeguard audit --find`: the likeliest rows first, in rounds, and a uniform sample between them.

A round's rows are chosen from the model's own verdicts on the rows of earlier rounds, which are read back from the
journal: the same journal gives the same next round, so that a stopped search goes on as if it had never stopped. Then
a cheap score is fitted anew and the whole file is scored, in one pass, before the next round begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType

from safeguard_cli.audit.draw import Drawn, Spool, hashes
from safeguard_cli.audit.estimate import Estimate
from safeguard_cli.audit.found import (
    DRAW,
    FEW,
    PICKED,
    SCORE,
    Found,
    figures,
    flagged,
    mark_of,
    p_violates,
    pick_of,
    ranked,
    search_of,
    shown,
)
from safeguard_cli.audit.ordering import PROBABILITY, Lines, Mark
from safeguard_cli.audit.sample import Sample, Stop
from safeguard_cli.audit.score import (
    BATCH_CHARACTERS,
    MOST_CHARACTERS,
    Grams,
    Ints,
    cross_validated_auroc,
    fit,
    grams,
    joined,
)
from safeguard_cli.audit.search import ENOUGH, FIRST, Pick, Scores, Search, round_end, round_start
from safeguard_cli.errors import SafeguardError, missing_extra
from safeguard_cli.output.journal import Journal
from safeguard_cli.output.labelled import LabeledFile
from safeguard_cli.output.manifest import START_OVER, Refused
from safeguard_cli.output.unchanged import marks
from safeguard_cli.output.written import read_output, whole_lines
from safeguard_cli.rows.records import SAMPLE, Record
from safeguard_cli.rows.source import Source, count_rows
from safeguard_cli.rows.text import Selects, text_key
from safeguard_cli.rows.verdict import RowError
from safeguard_cli.rows.writable import real
from safeguard_cli.run.prepare import open_input
from safeguard_cli.run.progress import Progress
from safeguard_cli.run.settings import Settings

MOST_GRAMS = 10_000_000  # of asked rows that are kept to learn from, 40 MB: by then a score has learnt what it can
_AT_ONCE = BATCH_CHARACTERS // MOST_CHARACTERS  # rows whose n-grams are made at once
_OFTEN = 1000  # rows read between two words on how far reading is


def check_installed() -> None:
    """Raise SafeguardError, naming the extra, if what ranks rows is missing."""
    try:
        import scipy.optimize  # noqa: F401
        import threadpoolctl  # noqa: F401
    except ImportError:
        raise missing_extra("--find needs scikit-learn", "eval") from None


def is_enough(estimate: Mapping[str, Any]) -> bool:
    """Return whether a search that no budget ends is over, from what the manifest has of it."""
    recall = estimate.get("find", {}).get("recall")
    return recall is not None and recall >= ENOUGH


@dataclass(slots=True)
class Asked:
    """What is known of the rows asked so far, in their order: of each its place in the spool and its text.

    The n-grams are those of the first rows, as many as fit.
    """

    places: list[int]
    keys: list[bytes | None]  # a hash of the text, None of a row without one
    grams: list[Grams]
    p_violates: list[float]  # of the first rows; NaN of a row in error

    def learnt(self, rows: int) -> tuple[Grams, Any, Any]:
        """Return the n-grams and p_violates of those of the first rows that have both, and which these are."""
        kept, p = joined(self.grams), np.array(self.p_violates[:rows])
        known = np.array([key is not None for key in self.keys[:rows]], dtype=np.bool_) & ~np.isnan(p)
        known[len(kept) :] = False
        chosen = np.zeros(len(kept), dtype=np.bool_)
        chosen[:rows] = known[: len(kept)]
        return kept.chosen(chosen), p[known], known


class Find(Sample):
    """Rows of a file in the order in which a Search asks about them."""

    how = "find"
    columns = ("seed", "row", "rank", PROBABILITY, "asked", "by", "picked")

    def __init__(self, seed: int, stop: Stop, by: Sequence[str] = ()) -> None:
        super().__init__(seed, stop, by)
        self._order: Ints = np.empty(0, np.int64)
        self._search = Search(self._order)
        self._ranks: dict[int, int] = {}  # of the rows of the uniform sample, when the search is over
        self._asked = Asked([], [], [], [])
        self._selector: Selects | None = None
        self._journal: Journal | None = None
        self._restored = False

    def total(self, settings: Settings, source: Source, selector: Selects, progress: Progress) -> int | None:
        """Put the rows in the order of the uniform sample, and return how many will be asked, None if not known."""
        self._selector = selector
        rows = super().total(settings, source, selector, progress)
        return rows if self.stop.rows is not None else None

    def _draw(self, most: int) -> None:
        settings, source = self._settings, self._source
        assert settings is not None and source is not None and source.path is not None
        if self._progress:
            self._progress.does("counting rows")
        rows = count_rows(
            source.path,
            format=settings.format,
            encoding=settings.encoding,
            max_row_bytes=settings.max_row_bytes,
            shard=settings.shard,
        )
        part, parts = settings.shard
        of_file = hashes(self.seed, 0, rows * parts)[part - 1 :: parts]
        self._order = np.argsort(of_file)
        self._search = Search(self._order)
        self._drawn = Drawn(rows, np.empty(0, np.int64), np.empty(0, np.int64))

    def records(self) -> Iterator[Record]:
        """Yield the rows in the order in which they are to be labelled, until the search ends."""
        self._restore()
        at = 0
        while at < len(self._search.picks) or self._begin_round():
            if at >= self._known and self.enough():
                return
            yield self.record(at)
            at += 1

    def record(self, at: int) -> Record:
        """Return the row that was asked about as number `at`, counted from 0, with how it came into the output."""
        assert self._spool is not None
        pick, found = self._search.picks[at], self._spool.read(self._asked.places[at])
        how: dict[str, Any] = {"asked": at + 1, "by": SCORE, "picked": PICKED}
        if pick.rank is not None:
            how = {"rank": pick.rank + 1, "asked": at + 1, "by": DRAW}
        return replace(found, sample={"seed": self.seed, "row": found.index + 1, **how})

    def round_end(self, rows: int) -> int | None:
        """Return after how many rows all must be written before the next one can be chosen."""
        return round_end(rows)

    def take_up(self, journal: Journal) -> None:
        """Take note of what earlier sessions did."""
        super().take_up(journal)
        self._journal, done = journal, journal.manifest.progress
        if (done.planned or 0) > FIRST:  # how many of the rows are drawn at random depends on what is found
            done.planned = 0

    @property
    def _parts(self) -> int:
        return self._settings.shard[1] if self._settings else 1

    # The output

    def place(self, mark: Mark) -> int:
        """Return where a row stands in the journal."""
        return int(mark["asked"])

    def settle(self, labels: LabeledFile) -> LabeledFile:
        """Return the labels with the ranks of all rows that belong to the uniform sample."""
        self._ranks = self._search_of(labels).first_ranks()
        rows = (
            replace(row, fields={**row.fields, SAMPLE: ranked(mark_of(row, self.columns), self._ranks, self._parts)})
            for row in labels.rows
        )
        return replace(labels, rows=tuple(rows))

    def at_end(self, mark: Mark, rows: int) -> Mark:
        """Return the `_sample` of a row in the output."""
        found = ranked(mark, self._ranks, self._parts)
        if "rank" in found:
            found[PROBABILITY] = len(self._ranks) / self._search.total
        return {part: found[part] for part in self.columns if part in found}

    def in_journal(self, mark: Mark) -> Mark:
        """Return the `_sample` of a row in the journal."""
        found = {part: value for part, value in mark.items() if part != PROBABILITY}
        if mark["by"] == SCORE:
            found = {**found, "rank": None, "picked": PICKED}
        return {part: found[part] for part in self.columns if found.get(part) is not None}

    def draw_for(self, settings: Settings, drawn: Sequence[Mark]) -> Iterator[Record]:
        """Yield the rows of an output in the order in which they were asked, before the run begins."""
        wanted = {int(mark["row"]) - 1: 0 for mark in drawn}
        with open_input(settings) as source, closing(Spool(real(Path(settings.output or "")).parent)) as spool:
            for record in source:
                if record.index in wanted:
                    wanted[record.index] = spool.keep(record)
            for mark in drawn:
                yield replace(spool.read(wanted[int(mark["row"]) - 1]), sample=self.in_journal(mark))

    def told(self, found: Estimate) -> Estimate:
        """Return an estimate without what more rows would tell of the share: a search is for rows."""
        policies = {name: replace(policy, ahead=()) for name, policy in found.policies.items()}
        return replace(found, policies=policies)

    def further(self, labels: LabeledFile) -> dict[str, Any]:
        """Return what the search found, from the manifest where it is there."""
        result = labels.manifest.result if labels.manifest else None
        if result and result.estimate:
            return {"find": result.estimate["find"]}
        search = self._search_of(labels)
        return {"find": asdict(figures(search, self._auroc(search)))}

    def shown(self, labels: LabeledFile) -> Iterator[RenderableType]:
        """Yield what the search found, for people."""
        return shown(Found(**self.further(labels)["find"]))

    def _search_of(self, labels: LabeledFile) -> Search:
        return search_of(labels, self._order, self._parts, self.columns)

    def _auroc(self, search: Search) -> float | None:
        """Return how well a score ranks the uniform sample, learnt from other rows; None if too few are flagged."""
        self._learn(len(search.flags))
        learnt, p, known = self._asked.learnt(len(search.flags))
        ranks = search.first_ranks()
        flags = np.array(search.flags, dtype=np.bool_)[known]
        drawn = np.array([pick.row in ranks for pick in search.picks], dtype=np.bool_)[known]
        few = min((flags & drawn).sum(), (~flags & drawn).sum()) < FEW
        return None if few else cross_validated_auroc(learnt, p, flags, drawn)

    # The rounds

    def _restore(self) -> None:
        """Take up the rows that are in the journal, once."""
        if self._restored or self._journal is None:
            return
        self._restored = True
        reading = Lines(self._journal.shape, self.columns)
        lines = whole_lines(self._journal.output, self._journal.shape.format)
        found = [reading.sample(line) for line in islice(lines, self._journal.shape.format == "csv", None)]
        self._known = min(self._known, len(found))
        self._search.restore(pick_of(mark, self._parts) for mark in found[: self._known])
        self._fetch(self._search.picks)

    def _begin_round(self) -> bool:
        """Choose the rows that are asked next; return False if the search is over."""
        search, asked = self._search, len(self._search.picks)
        start = round_start(asked)
        over = asked == search.total or (start and (self._journal is None or self._journal.start == "retry"))
        if not over:
            self._learn(start)
            over = self.stop.rows is None and self.stop.seconds is None and search.bound().recall >= ENOUGH
        if not over:
            self._fetch(search.next_rows(round_end(asked) - asked, self._scores(start) if start else None))
        return not over

    def _learn(self, rows: int) -> None:
        """Read back what the model said of the first rows, as far as it is not known yet."""
        known = len(self._search.flags)
        if self._journal is None or known >= rows:
            return
        written = (row.verdicts for row in read_output(self._journal.output, self._journal.shape) if row.verdicts)
        verdicts = list(islice(written, known, rows))
        if len(verdicts) < rows - known:
            raise Refused(f"{self._journal.output} has lost rows that were labelled before; {START_OVER}")
        self._asked.p_violates += map(p_violates, verdicts)
        self._search.learn([flagged(each) for each in verdicts])

    def _text(self, record: Record) -> str | None:
        """Return the text of a row, None if it has none."""
        assert self._selector is not None
        text = self._selector.select(record)
        return None if isinstance(text, RowError) else str(text)

    def _scores(self, learnt: int) -> Scores:
        """Return the score of every row of the file, from what the model said of the first rows that were asked.

        A row whose text is among them is sure: its verdict is known. A row without a text is never picked.
        """
        found, p, _ = self._asked.learnt(learnt)
        score = fit(found, p)
        known = dict(zip(self._asked.keys[:learnt], self._search.flags, strict=False))
        scores = np.full(self._search.total, -np.inf, dtype=np.float32)
        with self._reading("scoring rows") as records:
            for rows, texts in _batches(enumerate(map(self._text, records))):
                flags = [known.get(text_key(text)) for text in texts]
                new = np.array([flag is None for flag in flags], dtype=np.bool_)
                scores[rows[new]] = score.of(grams(list(compress(texts, new))))
                scores[rows[[flag is True for flag in flags]]] = np.inf
        return scores

    def _fetch(self, picks: Sequence[Pick]) -> None:
        """Read the rows that are asked next, and keep them on disk and their n-grams in memory."""
        assert self._settings is not None
        if self._spool is None:
            self._spool = Spool(real(Path(self._settings.output or "")).parent)
        left = {pick.row: 0 for pick in picks}
        wanted = len(left)
        with self._reading("reading the next rows") as records:
            for row, record in enumerate(records if wanted else ()):
                if row in left:
                    left[row] = self._spool.keep(record)
                    wanted -= 1
                    if not wanted:
                        break
        self._asked.places += [left[pick.row] for pick in picks]
        for first in range(0, len(picks), _AT_ONCE):
            beginnings = []
            for pick in picks[first : first + _AT_ONCE]:
                text = self._text(self._spool.read(left[pick.row]))
                self._asked.keys.append(None if text is None else text_key(text))
                beginnings.append((text or "")[:MOST_CHARACTERS])
            if sum(len(part.buckets) for part in self._asked.grams) < MOST_GRAMS:
                self._asked.grams.append(grams(beginnings))

    @contextmanager
    def _reading(self, doing: str) -> Iterator[Iterator[Record]]:
        """Read the file once more; raise SafeguardError if it has changed since it was opened."""
        settings, source, progress = self._settings, self._source, self._progress
        assert settings is not None and source is not None
        with open_input(settings) as whole:
            size = max(whole.total_bytes or 0, 1)

            def records() -> Iterator[Record]:
                for record in islice(whole, self._search.total):
                    if progress and not record.index % _OFTEN:
                        progress.does(doing, whole.bytes_read / size)
                    yield record

            yield records()
        if source.state is None or marks(source.state) != marks(source.now()):
            raise SafeguardError(f"{source.name} was changed while its rows were read: run the command again")
        if progress:
            progress.doing = None


def _batches(texts: Iterable[tuple[int, str | None]]) -> Iterator[tuple[Ints, list[str]]]:
    """Yield texts with the numbers of their rows, some at a time; rows without a text are left out."""
    rows: list[int] = []
    batch: list[str] = []
    size = 0
    for row, text in texts:
        if text is not None:
            rows.append(row)
            batch.append(text)
            size += len(text)
        if size > BATCH_CHARACTERS:
            yield np.array(rows, dtype=np.int64), batch
            rows, batch, size = [], [], 0
    if batch:
        yield np.array(rows, dtype=np.int64), batch

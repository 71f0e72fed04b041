"""Count what a run has done, and have a display show it and print the summary at the end."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol

from rich.console import RenderableType

from safeguard_cli.engine.reports import Report, Stage
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.verdict import Verdict
from safeguard_cli.run.counting import Counting
from safeguard_cli.terminal import console

Kind = Literal["auto", "rich", "plain", "none"]

PREPARING = "preparing the run"
REFRESH_SECONDS = 0.25
PATIENCE = 0.5  # seconds after which preparing is shown
HANGING = 2.0  # seconds that a run waits for its display, for example at a paused terminal
_WINDOW = 60  # samples, about one a second: the rates are those of about the last minute


class Display(Protocol):
    """A display of a Progress on standard error; `refresh` is called a few times a second, in its own thread."""

    def open(self) -> None:
        """Begin to show something."""

    def refresh(self) -> None:
        """Show how far the run is now."""

    def close(self) -> None:
        """Remove the display."""


class Counts:
    """Counts of rows: those in error, by code, and under each policy its labels and how many rows violate."""

    def __init__(self, names: Sequence[str]) -> None:
        self.rows = self.rows_in_error = 0
        self.blank = 0  # rows that hold nothing, which do not count as errors
        self.errors: Counter[str] = Counter()  # rows by code; a row counts once per code, whatever the policies
        self.labels: dict[str, Counter[str]] = {name: Counter() for name in names}
        self.cut = 0  # rows whose reasoning the budget ended
        self.violating: Counter[str] = Counter()  # by policy; with --threshold not the sum over violating labels

    def add(self, verdicts: Mapping[str, Verdict], rows: int = 1) -> None:
        """Count `rows` rows that have the same Verdicts, given by policy name."""
        self.rows += rows
        if any(verdict.error is not None and verdict.error.blank for verdict in verdicts.values()):
            self.blank += rows
            return
        codes: set[str] | None = None
        cut = False
        for name, verdict in verdicts.items():
            if verdict.error is not None:
                codes = {verdict.error.code} | (codes or set())
            elif verdict.label is not None:
                self.labels[name][verdict.label] += rows
                cut = cut or verdict.cut
                if verdict.violates:
                    self.violating[name] += rows
        if cut:
            self.cut += rows
        if codes:
            self.rows_in_error += rows
            for code in codes:
                self.errors[code] += rows

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as a manifest holds them."""
        return {
            "rows": self.rows,
            "rows_in_error": self.rows_in_error,
            "blank": self.blank,
            "errors": dict(self.errors),
            "labels": {name: dict(counts) for name, counts in self.labels.items()},
            "violating": dict(self.violating),
            "cut": self.cut,
        }

    def restore(self, counts: Mapping[str, Any]) -> None:
        """Add the counts of an earlier session, from its manifest."""
        self.rows += counts["rows"]
        self.rows_in_error += counts["rows_in_error"]
        self.blank += counts.get("blank", 0)
        self.errors.update(counts["errors"])
        self.violating.update(counts["violating"])
        self.cut += counts.get("cut", 0)
        for name, labels in counts["labels"].items():
            self.labels[name].update(labels)


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a run is, over about the last minute.

    `seconds_left` is None while it cannot be estimated. With `at_least` it is a lower bound.
    """

    rows: float
    tokens: float
    seconds_left: float | None = None
    at_least: bool = False


class Progress:
    """The counts of a run, cheap enough to update with every row, and the display, if any, that shows them.

    Use it as a context manager around the work, then call `finish`. `written` counts the rows of the output, `decided`
    also those that wait for an earlier row. Nothing that a display does can end a run: a display that fails is switched
    off, and `failure` is its exception.
    """

    def __init__(
        self, policies: Sequence[Policy], total: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.policies, self.total, self.clock = policies, total, clock
        names = [policy.name for policy in policies]
        self.written, self.decided = Counts(names), Counts(names)
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.files: tuple[int, int] | None = None  # of several inputs: those that are done, and all
        self.counting: Counting | None = None  # of the rows to come
        self.remarks: dict[str, str] = {}  # further lines of the summary, by their headings
        self.last = Report()  # the engine's last report
        self.doing: str | None = None  # work other than the engine's that is under way, and the share of it done
        self.share: float | None = None
        self.failure: Exception | None = None
        self._display: Display | None = None
        self._make_display: Callable[[], Display] | None = None
        self._summarize: Callable[[], RenderableType] | None = None
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None
        self._opened = self._start = clock()
        self._before = 0  # rows of an earlier session, which do not count for the rates
        self._stage: Stage = "rows"
        self._samples = deque([(self._start, 0, 0)], maxlen=_WINDOW)

    def show_on(self, make: Callable[[], Display], summarize: Callable[[], RenderableType]) -> None:
        """Have a display show the run once the work begins, and print the summary when it is done."""
        self._make_display, self._summarize = make, summarize

    @property
    def shown(self) -> bool:
        """Return whether a display is to show the run."""
        return self._make_display is not None

    def prepare(self) -> None:
        """Show that the work is being prepared, if that takes longer than PATIENCE, until `close`."""
        self._opened, self.doing = self.clock(), PREPARING
        self._start_ticker()

    def count(self, counts: Iterable[int], most: int | None = None) -> int | None:
        """Return the number of rows that `counts` ends with, at most `most`; None if it takes long to find out.

        Then the rest is counted beside the work, if somebody is shown how far that is.
        """
        self.counting = Counting(counts, most)
        return self.counting.at_once()

    def all_rows(self) -> int | None:
        """Return the number of rows even if it takes long to count them, None if it cannot be known before the work."""
        if self.total is None and self.counting:
            self.total = self.counting.all()
        return self.total

    def __enter__(self) -> Progress:
        if self.doing is None:
            self._opened = self.clock()
        self._measure_from_here()
        self._safely(self._open)
        self._start_ticker()
        if self.counting and self.shown:
            self.counting.go_on(lambda rows: setattr(self, "total", rows))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start_rows(self) -> None:
        """Begin to measure how fast rows are decided; the rows so far are those of an earlier session."""
        self.doing = None
        if self.last.stage == "loading":  # some engines report nothing after loading
            self.last = Report()
        self._measure_from_here()

    def _measure_from_here(self) -> None:
        self._start, self._before = self.clock(), self.decided.rows
        self._samples = deque([(self._start, 0, self.read + self.generated)], maxlen=_WINDOW)

    def row(self, verdicts: Mapping[str, Verdict]) -> None:
        """Count a row that is decided and written, with its Verdicts by policy name."""
        self.decided.add(verdicts)
        self.written.add(verdicts)

    def row_before(self, verdicts: Mapping[str, Verdict]) -> None:
        """Count a row of an earlier session, which does not count for the rates."""
        self.row(verdicts)
        self._before += 1

    def row_decided(self, verdicts: Mapping[str, Verdict], rows: int = 1) -> None:
        """Count rows that are decided, whether written or not."""
        self.decided.add(verdicts, rows)

    def row_written(self, verdicts: Mapping[str, Verdict]) -> None:
        """Count a decided row that is written."""
        self.written.add(verdicts)

    def restore(self, counts: Mapping[str, Any]) -> None:
        """Add the counts of an earlier session, from its manifest."""
        self.decided.restore(counts)
        self.written.restore(counts)
        self._before += counts["rows"]

    def restore_cut(self, rows: int) -> None:
        """Add the rows of an earlier session whose reasoning the budget ended, where the rows do not tell."""
        self.decided.cut += rows
        self.written.cut += rows

    def tokens(self, prompt: int = 0, generated: int = 0) -> None:
        """Count tokens that the model read (`prompt`) and wrote (`generated`) since the last call."""
        self.prompt_tokens += prompt
        self.generated_tokens += generated

    def report(self, report: Report) -> None:
        """Take a report of the engine."""
        self.last, self.doing = report, None

    def does(self, what: str, share: float | None = None) -> None:
        """Show work other than the engine's, and the share of it done, if known."""
        self.doing, self.share = what, share

    def refresh(self) -> None:
        """Have the display show how far the run is."""
        self._safely(lambda: self._display.refresh() if self._display else None)

    def finish(self) -> None:
        """Remove the display and print the summary, once."""
        self.close()
        summarize, self._summarize = self._summarize, None
        if summarize:
            with suppress(Exception):  # a full disk or a closed pipe at standard error is no reason to lose data
                console().print(summarize())

    @property
    def read(self) -> int:
        """Return the tokens of rows that the model read in this session, including those reported of rows under way."""
        return max(self.prompt_tokens, self.last.read)

    @property
    def generated(self) -> int:
        """Return the tokens that the model wrote in this session, including those reported of rows under way."""
        return max(self.generated_tokens, self.last.written)

    @property
    def seconds(self) -> float:
        """Return the seconds since this session began to decide rows."""
        return self.clock() - self._start

    @property
    def seconds_open(self) -> float:
        """Return the seconds since the beginning, including loading."""
        return self.clock() - self._opened

    @property
    def rows_here(self) -> int:
        """Return the number of rows that this session decided."""
        return self.decided.rows - self._before

    def pace(self) -> Rate:
        """Return the rows and tokens a second over about the last minute, and the time left by these."""
        now, rows, report, samples = self.clock(), self.rows_here, self.last, self._samples
        tokens = report.policy if report.stage == "policy" else self.read + self.generated
        if report.stage != self._stage:  # a policy is read at another speed
            self._stage = report.stage
            samples = self._samples = deque([(now, rows, tokens)], maxlen=_WINDOW)
        if now - samples[-1][0] >= 1:
            samples.append((now, rows, tokens))
        then, rows_then, tokens_then = samples[0]
        seconds = max(now - then, 1e-9)
        rows_rate = (rows - rows_then) / seconds
        if rows - rows_then < 10:  # for so few rows the rate over the whole session is more reliable
            rows_rate = rows / max(self.seconds, 1e-9)
        tokens_rate = max(tokens - tokens_then, 0) / seconds
        return Rate(rows_rate, tokens_rate, *self._left(report, rows_rate, tokens_rate))

    def _left(self, report: Report, rows_rate: float, tokens_rate: float) -> tuple[float | None, bool]:
        """Return an estimate of the seconds left, and whether it is a lower bound.

        It is made from the mean tokens of a row and the tokens a second. Rows under way are taken to be half done.
        While they outnumber the decided rows, the length of rows is unknown, and the tokens so far give a lower bound.
        """
        if self.total is None or report.stage != "rows":
            return None, False
        left = max(self.total - self.decided.rows, 0)
        if not left:
            return 0.0, False
        if not report.read:  # the engine does not report rows under way
            return (left / rows_rate if rows_rate else None), False
        if not tokens_rate:
            return None, False
        tokens, rows, running = self.read + self.generated, self.rows_here, report.under_way
        at_least = rows < running
        mean = tokens / max(rows + (running if at_least else running / 2), 1)
        begun = tokens - self.prompt_tokens - self.generated_tokens  # of rows under way
        seconds = max(mean * left - begun, 0.0) / tokens_rate
        if at_least and seconds < 1:  # all rows are under way, and "more than 0 s left" would say nothing
            return None, False
        return seconds, at_least

    def close(self) -> None:
        """Remove the display; a second call does nothing."""
        self._over.set()
        if self.counting:
            self.counting.stop()
        self._ticker = None
        self._safely(lambda: self._display.close() if self._display else None)
        self._display = None

    def _start_ticker(self) -> None:
        def start() -> None:
            if self._make_display is not None and self._ticker is None:
                self._over = threading.Event()
                self._ticker = threading.Thread(target=self._tick, args=(self._over,), name="display", daemon=True)
                self._ticker.start()

        self._safely(start)

    def _tick(self, over: threading.Event) -> None:
        while not over.wait(REFRESH_SECONDS):
            if self._display is None and self.seconds_open > PATIENCE:
                self._safely(lambda: None if over.is_set() else self._open())
            self.refresh()

    def _open(self) -> None:
        if self._display is None and self._make_display is not None:
            self._display = self._make_display()
            self._display.open()

    def _safely(self, action: Callable[[], None]) -> None:
        """Have the display do something, and switch it off if it fails or keeps the run waiting.

        All calls to the display go through here, so that none of its failures reaches the run.
        """
        if not self._lock.acquire(timeout=HANGING):
            self._display = self._make_display = None
            return
        try:
            action()
        except Exception as failure:
            self.failure = failure
            display, self._display, self._make_display = self._display, None, None
            with suppress(Exception):
                if display is not None:
                    display.close()
            console.cache_clear()  # the console would print what it could not print before the next text
        finally:
            self._lock.release()


class FileProgress(Progress):
    """The counts of one file of several; what it counts, the whole counts too, and that has the display."""

    def __init__(self, whole: Progress) -> None:
        super().__init__(whole.policies)
        self._whole = whole

    def row_before(self, verdicts: Mapping[str, Verdict]) -> None:
        super().row_before(verdicts)
        self._whole.row_before(verdicts)

    def row_written(self, verdicts: Mapping[str, Verdict]) -> None:
        super().row_written(verdicts)
        self._whole.row_written(verdicts)

    def restore(self, counts: Mapping[str, Any]) -> None:
        super().restore(counts)
        self._whole.restore(counts)

    def restore_cut(self, rows: int) -> None:
        super().restore_cut(rows)
        self._whole.restore_cut(rows)

    def does(self, what: str, share: float | None = None) -> None:
        self._whole.does(what, share)

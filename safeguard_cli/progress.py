"""What a person sees while a run works, and the summary at its end; all of it on standard error."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Literal, NoReturn

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from safeguard_cli.policy import Policy
from safeguard_cli.terminal import console, cut
from safeguard_cli.verdict import Verdict

Kind = Literal["auto", "rich", "plain", "none"]

REFRESHES_PER_SECOND = 8
PLAIN_SECONDS = 10.0
MOST_LABELS = 8
_WINDOW = 60  # the rates are those of about the last minute


def make_progress(kind: Kind, policies: Sequence[Policy], total: int | None = None, *, quiet: bool = False) -> Progress:
    """The Progress for this run: `auto` is `rich` at a terminal and `plain` elsewhere; `quiet` is `none`.

    `total` is the number of rows, None while unknown: it may be set later (`progress.total = n`).
    """
    stream = sys.stderr
    if quiet or kind == "none" or stream is None:
        return Progress(policies, total)
    at_terminal = console().is_interactive and (kind == "rich" or stream.isatty())  # FORCE_COLOR makes no terminal
    return _Rich(policies, total) if kind != "plain" and at_terminal else _Plain(policies, total)


class Progress:
    """Counts what a run did, and shows nothing: the counters alone, cheap enough to be told of every row.

    Use it as a context manager around the work, then call `finish`. The display reads the counters from its own thread.
    """

    shows_summary = False

    def __init__(
        self, policies: Sequence[Policy], total: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total = total
        self.rows = 0
        self.rows_in_error = 0
        self.errors: Counter[str] = Counter()  # rows by code; a row counts once per code, whatever the policies
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.tally: dict[str, Counter[str]] = {policy.name: Counter() for policy in policies}
        self.violating: Counter[str] = Counter()  # by policy; with --threshold not the sum over violating labels
        self._policies = policies
        self._clock = clock
        self._start = clock()
        self._before = 0
        self._samples: deque[tuple[float, int, int]] = deque([(self._start, 0, 0)], maxlen=_WINDOW)

    def __enter__(self) -> Progress:
        self._start, self._before = self._clock(), self.rows  # rows of an earlier session count, not for the rates
        self._samples[0] = (self._start, self.rows, 0)
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def row(self, verdicts: Mapping[str, Verdict]) -> None:
        """Count a finished row: its Verdict under each policy's name."""
        self.rows += 1
        codes: set[str] | None = None
        for name, verdict in verdicts.items():
            if verdict.error is not None:
                codes = {verdict.error.code} | (codes or set())
            elif verdict.label is not None:
                self.tally[name][verdict.label] += 1
                if verdict.violates:
                    self.violating[name] += 1
        if codes:
            self.rows_in_error += 1
            self.errors.update(codes)
        self._tick()

    def tokens(self, prompt: int = 0, generated: int = 0) -> None:
        """Count tokens that the model read (`prompt`) and wrote (`generated`) since the last call."""
        self.prompt_tokens += prompt
        self.generated_tokens += generated
        self._tick()

    def finish(self) -> None:
        """Take the display away and print the summary, once."""
        self._close()
        if self.shows_summary:
            self.shows_summary = False
            with suppress(OSError):  # a full disk or a reader gone on standard error is no reason to lose data
                console().print(self.summary())

    def summary(self) -> RenderableType:
        """Rows, errors, time and rates, and per policy each label with its count, share and bar."""
        seconds = self._clock() - self._start
        tokens = self.prompt_tokens + self.generated_tokens
        total = f" of {self.total:,}" if self.total is not None and self.total != self.rows else ""
        facts = Table.grid(padding=(0, 2, 0, 0))
        facts.add_row("rows", Text(f"{self.rows:,}{total}, {self.rows - self.rows_in_error:,} labelled"))
        if self.errors:
            codes = ", ".join(f"{count:,} {code}" for code, count in self.errors.most_common())
            facts.add_row("errors", Text(f"{self.rows_in_error:,} ({codes})", "red"))
        facts.add_row(
            "time", Text(f"{span(seconds)}, {_number((self.rows - self._before) / max(seconds, 1e-9))} rows/s")
        )
        rate = _number(tokens / max(seconds, 1e-9))
        facts.add_row(
            "tokens", Text(f"{self.prompt_tokens:,} read, {self.generated_tokens:,} written, {rate} tokens/s")
        )
        return Group(facts, *self._tallies(console().width, None))

    def _open(self) -> None:
        """Begin to show something."""

    def _close(self) -> None:
        """Take it away; called twice without harm."""

    def _tick(self) -> None:
        """Called after every change of the counters: must cost next to nothing."""

    def _rates(self) -> tuple[float, float]:
        """Rows and tokens per second, over about the last minute or since the start while few rows are done."""
        now, tokens = self._clock(), self.prompt_tokens + self.generated_tokens
        if now - self._samples[-1][0] >= 1:
            self._samples.append((now, self.rows, tokens))
        then, rows, tokens_then = self._samples[0]
        if self.rows - rows < 10:
            then, rows, tokens_then = self._start, self._before, 0
        seconds = max(now - then, 1e-9)
        return (self.rows - rows) / seconds, (tokens - tokens_then) / seconds

    def _tallies(self, width: int, most: int | None) -> Iterator[RenderableType]:
        """Per policy a heading and its labels, at most `most` of them: the most frequent when there are more."""
        longest = max(cell_len(cut(label, width)) for policy in self._policies for label in policy.labels)
        if any(len(policy.labels) > MOST_LABELS for policy in self._policies):
            longest = max(longest, len("… 999 more"))
        count_width, bar_width = max(7, len(f"{self.rows:,}")), max(width // 6, 1)
        name_width = max(1, min(longest, width - bar_width - count_width - 25))
        for policy in self._policies:
            counts = self.tally[policy.name].copy()  # in one step: the run goes on counting in its own thread
            labelled = sum(counts.values())
            shown = list(policy.labels)
            if most is not None and len(shown) > most + 1:  # never "… 1 more"
                shown = sorted(shown, key=counts.__getitem__, reverse=True)[:most]
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(width=name_width + 2, no_wrap=True)
            table.add_column(width=bar_width)
            table.add_column(justify="right", width=count_width)
            table.add_column(justify="right", width=7)
            table.add_column()
            for label in shown:
                violates = label in policy.violates
                count, style = counts[label], "red" if violates else "cyan"
                bar = ProgressBar(max(labelled, 1), count, complete_style=style, finished_style=style)
                mark = Text("violates", "red") if violates else ""
                table.add_row("  " + cut(label, name_width), bar, f"{count:,}", _share(count, labelled), mark)
            if rest := len(policy.labels) - len(shown):
                count = labelled - sum(counts[label] for label in shown)
                more = Text(cut(f"… {rest} more", name_width), "dim")
                table.add_row(Text("  ") + more, "", f"{count:,}", _share(count, labelled))
            violating = f"{self.violating[policy.name]:,} of {labelled:,} violate"
            yield Text.assemble((cut(policy.name, width - len(violating) - 4), "bold"), "  ", (violating, "dim"))
            yield table


class _Rich(Progress):
    """A live display at a terminal, gone when it closes."""

    shows_summary = True

    def _open(self) -> None:
        # Standard output carries data: rich must not take it over.
        self._live = Live(
            self, console=console(), refresh_per_second=REFRESHES_PER_SECOND, transient=True, redirect_stdout=False
        )
        self._live.start(refresh=True)

    def _close(self) -> None:
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        width = options.max_width - 3  # room for ^C, which the terminal itself prints after the last line
        rows_per_second, tokens_per_second = self._rates()
        done = f"{self.rows:,} rows"
        if self.total:
            done = f"{self.rows:,}/{self.total:,} rows  {_share(self.rows, self.total)}"
        unknown = self.total is None
        bar = ProgressBar(self.total, self.rows, width - len(done) - 2, pulse=unknown, complete_style="green")
        head = Table.grid(padding=(0, 2, 0, 0))
        head.add_row(bar, Text(done, "bold"))
        if self.total is None or not rows_per_second:
            when = f"{span(self._clock() - self._start)} so far · "
        else:
            when = f"{span(max(self.total - self.rows, 0) / rows_per_second)} left · "
        rates = Text.assemble(
            f"{_number(rows_per_second)} rows/s · ",
            when,
            f"{_number(tokens_per_second)} tokens/s · ",
            (_errors(self.rows_in_error), "red" if self.rows_in_error else "dim"),
            no_wrap=True,
            overflow="ellipsis",
        )
        lines = (options.size.height - 4) // len(self._policies)  # each policy has a heading and a line for more
        most = max(1, min(MOST_LABELS, lines - 2))
        everything = Group(head, rates, *self._tallies(width, most))
        # Never taller than the terminal: what has scrolled away could not be erased.
        for line in console.render_lines(everything, options.update_width(width), pad=False)[: options.size.height - 2]:
            yield from line
            yield Segment.line()


class _Plain(Progress):
    """tqdm's line in a log, at the start and then every ten seconds or so."""

    shows_summary = True

    def _open(self) -> None:
        self._bar: tqdm[NoReturn] = tqdm(
            total=self.total, unit=" rows", ascii=True, mininterval=PLAIN_SECONDS, leave=False, file=_Lines()
        )
        self._next = self._clock() + PLAIN_SECONDS

    def _close(self) -> None:
        self._bar.close()

    def _tick(self) -> None:
        now = self._clock()
        if now < self._next:
            return
        self._next = now + PLAIN_SECONDS
        self._bar.total, self._bar.n = self.total, self.rows
        tokens_per_second = _number(self._rates()[1])
        self._bar.set_postfix_str(f"{tokens_per_second} tokens/s, {_errors(self.rows_in_error)}")


class _Lines:
    """Standard error as a log: tqdm redraws its line with a carriage return, here each becomes a line of its own."""

    def write(self, text: str) -> None:
        if line := text.strip("\r\n").rstrip():
            with suppress(OSError):
                sys.stderr.write(line + "\n")

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _errors(count: int) -> str:
    return "1 error" if count == 1 else f"{count:,} errors"


def _share(count: int, total: int) -> str:
    return f"{100 * count / max(total, 1):.1f} %"


def span(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

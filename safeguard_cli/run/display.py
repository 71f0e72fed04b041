"""What a person sees of a run: a live display at a terminal, or lines in a log, and the summary at its end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from safeguard_cli.engine.reports import Report
from safeguard_cli.policy.policy import Policy
from safeguard_cli.run.progress import Counts, Display, Kind, Progress, Rate
from safeguard_cli.terminal import console, cut, span

PLAIN_SECONDS = 10.0  # between two lines of a log; later a minute
MOST_PLAIN_SECONDS = 60.0
MOST_LABELS = 8


def make_progress(kind: Kind, policies: Sequence[Policy], total: int | None = None, *, quiet: bool = False) -> Progress:
    """Return the Progress for this run: `auto` is `rich` at a terminal and `plain` elsewhere; `quiet` is `none`.

    `total` is the number of rows, None while unknown: it can be set later (`progress.total = n`).
    """
    progress = Progress(policies, total)
    if not quiet and kind != "none" and sys.stderr is not None:
        progress.show_on(lambda: make_display(progress, plain=kind == "plain"), lambda: summary(progress))
    return progress


def make_display(progress: Progress, *, plain: bool) -> Display:
    """Return the live display if standard error is a terminal that can show one and `plain` is false, else lines."""
    # FORCE_COLOR alone makes rich take a file for a terminal.
    at_terminal = console().is_interactive and sys.stderr.isatty()
    return Rich(progress) if at_terminal and not plain else Plain(progress)


class Rich:
    """A live display at a terminal, erased when it closes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        # Standard output carries data, so rich must not redirect it. Rich's own thread would print tracebacks.
        self._live = Live(self, console=console(), auto_refresh=False, transient=True, redirect_stdout=False)

    def open(self) -> None:
        self._live.start(refresh=True)

    def refresh(self) -> None:
        self._live.refresh()

    def close(self) -> None:
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        # Leave room for ^C, which the terminal prints after the last line.
        width, height = max(options.max_width - 3, 1), max(options.size.height - 2, 1)
        progress, report = self._progress, self._progress.last
        lines: list[RenderableType] = [self._head(report, width), *_joined([*_numbers(progress, report)], width)]
        # Each policy needs two lines besides its labels: a heading, and "… N more".
        room = (height - len(lines)) // len(progress.policies)
        if progress.decided.rows:
            lines += _tallies(progress, progress.decided, width, max(1, min(MOST_LABELS, room - 2)))
        # Never taller than the terminal: lines that have scrolled away could not be erased.
        for line in console.render_lines(Group(*lines), options.update_width(width), pad=False)[:height]:
            yield from line
            yield Segment.line()

    def _head(self, report: Report, width: int) -> RenderableType:
        """Return a bar and its text: how much is loaded, read, or decided."""
        progress = self._progress
        done, total, colour = progress.decided.rows, progress.total, "green"
        text = f"{done:,} rows"
        if progress.doing is not None:
            share = progress.share
            done, total, colour = int(1000 * (share or 0)), None if share is None else 1000, "cyan"
            text = _doing(progress)
        elif report.stage == "loading":
            done, total, colour = int(1000 * report.loaded), 1000, "cyan"
            text = _loading(report.loaded)
        elif report.stage == "policy":
            done, total, colour = report.policy, report.policy_size, "cyan"
            text = _reading(report.policy, report.policy_size)
        elif total:
            text = f"{done:,}/{total:,} rows  {_share(done, total)}"
        text = cut(text, width)
        bar_width = max(width - cell_len(text) - 2, 1)
        bar = ProgressBar(total, done, bar_width, pulse=total is None, complete_style=colour, finished_style=colour)
        head = Table.grid(padding=(0, 2, 0, 0))
        head.add_row(bar, Text(text, "bold"))
        return head if width > cell_len(text) + 4 else Text(text, "bold")


class Plain:
    """A line in a log at the start, then about every ten seconds, later every minute."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._lines = progress, _Lines()

    def open(self) -> None:
        self._bar = _Bar(
            total=self._progress.total,
            desc=_sentence(self._progress),
            initial=self._progress.decided.rows,
            bar_format=self._shape(),
            ascii=True,
            leave=False,
            file=self._lines,
        )
        self._next = self._progress.clock() + PLAIN_SECONDS
        self._lines.check()

    def refresh(self) -> None:
        progress, now = self._progress, self._progress.clock()
        sentence = _sentence(progress)  # made each time, for each call adds a sample to the rates
        if now < self._next:
            return
        self._next = now + min(MOST_PLAIN_SECONDS, max(PLAIN_SECONDS, progress.seconds_open / 30))
        self._bar.total, self._bar.n, self._bar.bar_format = progress.total, progress.decided.rows, self._shape()
        self._bar.set_description_str(sentence)
        self._lines.check()

    def close(self) -> None:
        self._bar.close()

    def _shape(self) -> str:
        return "{percentage:3.0f}%|{bar:10}| {desc}" if self._progress.total else "{desc}"


if TYPE_CHECKING:
    _Tqdm = tqdm[NoReturn]
else:
    _Tqdm = tqdm


class _Bar(_Tqdm):
    monitor_interval = 0  # tqdm starts no thread


class _Lines:
    """Standard error as a log: each text that tqdm draws over the last one becomes a line of its own."""

    def __init__(self) -> None:
        self._failure: Exception | None = None

    def write(self, text: str) -> None:
        if line := text.strip("\r\n").rstrip():
            try:
                sys.stderr.write(line + "\n")
                sys.stderr.flush()
            except Exception as failure:  # raised here, tqdm would keep its lock and the next bar would wait forever
                self._failure = failure

    def flush(self) -> None:
        pass

    def check(self) -> None:
        """Raise the exception of a write that failed."""
        if self._failure:
            raise self._failure


def summary(progress: Progress) -> RenderableType:
    """Return a run's rows, errors, time and rates, and per policy each label with its count, share and bar."""
    written, seconds = progress.written, progress.seconds
    tokens = progress.prompt_tokens + progress.generated_tokens
    total = f" of {progress.total:,}" if progress.total is not None and progress.total != written.rows else ""
    facts = Table.grid(padding=(0, 2, 0, 0))
    labelled = written.rows - written.rows_in_error - written.blank
    blank = f", {_blank_rows(written.blank)}" if written.blank else ""
    facts.add_row("rows", Text(f"{written.rows:,}{total}, {labelled:,} labelled{blank}"))
    if written.errors:
        codes = ", ".join(f"{count:,} {code}" for code, count in written.errors.most_common())
        facts.add_row("errors", Text(f"{written.rows_in_error:,} ({codes})", "red"))
    facts.add_row("time", Text(f"{span(seconds)}, {_number(progress.rows_here / max(seconds, 1e-9))} rows/s"))
    rate = _number(tokens / max(seconds, 1e-9))
    for word, remark in progress.remarks.items():
        facts.add_row(word, Text(remark, "red"))
    read = f"{progress.prompt_tokens:,} read, {progress.generated_tokens:,} written, {rate} tokens/s"
    facts.add_row("tokens", Text(read))
    return Group(facts, *_tallies(progress, written, console().width, None))


def _numbers(progress: Progress, report: Report) -> Iterator[tuple[str, str]]:
    """Yield the facts about the work now under way, each with its style."""
    pace, done, written = progress.pace(), progress.decided, progress.written
    if progress.doing is not None or report.stage == "loading":
        yield f"{span(progress.seconds_open)} so far", ""
        return
    if progress.files:
        yield _files(*progress.files), ""
    if report.under_way:
        yield f"{report.under_way:,} under way", ""
    if report.stage == "policy" and not (report.under_way or done.rows):
        yield f"{_number(pace.tokens)} tokens/s", ""
        yield f"{span(progress.seconds_open)} so far", ""
        return
    if report.stage == "rows" and pace.rows:
        yield f"{_number(pace.rows)} rows/s", ""
    if pace.tokens:
        yield f"{_number(pace.tokens)} tokens/s", ""
    yield _when(progress, pace), ""
    yield _errors(done.rows_in_error), "red" if done.rows_in_error else "dim"
    yield f"{progress.read:,} tokens read", "dim"
    yield f"{progress.generated:,} written", "dim"
    if (waiting := done.rows - written.rows) > 0:
        yield f"{waiting:,} decided wait for an earlier row", "dim"
    if report.kept and not progress.rows_here:
        yield _kept(report.kept), "dim"


def _sentence(progress: Progress) -> str:
    """Return the work now under way, with its numbers, on one line."""
    report, pace, done = progress.last, progress.pace(), progress.decided
    if progress.doing is not None:
        return _doing(progress)
    if report.stage == "loading":
        return _loading(report.loaded)
    facts = []
    if report.stage == "policy":
        facts.append(_reading(report.policy, report.policy_size))
        if not (report.under_way or done.rows):
            return ", ".join([*facts, f"{_number(pace.tokens)} tokens/s", f"{span(progress.seconds_open)} so far"])
    of = f" of {progress.total:,}" if progress.total else ""
    facts.append(f"{done.rows:,}{of} rows decided")
    if progress.files:
        facts.append(_files(*progress.files))
    if (waiting := done.rows - progress.written.rows) > 0:
        facts.append(f"{waiting:,} of them wait for an earlier row")
    if report.kept and not progress.rows_here:
        facts.append(_kept(report.kept))
    if report.under_way:
        facts.append(f"{report.under_way:,} under way")
    facts += [f"{progress.read:,} tokens read", f"{progress.generated:,} written", f"{_number(pace.tokens)} tokens/s"]
    facts += [_when(progress, pace), _errors(done.rows_in_error)]
    return ", ".join(facts)


def _when(progress: Progress, pace: Rate) -> str:
    if pace.seconds_left is None:
        return f"{span(progress.seconds_open)} so far"
    return f"{'more than ' if pace.at_least else ''}{span(pace.seconds_left)} left"


def _doing(progress: Progress) -> str:
    if progress.share is not None:
        return f"{progress.doing}: {100 * progress.share:.0f} %"
    if rows := progress.decided.rows:
        return f"{progress.doing}: {rows:,} earlier rows checked"
    return str(progress.doing)


def _loading(share: float) -> str:
    return f"loading the model: {int(100 * share)} %"


def _reading(tokens: int, size: int) -> str:
    return f"reading the policy: {tokens:,} of {size:,} tokens"


def _kept(tokens: int) -> str:
    return f"{tokens:,} tokens of the policy kept from an earlier run"


def _joined(facts: list[tuple[str, str]], width: int) -> Iterator[Text]:
    """Yield the facts, separated by points, on as many lines as they need; no fact is broken across lines."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for text, style in facts:
        if line and cell_len(line.plain) + cell_len(text) + 3 > width:
            yield line
            line = Text(no_wrap=True, overflow="ellipsis")
        line.append(" · " if line else "").append(text, style)
    if line:
        yield line


def _tallies(progress: Progress, done: Counts, width: int, most: int | None) -> Iterator[RenderableType]:
    """Yield per policy a heading and its labels, at most `most` of them: the most frequent if there are more."""
    policies = progress.policies
    longest = max(cell_len(cut(label, width)) for policy in policies for label in policy.labels)
    if any(len(policy.labels) > MOST_LABELS for policy in policies):
        longest = max(longest, len("… 999 more"))
    count_width = max(7, len(f"{done.rows:,}"))
    room = width - count_width - 25  # for names and bars, which shrink first
    bar_width = max(1, min(width // 6, room - longest))
    name_width = max(1, min(longest, room - bar_width))
    for policy in policies:
        counts = done.labels[policy.name].copy()  # in one step: the run counts on in its own thread
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
        violating = f"{done.violating[policy.name]:,} of {labelled:,} violate"
        name = cut(policy.name, max(width - len(violating) - 4, 1))
        yield Text.assemble((name, "bold"), "  ", (violating, "dim"))
        yield table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _blank_rows(count: int) -> str:
    return "1 blank row" if count == 1 else f"{count:,} blank rows"


def _files(done: int, all: int) -> str:
    return f"{done:,} of {all:,} files done"


def _errors(count: int) -> str:
    return "1 error" if count == 1 else f"{count:,} errors"


def _share(count: int, total: int) -> str:
    return f"{100 * count / max(total, 1):.1f} %"

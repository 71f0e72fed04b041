"""What a person sees of a run while it works, and the summary at its end."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import threading
import time
import timeit
from pathlib import Path

import pytest
from helpers.fake_engine import FakeEngine
from helpers.runs import ids
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from tools.display_svg import example, svg

from safeguard_cli.engine.reports import Report
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.verdict import RowError, Verdict
from safeguard_cli.run.display import Plain, Rich, make_display, make_progress, summary
from safeguard_cli.run.progress import Progress
from safeguard_cli.terminal import console, note

SPAM = Policy("spam", "text", ("ham", "spam"), ("spam",))
TOPICS = Policy("topics", "text", tuple(f"topic {n}" for n in range(20)), ("topic 3",))
HAM, BAD = Verdict("ham", False), Verdict(error=RowError("bad_json", "not JSON"))

RUN = """
import sys, time
from safeguard_cli.policy.policy import Policy
from safeguard_cli.run.display import make_progress
from safeguard_cli.terminal import warn
from safeguard_cli.rows.verdict import Verdict
progress = make_progress(sys.argv[1], [Policy("spam", "x", ("ham", "spam"), ("spam",))], 40)
try:
    with progress:
        for number in range(40):
            progress.row({"spam": Verdict("spam", True)})
            print("data", number)
            time.sleep(0.01)
            if number == 20:
                warn("half way")
                if len(sys.argv) > 2:
                    raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
progress.finish()
progress.finish()
"""


class Clock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(renderable, width=80, height=24):
    """Return what a terminal of this size shows of a Progress, or of anything else."""
    renderable = Rich(renderable) if isinstance(renderable, Progress) else renderable
    console = Console(width=width, height=height, file=io.StringIO(), markup=False, highlight=False)
    console.print(renderable)
    return console.file.getvalue()


def at_a_terminal(*arguments):
    """Run RUN at a terminal; return its standard output, and what the terminal got on standard error."""
    main, other = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen([sys.executable, "-c", RUN, *arguments], stdout=-1, stderr=other, env=env) as process:
        os.close(other)
        screen = b""
        while True:
            try:
                chunk = os.read(main, 65536)
            except OSError:  # how Linux reports that the other end is closed
                break
            if not chunk:
                break
            screen += chunk
        data, _ = process.communicate()
    os.close(main)
    assert process.returncode == 0
    return data.decode(), screen.decode()


def test_counts_rows_labels_violations_and_errors():
    progress = Progress([SPAM, TOPICS], 3)
    progress.row({"spam": HAM, "topics": Verdict("topic 3", True)})
    progress.row({"spam": BAD, "topics": BAD})
    progress.row({"spam": Verdict("ham", True), "topics": Verdict(error=RowError("too_long", "…"))})
    progress.tokens(prompt=5)
    progress.tokens(prompt=2, generated=1)
    done = progress.written
    assert (done.rows, done.rows_in_error, done.errors) == (3, 2, {"bad_json": 1, "too_long": 1})
    assert (done.labels["spam"], done.violating) == ({"ham": 2}, {"spam": 1, "topics": 1})
    assert (progress.prompt_tokens, progress.generated_tokens) == (7, 1)


def test_display_shows_rows_rates_time_left_tally_and_errors():
    text = shown(example())
    for part in (
        "44/72 rows  61.1 %",
        "68.0 rows/s",
        "0:00 left",
        "tokens/s",
        "0 errors",
        "22 of 44 violate",
        "50.0 %",
    ):
        assert part in text
    assert any("spam" in line and "━" in line and line.rstrip().endswith("violates") for line in text.splitlines())


@pytest.mark.parametrize("unknown", [None, 0])
def test_display_without_a_total_counts_up(unknown):
    clock = Clock()
    progress = Progress([SPAM], unknown, clock)
    clock.now += 65
    progress.row({"spam": HAM})
    assert "1 rows" in shown(progress)
    assert unknown == 0 or "1:05 so far" in shown(progress)


def test_labels_are_named_where_there_is_no_room_for_bars():
    progress = Progress([SPAM], 2, Clock())
    progress.row({"spam": HAM})
    assert all(f"  {label} " in shown(progress, 40) for label in SPAM.labels)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (40, 10), (20, 5)])
@pytest.mark.parametrize(
    "policies", [[SPAM], [SPAM, TOPICS], [Policy("p" * 300, "x", ("漢" * 60, "[link=http://x]"), ("漢" * 60,))]]
)
def test_display_fits_the_terminal(policies, width, height):
    clock = Clock()
    progress = Progress(policies, 10**9, clock)
    for number in range(1, 2001):
        clock.now += 0.001
        progress.row({policy.name: Verdict(policy.labels[number % len(policy.labels)], False) for policy in policies})
        progress.tokens(10**6, 10**6)
    lines = shown(progress, width, height).splitlines()
    assert len(lines) < height
    assert max(cell_len(line.rstrip()) for line in lines) <= width - 3


def test_display_of_many_labels_shows_the_most_frequent():
    progress = Progress([TOPICS], None)
    for number in range(20):
        for _ in range(number + 1):
            progress.row({"topics": Verdict(f"topic {number}", False)})
    text = shown(progress)
    assert "topic 19" in text and "topic 12" in text and "topic 11" not in text
    assert "… 12 more" in text
    assert "topic 0" in shown(summary(progress))


def test_names_reach_the_terminal_only_as_escapes():
    policy = Policy("spam", "x", ("a[bold]b[/bold]", "c"), ("c",))
    object.__setattr__(policy, "labels", ("a[bold]b[/bold]", "\x1b[2Jc"))  # labels that Policy itself would refuse
    text = shown(Progress([policy], None)) + shown(summary(Progress([policy], None)))
    assert "\x1b" not in text
    assert r"\x1b[2Jc" in text and "a[bold]b[/bold]" in text


def test_rates_are_those_of_the_last_minute():
    clock = Clock()
    progress = Progress([SPAM], 10_000, clock)
    for second in range(200):
        clock.now += 1
        for _ in range(2 if second < 100 else 20):
            progress.row({"spam": HAM})
        shown(progress)
    assert "20.0 rows/s" in shown(progress)


def test_summary_shows_totals_and_error_codes():
    clock = Clock()
    progress = Progress([SPAM], 5, clock)
    for verdict in (HAM, HAM, BAD, BAD):
        progress.row({"spam": verdict})
    progress.tokens(30, 10)
    clock.now += 3605
    text = shown(summary(progress))
    for part in ("4 of 5, 2 labelled", "2 (2 bad_json)", "1:00:05", "30 read, 10 written", "100.0 %", "violates"):
        assert part in text


def test_plain_is_a_line_now_and_then(capsys):
    clock = Clock()
    progress = Progress([SPAM], 100, clock)
    display = Plain(progress)
    display.open()
    for _ in range(50):
        clock.now += 0.5
        progress.row({"spam": HAM})
        progress.tokens(20, 5)
        display.refresh()
    display.close()
    out, err = capsys.readouterr()
    lines = err.split("\n")
    assert out == "" and "\r" not in err
    assert len(lines) == 4 and lines[-1] == ""
    assert all(f"{done} of 100 rows decided" in line for done, line in zip((0, 20, 40), lines, strict=False))
    assert lines[1].startswith(" 20%|##        | 20 of 100 rows decided, 400 tokens read, 100 written, 50.0 tokens/s")
    assert lines[1].endswith("0:40 left, 0 errors")


def test_plain_is_a_line_a_minute_after_half_an_hour(capsys):
    clock = Clock()
    progress = Progress([SPAM], None, clock)
    display = Plain(progress)
    display.open()
    for _ in range(2 * 3600):
        clock.now += 0.5
        display.refresh()
    lines = capsys.readouterr().err.splitlines()
    assert 60 < len(lines) < 130
    assert lines[-1].startswith("0 rows decided, 0 tokens read")


@pytest.mark.parametrize(("kind", "quiet"), [("none", False), ("auto", True), ("rich", True), ("plain", True)])
def test_none_and_quiet_show_nothing(kind, quiet, capsys):
    with make_progress(kind, [SPAM], 1, quiet=quiet) as progress:
        progress.row({"spam": HAM})
    progress.finish()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("plain", [True, False])
def test_without_a_terminal_it_is_plain(plain):
    assert isinstance(make_display(Progress([SPAM], 1), plain=plain), Plain)


class Failing(io.StringIO):
    """A stream that fails after so many writes, with an exception that streams raise."""

    def __init__(self, failure, after, terminal):
        super().__init__()
        self.failure, self.left, self.terminal = failure, after, terminal

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise self.failure
        return len(text)


FAILURES = (
    OSError(28, "No space left on device"),
    BrokenPipeError(32, "Broken pipe"),
    UnicodeEncodeError("ascii", "━", 0, 1, "ordinal not in range(128)"),
    ValueError("I/O operation on closed file"),
    RuntimeError("lost sys.stderr"),
)
REPORTS = st.builds(
    Report,
    loaded=st.floats(0, 1),
    policy=st.integers(0, 9999),
    policy_size=st.integers(0, 9999),
    under_way=st.integers(0, 64),
    read=st.integers(0, 10**9),
    written=st.integers(0, 10**9),
)
CALLS = st.one_of(
    st.sampled_from(["enter", "exit", "finish", "refresh", "start_rows", "bad row", "decided", "written", "tokens"]),
    st.tuples(st.just("report"), REPORTS),
    st.tuples(st.just("total"), st.none() | st.integers(0, 10**9)),
    st.tuples(st.just("resize"), st.tuples(st.integers(1, 200), st.integers(1, 60))),
)


@settings(max_examples=150)
@given(
    calls=st.lists(CALLS, max_size=25),
    kind=st.sampled_from(["auto", "rich", "plain", "none"]),
    failure=st.sampled_from(FAILURES),
    after=st.integers(0, 30),
    terminal=st.booleans(),
    missing=st.booleans(),
)
def test_no_display_can_end_a_run_whatever_is_called_when(calls, kind, failure, after, terminal, missing):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", None if missing else Failing(failure, after, terminal))
        patch.setattr("safeguard_cli.run.progress.REFRESH_SECONDS", 0.001)
        patch.setenv("TERM", "xterm")
        console.cache_clear()
        progress = make_progress(kind, [SPAM, TOPICS], 10)
        rows = errors = tokens = 0
        for call in ["decided", "tokens", *calls, "exit", "finish", "finish"]:
            name, value = call if isinstance(call, tuple) else (call, None)
            if name == "enter":
                progress.__enter__()
            elif name == "exit":
                progress.__exit__(None, None, None)
            elif name in ("finish", "refresh", "start_rows"):
                getattr(progress, name)()
            elif name == "bad row":
                progress.row({"spam": BAD, "topics": HAM})
                rows, errors = rows + 1, errors + 1
            elif name == "decided":
                progress.row_decided({"spam": HAM, "topics": HAM})
                rows += 1
            elif name == "written":
                progress.row_written({"spam": HAM, "topics": HAM})
            elif name == "tokens":
                progress.tokens(7, 3)
                tokens += 7
            elif name == "report":
                progress.report(value)
            elif name == "total":
                progress.total = value
            elif name == "resize":
                patch.setenv("COLUMNS", str(value[0]))
                patch.setenv("LINES", str(value[1]))
                console().size = value
        assert (progress.decided.rows, progress.decided.rows_in_error, progress.prompt_tokens) == (rows, errors, tokens)
        assert progress.written.rows_in_error == errors
        left_alone = progress.failure is None or progress.failure is failure
    console.cache_clear()
    assert left_alone, progress.failure


@pytest.mark.parametrize("kind", ["plain", "none"])
def test_a_run_goes_on_without_a_terminal_and_counts_all_rows(bench, capsys, kind):
    bench.fill(40)
    bench(limit=20, quiet=False, progress=kind)
    bench(quiet=False, progress=kind)
    said = capsys.readouterr().err
    assert said.count("labelled") == (2 if kind == "plain" else 0)
    assert ids(bench.out.read_bytes()) == list(range(40))
    assert bench.manifest()["result"]["rows"] == 40


def test_where_rows_and_messages_go_to_one_file_there_are_only_rows(bench, tiny):
    bench.fill(20)
    command = [Path(sys.executable).parent / "safeguard", "label", bench.source, "-p", "spam", "--model", tiny]
    log = bench.folder / "all.log"
    with log.open("wb") as file:
        done = subprocess.run([*command, "--effort", "none"], stdout=file, stderr=subprocess.STDOUT, timeout=60)
        assert done.returncode == 3
        assert len([json.loads(line) for line in log.read_bytes().splitlines()]) == 20
        failed = subprocess.run([*command[:2], "missing.jsonl", *command[3:]], stdout=file, stderr=subprocess.STDOUT)
    assert failed.returncode != 0
    assert b"missing.jsonl" in log.read_bytes().splitlines()[-1]  # but errors are always printed


def test_a_display_that_hangs_holds_no_run_up(monkeypatch):
    monkeypatch.setattr("safeguard_cli.run.progress.HANGING", 0.1)
    monkeypatch.setattr("safeguard_cli.run.progress.REFRESH_SECONDS", 0.01)
    held, go_on = threading.Event(), threading.Event()

    class Hanging:
        def open(self):
            pass

        def refresh(self):
            held.set()
            go_on.wait()

        close = open

    progress = Progress([SPAM], 10)
    progress.show_on(Hanging, lambda: summary(progress))
    began = time.monotonic()
    with progress:
        held.wait()
        progress.row({"spam": HAM})
    go_on.set()
    assert progress.written.rows == 1 and not progress.shown
    assert time.monotonic() - began < 5


def test_a_display_that_fails_is_switched_off_and_leaves_nothing_before_the_next_sentence(monkeypatch):
    stream = Failing(FAILURES[2], 0, True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    console.cache_clear()
    progress = make_progress("auto", [SPAM], 10)
    with progress:
        progress.row({"spam": HAM})
    assert isinstance(progress.failure, UnicodeEncodeError)
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    note("10 rows are in out.jsonl")
    console.cache_clear()
    assert said.getvalue() == "10 rows are in out.jsonl\n"


@pytest.mark.parametrize("end", [[], ["interrupt"]])
def test_at_a_terminal_the_display_goes_and_one_summary_stays(end):
    data, screen = at_a_terminal("auto", *end)
    assert data.splitlines() == [f"data {number}" for number in range(21 if end else 40)]
    assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h") == 1
    live, after = screen.split("\x1b[?25h")
    assert "rows/s" in live and live.count("half way") == 1
    assert after.startswith("\r\x1b[1A\x1b[2K") and after.count("labelled") == after.count("violate\x1b") == 1


def test_plain_at_a_terminal_draws_no_display():
    _, screen = at_a_terminal("plain")
    assert "\x1b[?25l" not in screen and screen.count("of 40 rows decided") == 1


def test_telling_it_costs_under_two_percent_of_a_core_at_ten_thousand_calls_a_second():
    progress = Progress([SPAM], None)
    seconds = min(timeit.repeat(lambda: (progress.row({"spam": HAM}), progress.tokens(3, 1)), number=2_000, repeat=5))
    assert seconds / 2_000 * 10_000 < 0.02


def test_the_picture_is_the_same_at_every_call_and_needs_no_network():
    assert svg() == svg()
    assert "@font-face" not in svg() and "44/72" in svg()


class HeadLast(FakeEngine):
    """An engine that decides the first row after all others."""

    def complete(self, prompts):
        held = []
        for completion in super().complete(prompts):
            if completion.prompt.row == 0:
                held.append(completion)
            else:
                yield completion
        yield from held


def test_rows_are_counted_when_they_are_decided_though_an_earlier_one_holds_them_up(bench, monkeypatch):
    seen = []

    def watched(*given, **options):
        progress = make_progress(*given, **options)
        tokens = progress.tokens

        def noting(*counts):
            seen.append((progress.decided.rows, progress.written.rows))
            tokens(*counts)

        progress.tokens = noting
        seen.append(progress)
        return progress

    monkeypatch.setattr("safeguard_cli.run.label.make_progress", watched)
    bench.source.write_text("".join(json.dumps({"id": n, "text": f"row {n}"}) + "\n" for n in range(12)))
    bench(HeadLast)
    progress, *counts = seen
    assert counts == [(n, 0) for n in range(1, 12)] + [(12, 0)]
    assert progress.written.as_dict() == progress.decided.as_dict()
    assert bench.manifest()["result"]["labels"] == progress.written.as_dict()["labels"]


def test_rows_of_one_text_are_decided_together(bench, monkeypatch):
    progress = Progress([SPAM], 30)
    monkeypatch.setattr("safeguard_cli.run.label.make_progress", lambda *_, **__: progress)
    bench.source.write_text('{"text": "again"}\n' * 30)
    bench()
    assert progress.decided.rows == progress.written.rows == 30


def test_no_time_left_is_claimed_while_all_rows_are_under_way_and_none_is_decided():
    clock = Clock()
    progress = Progress([SPAM], 16, clock)
    progress.start_rows()
    for second in range(1, 41):
        clock.now += 1
        progress.report(Report(under_way=16, read=336, written=10 * second))
        assert progress.pace().seconds_left is None


def test_time_left_comes_from_tokens_and_says_where_it_is_a_lower_bound():
    clock = Clock()
    progress = Progress([SPAM], 100, clock)
    progress.start_rows()
    for second in range(1, 41):
        clock.now += 1
        progress.report(Report(under_way=4, read=40, written=10 * second))
        pace = progress.pace()
    assert pace.at_least and pace.tokens == pytest.approx(10, rel=0.2)
    assert pace.seconds_left == pytest.approx((440 / 4 * 100 - 440) / pace.tokens)
    for _ in range(20):  # rows of 100 tokens each
        progress.row({"spam": HAM})
        progress.tokens(10, 90)
    progress.report(Report(under_way=4, read=240, written=1960))  # 200 of them of rows under way
    pace = progress.pace()
    assert not pace.at_least
    assert pace.seconds_left == pytest.approx((2200 / 22 * 80 - 200) / pace.tokens)


def test_nothing_is_claimed_about_the_time_left_before_there_are_tokens():
    progress = Progress([SPAM], 100)
    for report in (Report(loaded=0.5), Report(policy=100, policy_size=600), Report(under_way=4)):
        progress.report(report)
        assert progress.pace().seconds_left is None
        assert "left" not in shown(progress)


@pytest.mark.parametrize("width", [80, 50, 30])
@pytest.mark.parametrize(
    ("report", "parts"),
    [
        (Report(loaded=0.34), ("loading the model: 34 %",)),
        (Report(policy=512, policy_size=1204), ("reading the policy: 512 of 1,204 tokens",)),
        (Report(under_way=16, read=1680, written=3410), ("16 under way", "1,680 tokens read", "3,410 written")),
        (Report(kept=596, under_way=1), ("596 tokens of the policy kept",)),
    ],
)
def test_the_display_says_what_is_being_done_at_any_width(report, parts, width):
    progress = Progress([SPAM], 64)
    progress.report(report)
    text = shown(progress, width)
    assert all(part in text for part in parts if len(part) <= width - 3)
    assert all(cell_len(line.rstrip()) <= width - 3 for line in text.splitlines())

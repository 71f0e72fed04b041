"""What a person sees while a run works, and the summary at its end."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import timeit

import pytest
from display_svg import example, svg
from rich.cells import cell_len
from rich.console import Console

from safeguard_cli.policy import Policy
from safeguard_cli.progress import Progress, _Plain, _Rich, make_progress
from safeguard_cli.verdict import RowError, Verdict

SPAM = Policy("spam", "text", ("ham", "spam"), ("spam",))
TOPICS = Policy("topics", "text", tuple(f"topic {n}" for n in range(20)), ("topic 3",))
HAM, BAD = Verdict("ham", False), Verdict(error=RowError("bad_json", "not JSON"))

RUN = """
import sys, time
from safeguard_cli.policy import Policy
from safeguard_cli.progress import make_progress
from safeguard_cli.terminal import warn
from safeguard_cli.verdict import Verdict
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
    console = Console(width=width, height=height, file=io.StringIO(), markup=False, highlight=False)
    console.print(renderable)
    return console.file.getvalue()


def at_a_terminal(*arguments):
    """Standard output, and what a terminal got on standard error."""
    main, other = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen([sys.executable, "-c", RUN, *arguments], stdout=-1, stderr=other, env=env) as process:
        os.close(other)
        screen = b""
        while True:
            try:
                chunk = os.read(main, 65536)
            except OSError:  # how Linux says that the other end is closed
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
    assert (progress.rows, progress.rows_in_error, progress.errors) == (3, 2, {"bad_json": 1, "too_long": 1})
    assert (progress.tally["spam"], progress.violating) == ({"ham": 2}, {"spam": 1, "topics": 1})
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
    progress = _Rich([SPAM], unknown, clock)
    clock.now += 65
    progress.row({"spam": HAM})
    assert "1 rows" in shown(progress)
    assert unknown == 0 or "1:05 so far" in shown(progress)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (40, 10), (20, 5)])
@pytest.mark.parametrize(
    "policies", [[SPAM], [SPAM, TOPICS], [Policy("p" * 300, "x", ("漢" * 60, "[link=http://x]"), ("漢" * 60,))]]
)
def test_display_fits_the_terminal(policies, width, height):
    clock = Clock()
    progress = _Rich(policies, 10**9, clock)
    for number in range(1, 2001):
        clock.now += 0.001
        progress.row({policy.name: Verdict(policy.labels[number % len(policy.labels)], False) for policy in policies})
        progress.tokens(10**6, 10**6)
    lines = shown(progress, width, height).splitlines()
    assert len(lines) < height
    assert max(cell_len(line.rstrip()) for line in lines) <= width - 3


def test_display_of_many_labels_shows_the_most_frequent():
    progress = _Rich([TOPICS], None)
    for number in range(20):
        for _ in range(number + 1):
            progress.row({"topics": Verdict(f"topic {number}", False)})
    text = shown(progress)
    assert "topic 19" in text and "topic 12" in text and "topic 11" not in text
    assert "… 12 more" in text
    assert "topic 0" in shown(progress.summary())


def test_names_reach_the_terminal_only_as_escapes():
    policy = Policy("spam", "x", ("a[bold]b[/bold]", "c"), ("c",))
    object.__setattr__(policy, "labels", ("a[bold]b[/bold]", "\x1b[2Jc"))  # what Policy itself would refuse
    text = shown(_Rich([policy], None)) + shown(Progress([policy], None).summary())
    assert "\x1b" not in text
    assert r"\x1b[2Jc" in text and "a[bold]b[/bold]" in text


def test_rates_are_those_of_the_last_minute():
    clock = Clock()
    progress = _Rich([SPAM], 10_000, clock)
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
    text = shown(progress.summary())
    for part in ("4 of 5, 2 labelled", "2 (2 bad_json)", "1:00:05", "30 read, 10 written", "100.0 %", "violates"):
        assert part in text


def test_plain_is_a_line_now_and_then(capsys):
    clock = Clock()
    progress = _Plain([SPAM], 100, clock)
    with progress:
        for _ in range(50):
            clock.now += 0.5
            progress.row({"spam": HAM})
    out, err = capsys.readouterr()
    lines = err.split("\n")
    assert out == "" and "\r" not in err
    assert len(lines) == 4 and lines[-1] == ""
    assert "0/100" in lines[0] and "20/100" in lines[1] and "40/100" in lines[2]
    assert "0 errors" in lines[1] and "tokens/s" in lines[1]


@pytest.mark.parametrize(("kind", "quiet"), [("none", False), ("auto", True), ("rich", True), ("plain", True)])
def test_none_and_quiet_show_nothing(kind, quiet, capsys):
    with make_progress(kind, [SPAM], 1, quiet=quiet) as progress:
        progress.row({"spam": HAM})
    progress.finish()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["auto", "rich"])
def test_without_a_terminal_it_is_plain(kind):
    assert isinstance(make_progress(kind, [SPAM], 1), _Plain)


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
    assert "\x1b[?25l" not in screen and screen.count("0/40") == 1


@pytest.mark.parametrize("kind", [Progress, _Plain, _Rich])
def test_telling_it_costs_under_two_percent_of_a_core_at_ten_thousand_calls_a_second(kind):
    progress = kind([SPAM], None)
    progress._next = float("inf")
    seconds = min(timeit.repeat(lambda: (progress.row({"spam": HAM}), progress.tokens(3, 1)), number=2_000, repeat=5))
    assert seconds / 2_000 * 10_000 < 0.02


def test_the_picture_is_the_same_at_every_call_and_needs_no_network():
    assert svg() == svg()
    assert "@font-face" not in svg() and "44/72" in svg()

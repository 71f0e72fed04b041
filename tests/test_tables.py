"""Tables of figures fit the terminal, whatever its width, and no figure is cut."""

from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from safeguard_cli.terminal import Figures, Hanging, facts, figure, interval, per_cent

NAMES = st.text(st.sampled_from("abc déł 漢"), min_size=1, max_size=40).map(str.strip).filter(bool)
NUMBERS = st.integers(0, 10**7).map("{:,}".format) | st.just("0.123 to 0.987") | st.just("–")


def printed(what: object, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(what)
    return file.getvalue()


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    columns = draw(st.integers(1, 14))
    titles = draw(st.lists(NAMES, min_size=columns + 1, max_size=columns + 1))
    row = st.tuples(NAMES, st.lists(NUMBERS, min_size=columns, max_size=columns)).map(lambda x: [x[0], *x[1]])
    return titles, draw(st.lists(row, min_size=1, max_size=6))


@settings(max_examples=150)
@given(tables(), st.integers(60, 200))
def test_no_figure_is_cut_and_no_line_is_too_long(table, width) -> None:
    titles, rows = table
    shown = Figures(*titles)
    for row in rows:
        shown.add_row(*row)
    text = printed(shown, width)
    assert all(cell_len(line) <= width for line in text.splitlines())
    for row in rows:
        for cell in row[1:]:
            assert text.count(cell) >= sum(other[1:].count(cell) for other in rows)


def test_a_wide_terminal_gets_one_block_and_a_narrow_one_several_with_the_names_again() -> None:
    shown = Figures("gold", *(f"label number {i}" for i in range(9)))
    for i in range(9):
        shown.add_row(f"label number {i}", *map(str, range(9)))
    assert len(printed(shown, 200).splitlines()) == 10
    narrow = printed(shown, 60).splitlines()
    assert sum("label number 3" in line for line in narrow) >= 2


def test_headings_wrap_before_columns_move() -> None:
    shown = Figures("family", "labels", "violating → allowed")
    shown.add_row("injection", "12", "3.0 %")
    assert printed(shown, 30).splitlines() == [
        "                   violating",
        "family     labels  → allowed",
        "injection      12      3.0 %",
    ]


def test_facts_wrap_and_are_harmless() -> None:
    text = printed(facts("300 golden rows", "", "model \x1b[31mx", "effort low"), 24)
    assert text.split() == ["300", "golden", "rows", "·", "model", "\\x1b[31mx", "·", "effort", "low"]


TEXTS = st.text(st.sampled_from("ab 漢é\x1b"), max_size=120)


@given(st.integers(0, 24), TEXTS, st.text(st.sampled_from("ab -"), max_size=80).map(str.strip), st.integers(8, 90))
def test_a_hanging_text_is_whole_and_every_line_begins_where_the_first_one_did(size, text, command, width) -> None:
    hanging = Hanging("h" * size, text, command)
    lines = printed(hanging, width).rstrip("\n").split("\n")
    below = width - size < 30 and size > 4
    start = 4 if below else size
    assert all(cell_len(line.rstrip()) <= width for line in lines)
    if not below:
        assert lines[0].startswith("h" * size)
    assert all(line[:start].strip() == "" for line in lines[-1:0:-1] if not (below and set(line) == {"h"}))
    whole = "".join(line for line in lines).replace(" ", "").replace("\\", "")
    shown = hanging.line().replace(" ", "").replace("\\", "")
    assert whole == shown


def test_a_command_is_not_torn_and_one_too_long_is_broken_as_a_shell_takes_it() -> None:
    text, command = "to fetch it (about 12 GB):", "safeguard pull gpt-oss-safeguard-20b"
    assert printed(Hanging("→ ", text, command), 70) == f"→ {text} {command}\n"
    assert printed(Hanging("→ ", text, command), 60) == f"→ {text}\n  {command}\n"
    assert printed(Hanging("→ ", text, command), 34) == (
        "→ to fetch it (about 12 GB):\n  safeguard pull \\\n  gpt-oss-safeguard-20b\n"
    )
    assert Hanging("→ ", text, command).line() == f"→ {text} {command}"


def test_what_has_no_room_beside_its_head_stands_below_it() -> None:
    assert printed(Hanging("spam   ham, spam   ", "sells, lures or defrauds"), 40) == (
        "spam   ham, spam\n    sells, lures or defrauds\n"
    )
    assert printed(Hanging("  demo  ", "here", below=True), 80) == "  demo\n    here\n"


def test_what_is_not_defined_is_a_dash() -> None:
    assert (figure(None), per_cent(None), interval({"low": None, "high": None})) == ("–", "–", "–")
    assert interval({"low": 0.025, "high": 1.0}) == "0.025 to 1.000"
    assert interval({"low": 0.025, "high": 1.0}, per_cent=True) == "2.5 to 100.0 %"

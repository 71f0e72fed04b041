"""No text from data, policies, models or file names reaches the terminal raw."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from safeguard_cli.terminal import console, cut, fail, note, safe, shell_line, warn

ANY = st.text(st.characters() | st.characters(categories=["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"]))
DANGEROUS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x1b]8;;http://x\x07click\x1b]8;;\x07", r"\x1b]8;;http://x\x07click\x1b]8;;\x07"),
        ("\x1b]52;c;aGk=\x1b\\", "\\x1b]52;c;aGk=\\x1b\\"),
        ("\x9b2J", r"\x9b2J"),
        ("a\x7fb\x00c", r"a\x7fb\x00c"),
        ("one\r\ntwo\tthree", r"one\r\ntwo\tthree"),
        ("exe\u202egpj", r"exe\u202egpj"),
        ("zero\u200bwidth\ufeff\u2028\xad", r"zero\u200bwidth\ufeff\u2028\xad"),
        ("lone \ud800, private \ue000, tag \U000e0041", r"lone \ud800, private \ue000, tag \U000e0041"),
        ("[link=http://x]click[/link] :smile:", "[link=http://x]click[/link] :smile:"),
    ],
)
def test_what_could_steer_a_terminal_is_shown_as_an_escape(raw, shown):
    assert safe(raw) == shown


@given(ANY)
def test_no_text_comes_out_with_a_control_or_format_character(text):
    assert not {unicodedata.category(char) for char in safe(text)} & DANGEROUS
    assert safe(safe(text)) == safe(text)


@given(ANY)
def test_previews_keep_their_newlines_and_nothing_else(text):
    assert safe(text, keep_newlines=True).split("\n") == [safe(line) for line in text.split("\n")]


@given(st.text(st.characters(exclude_categories=sorted(DANGEROUS))))
def test_plain_text_stays_as_it_is(text):
    assert safe(text) == text


@given(ANY | st.text("漢ñ́ a😀", max_size=60), st.integers(1, 40))
def test_cut_text_is_safe_and_fits(text, width):
    shown = cut(text, width)
    assert cell_len(shown) <= width
    assert safe(shown) == shown
    assert shown == safe(text) or shown.endswith("…")


def test_cut_bounds_text_without_width():
    assert len(cut("a" + "\u0301" * 1_000_000, 10)) <= 41


def test_messages_go_to_standard_error_with_markup_shown_literally(capsys):
    for say in (note, warn, fail):
        say("[bold]x[/bold] [link=http://x]y[/link] \x1b[2J :smile:")
    out, err = capsys.readouterr()
    shown = r"[bold]x[/bold] [link=http://x]y[/link] \x1b[2J :smile:"
    assert out == ""
    assert err.splitlines() == [shown, f"warning: {shown}", f"error: {shown}"]


def test_a_long_message_is_one_line(capsys):
    note("word " * 100)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert console.__wrapped__().no_color
    monkeypatch.setenv("NO_COLOR", "")
    assert not console.__wrapped__().no_color


def test_a_reader_of_messages_who_leaves_takes_no_data_with_him():
    code = """
import os, sys
from safeguard_cli.cli.streams import prepare
from safeguard_cli.terminal import note
os.dup2(int(sys.argv[1]), 2)
prepare()
for number in range(3):
    note("a message")
    print("row", number, flush=True)
"""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-c", code, str(writer)], pass_fds=[writer], stdout=-1, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout) == (0, b"row 0\nrow 1\nrow 2\n")


@pytest.mark.parametrize(
    "word", ["a b", "", "plain", "two\nlines", "\u00e9\u200dx\u202e'\\q", "\udce9\x1b[3m", "\\n\n"]
)
def test_a_word_of_a_command_comes_back_from_the_shell_that_it_was_copied_to(word) -> None:
    shown = shell_line(["printf", "%s", word])
    assert safe(shown) == shown
    ended = subprocess.run(["bash", "-c", shown], capture_output=True, check=True)
    assert ended.stdout == os.fsencode(word)

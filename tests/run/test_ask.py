"""`safeguard ask`: texts are answered as they come, at a terminal too, and again when a policy is saved."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from helpers.command import SAFEGUARD, rows, safeguard
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli import errors
from safeguard_cli.rows.verdict import RowError, Verdict
from safeguard_cli.run import ask

HOW = ("--model", "demo", "--threads", "1", "--effort", "none")
SPAM = "Win a brand new car! Just answer one easy question and call our hotline on 0909 879 0313"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "mine.md"
    path.write_text(
        "---\nlabels: [ham, spam]\nviolates: [spam]\n---\nAnswer `spam` if it sells something, else `ham`.\n"
    )
    return path


class Terminal:
    """A command at a terminal: what it shows, and keys."""

    def __init__(self, *args: object, cwd: Path, stdout: int | None = None) -> None:
        self.ours, theirs = pty.openpty()
        plain = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [SAFEGUARD, *map(str, args)],
            stdin=theirs,
            stdout=stdout or theirs,
            stderr=theirs,
            cwd=cwd,
            env={**plain, "TERM": "xterm", "HOME": str(cwd)},
            preexec_fn=lambda: os.setsid(),
        )
        os.close(theirs)
        self.screen = b""

    def type(self, keys: str | bytes) -> None:
        os.write(self.ours, keys.encode() if isinstance(keys, str) else keys)

    def wait_for(self, pattern: bytes, seconds: float = 60.0) -> bytes:
        """Wait until what is shown after the last call matches a pattern, and return it up to the match's end."""
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.screen, re.DOTALL)):
            assert time.monotonic() < until, self.screen
            if select.select([self.ours], [], [], 0.1)[0]:
                try:
                    self.screen += os.read(self.ours, 1 << 16)
                except OSError:
                    raise AssertionError(self.screen) from None
        shown, self.screen = self.screen[: found.end()], self.screen[found.end() :]
        return shown

    def end(self) -> tuple[int, bytes]:
        """Return the exit code, and what was shown last."""
        with suppress(OSError):
            while data := os.read(self.ours, 1 << 16):
                self.screen += data
        os.close(self.ours)
        return self.process.wait(30), self.screen


@contextmanager
def at_terminal(*args: object, cwd: Path, stdout: int | None = None) -> Iterator[Terminal]:
    made = Terminal(*args, cwd=cwd, stdout=stdout)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def test_a_text_gets_its_label_score_and_rationale(tmp_path) -> None:
    done = safeguard("ask", SPAM, "--policy", "spam", *HOW, cwd=tmp_path)
    assert done.returncode == errors.OK, done.stderr
    assert re.fullmatch(rb"spam  spam  \d\d\.\d %  violates  SP\d.*\n", done.stdout)
    done = safeguard("ask", SPAM, "see you at noon", "-p", "spam", "-p", "hate", "--no-rationale", *HOW, cwd=tmp_path)
    assert done.stdout.count(b"\n") == 6  # each text, and its label under two policies
    assert not list(tmp_path.iterdir())


def test_in_json_a_text_has_the_verdict_that_label_writes(tmp_path) -> None:
    texts = [SPAM, "see you at noon", "é"]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    asked = ("--policy", "spam", "--policy", "hate", *HOW)
    done = safeguard("ask", "--json", *asked, stdin="\n".join(texts).encode(), cwd=tmp_path)
    assert safeguard("label", "in.jsonl", "-o", "out.jsonl", "--rationale", *asked, cwd=tmp_path).returncode == 0
    for found, labelled in zip(rows(done.stdout), rows((tmp_path / "out.jsonl").read_bytes()), strict=True):
        assert list(found) == list(labelled) == ["text", "spam", "hate"]
        for name in ("spam", "hate"):
            assert found[name].keys() == labelled[name].keys()
            assert found[name]["label"] == labelled[name]["label"]
            assert found[name]["p_violates"] == pytest.approx(labelled[name]["p_violates"], abs=1e-3)


def test_each_line_is_answered_before_the_next_one_comes(tmp_path) -> None:
    command = [SAFEGUARD, "ask", "--json", "--policy", "spam", *HOW, "--quiet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin
        assert process.stdout
        for text in ("see you at noon", SPAM, "running late"):
            process.stdin.write(text.encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == errors.OK


def test_a_line_that_cannot_be_read_is_an_error_with_its_number(tmp_path) -> None:
    data = b"hello there\n\n \t\r\n\xff\xfe\r\n" + b"x" * (ask.MOST_BYTES + 5) + b"\nlast"
    done = safeguard("ask", "--json", "--policy", "spam", *HOW, stdin=data, cwd=tmp_path)
    assert done.returncode == errors.ROWS_IN_ERROR
    found = rows(done.stdout)
    assert [row["spam"].get("error", {}).get("code") for row in found] == [None, "bad_encoding", "row_too_big", None]
    assert found[1]["spam"]["error"]["message"] == "line 4: the byte at column 1 is not valid UTF-8"
    assert found[2]["spam"]["error"]["message"].startswith("line 5: more than 1,048,576 bytes")
    assert safeguard("ask", "--policy", "spam", *HOW, stdin=b"", cwd=tmp_path).returncode == errors.OK


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 9), min_size=1))
def test_lines_come_whole_and_numbered_however_a_pipe_cuts_them(pieces: list[bytes], sizes: list[int]) -> None:
    data = b"\n".join(pieces)
    reading, writing = os.pipe()

    def write() -> None:
        rest, turn = data, 0
        while rest:
            size = sizes[turn % len(sizes)]
            os.write(writing, rest[:size])
            rest, turn = rest[size:], turn + 1
        os.close(writing)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        found = [line for batch in ask._lines_of_pipe(reading) for line in batch]
    finally:
        thread.join()
        os.close(reading)
    expected = [(number, line.rstrip(b"\r")) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    assert found == expected


def test_at_a_terminal_a_prompt_stands_until_ctrl_d(tmp_path) -> None:
    with at_terminal("ask", "--policy", "spam", *HOW, cwd=tmp_path) as screen:
        screen.wait_for(b"> ")
        screen.type("see you at noon\r")
        screen.wait_for(rb"ham.*> ")
        screen.type("\r")
        screen.wait_for(b"> ")
        screen.type(SPAM + "\r")
        screen.wait_for(rb"violates.*> ")
        screen.type(b"\x04")
        assert screen.end()[0] == errors.OK
    assert not [path for path in tmp_path.iterdir() if "history" in path.name]


def test_at_a_terminal_ctrl_c_ends_as_every_command(tmp_path) -> None:
    with at_terminal("ask", "--policy", "spam", *HOW, cwd=tmp_path) as screen:
        screen.wait_for(b"> ")
        time.sleep(0.5)  # readline has printed its prompt, but does not wait yet
        screen.process.send_signal(signal.SIGINT)
        code, shown = screen.end()
    assert code == errors.INTERRUPTED
    assert b"Traceback" not in shown


def test_answers_that_go_elsewhere_hold_no_prompt(tmp_path) -> None:
    out = tmp_path / "out.jsonl"
    with (
        out.open("wb") as file,
        at_terminal("ask", "--json", "--policy", "spam", *HOW, cwd=tmp_path, stdout=file.fileno()) as screen,
    ):
        screen.wait_for(b"> ")
        screen.type("see you at noon\r")
        screen.wait_for(b"> ")
        screen.type(b"\x04")
        assert screen.end()[0] == errors.OK
    assert [row["text"] for row in rows(out.read_bytes())] == ["see you at noon"]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_nothing_of_a_text_reaches_the_terminal_raw(tmp_path, options) -> None:
    text = "\x1b]0;owned\x07 \u202eevil\u2066 \x9b31m é [bold]x[/bold]"
    with at_terminal("ask", text, "second", "--policy", "spam", *HOW, *options, cwd=tmp_path) as screen:
        code, shown = screen.end()
    assert code == errors.OK
    for raw in ("\x1b]0;", "\x07", "\u202e", "\u2066", "\x9b31m"):
        assert raw.encode() not in shown
    assert "é".encode() in shown
    assert b"[bold]x[/bold]" in shown
    if options:
        line = shown[shown.index(b'{"text"') :].partition(b"\r\n")[0]
        assert json.loads(line)["text"] == text


def test_a_saved_policy_labels_again_and_one_with_an_error_is_told_and_waited_for(tmp_path, policy) -> None:
    front, body = policy.read_text().rsplit("---\n", 1)
    (tmp_path / "texts").write_text(f"see you at noon\n{SPAM}\n")
    watching = ("ask", "--policy", policy.name, "--watch", "--no-rationale", *HOW, "see you at noon", SPAM)
    with at_terminal(*watching, cwd=tmp_path) as screen:
        screen.wait_for(rb"watching mine\.md; Ctrl-C ends")
        policy.write_text(f"{front}---\n{body}\nMore.\n")
        screen.wait_for(rb"p_violates moved by at most 0\.\d+, \d of 2 texts changed")
        policy.write_text("---\nlabels: [a\n---\n")
        screen.wait_for(rb"mine\.md, line 2: the front matter is not YAML")
        saved = tmp_path / "mine.md.new"
        saved.write_text(f"---\nlabels: [fine, bad]\nviolates: [bad]\n---\n{body.replace('spam', 'bad')}")
        saved.replace(policy)  # as many editors save
        shown = screen.wait_for(rb"2 of 2 texts changed")
        assert re.search(rb"(ham|spam) \xe2\x86\x92 ", shown)
        policy.touch()  # saved, but the same
        time.sleep(4 * ask.POLL_SECONDS)
        screen.process.send_signal(signal.SIGINT)
        code, shown = screen.end()
    assert code == errors.INTERRUPTED
    assert b"texts changed" not in shown


def test_only_what_is_judged_differently_counts_as_changed() -> None:
    ham, sure = Verdict("ham", False, 0.4), Verdict("ham", False, 0.1)
    assert not ask._differs(ham, sure)
    assert ask._differs(ham, Verdict("spam", True, 0.6))
    assert ask._differs(ham, Verdict("ham", True, 0.4))
    assert ask._differs(ham, Verdict(error=RowError("engine", "")))
    assert ask._differs(None, ham)
    assert ask._moved([{"p": ham}], [{"p": sure}]) == "p_violates moved by at most 0.300"


def test_a_call_without_sense_is_refused(tmp_path, policy) -> None:
    for options, said in (
        (("--policy", "spam", "--as", "text"), b"a policy named 'text'"),
        (("--policy", "none.md"), b"no policy 'none.md'"),
        (("--policy", "spam", "--sure", "0.9"), b"--sure has no effect without --effort auto"),
        (("--policy", "spam", "-o", "x"), b"No such option"),
    ):
        done = safeguard("ask", "hello", "--model", "demo", *options, cwd=tmp_path)
        assert done.returncode == errors.USAGE
        assert said in done.stderr

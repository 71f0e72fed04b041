"""The review in a full terminal, driven by Textual's own pilot."""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.reviews import candidates, lines, opened, task

from safeguard_cli.errors import Interrupted, SafeguardError
from safeguard_cli.review.picking import pick_random
from safeguard_cli.review.session import Task

pytest.importorskip("textual")

from safeguard_cli.review.app import ReviewApp, run_app

SIZES = [(80, 24), (120, 40)]
Steps = Callable[[Any, ReviewApp], Awaitable[None]]


def drive(path: Path, of: Task, *keys: str, size: tuple[int, int] = (80, 24), steps: Steps | None = None) -> list[str]:
    """Press keys in an app on a session, do more steps, and return the lines of its last screen."""

    async def go(app: ReviewApp) -> list[str]:
        async with app.run_test(size=size) as pilot:
            await pilot.press(*keys)
            if steps:
                await steps(pilot, app)
            await pilot.pause()
            return screen(app)

    with opened(path, of) as (session, _):
        app = ReviewApp(session)
        shown = asyncio.run(go(app))
    if app.failure:
        raise app.failure
    return shown


async def until(pilot: Any, true: Callable[[], bool]) -> None:
    """Wait until something is true: a click is handled after it was made."""
    for _ in range(200):
        if true():
            return
        await pilot.pause(0.05)
    raise AssertionError("it did not happen")


def screen(app: ReviewApp) -> list[str]:
    return ["".join(segment.text for segment in strip).rstrip() for strip in app.screen._compositor.render_strips()]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_keys_label_skip_take_back_and_go_on(size, tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    drive(path, task(5, path=path), "1", "2", "s", "u", "2", "b", "n", *"hi", "enter", "q", size=size)
    found = [(each["label"], each["note"]) for each in lines(path)]
    assert found == [("ham", ""), ("spam", ""), ("spam", "hi")]
    shown = drive(path, task(5, path=path), size=size)
    assert any("row 4 of 5" in line for line in shown), "the same command goes on"


@pytest.mark.parametrize("size", [*SIZES, (40, 12)], ids=str)
def test_a_row_its_labels_and_all_keys_are_on_the_screen(size, tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    shown = drive(path, task(3, path=path), size=size)
    assert len(shown) <= size[1]
    text = "\n".join(shown)
    for part in ("row 1 of 3", "text ", "[1] ham", "[2] spam", "the model's answer is shown"):
        assert part in text
    if size[0] >= 80:
        assert all(key in shown[-1] for key in ("skip", "undo", "note", "rule", "back", "forth", "quit"))


def test_the_models_answer_comes_after_the_persons(tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    assert not any("p 0.90" in line for line in drive(path, task(3, path=path)))
    assert any("you said ham · the model: spam" in line for line in drive(path, task(3, path=path), "1"))
    shown = drive(tmp_path / "shown.jsonl", task(3, path=path, blind=False))
    assert any("the model: spam  (p 0.90)" in line for line in shown)


def test_a_veiled_text_is_shown_on_a_key(tmp_path) -> None:
    path, of = tmp_path / "g.jsonl", task(3, veil=True)
    text = of.items[0].candidate.text
    assert not any(text in line for line in drive(path, of))
    assert any(text in line for line in drive(path, of, "v"))
    assert not any(line.strip().startswith("text ") for line in drive(path, of, "v", "1")), "the next one is veiled"


def test_the_mouse_works(tmp_path) -> None:
    path = tmp_path / "g.jsonl"

    async def click(pilot: Any, app: ReviewApp) -> None:
        for label, answered in (("#label-1", 1), ("#label-0", 2)):
            await pilot.click(label)
            await until(pilot, lambda wanted=answered: app.session.view().answered == wanted)
        footer = next(key for key in app.screen.query("FooterKey") if "undo" in str(key.render()))
        await pilot.click(footer)
        await until(pilot, lambda: app.session.view().answered == 1)

    drive(path, task(3, path=path), steps=click)
    assert [each["label"] for each in lines(path)] == ["spam"]


def test_a_rule_is_cited_from_the_policys(tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    shown = drive(path, task(3, path=path), "r")
    assert any("SP2  Premium contact" in line for line in shown)
    drive(path, task(3, path=path), "r", "down", "enter", "1", "r", "escape")
    assert [(each["rule"], each["label"]) for each in lines(path)] == [("SP2", "ham")]
    drive(path, task(3, path=path), "b", "r", "end", "enter")
    assert [each["rule"] for each in lines(path)] == [""], "the last line cites none"


def test_keys_in_a_note_are_letters(tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    drive(path, task(3, path=path), "n", *"1sq2u", "enter")
    assert [(each["label"], each["note"]) for each in lines(path)] == [(None, "1sq2u")]
    shown = drive(path, task(3, path=path))
    assert any("note: 1sq2u" in line for line in shown), "a note waits for its label"


def hostile(text: str, **fields: object) -> Task:
    found = [replace(candidates(1)[0], text=text, fields={"text": text, **fields})]
    own = {1: {"text": text, **fields}}
    return replace(task(1), items=pick_random(found, 1, 0), own=own, labels=("[red]ham[/]", "\x1b[2Jspam"))


HOSTILE = (
    "\x1b[31mred \x1b]8;;http://e\x07l\x1b]8;;\x07 [link=http://x]y[/] [@click=app.quit]z[/] \u202eexe \x9b2J \ue000"
)


@pytest.mark.promise("Nothing of a reviewed text reaches the terminal but as text")
def test_what_a_text_holds_is_never_a_style_a_link_or_a_control(tmp_path) -> None:
    shown = "\n".join(drive(tmp_path / "g.jsonl", hostile(HOSTILE, title="[bold]t[/]\x07"), size=(200, 24)))
    for part in (
        r"\x1b[31mred",
        r"\x1b]8;;http://e\x07l",
        "[link=http://x]y[/]",
        "[@click=app.quit]z[/]",
        r"\u202eexe",
    ):
        assert part in shown
    assert "[bold]t[/]\\x07" in shown and "[red]ham[/]" in shown and r"\x1b[2Jspam" in shown
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ue000]", shown)

    async def no_style(pilot: Any, app: ReviewApp) -> None:
        row = app.screen.query_one("#row")
        for strip in (row.render_line(at) for at in range(row.size.height)):
            for segment in strip:
                assert segment.style is None or (segment.style.link is None and "@click" not in segment.style.meta)

    drive(tmp_path / "h.jsonl", hostile(HOSTILE), steps=no_style)


def test_a_long_text_scrolls_and_begins_at_its_beginning(tmp_path) -> None:
    text = "\n".join(f"line {number}" for number in range(2000))
    of = hostile(text)
    assert any("line 0" in line for line in drive(tmp_path / "g.jsonl", of))
    shown = drive(tmp_path / "g.jsonl", of, "space", "space")
    assert "line 40" in map(str.strip, shown) and "line 0" not in map(str.strip, shown)
    assert any("line 1999" in line for line in drive(tmp_path / "g.jsonl", of, "end"))


@pytest.mark.parametrize("presses", range(6))
def test_quitting_at_every_point_keeps_every_answer(presses, tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    keys = ["1", "2", "s", "b", "1"]
    drive(path, task(5, path=path), *keys[:presses], "q")
    expected = [[], ["ham"], ["ham", "spam"], ["ham", "spam", None], ["ham", "spam", None], ["ham", "spam", "ham"]]
    assert [each["label"] for each in (lines(path) if path.exists() else [])] == expected[presses]


def test_ctrl_c_ends_with_its_exit_code_and_a_failure_with_its_sentence(tmp_path, monkeypatch) -> None:
    path = tmp_path / "g.jsonl"
    with pytest.raises(Interrupted):
        drive(path, task(3, path=path), "1", "ctrl+c")
    assert len(lines(path)) == 1

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safeguard_cli.review.answers._write", full)
    with pytest.raises(SafeguardError, match="No space left on device"):
        drive(path, task(3, path=path), "2")


def test_no_colour_is_sent_where_none_is_wanted(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def colours(pilot: Any, app: ReviewApp) -> None:
        assert app.no_color

    shown = drive(tmp_path / "g.jsonl", task(3), "1", steps=colours)
    assert any("row 2 of 3" in line for line in shown)


def test_the_end_is_told_and_can_be_taken_back(tmp_path) -> None:
    path = tmp_path / "g.jsonl"
    assert any("every row is answered" in line for line in drive(path, task(2, path=path), "1", "1"))
    drive(path, task(2, path=path), "u")
    assert len(lines(path)) == 1


def test_the_app_raises_what_ended_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ReviewApp, "run", lambda app: app.fail(SafeguardError("told")))
    with opened(tmp_path / "g.jsonl", task(1)) as (session, _), pytest.raises(SafeguardError, match="told"):
        run_app(session)

"""The review in a full terminal, with Textual: keys and mouse, in the terminal's own colours.

This module imports Textual, which takes half a second: only `run_app`'s callers import it, when a session begins. Every
string comes through `terminal.safe`, and Textual's markup is off: what a text holds is never a style, a link or an
action. Nothing opens links.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import ItemGrid, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Button, Footer, Input, OptionList, Static
from textual.widgets.option_list import Option

from safeguard_cli.errors import Interrupted
from safeguard_cli.review.session import Session, View
from safeguard_cli.review.shown import said_lines
from safeguard_cli.review.told import told_answer, told_last, told_place
from safeguard_cli.terminal import cut, safe

_WIDE = 30  # cells of a label on its button
_NOTE = 2000  # characters


def run_app(session: Session) -> None:
    """Show a session until the person ends it. Raise what ended it otherwise."""
    app = ReviewApp(session)
    app.run()
    if app.failure is not None:
        raise app.failure


class ReviewApp(App[None]):
    """A terminal full of one session."""

    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    TITLE = "safeguard review"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "interrupt", show=False, priority=True)]

    def __init__(self, session: Session) -> None:
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"  # the terminal's own colours and background, which suit a light one too
        self.session = session
        self.failure: BaseException | None = None

    def on_mount(self) -> None:
        self.push_screen(ReviewScreen(self.session))

    def action_interrupt(self) -> None:
        """End with the exit code of Ctrl-C, which a terminal in this mode sends as a key."""
        self.fail(Interrupted(signal.SIGINT))

    def fail(self, failure: BaseException) -> None:
        """End the app; `run_app` raises the failure, with the terminal as it was before."""
        self.failure = failure
        self.exit()


class ReviewScreen(Screen[None]):
    """One row: its text, what was said about it, the labels, and the keys."""

    CSS = """
    #place, #last { height: 1; text-style: bold; }
    #last { text-style: none; color: ansi_bright_blue; }
    #text { height: 1fr; padding: 0 1; border-top: solid ansi_bright_black; border-bottom: solid ansi_bright_black; }
    #text Static { height: auto; }
    #said { height: auto; max-height: 9; padding: 0 1; }
    #labels { height: auto; max-height: 6; overflow-y: auto; grid-gutter: 0 1; }
    #labels Button { width: 100%; height: 1; text-align: left; text-style: none; }
    #labels Button.chosen { text-style: bold reverse; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "skip", "skip"),
        Binding("u", "undo", "undo"),
        Binding("n", "note", "note"),
        Binding("r", "rule", "rule"),
        Binding("b,left", "go(-1)", "back", key_display="b"),
        Binding("f,right", "go(1)", "forth", key_display="f"),
        Binding("v", "unveil", "show text"),
        Binding("q", "end", "quit"),
        Binding("space", "page", "page down", show=False),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._labels = session.keys

    def compose(self) -> ComposeResult:
        yield Static(id="place", markup=False)
        with VerticalScroll(id="text"):
            yield Static(id="row", markup=False)
        with VerticalScroll(id="said", can_focus=False):
            yield Static(id="opinions", markup=False)
        yield Static(id="last", markup=False)
        keys = {label: key for key, label in self._labels.items()}
        names = [f"[{keys[label]}] " * (label in keys) + cut(label, _WIDE) for label in self.session.task.labels]
        width = max(map(cell_len, names)) + 3
        with ItemGrid(id="labels", min_column_width=width, max_column_width=width):
            for at, name in enumerate(names):
                button = Button(Content(name), id=f"label-{at}", compact=True)
                button.can_focus = False  # keys stay with the text, which they scroll
                yield button
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.query_one("#text").focus()
        self.refresh_row()

    def refresh_row(self) -> None:
        """Show the session as it is now, the text from its beginning."""
        view = self.session.view()
        self.query_one("#place", Static).update(Text(told_place(self.session, view)))
        self.query_one("#row", Static).update(_row(view))
        self.query_one("#text", VerticalScroll).scroll_home(animate=False)
        opinions = _opinions(view)
        self.query_one("#opinions", Static).update(opinions)
        self.query_one("#said").display = bool(opinions.plain)
        self.query_one("#last", Static).update(Text(_last(view), no_wrap=True, overflow="ellipsis"))
        for at, label in enumerate(self.session.task.labels):
            self.query_one(f"#label-{at}", Button).set_class(label == view.answer.label, "chosen")

    def on_key(self, event: events.Key) -> None:
        if event.character in self._labels:
            event.stop()
            self._do(lambda: self.session.label(self._labels[str(event.character)]))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        at = int(str(event.button.id).removeprefix("label-"))
        self._do(lambda: self.session.label(self.session.task.labels[at]))

    def action_skip(self) -> None:
        self._do(self.session.skip)

    def action_undo(self) -> None:
        self._do(self.session.undo)

    def action_go(self, steps: int) -> None:
        self._do(lambda: self.session.go(steps))

    def action_unveil(self) -> None:
        self._do(self.session.unveil)

    def action_page(self) -> None:
        self.query_one("#text", VerticalScroll).scroll_page_down(animate=False)

    def action_note(self) -> None:
        self.app.push_screen(NoteScreen(self.session.view().answer.note), self._noted)

    def _noted(self, text: str | None) -> None:
        if text is not None:
            self._do(lambda: self.session.note(text))

    def action_rule(self) -> None:
        if self.session.task.rules:
            self.app.push_screen(RuleScreen(self.session.task.rules.items()), self._cited)
        else:
            self.query_one("#last", Static).update(Text("no rules are known: name the policy's file with --policy"))

    def _cited(self, code: str | None) -> None:
        if code is not None:
            self._do(lambda: self.session.rule(code))

    def action_end(self) -> None:
        self.app.exit()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the key that shows a text only where texts are veiled."""
        return self.session.task.veil if action == "unveil" else True

    def _do(self, change: Callable[[], object]) -> None:
        """Make a change and show what is now; a failure, such as a full disk, ends the app."""
        try:
            change()
        except Exception as failure:
            app = self.app
            assert isinstance(app, ReviewApp)
            app.fail(failure)
        else:
            self.refresh_row()


class NoteScreen(ModalScreen["str | None"]):
    """Asks for a note, in one line."""

    CSS = "NoteScreen { align: center bottom; } NoteScreen Input { width: 100%; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "leave it as it was")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static("Note: Enter keeps it, Escape leaves it as it was", markup=False)
        yield Input(safe(self._text), max_length=_NOTE, select_on_focus=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)

    def action_leave(self) -> None:
        self.dismiss(None)


class RuleScreen(ModalScreen["str | None"]):
    """Asks which rule of the policy the answer goes by."""

    CSS = "RuleScreen { align: center bottom; } RuleScreen OptionList { width: 100%; max-height: 70%; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "leave it as it was")]

    def __init__(self, rules: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self._rules = list(rules)

    def compose(self) -> ComposeResult:
        yield Static("Rule: Enter cites it, Escape leaves it as it was", markup=False)
        shown = [Option(Content(f"{safe(code)}  {cut(text, 200)}")) for code, text in self._rules]
        yield OptionList(*shown, Option(Content("none")), markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        at = event.option_index
        self.dismiss(self._rules[at][0] if at < len(self._rules) else "")

    def action_leave(self) -> None:
        self.dismiss(None)


def _row(view: View) -> Text:
    """Return the row's text with its headings, then its other fields."""
    if view.veiled:
        return Text("The text is veiled: v shows it.", "italic")
    shown = Text()
    for at, block in enumerate(view.blocks):
        if at:
            shown.append("\n\n")
        if block.head:
            shown.append(f"{block.head}\n", "bold")
        shown.append("\n".join(block.lines), "dim" if block.minor else "")
    return shown


def _opinions(view: View) -> Text:
    """Return what the model and others said, where that may be shown, and the person's answer."""
    lines = ["the model's answer is shown after yours"] if view.hidden else said_lines(view.said)
    return Text("\n".join([*lines, *told_answer(view.answer)]))


def _last(view: View) -> str:
    if view.done:
        return "every row is answered: q ends, b goes back, u takes back"
    return told_last(view)

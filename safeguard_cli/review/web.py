"""The review in a browser on this machine: one page of ours, served on the loopback address to who has the token.

The page asks for nothing from elsewhere, and its Content-Security-Policy forbids it. A request is answered only if it
names this address as its host and carries the token; any other gets an empty 404. The server is the standard library's:
its clients are the browsers of one person. Its threads only pass requests on: the session lives in the main thread,
where signals arrive.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, ClassVar

import orjson

from safeguard_cli.errors import SafeguardError
from safeguard_cli.review.session import Session
from safeguard_cli.review.shown import said_lines
from safeguard_cli.review.told import told_answer, told_last, told_place
from safeguard_cli.terminal import note, safe

PAGE = Path(__file__).with_name("page.html")
MOST_BYTES = 1 << 16  # of a request's body: the longest note is far shorter
SILENT = 15.0  # seconds without a word from its page after which a tab counts as closed; pages report every 5
_NOTE = 2000  # characters
_TURN = 0.2  # seconds between two looks for a signal

Reply = tuple[int, Any]  # an HTTP status, and what goes out as JSON


@dataclass(slots=True)
class Tab:
    """The browser tab that holds the review."""

    name: str = ""
    since: str = ""
    heard: float = field(default=float("-inf"))  # by time.monotonic


@dataclass(frozen=True, slots=True)
class Request:
    """What a page asks for, to be answered by the main thread."""

    asked: Mapping[str, Any]
    answer: SimpleQueue[Reply] = field(default_factory=SimpleQueue)


class Desk:
    """A session that the pages of one browser share: one tab holds it, the others are told so."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        self.session, self.tab, self.ended = session, Tab(), False
        self._clock = clock

    def answer(self, asked: Mapping[str, Any]) -> Reply:
        """Do what a page asks for, and return what it is to show."""
        tab, now = str(asked.get("tab", "")), self._clock()
        if self.ended:
            return 200, {"ended": True}
        free = asked.get("do") == "take" or not self.tab.name or now - self.tab.heard > SILENT
        if free and self.tab.name != tab:
            self.tab = Tab(tab, time.strftime("%H:%M:%S"))
        if self.tab.name != tab:
            who = f"{safe(self.session.task.person)}, in another tab or window of this browser, since {self.tab.since}"
            return 200, {"held": who}
        self.tab.heard = now
        try:
            if asked.get("row") in (None, self.session.place):  # what was meant for another row is not done to this one
                self._do(asked)
        except SafeguardError as problem:
            return 200, {**self._view(), "problem": safe(str(problem))}
        return 200, {"ended": True} if self.ended else self._view()

    def _do(self, asked: Mapping[str, Any]) -> None:
        session, text = self.session, str(asked.get("text", ""))[:_NOTE]
        match asked.get("do"):
            case "label":
                session.label(text)
            case "skip":
                session.skip()
            case "undo":
                session.undo()
            case "note":
                session.note(text)
            case "rule":
                session.rule(text)
            case "back":
                session.go(-1)
            case "forth":
                session.go(1)
            case "unveil":
                session.unveil()
            case "end":
                self.ended = True

    def _view(self) -> dict[str, Any]:
        """Return all that the page shows, every text safe, as the session's View has it."""
        session, view = self.session, self.session.view()
        keys = {label: key for key, label in session.keys.items()}
        return {
            "place": told_place(session, view),
            "row": view.place,
            "done": view.done,
            "last": told_last(view),
            "blocks": [
                {"head": block.head, "text": "\n".join(block.lines), "minor": block.minor} for block in view.blocks
            ],
            "veiled": view.veiled,
            "hidden": view.hidden,
            "said": "\n".join(said_lines(view.said)),
            "answer": "\n".join(told_answer(view.answer)),
            "label": view.answer.label,
            "skipped": view.answer.skipped,
            "note": view.answer.note,
            "rule": view.answer.rule,
            "labels": [
                {"label": label, "shown": safe(label), "key": keys.get(label, "")} for label in session.task.labels
            ],
            "rules": [
                {"code": code, "shown": f"{safe(code)}  {safe(text)}"} for code, text in session.task.rules.items()
            ],
        }


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of pages that have the token, all others with an empty 404."""

    server: Server
    timeout = 30  # seconds for a request to arrive
    server_version, sys_version = "safeguard", ""

    def do_GET(self) -> None:
        """Send the page to who knows the token."""
        if not self._is_for_us() or not self._knows(self.path.removeprefix("/")):
            self._send(404, b"", "text/plain")
            return
        nonce, tab = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        page = self.server.page.replace("NONCE", nonce).replace("TOKEN", self.server.token).replace("TAB", tab)
        allowed = f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'"
        policy = f"{allowed}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        self._send(200, page.encode(), "text/html; charset=utf-8", {"Content-Security-Policy": policy})

    def do_POST(self) -> None:
        """Pass what a page asks for on to the main thread, and send its answer."""
        size = self.headers.get("Content-Length", "")
        if (
            self.path != "/do"
            or not self._is_for_us()
            or self.headers.get("Origin", self.server.address) not in self.server.addresses
            or not self._knows(self.headers.get("X-Token", ""))
            or not (size.isascii() and size.isdecimal() and int(size) <= MOST_BYTES)
        ):
            self._send(404, b"", "text/plain")
            return
        try:
            asked = orjson.loads(self.rfile.read(int(size)))
        except orjson.JSONDecodeError:
            asked = None
        if not isinstance(asked, dict):
            self._send(400, b"{}", "application/json")
            return
        request = Request(asked)
        self.server.requests.put(request)
        status, answer = request.answer.get()
        self._send(status, orjson.dumps(answer), "application/json")

    def _is_for_us(self) -> bool:
        """Return whether the browser asks for this address: a name of somebody else's may lead here."""
        return f"http://{self.headers.get('Host', '')}" in self.server.addresses

    def _knows(self, token: str) -> bool:
        return secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode())

    def _send(self, status: int, body: bytes, kind: str, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            **(more or {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: requests hold the token."""


class Server(ThreadingHTTPServer):
    """The loopback server of one session, on a port that the system chooses."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = False
    HOSTS: ClassVar[tuple[str, ...]] = ("127.0.0.1", "localhost")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token, self.page = secrets.token_urlsafe(24), PAGE.read_text(encoding="utf-8")
        self.addresses = tuple(f"http://{host}:{self.server_port}" for host in self.HOSTS)
        self.address = self.addresses[0]
        self.requests: SimpleQueue[Request] = SimpleQueue()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about a browser that went away."""


def run_web(session: Session) -> None:
    """Serve a session to a browser until the page ends it; say where."""
    desk, server = Desk(session), Server()
    thread = Thread(target=server.serve_forever, args=(_TURN,), daemon=True)
    thread.start()
    try:
        note(f"open {server.address}/{server.token} in a browser on this machine; Ctrl-C ends the review")
        while not desk.ended:
            try:
                request = server.requests.get(timeout=_TURN)
            except Empty:
                continue
            try:
                reply = desk.answer(request.asked)
            except BaseException:
                request.answer.put((500, {"ended": True}))
                raise
            request.answer.put(reply)
        time.sleep(_TURN)  # the last answer is on its way
    finally:
        server.shutdown()
        server.server_close()

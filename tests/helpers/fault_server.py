"""A local server with vLLM's completion API and OpenAI's chat API, which misbehaves by script."""

from __future__ import annotations

import hashlib
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = (
    *("429", "503", "500", "502", "slow", "cut", "torn", "garbage", "null", "list", "html"),
    *("positive", "much", "text", "absent", "strangers", "many tokens", "no tokens"),
)


def share(ids: Sequence[int]) -> float:
    """Return the probability of the first token asked about: a function of the prompt alone."""
    return (hashlib.sha256(repr(list(ids)).encode()).digest()[0] + 1) / 300


@dataclass
class FaultServer:
    """A server at which each request meets the next fault of `script`, over and over; `ok` is none.

    `taken` is the key that it accepts, `seconds` the least time of an answer. `mangle` is called with each whole
    answer, its head included, and whether it answers one of the first questions; what it returns is sent instead,
    piece by piece.
    """

    script: Sequence[str] = ("ok",)
    end: int = 0  # the token that ends a message
    taken: str | None = None
    seconds: float = 0.0
    dies_after: int = 1 << 30  # completions; after them it answers nothing and takes no connections
    returns_after: float | None = None  # seconds after which it is back, at the same port
    mangle: Callable[[bytes, bool], Iterable[bytes]] | None = None
    models: Sequence[str] = ("org/tiny",)
    chat: dict[str, Any] | None = None
    refused: frozenset[str] = frozenset()  # fields that a chat request must not have
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    asked: int = 0  # requests of any kind
    address: str = ""

    def __enter__(self) -> FaultServer:
        self._lock, self._count, self.at_once, self.most_at_once = threading.Lock(), 0, 0, 0
        self._start(0)
        return self

    def __exit__(self, *_: object) -> None:
        self.dies_after, self.returns_after = 0, None
        if not self.down:
            self._stop()

    def _start(self, port: int) -> None:
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # a client that disconnects is not an error
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.down = False

    def _stop(self) -> None:
        self.down = True
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _die(self) -> None:
        self._stop()
        if self.returns_after is not None:
            time.sleep(self.returns_after)
            self.dies_after = 1 << 30
            self._start(self._server.server_port)

    def next_fault(self) -> str:
        with self._lock:
            self._count += 1
            if self._count == self.dies_after + 1:
                threading.Thread(target=self._die).start()
            if self._count > self.dies_after:
                return "cut"
            return self.script[(self._count - 1) % len(self.script)]


class _Handler(BaseHTTPRequestHandler):
    server_of: FaultServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.first = True
        self.server_of.asked += 1
        if self.server_of.down:
            return self._cut()
        if not self._key_is_right():
            return self._send(401, b"{}")
        if not self.path.startswith("/v1/models"):
            return self._send(404, b"{}")
        data = [{"id": name, "owned_by": "vllm", "max_model_len": 8192} for name in self.server_of.models]
        return self._send(200, json.dumps({"data": data}).encode())

    def do_POST(self) -> None:
        server = self.server_of
        server.asked += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.first = "prompt" not in body or len(body["prompt"]) < 100
        server.requests.append((self.path, body, dict(self.headers)))
        if not self._key_is_right():
            return self._send(401, b"{}")
        if self.path.startswith("/v1/chat/completions") and server.chat is not None:
            bad = server.refused & body.keys()
            return self._send(400 if bad else 200, json.dumps(server.chat).encode())
        if not self.path.startswith("/v1/completions"):
            return self._send(404, b"{}")
        with server._lock:
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            time.sleep(server.seconds)
            # Requests from before the run are always answered.
            self._misbehave("ok" if self.first else server.next_fault(), body)
        except OSError:
            pass  # the client went away
        finally:
            with server._lock:
                server.at_once -= 1

    def _misbehave(self, fault: str, body: dict[str, Any]) -> None:
        if fault.isdigit():
            return self._send(
                int(fault), b'{"error":"as asked for"}', **({"Retry-After": "0"} if fault == "429" else {})
            )
        if fault == "slow":
            time.sleep(2.0)
        if fault in ("cut", "torn"):
            if fault == "torn":
                self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices":[')
                self.wfile.flush()
            return self._cut()
        plain = {"garbage": b'{"choices": [', "null": b"null", "list": b"[]", "html": b"<html>sorry</html>"}
        if fault in plain:
            return self._send(200, plain[fault])
        return self._send(200, json.dumps({"choices": [self._choice(fault, body)]}).encode())

    def _choice(self, fault: str, body: dict[str, Any]) -> dict[str, Any]:
        ids = body["prompt"]
        if "logprobs" not in body:
            tokens = [3 + i % 50 for i in ids[-3:]]
            if fault == "many tokens":
                tokens *= body["max_tokens"]
            if fault == "no tokens":
                return {"token_ids": [], "finish_reason": "length", "stop_reason": None}
            if fault == "strangers":
                tokens = [10**7]
            if fault == "absent":
                return {"text": "no ids", "finish_reason": "length"}
            return {
                "token_ids": [*tokens, self.server_of.end],
                "finish_reason": "stop",
                "stop_reason": self.server_of.end,
            }
        first, *rest = body["allowed_token_ids"]
        p = share(ids)
        values: dict[str, Any] = {f"token_id:{first}": math.log(p)}
        values |= {f"token_id:{token}": math.log((1 - p) / len(rest)) for token in rest}
        if fault == "positive":
            values = dict.fromkeys(values, 2.0)
        if fault == "much":
            values = dict.fromkeys(values, 0.0) if rest else {f"token_id:{first}": 0.5}
        if fault == "text":
            values = dict.fromkeys(values, "likely")
        if fault in ("absent", "no tokens"):
            return {"logprobs": None}
        if fault in ("strangers", "many tokens"):
            values = {"token_id:7": -1.0}
        return {"logprobs": {"top_logprobs": [values]}}

    def _key_is_right(self) -> bool:
        return self.server_of.taken in (None, self.headers.get("Authorization"))

    def _cut(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _send(self, code: int, body: bytes, **headers: str) -> None:
        if self.server_of.mangle:
            self.close_connection = True
            head = f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\nContent-Length: {len(body)}\r\n\r\n"
            with suppress(OSError):  # the client went away
                for piece in self.server_of.mangle(head.encode() + body, self.first):
                    self.wfile.write(piece)
            return
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

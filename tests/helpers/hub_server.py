"""A local server with as much of the Hugging Face hub's protocol as a pull needs, which misbehaves on demand."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"

# huggingface_hub waits a second after every cut; here, thirty cuts should not cost thirty seconds.
HASTY = "import time; time.sleep = lambda s: None; from safeguard_cli.cli.app import main; main()"
SMALL = 1000  # bytes of a dataset's file that Git itself holds
REPO, FILE = "some-body/tiny-GGUF", "tiny-Q8_0.gguf"


@dataclass
class Hub:
    """Repositories by name (a dataset's as `datasets/OWNER/NAME`), each with files by name.

    `cuts` are places in a file where the connection breaks, once each. `status` is the answer to every request, with
    the headers `more` as well. `wrong` names files that do not match their checksums, `endless` files that never end.
    """

    repos: dict[str, dict[str, bytes]]
    cuts: list[int] = field(default_factory=list)
    status: int = 0
    status_of_files: int = 0
    wrong: set[str] = field(default_factory=set)
    more: dict[str, str] = field(default_factory=dict)
    endless: bool = False
    stall: threading.Event | None = None
    log: list[str] = field(default_factory=list)
    served: int = 0
    authorizations: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self.cdn = f"http://localhost:{self._server.server_port}"  # the same server under another host name
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _send(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in {**headers, **self.hub.more}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _answer(self) -> None:
        hub, path = self.hub, urlsplit(self.path).path
        hub.log.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        hub.authorizations.append((path, self.headers.get("Authorization")))
        if hub.status:
            return self._send(hub.status)
        if listing := re.fullmatch(r"/api/(?:models/|(datasets/))([^/]+/[^/]+)", path):
            files = hub.repos.get(f"{listing[1] or ''}{listing[2]}")
            if files is None:
                return self._send(401, X_Error_Code="RepoNotFound")
            siblings = [
                {"rfilename": n, "size": len(c), "blobId": _git_hash(c)}
                | ({"lfs": {**_lfs(c), "pointerSize": 130}} if len(c) > SMALL or not listing[1] else {})
                for n, c in files.items()
            ]
            body = json.dumps({"id": listing[2], "sha": COMMIT, "siblings": siblings}).encode()
            return self._send(200, body, Content_Type="application/json")
        resolve = re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        if resolve and resolve[2] in hub.repos.get(resolve[1], {}):
            content = hub.repos[resolve[1]][resolve[2]]
            if resolve[1].startswith("datasets/") and len(content) <= SMALL:
                return self._content(resolve[2], content, X_Repo_Commit=COMMIT, ETag=f'"{_git_hash(content)}"')
            return self._send(
                302,
                Location=f"{hub.cdn}/cdn/{resolve[1]}/{resolve[2]}",
                X_Repo_Commit=COMMIT,
                X_Linked_Etag=f'"{_lfs(content)["sha256"]}"',
                X_Linked_Size=str(len(content)),
            )
        if cdn := re.fullmatch(r"/cdn/((?:datasets/)?[^/]+/[^/]+)/(.+)", path):
            return self._content(cdn[2], hub.repos[cdn[1]][cdn[2]])
        return self._send(404, X_Error_Code="EntryNotFound")

    def _content(self, name: str, content: bytes, **headers: str) -> None:
        hub = self.hub
        if hub.status_of_files:
            return self._send(hub.status_of_files)
        if name in hub.wrong:
            content = content[:-1] + bytes([content[-1] ^ 1])
        begin = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        end = len(content)
        self.send_response(206 if begin else 200)
        if hub.endless:
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(end - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{end}")
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        stop = next((cut for cut in hub.cuts if cut > begin), None)
        if stop is not None:
            hub.cuts.remove(stop)
        part = content[begin:stop]
        hub.served += len(part)
        self.wfile.write(part)
        while hub.endless:
            self.wfile.write(bytes(1 << 16))
        if stop is not None:
            self.wfile.flush()
            if hub.stall:
                hub.stall.wait(60)
            self.close_connection = True
        return None


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _lfs(content: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


class Machine:
    """A user's machine: a home, a cache, and a hub that it may reach."""

    def __init__(self, home: Path, hub: Hub) -> None:
        self.hub, self.cache = hub, home / "hf" / "hub"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_", "SAFEGUARD"))}
        self.env = {
            **kept,
            "HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": hub.address,
            "NO_PROXY": "127.0.0.1,localhost",
            "COLUMNS": "300",
        }

    def command(self, *args: object) -> list[str]:
        return [sys.executable, "-c", HASTY, *map(str, args)]

    def run(self, *args: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*args), capture_output=True, text=True, timeout=60, env={**self.env, **env}, cwd=cwd
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def blobs(self) -> list[Path]:
        return sorted(self.cache.glob("models--*/blobs/*"))

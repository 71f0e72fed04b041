"""One question to a server, and its answer, of which nothing is believed: neither size nor speed, form nor words.

Every failure has a sentence that quotes neither the answer nor the question.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl
import threading
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar

import httpx
import orjson

from safeguard_cli.address import Address, seconds_of
from safeguard_cli.engine.servers.apis import BadReply, Body
from safeguard_cli.errors import SafeguardError

PLAIN_BYTES = 1 << 20  # of an answer, whatever was asked
TOKEN_BYTES = 4096  # for each token asked for: with a chat's 20 alternatives it takes some 2,000
ECHO = 8  # bytes for each one of the question: some servers send the prompt back as text
_COUNTS = ("max_tokens", "n_predict", "max_completion_tokens", "max_new_tokens")  # in a body: of the tokens asked for
_STATES = {
    404: "has no such path",
    407: "is behind a proxy of the environment that refuses us",
    429: "has too much to do",
    503: "has too much to do, or is still loading its model",
}

T = TypeVar("T")


class Silent(Exception):
    """The server took no connection, or dropped it before a word of an answer. `connected` tells which."""

    def __init__(self, why: str, connected: bool = False) -> None:
        super().__init__(why)
        self.connected = connected


class Late(BadReply):
    """The server took longer than it may."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `after` is for how many seconds the server wants to be left alone, where it says so."""

    status: int
    after: float | None
    data: bytes

    def json(self, address: Address) -> Any:
        """What it says. Raises BadReply when that is no JSON."""
        try:
            return orjson.loads(self.data)
        except orjson.JSONDecodeError:
            raise BadReply(f"{address.shown} gave no JSON") from None


async def exchange(
    client: httpx.AsyncClient, address: Address, method: str, path: str, body: Body | None, seconds: float
) -> Reply:
    """Ask, and take the answer whole.

    Raises Silent; Late after so many `seconds`; BadReply for an answer that breaks off, is too large or packed.
    """
    question = b"" if body is None else orjson.dumps(body)
    begun: list[int] = []  # the status, once there is one

    async def receive() -> Reply:
        data, most = bytearray(), _most_bytes(body, question)
        url = f"{address.shown}{path}{address.query}"
        async with client.stream(method, url, content=question or None) as response:
            begun.append(response.status_code)
            # A packed answer can be a thousand times as large as what came: none was asked for. Of what comes with
            # another status nothing is read.
            packed = response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")
            if packed and response.status_code == 200:
                raise BadReply(f"{address.shown} gave a packed answer, which was not asked for")
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > most:
                    raise BadReply(f"{address.shown} gave an answer of more than {most:,} bytes")
            return Reply(response.status_code, seconds_of(response.headers.get("Retry-After")), bytes(data))

    try:
        return await asyncio.wait_for(receive(), seconds)
    except BadReply:
        raise
    except (asyncio.TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout):
        raise Late(f"{address.shown} took longer than {seconds:,.0f} seconds") from None
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise Silent(why_not(error)) from None
    except Exception as error:  # what libraries raise on hostile bytes is no closed list, and may quote them
        if begun or not isinstance(error, httpx.TransportError):
            raise BadReply(f"the answer of {address.shown} broke off ({type(error).__name__})") from None
        raise Silent(f"the connection broke, {type(error).__name__}", connected=True) from None


def _most_bytes(body: Body | None, question: bytes) -> int:
    """How large an answer may be: more than any that was asked for can take."""
    asked = (body or {}) | ((body or {}).get("sampling_params") or {})
    tokens = next((asked[name] for name in _COUNTS if name in asked), 0)
    return PLAIN_BYTES + TOKEN_BYTES * int(tokens) + ECHO * len(question)


def why_not(error: BaseException) -> str:
    """Why there is no connection, in words that hold no URL."""
    if isinstance(error, httpx.ProxyError):
        return "the proxy of the environment lets nothing through"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "its certificate is not trusted"
        if isinstance(cause, ssl.SSLError):
            return "it does not speak TLS as it should"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection is refused"
        if isinstance(cause, (OSError, UnicodeError)) and type(cause).__name__ in ("gaierror", "UnicodeError"):
            return "there is no such host"
    return "no connection in time" if isinstance(error, httpx.ConnectTimeout) else "no connection"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        yield from getattr(error, "exceptions", ())  # of a group: one for each of the host's addresses
        error = error.__cause__ or error.__context__


def status_text(status: int) -> str:
    """What a status that is not 200 means, as the end of a sentence."""
    if status in (301, 302, 303, 307, 308):
        return f"sends us elsewhere (status {status}), which is not followed: name the address that it leads to"
    return f"{_STATES.get(status, 'gave no answer')} (status {status})"


def open_client(address: Address, key: str | None, connect: float, request: float) -> httpx.AsyncClient:
    """A client for one server; the two limits are in seconds. Raises SafeguardError when a proxy cannot be used."""
    for library in ("httpx", "httpcore"):  # they would log URLs with their queries
        logging.getLogger(library).setLevel(logging.WARNING)
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    local = address.loopback
    try:
        return httpx.AsyncClient(
            headers=headers,
            auth=httpx.BasicAuth(address.user, address.password) if address.user is not None and not key else None,
            timeout=httpx.Timeout(request, connect=connect, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),
            follow_redirects=False,  # rows and keys go where they were sent
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # they would grow with every answer
            # What is meant for this machine never leaves it for a proxy. SSL_CERT_FILE counts all the same.
            trust_env=not local,
            verify=httpx.create_ssl_context() if local and address.shown.startswith("https:") else True,
        )
    except OSError as error:
        raise SafeguardError(
            f"SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {error.strerror or type(error).__name__}"
        ) from None
    except (ValueError, ImportError, httpx.InvalidURL):  # whose words hold the proxy's password
        raise SafeguardError(
            f"{address.shown}: the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used;"
            " put the host into NO_PROXY to go without"
        ) from None


class Network:
    """An event loop in a thread of its own, so that a signal finds the main thread waiting and ends it at once."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin something there."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self, *clients: httpx.AsyncClient) -> None:
        """End at once whatever is under way, and drop the clients' connections."""
        with suppress(Exception):
            self.call(_end(clients)).result(1.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(0.5)
        if not self._thread.is_alive():
            with suppress(RuntimeError):  # a busy machine had no time for all tasks; stopped again, they are left
                self._loop.call_later(0.5, self._loop.stop)
                self._loop.run_until_complete(_end(()))
            self._loop.close()


async def _end(clients: Iterable[httpx.AsyncClient]) -> None:
    while others := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
        # A task that has not begun begins first: anyio's never await what they were given when they are cancelled then.
        begun = [task for task in others if _has_begun(task)]
        for task in begun:
            task.cancel()
        await asyncio.sleep(0)
        await asyncio.gather(*begun, return_exceptions=True)
    for client in clients:
        await client.aclose()


def _has_begun(task: asyncio.Task[Any]) -> bool:
    coroutine = task.get_coro()
    return not inspect.iscoroutine(coroutine) or inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED

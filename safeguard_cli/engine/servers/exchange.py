"""One request to a server, and its answer, which is not trusted in anything: neither size nor speed, form nor words.

Every failure has a sentence that quotes neither request nor answer.
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

PLAIN_BYTES = 1 << 20  # that any answer may have
TOKEN_BYTES = 4096  # more for each token asked for: with a chat's 20 alternatives it takes some 2,000
ECHO = 8  # more for each byte of the request: some servers send the prompt back as text
_COUNTS = ("max_tokens", "n_predict", "max_completion_tokens", "max_new_tokens")  # of tokens asked for, in a body
_STATES = {
    404: "has no such path",
    407: "is behind a proxy, set in the environment, that refuses us",
    429: "is too busy",
    503: "is too busy, or is still loading its model",
}

T = TypeVar("T")


class Silent(Exception):
    """The server accepted no connection or, if `connected`, dropped it before it answered anything."""

    def __init__(self, why: str, connected: bool = False) -> None:
        super().__init__(why)
        self.connected = connected


class Late(BadReply):
    """The server took longer than allowed."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `after` is for how many seconds the server asks to be left alone, if it does."""

    status: int
    after: float | None
    data: bytes

    def json(self, address: Address) -> Any:
        """Return the answer's JSON. Raises BadReply when it is not JSON."""
        try:
            return orjson.loads(self.data)
        except orjson.JSONDecodeError:
            raise BadReply(f"{address.shown} did not answer with JSON") from None


async def exchange(
    client: httpx.AsyncClient, address: Address, method: str, path: str, body: Body | None, seconds: float
) -> Reply:
    """Send a request and return the whole answer.

    Raises Silent; Late after `seconds`; BadReply for an answer that breaks off, is too large or is packed.
    """
    question = b"" if body is None else orjson.dumps(body)
    begun: list[int] = []  # the status, once there is one

    async def receive() -> Reply:
        data, most = bytearray(), _most_bytes(body, question)
        url = f"{address.shown}{path}{address.query}"
        async with client.stream(method, url, content=question or None) as response:
            begun.append(response.status_code)
            # A packed answer can unpack to a thousand times its size, and none was asked for. The body of any other
            # status is not looked at.
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
    except Exception as error:  # on hostile bytes libraries may raise anything, and may quote them
        if begun or not isinstance(error, httpx.TransportError):
            raise BadReply(f"the answer of {address.shown} broke off ({type(error).__name__})") from None
        raise Silent(f"the connection broke, {type(error).__name__}", connected=True) from None


def _most_bytes(body: Body | None, question: bytes) -> int:
    """Return how large an answer may be: larger than any valid answer to this request."""
    asked = (body or {}) | ((body or {}).get("sampling_params") or {})
    tokens = next((asked[name] for name in _COUNTS if name in asked), 0)
    return PLAIN_BYTES + TOKEN_BYTES * int(tokens) + ECHO * len(question)


def why_not(error: BaseException) -> str:
    """Return why there is no connection, in words that hold no URL."""
    if isinstance(error, httpx.ProxyError):
        return "the proxy that the environment sets lets nothing through"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "its certificate is not trusted"
        if isinstance(cause, ssl.SSLError):
            return "the TLS handshake failed"
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
        yield from getattr(error, "exceptions", ())  # a group's: one for each address of the host
        error = error.__cause__ or error.__context__


def status_text(status: int) -> str:
    """Return what a status other than 200 means, as the end of a sentence."""
    if status in (301, 302, 303, 307, 308):
        return f"redirects us (status {status}), which is not followed: give the address that it leads to"
    return f"{_STATES.get(status, 'gave no answer')} (status {status})"


def open_client(address: Address, key: str | None, connect: float, request: float) -> httpx.AsyncClient:
    """Return a client for one server; the two limits are in seconds. Raises SafeguardError for an unusable proxy."""
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
            follow_redirects=False,  # rows and keys go only where they were sent
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # cookies would grow with every answer
            # Requests to this machine never go to a proxy. SSL_CERT_FILE counts all the same.
            trust_env=not local,
            verify=httpx.create_ssl_context() if local and address.shown.startswith("https:") else True,
        )
    except OSError as error:
        raise SafeguardError(
            f"SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {error.strerror or type(error).__name__}"
        ) from None
    except (ValueError, ImportError, httpx.InvalidURL):  # their text holds the proxy's password
        raise SafeguardError(
            f"{address.shown}: the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used;"
            " add the host to NO_PROXY to connect without it"
        ) from None


class Network:
    """An event loop in a thread of its own, so that a signal ends the waiting main thread at once."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self, *clients: httpx.AsyncClient) -> None:
        """End all tasks at once, and drop the clients' connections."""
        with suppress(Exception):
            self.call(_end(clients)).result(1.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(0.5)
        if not self._thread.is_alive():
            # On a busy machine tasks may be left. If they do not end in time, the loop is stopped and raises.
            with suppress(RuntimeError):
                self._loop.call_later(0.5, self._loop.stop)
                self._loop.run_until_complete(_end(()))
            self._loop.close()


async def _end(clients: Iterable[httpx.AsyncClient]) -> None:
    while others := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
        # Let a task begin before it is cancelled: one of anyio's would otherwise never await what it was given.
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

"""Several servers as one: who is asked next, how many rows at once, what is tried again and when to give up.

Every request carries all that it needs, so that any server can answer any of them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
import orjson

from safeguard_cli.engine.apis import MISSHAPEN, BadReply, Body
from safeguard_cli.engine.pace import MOST, START, Pace
from safeguard_cli.errors import EngineError

MOST_REPLY = 32 << 20  # bytes
_BUSY = (429, 503)
_PASSING = (408, 425, 500, 502, 504)  # worth another try
_REFUSED = (401, 403, 404, 405)  # will be the same for every row

A = TypeVar("A")  # the API that the servers of a run speak
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a row, and a run, waits for servers; in seconds."""

    tries: int = 5  # of one request that was answered wrongly or not at all
    first: float = 0.5  # before the second try; each further wait is twice as long
    longest: float = 30.0
    busy: float = 900.0  # that one request lets itself be put off with 429
    down: float = 300.0  # without any server that takes connections: then the run ends
    connect: float = 10.0
    request: float = 600.0


PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is. `url` and `query` may hold secrets; `shown` never does and is what may be printed or kept."""

    url: str
    query: str
    user: str | None
    password: str | None
    shown: str


@dataclass(frozen=True, slots=True)
class Served(Generic[A]):
    """A server that was found to be usable. `slots` are llama-server's caches, 0 where a server has none to name."""

    address: Address
    api: A
    slots: int = 0


class RowFailed(Exception):
    """No server gave a usable answer; the sentence holds nothing of the row."""


@dataclass(slots=True, eq=False)
class Server(Generic[A]):
    """One server while a run goes on. `slots` are the free ones of its first `warm` caches; each serves every
    `policies`-th policy only, which it keeps decoded. While `widening` more caches are brought into use."""

    served: Served[A]
    pace: Pace
    client: httpx.AsyncClient
    policies: int
    slots: list[int] = field(default_factory=list)
    warm: int = 0
    widening: asyncio.Task[None] | None = None
    down_until: float = 0.0
    fails: int = 0  # connections one after the other

    @property
    def wanted(self) -> int:
        """How many of its caches should be in use: at least one for each policy."""
        return min(max(self.pace.limit, self.policies), self.served.slots)

    def slot(self, policy: int) -> int | None:
        """A free cache for a policy, None when it has to wait for one; -1 leaves the choice to the server."""
        if not self.served.slots:
            return -1
        return next((slot for slot in self.slots if (slot - policy) % self.policies == 0), None)


@dataclass(slots=True, eq=False)
class Lease(Generic[A]):
    """A row's place at a server, kept from its first request to its last: the server's cache knows the row."""

    policy: int
    server: Server[A]
    slot: int
    work: float = 1.0


class Pool(Generic[A]):
    """The servers of a run. Only used inside one event loop.

    `warming` makes the request with which an API's server decodes a policy into a cache, given API, policy and cache.
    """

    def __init__(
        self,
        servers: Sequence[Served[A]],
        key: str | None,
        patience: Patience,
        fixed: int | None,
        policies: int,
        warming: Callable[[A, int, int], tuple[str, Body] | None],
    ) -> None:
        self.patience = patience
        share = None if fixed is None else max(1, fixed // len(servers))
        self.servers = [_open(served, key, patience, share, policies) for served in servers]
        self._warming = warming
        self._spare = 2 if policies > 1 else 1  # rows of one policy must not keep the slots of another idle
        self._changed = asyncio.Condition()
        self._down_since: float | None = None

    async def close(self) -> None:
        """Drop all connections."""
        for server in self.servers:
            await server.client.aclose()

    def most(self) -> int:
        """Rows that may be under way now."""
        return max(1, sum(server.pace.limit for server in self.servers)) * self._spare

    async def warm(self) -> None:
        """Have every cache that is used decode its policy before the rows come, each alone: what is decoded beside it
        moves the last bits of what all its rows will share."""
        await asyncio.gather(*map(self._warm, self.servers))

    async def _warm(self, server: Server[A]) -> None:
        """Bring as many of a server's caches into use as are wanted by now."""
        more = range(server.warm, server.wanted)
        with suppress(Exception):  # a server that fails now will fail a row too, which tells of it
            for slot in more:
                if asked := self._warming(server.served.api, slot % server.policies, slot):
                    await self._post(server, *asked)
        server.slots += more
        server.warm += len(more)

    async def _widen(self, server: Server[A]) -> None:
        """The same in the middle of a run, when no row is under way there."""
        async with self._changed:
            await self._changed.wait_for(lambda: not server.pace.running)
        await self._warm(server)
        server.widening = None
        async with self._changed:
            self._changed.notify_all()

    @asynccontextmanager
    async def lease(self, policy: int) -> AsyncIterator[Lease[A]]:
        """A place for one row; waits until there is one."""
        lease = await self._take(policy, None)
        try:
            yield lease
            lease.server.pace.finished(time.monotonic(), lease.work)
        finally:
            await self._give_back(lease)

    async def ask(
        self, lease: Lease[A], request: Callable[[A, int], tuple[str, Body]], read: Callable[[A, Any], T]
    ) -> T:
        """One answer, from the lease's server or, where it fails, from another one.

        `request` gives path and body for an API and the cache to use; `read` takes the answer apart.
        Raises RowFailed when the row cannot be answered, EngineError when no row can.
        """
        failures, put_off, began = 0, 0, time.monotonic()
        while True:
            server, api = lease.server, lease.server.served.api
            try:
                reply = await self._post(server, *request(api, lease.slot))
                try:
                    return read(api, reply)
                except MISSHAPEN:
                    raise BadReply("the server's answer is not what its API promises") from None
            except _Busy as busy:
                if time.monotonic() - began > self.patience.busy:
                    raise RowFailed(f"the servers were too busy for {self.patience.busy:,.0f} seconds") from None
                server.pace.refused(time.monotonic())
                put_off += 1
                wait = busy.after if busy.after is not None else self._backoff(put_off)
            except _Down as down:
                self._note_down(server, str(down))
                wait = 0.0
            except BadReply as bad:
                failures += 1
                if failures >= self.patience.tries:
                    raise RowFailed(f"{bad} ({failures} tries)") from None
                wait = self._backoff(failures)
            await self._move(lease, wait)

    def _backoff(self, failures: int) -> float:
        longest: float = min(self.patience.longest, self.patience.first * 2 ** min(failures - 1, 20))
        return longest * random.uniform(0.5, 1.0)

    async def _move(self, lease: Lease[A], wait: float) -> None:
        """Wait without holding a place, then take one again, at another server if one has room."""
        before = lease.server
        await self._give_back(lease)
        if wait and not any(server is not before and self._open_now(server) for server in self.servers):
            await asyncio.sleep(wait)
        following = await self._take(lease.policy, before)
        lease.server, lease.slot = following.server, following.slot

    async def _take(self, policy: int, rather_not: Server[A] | None) -> Lease[A]:
        while True:
            found = [
                (server, slot)
                for server in self.servers
                if self._open_now(server) and (slot := server.slot(policy)) is not None
            ]
            if found:
                server, slot = min(found, key=lambda pair: self._burden(pair[0], rather_not))
                server.pace.running += 1
                if slot >= 0:
                    server.slots.remove(slot)
                return Lease(policy, server, slot)
            async with self._changed:
                # Servers that are down come up by themselves; nobody tells.
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.2)
                except asyncio.TimeoutError:
                    continue

    async def _give_back(self, lease: Lease[A]) -> None:
        server = lease.server
        server.pace.running -= 1
        if lease.slot >= 0:
            server.slots.append(lease.slot)
        if server.warm < server.wanted and not server.widening:
            server.widening = asyncio.create_task(self._widen(server))
        async with self._changed:
            self._changed.notify_all()

    def _burden(self, server: Server[A], rather_not: Server[A] | None) -> tuple[bool, float]:
        return server is rather_not, server.pace.running / server.pace.limit

    def _open_now(self, server: Server[A]) -> bool:
        return server.pace.room > 0 and server.down_until <= time.monotonic() and not server.widening

    def _note_down(self, server: Server[A], why: str) -> None:
        """A server takes no connections: leave it alone for a while. Raises EngineError when all are gone for long."""
        now = time.monotonic()
        server.fails += 1
        server.down_until = now + self._backoff(server.fails)
        if any(not other.fails for other in self.servers):
            return
        self._down_since = self._down_since or now
        if now - self._down_since > self.patience.down:
            names = ", ".join(other.served.address.shown for other in self.servers)
            raise EngineError(
                f"no server has taken a connection for {self.patience.down:,.0f} seconds: {names} ({why})"
            )

    async def _post(self, server: Server[A], path: str, body: Body) -> Any:
        """The answer as JSON. Raises BadReply, _Busy, _Down, RowFailed or EngineError, which quote nothing of it."""
        address = server.served.address
        try:
            status, after, data = await asyncio.wait_for(self._send(server, path, body), self.patience.request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _Down(type(error).__name__) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BadReply(f"the connection to {address.shown} broke ({type(error).__name__})") from None
        except (asyncio.TimeoutError, TimeoutError):
            raise BadReply(f"{address.shown} took longer than {self.patience.request:,.0f} seconds") from None
        finally:
            if server.fails and server.down_until <= time.monotonic():
                server.fails = 0
        self._down_since = None
        if status == 200:
            try:
                return orjson.loads(data)
            except orjson.JSONDecodeError:
                raise BadReply(f"{address.shown} gave no JSON") from None
        if status in _BUSY:
            raise _Busy(after)
        if status in _PASSING or status < 400:
            raise BadReply(f"{address.shown} answered with status {status}")
        if status in _REFUSED:
            raise EngineError(refusal(address, path, status))
        raise RowFailed(f"{address.shown} does not take this row (status {status})")

    async def _send(self, server: Server[A], path: str, body: Body) -> tuple[int, float | None, bytes]:
        address, data = server.served.address, b""
        url = f"{address.url}{path}{address.query}"
        async with server.client.stream("POST", url, content=orjson.dumps(body)) as response:
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > MOST_REPLY:
                    raise BadReply(f"{address.shown} gave an answer of more than {MOST_REPLY >> 20} MiB")
            return response.status_code, _seconds(response.headers.get("Retry-After")), data


class _Busy(Exception):
    """The server said that it has enough, and perhaps for how many seconds."""

    def __init__(self, after: float | None) -> None:
        super().__init__()
        self.after = after


class _Down(Exception):
    """The server takes no connection."""


def refusal(address: Address, path: str, status: int) -> str:
    """A sentence on a status that will be the same for every request."""
    if status in (401, 403):
        return f"{address.shown} refuses the key (status {status}); it is taken from SAFEGUARD_SERVER_KEY"
    return f"{address.shown} has no {path} (status {status}); is this the server's address?"


def client_options(address: Address, key: str | None, patience: Patience) -> dict[str, Any]:
    """How an httpx client for this server is made."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    auth = httpx.BasicAuth(address.user, address.password or "") if address.user is not None and not key else None
    return {
        "headers": headers,
        "auth": auth,
        "timeout": httpx.Timeout(patience.request, connect=patience.connect, pool=None),
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=MOST),
    }


def _open(served: Served[A], key: str | None, patience: Patience, share: int | None, policies: int) -> Server[A]:
    # llama-server decodes no more rows at once than it has slots: what waits there would only lose its cache.
    policies = min(policies, served.slots) or 1
    pace = Pace(served.slots or MOST, max(START, policies), share)
    return Server(served, pace, httpx.AsyncClient(**client_options(served.address, key, patience)), policies)


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds, at most a minute; a date counts as not given."""
    return min(60.0, float(text)) if text and text.strip().isdigit() else None

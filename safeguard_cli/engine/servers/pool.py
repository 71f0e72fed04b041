"""Several servers as one: which is asked next, how many rows at once, what is tried again and when to give up.

Every request is complete in itself, so that any server can answer it.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx

from safeguard_cli.address import KEY, Address
from safeguard_cli.engine.servers.apis import MISSHAPEN, BadReply, Body
from safeguard_cli.engine.servers.concurrency import MOST, START, Pace
from safeguard_cli.engine.servers.exchange import Late, Silent, exchange, open_client, status_text
from safeguard_cli.errors import EngineError

MODELS = "/v1/models"
WORTH_SAYING = 2.0  # seconds of silence
_BUSY = (429, 503)
_PASSING = (408, 425)  # worth another try, as are all from 500 on
_REFUSED = (401, 403, 404, 405, 407)  # the same for every row

A = TypeVar("A")  # the API of a run's servers
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a row, and a run, waits for servers, in seconds."""

    tries: int = 5  # for one request that is answered wrongly or not at all
    first: float = 0.5  # before the second try; each further wait is twice as long
    longest: float = 30.0
    busy: float = 900.0  # for one request that servers put off with 429 or 503
    down: float = 300.0  # without an answer from any server: then the run ends
    longest_down: float = 60.0  # between two questions to a silent server
    connect: float = 10.0
    question: float = 30.0  # for a silent server's answer to a small question
    request: float = 600.0


PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Served(Generic[A]):
    """A server that can be used. `slots` counts llama-server's caches, 0 for servers without numbered ones."""

    address: Address
    api: A
    slots: int = 0


class RowFailed(Exception):
    """No server gave a usable answer; the message quotes nothing of the row."""


@dataclass(slots=True, eq=False)
class Server(Generic[A]):
    """One server during a run.

    `slots` are the free ones of its first `warm` caches; each serves only every `policies`-th policy, which it keeps
    decoded. `widening` brings more caches into use. While the server is silent no row goes there, and `watch` asks it
    now and then whether it is back.
    """

    served: Served[A]
    pace: Pace
    client: httpx.AsyncClient
    policies: int
    slots: list[int] = field(default_factory=list)
    warm: int = 0
    widening: asyncio.Task[None] | None = None
    silent_since: float | None = None
    silence_told: bool = False
    watch: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> int:
        """The number of caches that should be in use: at least one for each policy."""
        return min(max(self.pace.limit, self.policies), self.served.slots)

    def slot(self, policy: int) -> int | None:
        """Return a free cache for a policy, None when it must wait for one; -1 leaves the choice to the server."""
        if not self.served.slots:
            return -1
        return next((slot for slot in self.slots if (slot - policy) % self.policies == 0), None)


@dataclass(slots=True, eq=False)
class Lease(Generic[A]):
    """A row's place at a server, kept from its first request to its last: the row is in the server's cache."""

    policy: int
    server: Server[A]
    slot: int
    work: float = 1.0


class Pool(Generic[A]):
    """The servers of a run, for use inside one event loop only.

    `warming` returns the request that has a server decode a policy into a cache, given API, policy and cache. `say`
    gets a message when servers are silent for more than a moment, and when they are back.
    """

    def __init__(
        self,
        servers: Sequence[Served[A]],
        key: str | None,
        patience: Patience,
        fixed: int | None,
        policies: int,
        warming: Callable[[A, int, int], tuple[str, Body] | None],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.patience, self._say = patience, say
        share = None if fixed is None else max(1, fixed // len(servers))
        self.servers = [_open(served, key, patience, share, policies) for served in servers]
        self._warming = warming
        self._spare = 2 if policies > 1 else 1  # rows of one policy must not keep the slots of another idle
        self._changed = asyncio.Condition()
        self._waiting = False  # whether all servers are silent and that was reported
        self._gone: EngineError | None = None  # why no row can be decided any more

    def most(self) -> int:
        """Return how many rows may be under way now."""
        return max(1, sum(server.pace.limit for server in self.servers)) * self._spare

    async def warm(self) -> None:
        """Have every cache in use decode its policy before the rows come, one after the other on each server.

        Tokens decoded beside a policy change the last bits of the state that all its rows will share.
        """
        await asyncio.gather(*map(self._warm, self.servers))

    async def _warm(self, server: Server[A]) -> None:
        """Bring as many of a server's caches into use as are wanted by now."""
        more = range(server.warm, server.wanted)
        with suppress(Exception):  # a server that fails now will fail a row too, which reports it
            for slot in more:
                if asked := self._warming(server.served.api, slot % server.policies, slot):
                    await self._post(server, *asked)
        server.slots += more
        server.warm += len(more)

    async def _widen(self, server: Server[A]) -> None:
        """Do the same during a run, once no row is under way there."""
        async with self._changed:
            await self._changed.wait_for(lambda: not server.pace.running)
        await self._warm(server)
        server.widening = None
        async with self._changed:
            self._changed.notify_all()

    @asynccontextmanager
    async def lease(self, policy: int) -> AsyncIterator[Lease[A]]:
        """Yield a place for one row, after waiting until there is one."""
        lease = await self._take(policy, None)
        try:
            yield lease
            lease.server.pace.finished(_now(), lease.work)
        finally:
            await self._give_back(lease)

    async def ask(
        self, lease: Lease[A], request: Callable[[A, int], tuple[str, Body]], read: Callable[[A, Any], T]
    ) -> T:
        """Return one answer, from the lease's server or, where it fails, from another one.

        `request` returns path and body for an API and the cache to use; `read` reads the answer. Raises RowFailed when
        no server answers for the row, EngineError when none would for any row.
        """
        failures, put_off, began = 0, 0, _now()
        while True:
            server, api = lease.server, lease.server.served.api
            try:
                reply = await self._post(server, *request(api, lease.slot))
                try:
                    return read(api, reply)
                except MISSHAPEN:
                    raise BadReply("the server's answer does not have the form that its API promises") from None
            except _Busy as busy:
                if _now() - began > self.patience.busy:
                    raise RowFailed(f"the servers were too busy for {self.patience.busy:,.0f} seconds") from None
                server.pace.refused(_now())
                put_off += 1
                # A server that asks for no wait at all gets one all the same.
                wait = self._backoff(put_off) if busy.after is None else max(self.patience.first, busy.after)
            except Silent as silent:
                self._note_silence(server)
                wait = 0.0
                if silent.connected:  # perhaps this row makes the server drop the connection
                    failures += 1
                    if failures >= self.patience.tries:
                        raise RowFailed(f"{server.served.address.shown}: {silent} ({failures} tries)") from None
                    wait = self._backoff(failures)
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
        """Wait without a place, then take one, at another server if one has room."""
        before = lease.server
        await self._give_back(lease)
        if wait and not any(server is not before and self._open_now(server) for server in self.servers):
            await asyncio.sleep(wait)
        following = await self._take(lease.policy, before)
        lease.server, lease.slot = following.server, following.slot

    async def _take(self, policy: int, rather_not: Server[A] | None) -> Lease[A]:
        async with self._changed:  # held from the check to the wait, so that no change is missed
            while not self._gone:
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
                await self._changed.wait()
        raise self._gone

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
        return server.pace.room > 0 and server.silent_since is None and not server.widening

    def _note_silence(self, server: Server[A]) -> None:
        """Leave a server alone until it answers again; a server that is known to be silent needs no second watch."""
        if server.silent_since is None:
            server.silent_since = _now()
            server.watch = asyncio.create_task(self._watch(server))

    async def _watch(self, server: Server[A]) -> None:
        """Ask a silent server a small question, ever more seldom, until it answers or the run must end.

        The waits grow with these questions, not with the rows that wait, and begin anew with each period of silence.
        """
        address, wait = server.served.address, self.patience.first
        while True:
            await asyncio.sleep(min(wait * random.uniform(0.8, 1.2), max(self.patience.first, self._left())))
            wait = min(self.patience.longest_down, 2 * wait)
            try:
                await exchange(server.client, address, "GET", MODELS, None, self.patience.question)
            except (Silent, Late) as why:
                if self._left() <= 0:
                    return await self._give_up(why)
                self._tell(server, why)
                continue
            except BadReply:
                pass  # it is back, whatever it answered
            return await self._heard(server)

    def _left(self) -> float:
        """Return the seconds until the run must end if no server answers."""
        since = [server.silent_since for server in self.servers]
        began = max(math.inf if each is None else each for each in since)
        return began + self.patience.down - _now()

    def _tell(self, server: Server[A], why: Exception) -> None:
        """Report once in a period of silence, when it is no longer a blip, that a server is silent or that all are."""
        if server.silent_since is None or _now() - server.silent_since < WORTH_SAYING:
            return
        if not math.isinf(left := self._left()):
            if not self._waiting:
                self._say(
                    f"no server answers: {self._names()} ({why}); the run waits, at most {left:,.0f} seconds more"
                )
            self._waiting = True
            for each in self.servers:
                each.silence_told = True
        elif not server.silence_told:
            self._say(f"{server.served.address.shown} does not answer ({why}); the other servers go on")
            server.silence_told = True

    def _names(self) -> str:
        return ", ".join(server.served.address.shown for server in self.servers)

    async def _give_up(self, why: Exception) -> None:
        done = "taken a connection" if isinstance(why, Silent) and not why.connected else "answered"
        self._gone = EngineError(f"no server has {done} for {self.patience.down:,.0f} seconds: {self._names()} ({why})")
        async with self._changed:
            self._changed.notify_all()

    async def _heard(self, server: Server[A]) -> None:
        """Note that a server answered, in whatever way: it is not silent."""
        if server.silent_since is None:
            return
        if server.silence_told:
            self._say(f"{server.served.address.shown} answers again")
        server.silent_since, server.silence_told, watch = None, False, server.watch
        self._waiting = False
        if watch and watch is not asyncio.current_task():
            watch.cancel()
        async with self._changed:
            self._changed.notify_all()

    async def _post(self, server: Server[A], path: str, body: Body) -> Any:
        """Return the answer's JSON. Raises BadReply, _Busy, Silent, RowFailed or EngineError, which do not quote it."""
        address = server.served.address
        try:
            reply = await exchange(server.client, address, "POST", path, body, self.patience.request)
        except BadReply as bad:
            if not isinstance(bad, Late):
                await self._heard(server)
            raise
        await self._heard(server)
        if reply.status == 200:
            return reply.json(address)
        if reply.status in _BUSY:
            raise _Busy(reply.after)
        if reply.status in _PASSING or reply.status < 400 or reply.status >= 500:
            raise BadReply(f"{address.shown} {status_text(reply.status)}")
        if reply.status in _REFUSED:
            raise EngineError(refusal(address, path, reply.status))
        raise RowFailed(f"{address.shown} does not accept this row (status {reply.status})")


class _Busy(Exception):
    """The server is too busy, perhaps for `after` seconds."""

    def __init__(self, after: float | None) -> None:
        super().__init__()
        self.after = after


def refusal(address: Address, path: str, status: int) -> str:
    """Return a sentence on a status that every request will get."""
    if status in (401, 403):
        return f"{address.shown} refuses the key (status {status}); it is taken from {KEY}"
    if status == 407:
        return f"{address.shown} {status_text(status)}"
    return f"{address.shown} has no {path} (status {status}); is this the server's address?"


def _open(served: Served[A], key: str | None, patience: Patience, share: int | None, policies: int) -> Server[A]:
    # llama-server decodes no more rows at once than it has slots: a row that waited there would only lose its cache.
    policies = min(policies, served.slots) or 1
    pace = Pace(served.slots or MOST, max(START, policies), share)
    client = open_client(served.address, key, patience.connect, patience.request)
    return Server(served, pace, client, policies)


def _now() -> float:
    """Return the event loop's time, which all waits here use."""
    return asyncio.get_running_loop().time()

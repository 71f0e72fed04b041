"""Servers that are down, in simulated time: the cost of a blip, the questions to a silent server, the messages."""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
import pytest
from helpers.fault_server import FaultServer
from helpers.server_runs import fill, run

from safeguard_cli import errors
from safeguard_cli.address import Address
from safeguard_cli.engine.servers import exchange, pool
from safeguard_cli.engine.servers.exchange import Network
from safeguard_cli.engine.servers.pool import Patience, Pool, RowFailed, Served
from safeguard_cli.errors import EngineError

HOUR = 3600.0


class _Clock(selectors.SelectSelector):
    """Never waits, but advances time by as much as the event loop would have waited."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list:
        assert timeout is not None, "all tasks wait for each other"
        self.now += timeout
        return []


@dataclass
class World:
    """Servers that are down now and then, with a record of their requests: each row makes one, which takes `seconds`.

    Every server drops the connection for the row `poison`.
    """

    down: dict[str, Callable[[float], bool]]
    rows: int
    at_once: int
    seconds: float = 0.1
    error: type[httpx.TransportError] = httpx.ConnectError
    poison: int | None = None
    asked: dict[str, list[float]] = field(default_factory=dict)
    said: list[tuple[float, str]] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)

    def run(self, monkeypatch: pytest.MonkeyPatch, patience: Patience | None = None) -> float:
        """Return the simulated seconds until the last row has an outcome."""
        monkeypatch.setattr(pool, "open_client", self._client)
        clock = _Clock()
        loop = asyncio.SelectorEventLoop(clock)
        loop.time = lambda: clock.now  # type: ignore[method-assign]
        loop._clock_resolution = 1e-6
        self.now = loop.time
        try:
            return loop.run_until_complete(self._all(patience or Patience()))
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0.1))
            loop.close()

    def _client(self, address: Address, *_: object) -> httpx.AsyncClient:
        async def answer(request: httpx.Request) -> httpx.Response:
            self.asked.setdefault(address.shown, []).append(self.now())
            if not self.down[address.shown](self.now()):
                await asyncio.sleep(self.seconds if request.method == "POST" else 0.0)
            if self.down[address.shown](self.now()) or request.content == b'{"row":%d}' % (self.poison or -1):
                raise self.error("down")
            return httpx.Response(200, stream=httpx.ByteStream(b"{}"))

        return httpx.AsyncClient(transport=httpx.MockTransport(answer))

    async def _all(self, patience: Patience) -> float:
        served = [Served(Address(name), None) for name in self.down]
        servers = Pool(served, None, patience, self.at_once, 1, lambda *_: None, self._say)

        under_way = asyncio.Semaphore(servers.most())

        async def row(number: int) -> str:
            try:
                async with under_way, servers.lease(0) as lease:
                    await servers.ask(lease, lambda *_: ("/v1/completions", {"row": number}), lambda _, reply: reply)
            except (RowFailed, EngineError) as error:
                return str(error)
            return "ok"

        self.outcomes = await asyncio.gather(*map(row, range(self.rows)))
        return self.now()

    def _say(self, text: str) -> None:
        self.said.append((self.now(), text))


@pytest.mark.parametrize("at_once", [1, 8, 64])
@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError])
def test_a_blip_of_a_second_costs_a_second_or_two(monkeypatch, at_once, error) -> None:
    world = World({"http://a": lambda now: 1.0 <= now < 2.0}, 40 * at_once, at_once, error=error)
    took = world.run(monkeypatch)
    assert set(world.outcomes) == {"ok"}
    assert 1.0 <= took - 4.0 <= 2.5, "4 seconds without the blip"
    assert len(world.asked["http://a"]) <= 40 * at_once + at_once + 4
    assert not world.said, "that is no news"


@pytest.mark.parametrize("at_once", [1, 8, 64])
def test_a_server_that_is_down_for_an_hour_is_asked_seldom_and_used_again(monkeypatch, at_once) -> None:
    down = {"http://a": lambda now: now < HOUR, "http://b": lambda _: False}
    world = World(down, 60 * at_once, 2 * at_once, seconds=100.0)
    world.run(monkeypatch)
    assert set(world.outcomes) == {"ok"}
    before = [at for at in world.asked["http://a"] if 1.0 < at < HOUR]
    assert len(before) <= 80, "and not once for each row, or every half second"
    assert any(HOUR < at < HOUR + 80 for at in world.asked["http://a"])
    assert [text for _, text in world.said] == [
        "http://a does not answer (no connection); the other servers go on",
        "http://a answers again",
    ]
    assert world.said[0][0] < 10


@pytest.mark.parametrize("at_once", [1, 8, 64])
def test_when_all_are_down_the_run_waits_says_so_once_and_goes_on(monkeypatch, at_once) -> None:
    down = {name: lambda now: 1.0 < now < 200.0 for name in ("http://a", "http://b")}
    world = World(down, 30 * at_once, 2 * at_once)
    took = world.run(monkeypatch)
    assert set(world.outcomes) == {"ok"}
    assert 200 < took < 275
    assert all(len([at for at in world.asked[name] if 2.0 < at < 200.0]) < 12 for name in down)
    (at, said), (_, again), *_ = world.said
    assert "no server answers: http://a, http://b (no connection); the run waits, at most 29" in said
    assert 3.0 <= at < 6.0
    assert "answers again" in again


@pytest.mark.parametrize("at_once", [1, 8, 64])
@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadError])
def test_when_none_comes_back_the_run_ends_after_five_minutes(monkeypatch, at_once, error) -> None:
    world = World({"http://a": lambda now: now > 1.0}, 100 * at_once, at_once, error=error)
    took = world.run(monkeypatch)
    assert 300 <= took < 320
    ends = {outcome for outcome in world.outcomes if outcome != "ok"}
    assert all("for 300 seconds: http://a" in end for end in ends)
    assert len([at for at in world.asked["http://a"] if at > 2.0]) < 20 + at_once


def test_each_period_of_silence_begins_anew(monkeypatch) -> None:
    """After twenty blips, the last one costs no more than the first."""
    world = World({"http://a": lambda now: now % 10 > 9.5}, 2000, 1)
    assert world.run(monkeypatch) < 200 * 1.15
    assert set(world.outcomes) == {"ok"}


def test_a_row_that_makes_a_server_drop_it_is_an_error_row_and_the_others_are_not(monkeypatch) -> None:
    world = World({"http://a": lambda _: False}, 10, 4, error=httpx.ReadError, poison=3)
    assert world.run(monkeypatch) < 15
    assert [i for i, outcome in enumerate(world.outcomes) if outcome != "ok"] == [3]
    assert "(5 tries)" in world.outcomes[3]


@pytest.mark.promise("Whatever a server does or answers, no row is lost or doubled.")
@pytest.mark.usefixtures("own_cache")
def test_a_server_that_dies_and_comes_back_in_the_middle_of_500_rows_costs_no_row(tiny: Path, tmp_path: Path) -> None:
    with FaultServer(dies_after=150, returns_after=1.0) as server:
        code, rows = run(fill(tmp_path, 500), tmp_path / "out.jsonl", server.address, model=str(tiny))
        assert len(server.requests) > 500
    assert code == errors.OK
    assert [row["id"] for row in rows] == list(range(500))
    assert not any("error" in row["spam"] for row in rows)


def test_what_has_not_begun_when_the_network_is_closed_is_ended_too() -> None:
    """On a busy machine the loop stops before all tasks have had their turn; none of them is left behind."""
    network, begun, ended = Network(), threading.Event(), []

    async def late() -> None:
        await asyncio.sleep(60)

    async def busy() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            time.sleep(1.2)  # longer than `close` waits
            task = asyncio.get_running_loop().create_task(late())
            task.add_done_callback(lambda task: ended.append(task.cancelled()))
            raise

    network.call(busy())
    assert begun.wait(5)
    network.close()
    assert ended == [True]


def test_a_task_that_is_ended_before_its_first_step_takes_it_first() -> None:
    """As anyio's do while a connection is opened: what one of them was to await is never lost."""
    ended: list[str] = []

    async def connect() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def connecting() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(connect)
            await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(connecting())
        await asyncio.sleep(0)  # the group is open, and what it has started has not begun
        await exchange._end(())
        assert task.cancelled()

    asyncio.run(main())
    assert ended == ["cancelled"]

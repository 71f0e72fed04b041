"""The engine on servers: the same decisions as on this machine, with tokens and log-probabilities from elsewhere.

Where the local engine answers `decide` with logits, here a server is asked for a whole run of free tokens, or for the
log-probabilities of the few tokens that can follow.
"""

from __future__ import annotations

import asyncio
import math
import queue
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np

from safeguard_cli.engine.decoding import NO_LOGITS, Coroutine, Options, Split, Step, Trie, Vote, decide
from safeguard_cli.engine.reports import Listen, Report
from safeguard_cli.engine.sampling import BadLogits, Logits, seeds
from safeguard_cli.engine.servers import pool
from safeguard_cli.engine.servers.apis import LISTED, MOST_MASS, Api, BadReply, Body, Sampling, checked
from safeguard_cli.engine.servers.exchange import Network
from safeguard_cli.engine.servers.pool import Lease, Patience, Pool, RowFailed, Served
from safeguard_cli.errors import EngineError
from safeguard_cli.prompt.contract import Completion, Contract, Feed, Prefix, Prompt

_SURE = 1 - 1e-5  # of the probability is listed: the rest cannot matter


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What the engine needs to decide rows.

    `vocabulary` is the vocabulary's size, `markers` are harmony's tokens, `key` is for the servers. `at_once` fixes the
    number of rows under way, which is otherwise found by trying.
    """

    servers: tuple[Served[Any], ...]
    prefixes: tuple[Prefix, ...]
    options: Options
    vocabulary: int
    markers: tuple[int, ...]
    key: str | None = field(default=None, repr=False)
    at_once: int | None = None
    patience: Patience = field(default_factory=lambda: pool.PATIENCE)


Decide = Callable[[Pool[Any], Lease[Any], Prompt], Awaitable[Completion]]


class ServerEngine:
    """An Engine that decides prompts on servers; use as a context manager.

    `log` is told when servers do not answer, and when they answer again.
    """

    deaths = policy_tokens = 0  # nobody here knows what a server reads of policies

    def __init__(
        self,
        spec: ServerSpec,
        decide: Decide | None = None,
        log: Callable[[str], None] = lambda _: None,
        report: Listen | None = None,
    ) -> None:
        self.decoded_tokens = 0
        self._report = report or (lambda _: None)
        self._decide = decide or Remote(spec).decide
        self._done: queue.SimpleQueue[Completion | BaseException] = queue.SimpleQueue()
        self._network = Network()
        try:
            self._pool = self._network.call(_open(spec, log)).result()
        except BaseException:
            self._network.close()
            raise

    def __enter__(self) -> ServerEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all requests under way at once."""
        self._network.close(*(server.client for server in self._pool.servers))

    def complete(self, prompts: Iterable[Prompt | Feed]) -> Iterator[Completion]:
        """Yield completions as they finish, see Engine.complete. Raises EngineError when no server can work."""
        source, flying, ended = iter(prompts), 0, False
        while True:
            while not ended and flying < self._pool.most():
                following = next(source, Feed.END)
                if isinstance(following, Prompt):
                    self._network.call(self._row(following))
                    flying += 1
                elif following is Feed.HOLD:
                    break
                else:
                    ended = following is Feed.END
            self._report(Report(under_way=flying))
            if flying:
                done = self._done.get()
                flying -= 1
                if isinstance(done, BaseException):
                    raise done
                self.decoded_tokens += len(done.prompt.ids) + done.generated
                yield done
            elif ended:
                return

    async def _row(self, prompt: Prompt) -> None:
        """Decide one row and pass the outcome to the main thread, whatever happens."""
        try:
            async with self._pool.lease(prompt.policy) as lease:
                try:
                    done = await self._decide(self._pool, lease, prompt)
                    lease.work = len(prompt.ids) + done.generated
                except RowFailed as failed:
                    done = Completion(prompt, (), error=str(failed), code="server")
            self._done.put(done)
        except asyncio.CancelledError:
            raise
        except EngineError as error:
            self._done.put(error)
        except BaseException as error:  # a bug of ours must not leave the main thread waiting
            told = EngineError(f"the engine failed: {type(error).__name__}")  # its text may quote a row
            told.__cause__ = error
            self._done.put(told)


async def _open(spec: ServerSpec, log: Callable[[str], None]) -> Pool[Any]:
    def warming(api: Api, policy: int, slot: int) -> tuple[str, Body] | None:
        body = api.warm(spec.prefixes[policy].ids, slot)
        return (api.path, body) if body else None

    made: Pool[Any] = Pool(spec.servers, spec.key, spec.patience, spec.at_once, len(spec.prefixes), warming, log)
    await made.warm()
    return made


class Remote:
    """Answers the questions of `decide` with what servers return."""

    def __init__(self, spec: ServerSpec) -> None:
        self._spec = spec
        self._tries = [Trie(prefix.contract) for prefix in spec.prefixes]
        self._deciding = replace(spec.options, temperature=0.0)  # the server samples: its choice is taken as it is
        # Logits that allow one token only, reused because a row replays some hundred tokens. In a string, the closing
        # quote comes second: where the token may not stand, the string ends.
        self._alone = np.full(spec.vocabulary, -np.inf, np.float32)
        self._in_string = self._alone.copy()
        self._in_string[spec.prefixes[0].contract.quote_ids] = -1.0

    async def decide(self, servers: Pool[Api], lease: Lease[Api], prompt: Prompt) -> Completion:
        """Decide one prompt. Raises RowFailed when no server gives a usable answer, EngineError when none can work."""
        prefix, options = self._spec.prefixes[prompt.policy], self._spec.options
        row = _Row(servers, lease, self._spec, prefix.contract, _sampling(prompt, options))
        coroutine = decide(prompt, self._tries[prompt.policy], self._deciding)
        try:
            return await self._decide(row, coroutine, list(prefix.ids), lambda n: _sampling(prompt, options, n))
        except BadLogits:
            raise RowFailed("the server's log-probabilities are not valid") from None

    async def _decide(
        self, row: _Row, coroutine: Coroutine | Vote, fed: list[int], of_vote: Callable[[int], Sampling]
    ) -> Completion:
        """Answer a coroutine's questions after the tokens `fed`. A row's votes follow each other, on its server."""
        ahead: deque[int] = deque()  # the model's next tokens, as far as they are known
        step = next(coroutine)
        try:
            while True:
                if isinstance(step, Split):
                    for number, vote in step.votes.items():
                        voting = replace(row, sampling=of_vote(number))
                        step.cast[number] = await self._decide(voting, vote, [*fed], of_vote)
                    step = coroutine.send(NO_LOGITS)
                elif step.among:
                    ahead.clear()
                    places = [[*fed, *step.tokens[: at + 1]] for at in step.outputs]
                    answers = [await row.choose(ids, among) for ids, among in zip(places, step.among, strict=True)]
                    if not step.branch:
                        fed += step.tokens
                    step = coroutine.send(np.stack([self._sparse(answer) for answer in answers]))
                elif not step.outputs:
                    fed += step.tokens
                    step = coroutine.send(NO_LOGITS)
                else:
                    fed += step.tokens
                    if not ahead:
                        ahead.extend(await row.generate(fed, step.most, step.until))
                    step = self._send(coroutine, ahead.popleft(), step.until is not None)
        except StopIteration as stop:
            done: Completion = stop.value
            return done

    def _sparse(self, found: Mapping[int, float]) -> Logits:
        logits = np.full(self._spec.vocabulary, -np.inf, np.float32)
        logits[list(found)] = list(found.values())
        return logits

    def _send(self, coroutine: Coroutine | Vote, token: int, in_string: bool) -> Step | Split:
        logits = self._in_string if in_string else self._alone
        before, logits[token] = logits[token], 0.0
        try:
            return coroutine.send(logits[np.newaxis])
        finally:
            logits[token] = before


@dataclass(frozen=True, slots=True)
class _Row:
    """The requests of one row."""

    servers: Pool[Api]
    lease: Lease[Api]
    spec: ServerSpec
    contract: Contract
    sampling: Sampling

    async def generate(self, ids: Sequence[int], most: int, until: str | None) -> list[int]:
        """Return the model's next tokens: at least one, at most `most`, up to its first control token."""

        def read(api: Api, reply: Any) -> list[int]:
            found = api.generated(reply)
            if len(found.ids) > most or any(token >= self.spec.vocabulary for token in found.ids):
                raise BadReply("the server gave more tokens than were asked for, or unknown ones")
            tokens: list[int] = []
            for token in found.ids:
                tokens.append(token)
                if token in self.contract.stops:
                    return tokens
            if found.stopped:
                tokens.append(self.contract.next_message[0])
            if not tokens:
                raise BadReply("the server gave no tokens")
            return tokens

        markers, sampling = self.spec.markers, self.sampling
        return await self.servers.ask(
            self.lease, lambda api, slot: (api.path, api.generate(ids, most, until, markers, sampling, slot)), read
        )

    async def choose(self, ids: Sequence[int], among: Sequence[int]) -> dict[int, float]:
        """Return the log-probabilities of the tokens `among` as the next one, as far as they matter."""
        found = await self._ask(ids, among)
        # Where a server lists its likeliest tokens only, it is asked about each of the first missing ones alone.
        for token in among[:LISTED]:
            if token not in found and sum(map(math.exp, found.values())) < _SURE:
                found |= await self._ask(ids, (token,))
        if sum(map(math.exp, found.values())) > MOST_MASS:
            raise RowFailed(
                "the server's log-probabilities are of the allowed tokens only; start vLLM with --logprobs-mode raw"
            )
        return found

    async def _ask(self, ids: Sequence[int], among: Sequence[int]) -> dict[int, float]:
        return await self.servers.ask(
            self.lease,
            lambda api, slot: (api.path, api.choose(ids, among, slot)),
            lambda api, reply: checked(api.chosen(reply), among),
        )


def _sampling(prompt: Prompt, options: Options, vote: int | None = None) -> Sampling:
    """Return the sampling of a row or a vote, with a seed of its own whatever else is decided."""
    entropy = seeds(prompt, options.seed, 0 if vote is None and options.votes else vote)
    return Sampling(options.temperature, int(np.random.SeedSequence(entropy).generate_state(1)[0]) >> 1)

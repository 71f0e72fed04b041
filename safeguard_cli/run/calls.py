"""The engine that a Labeler keeps between its calls, and the texts that one call has under way."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from multiprocessing import current_process

from safeguard_cli.engine.engine import Engine
from safeguard_cli.engine.local.process import LocalEngine
from safeguard_cli.engine.reports import Listen
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Completion, Feed, Prompt
from safeguard_cli.prompt.labeling import Answer
from safeguard_cli.rows.text import text_key
from safeguard_cli.rows.verdict import RowError
from safeguard_cli.run.calibration import calibrated
from safeguard_cli.run.engines import start_engine
from safeguard_cli.run.keywords import told_as_keywords
from safeguard_cli.run.pipeline import WAITING, Known
from safeguard_cli.run.prepare import Prepared, prepare
from safeguard_cli.run.remarks import untrained_warning
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import warn

Reader = Callable[[object, int], "str | RowError"]  # of a value and its row's number, counted from 1


class Machine:
    """The engine while it runs, and the call that it works for; `listen` is told what the engine does.

    It holds no reference to the Labeler, so that the Labeler can be collected. `asked` is true while the engine works
    on a request, and stays true if the request fails.
    """

    def __init__(
        self,
        settings: Settings,
        policies: tuple[Policy, ...],
        prepared: Prepared | None = None,
        listen: Listen | None = None,
    ) -> None:
        self.settings, self.policies, self._listen = settings, policies, listen
        self.warnings = [warning for policy in policies for warning in policy.warnings()]
        self.asked = False
        self._process = os.getpid()
        self._prepared = prepared
        self._engine: Engine | None = None
        self._call: Call | None = None
        self._stack = ExitStack()

    def start(self) -> tuple[Prepared, Engine]:
        """Load the model unless it is loaded; return it with what it was prepared with."""
        if os.getpid() != self._process:
            raise UsageError("this Labeler belongs to the process that made it: make a new one in this process")
        if self._engine is None:
            if current_process().daemon and not self.settings.servers:
                raise UsageError(
                    "a worker of multiprocessing.Pool cannot start a process, and the engine runs in one:"
                    " use concurrent.futures.ProcessPoolExecutor"
                )
            with ExitStack() as stack:
                if self._prepared is None:
                    self._prepared = self._prepare()
                self._engine = stack.enter_context(
                    start_engine(self.settings, self._prepared, LocalEngine, self._listen)
                )
                self._stack = stack.pop_all()
        assert self._prepared
        return self._prepared, self._engine

    def call(self, texts: Iterator[object], read: Reader, remembered: int) -> Call:
        """Begin a call, after the engine has finished the prompts left over from the previous call."""
        prepared, engine = self.start()
        if self._call:
            self._call.leave()
        self._call = Call(self, prepared, engine, texts, read, remembered)
        return self._call

    def left(self) -> None:
        """Note that the engine has finished all prompts of the call."""
        self._call, self.asked = None, False

    def end(self) -> None:
        """End the engine if it belongs to this process; the next call starts it again."""
        self._engine, self._call, self.asked = None, None, False
        stack, self._stack = self._stack, ExitStack()
        if os.getpid() == self._process:
            stack.close()
        else:
            stack.pop_all()

    def _prepare(self) -> Prepared:
        for warning in self.warnings:
            warn(warning)
        with told_as_keywords():
            prepared = calibrated(self.settings, prepare(self.settings, self.policies, {}))
        if prepared.untrained:
            self.warnings.append(untrained_warning(prepared.untrained, prepared.header))
            warn(self.warnings[-1])
        return prepared


class Call:
    """The texts of one call under way: they enter in order, are decided as slots allow, and leave in order."""

    def __init__(
        self,
        machine: Machine,
        prepared: Prepared,
        engine: Engine,
        texts: Iterator[object],
        read: Reader,
        remembered: int,
    ) -> None:
        self._machine, self._labeling, self._read, self._texts = machine, prepared.labeling, read, texts
        self._slots = prepared.shape.plan.slots
        self._group = WAITING * self._slots // 2 if prepared.prefixes_compete else 1
        self._number, self._ended = 0, False
        self._rows: deque[Answer] = deque()
        self._undecided: dict[int, Answer] = {}
        self._known = Known(0 if machine.settings.differs_each_time else remembered)  # sampling differs each time
        self._queue: deque[Prompt] = deque()
        self._completions = engine.complete(self._prompts())

    def step(self) -> list[Answer]:
        """Return the next answers, one or more, or none when all texts are labelled."""
        while not (self._rows and self._rows[0].done):
            if self._can_take():
                self._take()
            elif self._rows:
                self._decide()
            else:
                self.leave()
                return []
        ready = []
        while self._rows and self._rows[0].done:
            ready.append(self._rows.popleft())
        return ready

    def leave(self) -> None:
        """Start nothing more, and let the engine finish what it has begun."""
        self._queue.clear()
        self._ended = True
        self._machine.asked = True
        for _ in self._completions:
            pass
        self._machine.left()

    def _can_take(self) -> bool:
        """Return whether the engine may soon run out of prompts and the rows that wait leave room for a group."""
        room = WAITING * self._slots - len(self._rows)
        return not self._ended and len(self._queue) < self._slots and room >= self._group

    def _take(self) -> None:
        """Begin a group of texts; when not all prefixes fit at once, queue their prompts policy by policy."""
        texts = list(islice(self._texts, self._group))
        self._ended = len(texts) < self._group
        started = [self._start(text) for text in texts]
        for by_policy in zip(*started, strict=True):
            for prompts in by_policy:
                self._queue.extend(prompts)

    def _start(self, value: object) -> list[list[Prompt]]:
        """Begin a text; return its prompts by policy, none if an earlier text is the same."""
        number, text = self._number, self._read(value, self._number + 1)
        self._number += 1
        key = text_key(text) if isinstance(text, str) else b""
        if (answer := self._known.get(key)) is not None:
            self._rows.append(answer)
            return [[] for _ in self._labeling.rules.groups]
        answer, prompts = self._labeling.start(text, number)
        self._rows.append(answer)
        if not answer.done:
            self._undecided[number] = answer
        if key:
            self._known.keep(key, answer)
        return prompts

    def _decide(self) -> None:
        """Have the engine finish one prompt."""
        self._machine.asked = True
        completion: Completion | None = next(self._completions, None)
        self._machine.asked = False
        if completion is None:
            raise SafeguardError("the engine ended before all texts were labelled")
        number = completion.prompt.row
        self._labeling.finish(self._undecided[number], completion)
        if self._undecided[number].done:
            del self._undecided[number]

    def _prompts(self) -> Iterator[Prompt | Feed]:
        while self._queue or not self._ended:
            yield self._queue.popleft() if self._queue else Feed.HOLD

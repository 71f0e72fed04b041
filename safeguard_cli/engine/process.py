"""The engine in a child process: llama.cpp can abort, crash or be killed, and the run survives it.

The child asks for the next prompt whenever a slot is free and sends completions as they finish; the order of these
messages, and with it the schedule, depends on the prompts alone. Rows in flight when the child dies are decoded again,
each alone; one that kills the child a second time becomes an error.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from safeguard_cli.engine.address import no_secrets_for_children
from safeguard_cli.engine.decoding import Completion, Options
from safeguard_cli.engine.plan import Loading, Plan
from safeguard_cli.errors import EngineError, SafeguardError
from safeguard_cli.prompt import Feed, Prefix, Prompt
from safeguard_cli.signals import STOPPING

MOST_DEATHS = 3  # without a completion in between: then it is not the rows
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIKELY = {
    "SIGKILL": "killed by the system, most likely because memory ran out: use fewer --slots or a smaller --ctx",
    "SIGILL": "this CPU lacks instructions that llama-cpp-python was built for: install it again from source here",
    "SIGABRT": "llama.cpp gave up: a damaged model file, or a fault of llama.cpp",
    "SIGSEGV": "llama.cpp crashed: a damaged model file, or a fault of llama.cpp",
    "SIGBUS": "the model file shrank or could not be read while it was in use",
}


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """All that the child needs to load the model and decode under these prefixes."""

    path: Path
    prefixes: tuple[Prefix, ...]
    options: Options
    plan: Plan
    loading: Loading
    model: str = ""  # what it is, for the states of policies that are kept between runs, in `states`
    states: Path | None = None
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of llama.cpp's log, on its way to the parent."""

    text: str


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why the child gives up, as a sentence for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class _Question:
    """The next prompt is wanted; `decoded` tokens were fed to the model so far, `policies` of them policies'."""

    decoded: int
    policies: int


class _DiedError(Exception):
    """The child is gone."""


_Flying = dict[tuple[int, int, int], Prompt]


class Engine:
    """Decodes prompts in a child process; use as a context manager.

    `decoded_tokens` counts what the model was fed, `policy_tokens` those of policies, `deaths` how often the child had
    to be started again.
    Raises EngineError when the model cannot be loaded.
    """

    def __init__(self, spec: EngineSpec, log: Callable[[str], None] = lambda _: None) -> None:
        self.decoded_tokens = self.policy_tokens = 0
        self.deaths = 0
        self._spec, self._log = spec, log
        self._connection: Connection
        self._asked = False  # whether the child waits for an answer
        self._start()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child at once: nothing that matters is on its side."""
        self._process.kill()
        self._process.join()
        self._connection.close()
        self._last_words.close()

    def complete(self, prompts: Iterable[Prompt | Feed]) -> Iterator[Completion]:
        """Yield completions as they finish, see Scheduler.complete. Raises EngineError when the engine cannot work."""
        source, flying, deaths = iter(prompts), _Flying(), 0
        while True:
            try:
                for completion in self._converse(source, flying):
                    deaths = 0
                    yield completion
                return
            except _DiedError:
                deaths += 1
                self._start_again(deaths)
            for prompt in list(flying.values()):
                del flying[_key(prompt)]
                try:
                    for completion in self._converse(iter([prompt]), _Flying()):
                        deaths = 0
                        yield completion
                except _DiedError:
                    deaths += 1
                    reason = self._start_again(deaths)
                    yield Completion(prompt, (), error=f"twice on this row {reason}")

    def _converse(self, source: Iterator[Prompt | Feed], flying: _Flying) -> Iterator[Completion]:
        """Answer the child's questions until it has finished all of `source`; the last question stays open."""
        ended = False
        while True:
            if not self._asked:
                message = self._receive()
                if isinstance(message, Completion):
                    del flying[_key(message.prompt)]
                    yield message
                continue
            following = Feed.END if ended else next(source, Feed.END)
            ended = following is Feed.END
            if ended and not flying:
                return
            if isinstance(following, Prompt):
                flying[_key(following)] = following
            self._asked = False
            try:
                self._connection.send(following)
            except OSError:
                raise _DiedError from None

    def _receive(self) -> Any:
        try:
            message = self._connection.recv()
        except (EOFError, OSError):
            raise _DiedError from None
        if isinstance(message, _Failure):
            raise EngineError(message.text)
        if isinstance(message, _Line):
            self._log(message.text)
        elif isinstance(message, _Question):
            self._asked = True
            self.decoded_tokens = self._before[0] + message.decoded
            self.policy_tokens = self._before[1] + message.policies
        return message

    def _start(self) -> None:
        """Start the child and wait until its model is loaded."""
        self._asked, self._before = False, (self.decoded_tokens, self.policy_tokens)
        descriptor, last_words = tempfile.mkstemp(prefix="safeguard-", suffix=".log")
        self._last_words = os.fdopen(descriptor, "rb")
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._spec, last_words), daemon=True)
        # Ctrl-C at a terminal goes to the child too, which inherits that it ignores it: the parent decides.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            # The child is a `python -c`, which imports from its working directory first: that may be a folder of
            # somebody else's data.
            with _elsewhere(Path(__file__).parent), no_secrets_for_children():
                self._process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()
        try:
            while not self._asked:
                self._receive()
        except _DiedError:
            raise EngineError(f"the model could not be loaded: {self._bury()}") from None
        except BaseException:
            self.close()
            raise
        finally:  # both have it open: whatever ends them now, nothing is left behind
            Path(last_words).unlink(missing_ok=True)

    def _start_again(self, deaths: int) -> str:
        """Replace the dead child; returns why it died. Raises EngineError when that goes on and on."""
        self.deaths += 1
        reason = self._bury()
        if deaths > MOST_DEATHS:
            raise EngineError(f"{reason}; it died {deaths} times without finishing a row")
        self._log(f"{reason}; the rows in flight are decoded again, each alone")
        self._start()
        return reason

    def _bury(self) -> str:
        """Why the child died, as far as its exit code and its last words tell."""
        self._process.join(5)
        last_words = self._last_words.read().decode("utf-8", "replace")
        self.close()
        return why_it_died("the engine", self._process.exitcode or 0, last_words)


def why_it_died(who: str, code: int, last_words: str) -> str:
    """A sentence on a process that ended with an exit code, negative for a signal, and what it last printed."""
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"code {code}"
    last = next((line.strip() for line in reversed(last_words.split("\n")) if line.strip()), "")
    return f"{who} died ({name}): {_LIKELY.get(name, 'for no known reason')}" + (f" [{last}]" if last else "")


@contextmanager
def _elsewhere(folder: Path) -> Iterator[None]:
    """Work in another folder for a while; where the present one cannot be opened, stay there."""
    try:
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)  # not by its name, which may be gone
    except OSError:
        yield
        return
    os.chdir(folder)
    try:
        yield
    finally:
        os.fchdir(here)
        os.close(here)


def _key(prompt: Prompt) -> tuple[int, int, int]:
    return prompt.row, prompt.policy, prompt.window


def _work(connection: Connection, spec: EngineSpec, last_words: str) -> None:
    """The child: load the model, then ask, decode and answer until the parent goes away."""
    for number in STOPPING:  # a closed terminal sends them to the child too: what they mean is the parent's affair
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.dup2(os.open(last_words, os.O_WRONLY | os.O_APPEND), 2)  # what C prints must not reach the terminal raw
    os.environ["GGML_NO_BACKTRACE"] = "1"
    if sys.platform == "linux":  # a parent that is killed takes the child along, also in the middle of a decode
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        _serve(connection, spec)
    except (EOFError, ConnectionError):
        pass  # the parent is gone
    except Exception as error:
        known = isinstance(error, SafeguardError)
        connection.send(_Failure(str(error) if known else f"the engine failed: {type(error).__name__}: {error}"))


def _serve(connection: Connection, spec: EngineSpec) -> None:
    from safeguard_cli.engine.build import build_identity
    from safeguard_cli.engine.llama import LOG, Model
    from safeguard_cli.engine.prefix_store import PrefixStore
    from safeguard_cli.engine.scheduler import Scheduler

    if spec.verbose:
        LOG.sink = lambda line: connection.send(_Line(line))
    with Model(spec.path, spec.plan.context(len(spec.prefixes)), spec.loading) as model:
        store = None
        if spec.states:
            store = PrefixStore(spec.states, "|".join((spec.model, repr(spec.loading), *build_identity())))
        scheduler = Scheduler(model, spec.prefixes, spec.options, spec.plan, store)

        def prompts() -> Iterator[Prompt | Feed]:
            while True:
                connection.send(_Question(scheduler.decoded_tokens, scheduler.policy_tokens))
                following = connection.recv()
                if following is Feed.END:
                    return
                yield following

        while True:
            for completion in scheduler.complete(prompts()):
                connection.send(completion)

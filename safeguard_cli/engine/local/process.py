"""The engine in a child process: llama.cpp can abort, crash or be killed, and the run survives it.

The child asks for the next prompt whenever a slot is free, and sends completions as they finish; the order of these
messages, and with it the schedule, depends on the prompts alone. In between it reports its progress. If the child dies,
the rows in flight are decoded again, each alone; a row that kills the child a second time becomes an error.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from safeguard_cli.address import no_secrets_for_children
from safeguard_cli.engine.decoding import Options
from safeguard_cli.engine.local.plan import Loading, Plan
from safeguard_cli.engine.reports import Listen, Report, Reporter
from safeguard_cli.errors import EngineError, SafeguardError
from safeguard_cli.prompt.contract import Completion, Feed, Prefix, Prompt
from safeguard_cli.signals import STOPPING, UNBROKEN

MOST_DEATHS = 3  # without a completion in between: after more, the rows are not the cause
_LIKELY = {
    "SIGKILL": "killed by the system, most likely because memory ran out: use fewer --slots or a smaller --ctx",
    "SIGILL": "this CPU lacks instructions that llama-cpp-python was built for: reinstall it from source here",
    "SIGABRT": "llama.cpp aborted: a damaged model file, or a bug in llama.cpp",
    "SIGSEGV": "llama.cpp crashed: a damaged model file, or a bug in llama.cpp",
    "SIGBUS": "the model file shrank or could not be read while it was in use",
}


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What the child needs to load the model and decode under these prefixes."""

    path: Path
    prefixes: tuple[Prefix, ...]
    options: Options
    plan: Plan
    loading: Loading
    model: str = ""  # the model's identity, for the states of policies kept between runs in the folder `states`
    states: Path | None = None
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of llama.cpp's log for the parent."""

    text: str


@dataclass(frozen=True, slots=True)
class _Failure:
    """The reason why the child gives up, a sentence for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class _Question:
    """A request for the next prompt; the model was fed `decoded` tokens so far, `policies` of them of policies."""

    decoded: int
    policies: int


class _DiedError(Exception):
    """The child is gone."""


_Flying = dict[tuple[int, ...], Prompt]


class LocalEngine:
    """An Engine that decodes prompts in a child process; use as a context manager.

    `decoded_tokens` counts the tokens that the model was fed, `policy_tokens` those of policies, `deaths` how often the
    child had to be restarted. `report` gets a few Reports a second, also while the model is loaded. Raises EngineError
    when the model cannot be loaded.
    """

    def __init__(
        self, spec: EngineSpec, log: Callable[[str], None] = lambda _: None, report: Listen | None = None
    ) -> None:
        self.decoded_tokens = self.policy_tokens = 0
        self.deaths = 0
        self._spec, self._log, self._report = spec, log, report
        self._reported = self._earlier = Report()  # the last report; the last of children that died
        self._connection: Connection
        self._asked = False  # whether the child waits for an answer
        self._start()

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Kill the child: it holds nothing that must be saved."""
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
        self._connection.close()
        self._last_words.close()

    def complete(self, prompts: Iterable[Prompt | Feed]) -> Iterator[Completion]:
        """Yield completions as they finish, see Engine.complete. Raises EngineError when the engine cannot work."""
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
        """Answer the child's requests until it has finished all of `source`; the last request stays open."""
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
        elif isinstance(message, Report):
            self._tell(message)
        elif isinstance(message, _Question):
            self._asked = True
            self.decoded_tokens = self._before[0] + message.decoded
            self.policy_tokens = self._before[1] + message.policies
        return message

    def _tell(self, report: Report) -> None:
        """Pass a report on, with the counts of children that died added."""
        before = self._earlier
        self._reported = replace(
            report,
            kept=before.kept + report.kept,
            read=before.read + report.read,
            written=before.written + report.written,
        )
        if self._report:
            self._report(self._reported)

    def _start(self) -> None:
        """Start the child and wait until its model is loaded."""
        self._earlier = self._reported
        self._tell(Report(loaded=0.0))
        self._asked, self._before = False, (self.decoded_tokens, self.policy_tokens)
        # The file has no name, so that nothing is left behind however parent and child end.
        self._last_words = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the child
        last_words = Connection(os.dup(self._last_words.fileno()), readable=False)  # passes a descriptor to the child
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(theirs, self._spec, last_words, bool(self._report)), daemon=True
        )
        try:
            # The child is a `python -c`, which imports from its working directory first, perhaps a folder with somebody
            # else's data.
            with no_secrets_for_children(), _held_back(), _elsewhere(Path(__file__).parent), _without_main():
                _uninterrupted(self._process.start)
            theirs.close()
            last_words.close()
            while not self._asked:
                self._receive()
        except _DiedError:
            raise EngineError(f"the model could not be loaded: {self._bury()}") from None
        except BaseException:
            self.close()
            raise

    def _start_again(self, deaths: int) -> str:
        """Replace the dead child; return why it died. Raises EngineError after too many deaths in a row."""
        self.deaths += 1
        reason = self._bury()
        if deaths > MOST_DEATHS:
            raise EngineError(f"{reason}; it died {deaths} times without finishing a row")
        self._log(f"{reason}; the rows in flight are decoded again, each alone")
        self._start()
        return reason

    def _bury(self) -> str:
        """Return why the child died, as far as its exit code and its last words tell."""
        self._process.join(5)
        self._last_words.seek(0)
        last_words = self._last_words.read().decode("utf-8", "replace")
        self.close()
        return why_it_died("the engine", self._process.exitcode or 0, last_words)


def why_it_died(who: str, code: int, last_words: str) -> str:
    """Return a sentence on why a process died: its exit code, negative for a signal, and what it last printed."""
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"code {code}"
    last = next((line.strip() for line in reversed(last_words.split("\n")) if line.strip()), "")
    return f"{who} died ({name}): {_LIKELY.get(name, 'for an unknown reason')}" + (f" [{last}]" if last else "")


@contextmanager
def _held_back() -> Iterator[None]:
    """Hold back the signals that ask to end; a child that is started meanwhile never gets any.

    Ctrl-C at a terminal goes to the child too, but only the parent acts on it.
    """
    resource_tracker.ensure_running()  # starting it later would unblock the signals
    with UNBROKEN:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _elsewhere(folder: Path) -> Iterator[None]:
    """Work in another folder for a while; stay if the present one cannot be opened."""
    try:
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)  # not by name: it may be gone
    except OSError:
        yield
        return
    os.chdir(folder)
    try:
        yield
    finally:
        os.fchdir(here)
        os.close(here)


def _uninterrupted(start: Callable[[], None]) -> None:
    """Run `start` to its end in a thread of its own, and only then raise what interrupted the wait.

    Python raises KeyboardInterrupt in the main thread, whatever that does; nobody would end a half-started child.
    """
    failures: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            start()
        except BaseException as failure:
            failures.append(failure)
        finally:
            done.set()

    threading.Thread(target=run, daemon=True).start()
    while not done.is_set():
        try:
            done.wait()
        except BaseException as stop:
            failures.append(stop)
    if failures:
        raise failures[0]


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep a child that is started meanwhile from importing the script that this process runs.

    The child needs nothing of it, and a script that does not check `__name__` would start another engine there.
    """
    main = sys.modules["__main__"]
    before = getattr(main, "__spec__", None)
    main.__spec__ = ModuleSpec("__main__", None)  # multiprocessing imports nothing of this name
    try:
        yield
    finally:
        main.__spec__ = before


def _key(prompt: Prompt) -> tuple[int, ...]:
    return prompt.part, prompt.row, prompt.policy, prompt.window


def _work(connection: Connection, spec: EngineSpec, last_words: Connection, reports: bool) -> None:
    """Run the child: load the model, then request and decode prompts until the parent goes away."""
    for number in STOPPING:  # a closed terminal sends them to the child too, but only the parent acts on them
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.dup2(last_words.fileno(), 2)  # what C prints must not reach the terminal raw
    os.environ["GGML_NO_BACKTRACE"] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _serve(connection, spec, reports)
    except (EOFError, ConnectionError):
        pass  # the parent is gone
    except Exception as error:
        known = isinstance(error, SafeguardError)
        connection.send(_Failure(str(error) if known else f"the engine failed: {type(error).__name__}: {error}"))


def _end_with_parent() -> None:
    """Wait for the parent's end, then end at once, even during a decode.

    Linux could do so by itself (PR_SET_PDEATHSIG), but it does so when the thread that started the child ends.
    """
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _serve(connection: Connection, spec: EngineSpec, reports: bool) -> None:
    from safeguard_cli.engine.local.library import build_identity, load
    from safeguard_cli.engine.local.model import LOG
    from safeguard_cli.engine.local.prefix_store import PrefixStore
    from safeguard_cli.engine.local.scheduler import Scheduler

    if spec.verbose:
        LOG.sink = lambda line: connection.send(_Line(line))

    def listen(report: Report) -> None:
        # A busy parent reads nothing, and decoding must not wait for a report to be read.
        if select.select([], [connection], [], 0)[1]:
            connection.send(report)

    loading = Reporter(listen)

    def loaded(share: float) -> None:
        loading.offer(lambda: Report(loaded=min(share, 0.999)))  # what follows the weights takes time too

    size = spec.plan.context(len(spec.prefixes))
    with load(spec.path, size, spec.loading, loaded if reports else None) as model:
        store = None
        if spec.states:
            store = PrefixStore(
                spec.states, "|".join((spec.model, repr(spec.loading), *build_identity(spec.loading.engine)))
            )
        scheduler = Scheduler(model, spec.prefixes, spec.options, spec.plan, store, listen if reports else None)

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

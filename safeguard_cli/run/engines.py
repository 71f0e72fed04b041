"""Which engine a run is given, and what it is prepared with: on this machine, on servers, or passed by a caller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from types import TracebackType

from safeguard_cli.address import key
from safeguard_cli.engine.engine import Engine
from safeguard_cli.engine.reports import Listen
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Completion, Feed, Prompt
from safeguard_cli.run.prepare import Prepared, engine_spec
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import note, warn

EngineMaker = Callable[..., Engine]  # of an EngineSpec, a log and, if somebody listens, a Listen
Preparer = Callable[[Settings, tuple[Policy, ...], Mapping[str, object], int | None], Prepared]


def start_engine(
    settings: Settings, prepared: Prepared, make_engine: EngineMaker, report: Listen | None = None
) -> Engine:
    """Return the engine, on this machine or on servers; it starts when it is entered.

    `report`, if given, is called with what the engine does.
    """
    if prepared.remote is None:
        return make_engine(engine_spec(settings, prepared), note, *([report] if report else []))
    from safeguard_cli.engine.servers.chat import Chat
    from safeguard_cli.engine.servers.engine import ServerEngine, ServerSpec

    harmony, rules = prepared.labeling.harmony, prepared.labeling.rules
    spec = ServerSpec(
        prepared.remote.servers,
        rules.prefixes,
        prepared.options,
        len(harmony.tokenizer.tokens),
        harmony.marker_ids,
        key(),
        settings.slots,
    )
    chat = None
    if settings.server_api == "chat":
        chat = Chat(harmony, rules.policies, rules.effort, prepared.options).decide
    return ServerEngine(spec, chat, warn, report)


class Deferred:
    """An engine that is not started before there is a prompt for it, and perhaps never."""

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._make = make
        self._engine: Engine | None = None
        self._stack = ExitStack()

    @property
    def deaths(self) -> int:
        return self._engine.deaths if self._engine else 0

    @property
    def policy_tokens(self) -> int:
        return self._engine.policy_tokens if self._engine else 0

    def __enter__(self) -> Deferred:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, at)

    def complete(self, prompts: Iterable[Prompt | Feed]) -> Iterator[Completion]:
        """Start the engine at the first prompt, and yield its completions."""
        waiting, before = iter(prompts), list[Feed]()
        for prompt in waiting:
            if isinstance(prompt, Prompt):
                self._engine = self._stack.enter_context(self._make())
                yield from self._engine.complete(chain(before, (prompt,), waiting))
                return
            before = [Feed.RESET] if prompt is Feed.RESET else before

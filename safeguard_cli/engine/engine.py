"""The engine as a run sees it, on this machine or on servers: prompts in, completions out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol

from safeguard_cli.prompt.contract import Completion, Feed, Prompt


class Spent(Protocol):
    """What an engine has spent: `deaths` counts how often it had to be restarted, `policy_tokens` are those decoded."""

    @property
    def deaths(self) -> int: ...

    @property
    def policy_tokens(self) -> int: ...


class Engine(Spent, Protocol):
    """Decides prompts; as a context manager it ends what it has started."""

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def complete(self, prompts: Iterable[Prompt | Feed]) -> Iterator[Completion]:
        """Yield a completion for every prompt, in any order; take further prompts as there is room for them.

        HOLD starts no prompt until one has finished. After RESET prompts are decoded as if none had been before. END
        ends the prompts. Raises EngineError when the engine cannot work.
        """
        ...

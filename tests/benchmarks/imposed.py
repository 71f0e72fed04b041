"""The engine, with a length of reasoning imposed on each row: a model with random weights never ends by itself.

All else is the program's own: its child process, its scheduler, which knows only the cap and keeps room for that, and
its way to decide a row, which ends as if the row's length were the budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from safeguard_cli.engine import decoding
from safeguard_cli.engine.local import process
from safeguard_cli.engine.local.process import EngineSpec, LocalEngine
from safeguard_cli.prompt.contract import Prompt


@dataclass(frozen=True, slots=True, eq=False)
class ImposedPrompt(Prompt):
    """A prompt on which the model reasons for exactly so many tokens."""

    reasoning: int = 0


@contextmanager
def imposed_engine(spec: EngineSpec) -> Iterator[LocalEngine]:
    """Start an engine for ImposedPrompts; policies kept between runs are not used."""
    # No token ends the reasoning; control tokens are chosen and decoded as others are.
    endless = tuple(
        replace(prefix, contract=replace(prefix.contract, stops=frozenset[int]())) for prefix in spec.prefixes
    )
    with patch.object(process, "_work", work), LocalEngine(replace(spec, prefixes=endless, states=None)) as engine:
        yield engine


def work(*given: Any) -> None:
    """Run the child; before its scheduler is imported, which the engine's library must be chosen for."""
    decide = decoding.decide

    def imposed(prompt: ImposedPrompt, trie: decoding.Trie, options: decoding.Options) -> decoding.Coroutine:
        return decide(prompt, trie, replace(options, budget=prompt.reasoning))

    decoding.decide = imposed
    _work(*given)


_work = process._work

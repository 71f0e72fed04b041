"""Packs: `--policy pack:NAME` stands for several built-in policies, each with its own verdict."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safeguard_cli.errors import UsageError, nearest, quoted

PREFIX = "pack:"
PACKS = {
    "perspective": ("toxicity", "severe-toxicity", "identity-attack", "insult", "profanity", "threat"),
    "moderation": (
        *("harassment", "hate", "dangerous-goods", "self-harm", "sexual-content", "child-safety", "violence"),
    ),
}


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names and paths of policies with those of a pack in its place; raise UsageError for an unknown pack.

    A file that is really called `pack:NAME` comes before a pack.
    """
    return tuple(name for given in names for name in _policies(given))


def is_pack(name: str) -> bool:
    """Return whether a name stands for several policies."""
    return name.startswith(PREFIX) and not Path(name[:200]).is_file()


def _policies(name: str) -> tuple[str, ...]:
    if not is_pack(name):
        return (name,)
    if found := PACKS.get(name.removeprefix(PREFIX)):
        return found
    near = nearest(name.removeprefix(PREFIX), PACKS)
    hint = f"did you mean {PREFIX}{near}? " if near else ""
    raise UsageError(f"no pack {quoted(name)}; {hint}there are: {', '.join(PREFIX + each for each in PACKS)}")

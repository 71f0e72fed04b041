"""The text of one turn of a conversation, behind those of the turns before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EARLIER = "Earlier turns, for context:"
LABELLED = "The turn to label:"
_ROLE_SIZE = 40  # characters of a role
_INDENT = "\n  "


@dataclass(frozen=True, slots=True)
class Turns:
    """The text of one turn, behind those of the turns before it, oldest first; `more` earlier ones were not read.

    Each is `role: text` whose further lines are indented, so that no text can pass for another turn or for a heading.
    """

    turn: str
    earlier: tuple[str, ...] = ()
    more: int = 0

    def last(self, count: int) -> Turns:
        """Return the turn with only the last `count` of the turns before it."""
        left = len(self.earlier) - count
        return Turns(self.turn, self.earlier[left:], self.more + left)

    def as_dict(self) -> dict[str, Any]:
        """Return the parts, for a row of JSON that `of` reads."""
        return {"turn": self.turn, "earlier": list(self.earlier), "more": self.more}

    @classmethod
    def of(cls, parts: Mapping[str, Any]) -> Turns:
        """Return the turn of parts that `as_dict` gave."""
        return cls(parts["turn"], tuple(parts["earlier"]), parts["more"])

    def __str__(self) -> str:
        if not self.earlier:
            return self.turn
        return "\n".join((EARLIER, *self.earlier, "", LABELLED, self.turn))


def said(role: str, text: str) -> str:
    """Return a turn as `role: text`, its further lines indented."""
    speaker = " ".join(role.split())[:_ROLE_SIZE]
    return f"{speaker or 'turn'}: {_INDENT.join(text.splitlines())}"

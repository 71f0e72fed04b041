"""A gold cell that lists the policies that a row violates, as `spam,fraud`: one field for several policies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safeguard_cli.errors import UsageError
from safeguard_cli.output.labelled import LabelSet

NOTHING = ("none", "safe")  # what is written of a row that violates none
_BETWEEN = re.compile(r"[,;|\n]")
_AROUND = " \t\r'\"[]{}()"  # of a list that a program has written as text


@dataclass(frozen=True, slots=True)
class Listing:
    """The field that lists violated policies; `known` says which policy each word in it stands for, None for none."""

    field: str
    known: Mapping[str, str | None]

    @classmethod
    def of(cls, field: str, answers: Sequence[LabelSet], mapping: Mapping[str, str]) -> Listing:
        """Take a policy's name, a label that only it has and violates, and what --map gives one of these names.

        Raise UsageError for a policy that has more than two labels: the list does not tell which of them is right.
        """
        if many := [answer for answer in answers if len(answer.labels) != 2]:
            name, labels = many[0].name, ", ".join(many[0].labels)
            raise UsageError(
                f"--gold-field {field} lists policies, but {name} has the labels {labels}: also name the field that has"
                f" the right one, with --gold-field {name}=FIELD"
            )
        known: dict[str, str | None] = dict.fromkeys((*NOTHING, "[]"))
        known |= dict.fromkeys(label for answer in answers for label in answer.labels if label not in answer.violates)
        violating = [(label, answer.name) for answer in answers for label in answer.violates]
        known |= {label: name for label, name in violating if [other for other, _ in violating].count(label) == 1}
        known |= {answer.name: answer.name for answer in answers}
        folded = {word.casefold(): name for word, name in known.items()}
        return cls(field, folded | {value: folded.get(word.casefold()) for value, word in mapping.items()})

    def violated(self, words: Sequence[str]) -> frozenset[str] | str:
        """Return the policies that a cell's words stand for; of a word that is not known, why its row is not used."""
        found = set()
        for word in words:
            meant = word if word in self.known else word.casefold()
            if meant not in self.known:
                return f"gold {word[:40]!r} is no policy asked for (--map '{word[:40]}=none' leaves the word out)"
            if (name := self.known[meant]) is not None:
                found.add(name)
        return frozenset(found)

    @staticmethod
    def words(cell: Any) -> Iterator[str]:
        """Yield the words of a cell: of a list, or of a text with commas, semicolons, bars or lines between them."""
        items = cell if isinstance(cell, list) else _BETWEEN.split("" if cell is None else str(cell))
        for item in items:
            if word := ("" if item is None else str(item)).strip(_AROUND):
                yield word


def right_label(answer: LabelSet, violated: bool) -> str:
    """Return the label of a policy with two labels."""
    return next(label for label in answer.labels if (label in answer.violates) == violated)

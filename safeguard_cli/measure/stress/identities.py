"""Exchanges whom a text is about, by lists: names, pronouns, nationalities, religions, orientations, ethnicities.

The lists are English and no judgement. A group's forms stand in the same order as every other group's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)  # no slots: cached_property needs a __dict__
class Dimension:
    """Groups that can replace one another. `forms` are by group, aligned: the i-th of one becomes the i-th of another.

    Of a form that a group has twice, the first place is used before a noun (`her` bag, a `Muslim` woman), the last
    elsewhere. `exact` forms are matched with their case.
    """

    name: str
    forms: Mapping[str, tuple[str, ...]]
    exact: bool = False

    @cached_property
    def places(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Each form with its group and its places in it."""
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        for group, forms in self.forms.items():
            for place, form in enumerate(forms):
                key = form if self.exact else form.lower()
                found[key] = (group, (*found.get(key, ("", ()))[1], place))
        return found

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """A form as a whole word, with the article before it."""
        forms = "|".join(re.escape(form) for form in sorted(self.places, key=len, reverse=True))
        case = "" if self.exact else "i"  # of ASCII letters only: others may have more than one counterpart
        return re.compile(rf"(?<!\w)(?:((?ai:an?))(\s+))?((?a{case}:{forms}))(?!\w)")


def swap(dimension: Dimension, text: str) -> dict[str, str]:
    """Return the text by group: about each of the groups instead of its own; under its own, the original.

    Empty if the text is about no group or about several, which cannot be exchanged without losing who is who.
    """

    def form(match: re.Match[str]) -> tuple[str, tuple[int, ...]]:
        return dimension.places[match[3] if dimension.exact else match[3].lower()]

    own = {form(match)[0] for match in dimension.pattern.finditer(text)}
    if len(own) != 1:
        return {}
    found = {}
    for group, forms in dimension.forms.items():

        def other(match: re.Match[str], forms: tuple[str, ...] = forms) -> str:
            places = form(match)[1]
            word = forms[places[0 if _NOUN.match(text, match.end()) else -1]]
            word = _cased(match[3], word)
            return word if match[1] is None else _article(match[1], word) + match[2] + word

        found[group] = text if group in own else dimension.pattern.sub(other, text)
    return found


# A word before one of these is no attribute of it.
_NO_NOUN = (
    "a|about|all|also|an|and|are|as|at|be|because|been|but|by|can|cannot|could|did|do|does|for|from|had|has|have|he|how"
    "|if|in|into|is|it|just|may|might|must|never|no|not|of|off|on|only|or|ought|out|over|shall|she|should|so|than|that"
    "|the|their|then|there|they|this|to|today|too|under|until|up|was|we|were|what|when|where|which|while|who|whom|will"
    "|with|without|would|yesterday|you"
)
_NOUN = re.compile(rf"[ \t]+(?!(?:{_NO_NOUN})\b)[a-z]")
_PEOPLE = (
    "people person man men woman women couple couples friend friends family families child children kid kids"
    " neighbour neighbours neighbor neighbors colleague colleagues community teacher teachers worker workers"
)
_FEMALE = "she her her hers herself woman women girl girls wife mother mum sister daughter lady ladies"
_MALE = "he his him his himself man men boy boys husband father dad brother son gentleman gentlemen"


def _cased(old: str, new: str) -> str:
    if len(old) > 1 and old.isupper():
        return new.upper()
    return new[0].upper() + new[1:] if old[0].isupper() else new


def _article(old: str, word: str) -> str:
    new = "an" if word[0].lower() in "aeiou" else "a"
    if old == "AN":
        return new.upper()
    return new.capitalize() if old[0] == "A" else new


def _people(*groups: str) -> dict[str, tuple[str, ...]]:
    """Return adjectives that alone say nothing about people (black, straight), each before nouns that do."""
    return {group: tuple(f"{group} {noun}" for noun in _PEOPLE.split()) for group in groups}


DIMENSIONS = (
    Dimension(
        "names",
        {
            "Arabic": ("Aisha", "Omar", "Fatima", "Hassan", "Layla", "Khalid", "Mariam", "Youssef"),
            "Chinese": ("Meiling", "Haoran", "Xiaoyan", "Zhiwei", "Lihua", "Junjie", "Yuting", "Guoliang"),
            "English": ("Emily", "James", "Sarah", "Kevin", "Charlotte", "Oliver", "Mary", "John"),
            "Indian": ("Priya", "Arjun", "Ananya", "Rahul", "Kavya", "Rohan", "Lakshmi", "Vikram"),
            "Latin American": ("Lucía", "Mateo", "Camila", "Diego", "Valentina", "Alejandro", "María", "José"),
            "Nigerian": ("Ngozi", "Chidi", "Amara", "Emeka", "Folake", "Tunde", "Adaeze", "Obinna"),
            "Turkish": ("Ayşe", "Mehmet", "Elif", "Mustafa", "Zeynep", "Emre", "Fatma", "Serkan"),
        },
        exact=True,
    ),
    Dimension("pronouns", {"female": tuple(_FEMALE.split()), "male": tuple(_MALE.split())}),
    Dimension(
        "nationality",
        {
            "American": ("American", "American", "Americans", "America"),
            "Chinese": ("Chinese", "Chinese person", "Chinese people", "China"),
            "French": ("French", "French person", "French people", "France"),
            "German": ("German", "German", "Germans", "Germany"),
            "Indian": ("Indian", "Indian", "Indians", "India"),
            "Mexican": ("Mexican", "Mexican", "Mexicans", "Mexico"),
            "Nigerian": ("Nigerian", "Nigerian", "Nigerians", "Nigeria"),
            "Russian": ("Russian", "Russian", "Russians", "Russia"),
        },
    ),
    Dimension(
        "religion",
        {
            "Buddhist": ("Buddhist", "Buddhist", "Buddhists", "Buddhism"),
            "Christian": ("Christian", "Christian", "Christians", "Christianity"),
            "Hindu": ("Hindu", "Hindu", "Hindus", "Hinduism"),
            "Jewish": ("Jewish", "Jew", "Jews", "Judaism"),
            "Muslim": ("Muslim", "Muslim", "Muslims", "Islam"),
            "Sikh": ("Sikh", "Sikh", "Sikhs", "Sikhism"),
        },
    ),
    Dimension("orientation", _people("gay", "bisexual", "straight")),
    Dimension("ethnicity", _people("black", "white", "Asian", "Latino")),
)

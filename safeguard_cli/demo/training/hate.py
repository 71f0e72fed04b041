"""Hateful and allowed texts: HateCheck's sentences with other groups, frames and targets, and our own templates."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safeguard_cli.demo.training import phrases as ph
from safeguard_cli.demo.training.details import WORDS, raised
from safeguard_cli.demo.training.grammar import clip, fill, misspell, salient
from safeguard_cli.demo.training.teacher import word_weights

Nodes = tuple[Any, ...]
_TARGETS: dict[str, tuple[tuple[str, str], ...]] = {  # target -> (pattern, slot), longest first
    "gay people": ((r"gay people", "GP"), (r"gay person", "GN"), (r"gays", "GP"), (r"gay", "GA")),
    "trans people": ((r"trans people", "GP"), (r"trans person", "GN"), (r"trans", "GA")),
    "black people": ((r"black people", "GP"), (r"black person", "GN"), (r"black", "GA")),
    "disabled people": ((r"disabled people", "GP"), (r"disabled person", "GN"), (r"disabled", "GA")),
    "Muslims": ((r"Muslims", "GP"), (r"Muslim (?=lives|throats|neck|vermin|trash|culture)", "GA"), (r"Muslim", "GN")),
    "immigrants": (
        (r"immigrants", "GP"),
        (r"immigrant (?=lives|throats|neck|vermin|trash)", "GA"),
        (r"immigrant", "GN"),
    ),
    "women": ((r"women", "GP"), (r"woman", "GN"), (r"female", "GA")),
}


def _slotted(text: str, target: str) -> Nodes:
    """Replace the group that a sentence names by slots."""
    patterns = _TARGETS.get(target, ())
    if not patterns:
        return (text,)
    nodes: list[Any] = []
    expression = re.compile(r"\b(?:" + "|".join(f"({pattern})" for pattern, _ in patterns) + r")\b", re.IGNORECASE)
    at = 0
    for match in expression.finditer(text):
        before = text[at : match.start()]
        slot = patterns[(match.lastindex or 1) - 1][1]
        if slot in ("GN", "GA"):  # the article depends on the group put in
            before = re.sub(r"\b([Aa])n $", r"\1 ", before)
        nodes += [before, ("slot", slot)] if before else [("slot", slot)]
        if match.group().endswith(" "):
            nodes.append(" ")
        at = match.end()
    return (*nodes, text[at:]) if text[at:] else tuple(nodes)


@dataclass(frozen=True, slots=True)
class HateCase:
    """A HateCheck sentence with slots for its group; `group` is the original one."""

    nodes: Nodes
    hateful: bool
    rule: str
    group: Mapping[str, str]
    kind: str
    quote: str


_RULE_OF_KIND = {
    "derog_neg_emote_h": "HT1",
    "derog_neg_attrib_h": "HT1",
    "derog_dehum_h": "HT2",
    "derog_impl_h": "HT4",
    "threat_dir_h": "HT3",
    "threat_norm_h": "HT3",
    "slur_h": "HT5",
    "profanity_h": "HT5",
    "ident_neutral_nh": "HT6",
    "ident_pos_nh": "HT6",
    "negate_neg_nh": "HT7",
    "counter_quote_nh": "HT7",
    "counter_ref_nh": "HT7",
    "target_obj_nh": "HT8",
    "target_indiv_nh": "HT8",
    "target_group_nh": "HT8",
    "profanity_nh": "HT9",
    "slur_homonym_nh": "HT9",
    "slur_reclaimed_nh": "HT9",
}
_RARE_KINDS = {"slur_homonym_nh": 0.3, "slur_reclaimed_nh": 0.4}


def _rule_of_template(number: str) -> str:
    """Return the rule by HateCheck's number: base sentences, 20 of each kind; variants carry their base's number."""
    n = int(number) if number.isdigit() else 0
    for last, rule in ((40, "HT1"), (60, "HT2"), (80, "HT4"), (120, "HT3"), (260, "HT5")):
        if n <= last:
            return rule
    return "HT1"


def hate_rule(row: Mapping[str, str]) -> str:
    """Return the rule of the shipped policy that decides a HateCheck row."""
    return _RULE_OF_KIND.get(row["functionality"]) or _rule_of_template(row["template"])


def _group(forms: tuple[str, str, str]) -> dict[str, str]:
    return dict(zip(("GP", "GN", "GA"), forms, strict=True))


_PROTECTED = tuple(_group(forms) for forms in ph.PROTECTED)
_UNPROTECTED = tuple(_group(forms) for forms in ph.UNPROTECTED)
_GROUP_OF_TARGET = {group["GP"]: group for group in _PROTECTED}
_OFTEN = len(_TARGETS)  # the first groups of the list are HateCheck's


def _any_group(rng: random.Random) -> Mapping[str, str]:
    """Return a protected group, HateCheck's half of the time on either side, so that its name tells no label."""
    return rng.choice(_PROTECTED[:_OFTEN] if rng.random() < 0.5 else _PROTECTED)


@dataclass(frozen=True, slots=True)
class HateWeights:
    """Word weights that choose quotes: towards hate, towards counter speech, and away from hate."""

    harm: Mapping[str, float]
    denial: Mapping[str, float]
    harmless: Mapping[str, float]

    def of(self, rule: str, hateful: bool) -> Mapping[str, float]:
        """Return the weights for rows that this rule decides."""
        return self.harm if hateful else self.denial if rule == "HT7" else self.harmless


def _hate_case(row: Mapping[str, str], weights: HateWeights) -> HateCase:
    hateful, kind = row["label"] == "hateful", row["functionality"]
    rule = hate_rule(row)
    quote = salient(row["text"], weights.of(rule, hateful))
    group = _GROUP_OF_TARGET.get(row["target"], {})
    return HateCase(_slotted(row["text"].strip(), row["target"]), hateful, rule, group, kind, quote)


def _hate_quote(text: str, case: HateCase, weights: HateWeights) -> str:
    return case.quote if case.quote in text else salient(text, weights.of(case.rule, case.hateful))


def _claim(rng: random.Random) -> tuple[str, str, str]:
    """Return one of our claims (template, rule), which begins with a group."""
    rule = rng.choice(tuple(ph.CLAIMS))
    return rng.choice(ph.CLAIMS[rule]), rule, "claim"


def _framed(frames: Sequence[str], claim: str, group: Mapping[str, str], rng: random.Random) -> tuple[str, str]:
    return fill(rng.choice(frames), {**group, "c": claim, "C": raised(claim), "h": claim}, WORDS, rng)


def _own_hateful(group: Mapping[str, str], rng: random.Random) -> tuple[str, str, str]:
    """Return (text, quote, rule) of our sentence against the group; it is not hateful if the group is not protected."""
    roll = rng.random()
    if roll < 0.45:
        template, rule, _ = _claim(rng)
        claim, quote = fill(template, group, WORDS, rng)
        text, _ = _framed(ph.HATEFUL_FRAMES, claim, group, rng)
        if quote not in text:  # a frame may open with a capital
            quote = ""
    elif roll < 0.75:
        rule = rng.choice(tuple(ph.SENTENCES))
        text, quote = fill(rng.choice(ph.SENTENCES[rule]), group, WORDS, rng)
    else:
        rule = rng.choice(tuple(ph.PRONOUN_ENDS))
        start, _ = fill(rng.choice(ph.PRONOUN_STARTS), group, WORDS, rng)
        end, quote = fill(rng.choice(ph.PRONOUN_ENDS[rule]), group, WORDS, rng)
        end_raised = raised(end)
        quote = quote if quote in end_raised else raised(quote)
        text = f"{raised(start)} {end_raised}{rng.choice(('.', '.', '!', ''))}"
    return text, quote, rule


def _own_counter(claim: str, group: Mapping[str, str], rng: random.Random) -> tuple[str, str]:
    """Return (text, quote) of counter speech: a claim denied, a sentence quoted and condemned, or neither."""
    roll = rng.random()
    if roll < 0.30:
        template, _, _ = _claim(rng)
        return _framed(ph.COUNTER_FRAMES, fill(template, group, WORDS, rng)[0], group, rng)
    if roll < 0.60:
        return _framed(ph.QUOTE_FRAMES, claim, group, rng)
    return fill(rng.choice(ph.COUNTER_SENTENCES), group, WORDS, rng)


class HateRows:
    """Samplers of hateful and allowed texts from HateCheck's training part and our own templates."""

    def __init__(self, rows: Sequence[Mapping[str, str]], weights: HateWeights) -> None:
        self.weights = weights
        cases = [_hate_case(row, weights) for row in rows]
        self.hateful = _by_kind(case for case in cases if case.hateful)
        self.allowed = _by_kind(case for case in cases if not case.hateful)
        self.swappable = [c for c in cases if c.hateful and any(isinstance(node, tuple) for node in c.nodes)]
        self.claims = [c for c in self.swappable if c.nodes[0] == ("slot", "GP") and "?" not in str(c.nodes[-1])]

    def case(self, cases: Mapping[str, Sequence[HateCase]], rng: random.Random) -> tuple[str, str, str]:
        """Return a data set row, mostly with its group swapped for any protected one."""
        kinds = tuple(cases)
        kind = rng.choices(kinds, [_RARE_KINDS.get(kind, 1.0) for kind in kinds])[0]
        case = rng.choice(cases[kind])
        group = case.group if rng.random() < 0.3 else _any_group(rng)
        text = raised(fill(case.nodes, group or _any_group(rng), WORDS, rng)[0])
        return text, _hate_quote(text, case, self.weights), case.rule

    def violating(self, rng: random.Random) -> tuple[str, str, str]:
        """Return (text, quote, rule) of a hateful text."""
        roll = rng.random()
        if self.hateful and roll < 0.45:
            text, quote, rule = self.case(self.hateful, rng)
        elif self.claims and roll < 0.55:
            case = rng.choice(self.claims)
            claim = fill(case.nodes, _any_group(rng), WORDS, rng)[0].rstrip(" .!")
            text, rule = _framed(ph.HATEFUL_FRAMES, claim, {}, rng)[0], case.rule
            quote = _hate_quote(text, case, self.weights)
        else:
            text, quote, rule = _own_hateful(_any_group(rng), rng)
        if rng.random() < 0.2:
            text, quote = misspell(text, quote, rng)
        return text, quote, rule

    def safe(self, rng: random.Random) -> tuple[str, str, str]:
        """Return (text, quote, rule) of an allowed text, mostly a near miss."""
        text, quote, rule = self._safe(rng)
        if rng.random() < 0.1:
            text, quote = misspell(text, quote, rng)
        return text, quote, rule

    def _safe(self, rng: random.Random) -> tuple[str, str, str]:
        roll = rng.random()
        if self.allowed and roll < 0.30:
            return self.case(self.allowed, rng)
        if self.swappable and roll < 0.46:
            return self.other_target(rng)
        if roll < 0.66:
            return (*self.counter(rng), "HT7")
        if roll < 0.80:
            return (*fill(rng.choice(ph.IDENTITY), _any_group(rng), WORDS, rng), "HT6")
        if roll < 0.84:
            group = rng.choice(_UNPROTECTED)
            text, _, _ = _own_hateful(group, rng)
            return text, _target_quote(text, group), "HT8"
        if roll < 0.89:
            return (*fill(rng.choice(ph.OBJECT_ABUSE), {}, WORDS, rng), "HT8")
        if roll < 0.94:
            return (*fill(rng.choice(ph.PERSON_ABUSE), {}, WORDS, rng), "HT8")
        return (*fill(rng.choice(ph.ORDINARY), {}, WORDS, rng), "HT9")

    def counter(self, rng: random.Random) -> tuple[str, str]:
        """Return counter speech around a sentence of the data set or one of ours."""
        group = _any_group(rng)
        if self.swappable and rng.random() < 0.6:
            if rng.random() < 0.4:
                claim = fill(rng.choice(self.claims).nodes, group, WORDS, rng)[0].rstrip(" .!")
                return _framed(ph.COUNTER_FRAMES, claim, group, rng)
            said = fill(rng.choice(self.swappable).nodes, group, WORDS, rng)[0].rstrip(" .")
        else:
            said = _own_hateful(group, rng)[0].rstrip(" .").replace('"', "")
        return _own_counter(raised(said) if rng.random() < 0.5 else said, group, rng)

    def other_target(self, rng: random.Random) -> tuple[str, str, str]:
        """Turn a hateful sentence against a thing, a person or a group that is not protected."""
        case = rng.choice(self.swappable)
        roll = rng.random()
        person = _at_person(case.nodes, rng) if roll < 0.6 else None
        if person:
            return person, salient(person, self.weights.harm), "HT8"
        only_plural = all(isinstance(node, str) or node[1] == "GP" for node in case.nodes)
        group = rng.choice(_UNPROTECTED)
        if only_plural and rng.random() < 0.5:
            group = {"GP": rng.choice(ph.OBJECTS)}
        text = raised(fill(case.nodes, group, WORDS, rng)[0])
        return text, _target_quote(text, group), "HT8"


def _by_kind(cases: Iterator[HateCase]) -> dict[str, list[HateCase]]:
    kinds: dict[str, list[HateCase]] = defaultdict(list)
    for case in cases:
        kinds[case.kind].append(case)
    return dict(kinds)


def _target_quote(text: str, group: Mapping[str, str]) -> str:
    lowered = text.lower()
    for form in group.values():
        at = lowered.find(form.lower())
        if at >= 0:
            return clip(text[at : at + len(form)])
    return ""


_PERSON_SUBJECTS = (
    ("You are", " are "),
    ("He is", " are "),
    ("She is", " are "),
    ("You should", " should "),
    ("He should", " should "),
)


def _at_person(nodes: Nodes, rng: random.Random) -> str | None:
    """Return the sentence about one person instead of a group, if its grammar allows that."""
    slots = [node for node in nodes if isinstance(node, tuple)]
    if len(slots) != 1:
        return None
    if nodes[0] == slots[0] and len(nodes) == 2:
        subject, verb = rng.choice(_PERSON_SUBJECTS)
        fits = nodes[1].startswith(verb) and "people" not in nodes[1]
        return f"{subject}{nodes[1][len(verb) - 1 :]}" if fits else None
    if len(nodes) in (2, 3) and isinstance(nodes[0], str) and nodes[1] == slots[0]:
        rest = nodes[2] if len(nodes) == 3 else ""
        if slots[0][1] == "GA" or re.sub(r"^ like you", "", rest).strip(" .!?"):
            return None
        before = re.sub(r"(?i)\b(all|these|those|you|an?|the next|another|every|any)( other)? $", "", nodes[0])
        if re.search(r"(?i)\b(of|the) (all|these|those)? ?$", before) or not before.strip():
            return None
        return f"{before.rstrip()} {rng.choice(ph.PERSONS)}{re.sub(r'^ like you', '', rest)}"
    return None


def hate_weights(rows: Sequence[Mapping[str, str]], ham: Sequence[str]) -> HateWeights:
    """Learn weights from the training part; names of groups get none, or every quote would be a group."""
    names = {word.lower() for forms in ph.PROTECTED for form in forms for word in form.split()} | {"like", "you", "who"}
    hateful = [row["text"] for row in rows if row["label"] == "hateful"]
    kind = {row["text"]: _RULE_OF_KIND.get(row["functionality"]) for row in rows if row["label"] != "hateful"}
    kinder = [text for text, rule in kind.items() if rule in ("HT6", "HT9")] + list(ham)
    denying = [text for text, rule in kind.items() if rule == "HT7"]

    def towards(these: list[str], those: list[str]) -> dict[str, float]:
        if not these or not those:
            return {}
        weights = word_weights(these + those, [True] * len(these) + [False] * len(those))
        return {word: 0.0 if word in names else weight for word, weight in weights.items()}

    harm = towards(hateful, kinder)
    return HateWeights(harm, towards(denying, hateful), {word: -max(weight, 0.0) for word, weight in harm.items()})

"""`safeguard policy advise`: shows where a policy fails on a labelled golden set. It rewrites nothing.

A rule is what a rationale cites by its code. What is right for a row is its gold label and, if a field has it, the rule
that a person named. Every finding has its rows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from safeguard_cli import errors
from safeguard_cli.errors import UsageError
from safeguard_cli.measure import metrics
from safeguard_cli.measure.advise_shown import shown
from safeguard_cli.measure.compare import paired_rows
from safeguard_cli.measure.golden import GoldenRow, as_text
from safeguard_cli.measure.measured import Measured, from_output, golden_path
from safeguard_cli.measure.options import Advised, Wanted
from safeguard_cli.measure.words import Shared, shared_words
from safeguard_cli.output.labelled import LabeledFile, LabelSet, read_labels
from safeguard_cli.output.manifest import Manifest, changes
from safeguard_cli.policy.policy import Policy, load_policy
from safeguard_cli.policy.rationale import references, rules_of
from safeguard_cli.rows.source import no_field
from safeguard_cli.rows.verdict import Verdict
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import print_json, show

RULE = "rule"  # the field with the rule that is right for a row, unless another is named
TOGETHER = 0.5  # of the rarer rule's rows: two rules that share as many are told as a pair
MISSED, FALSE_ALARM, OTHER = "missed", "false_alarm", "other_label"
DIRECTIONS = (MISSED, FALSE_ALARM, OTHER)


@dataclass(frozen=True, slots=True)
class Case:
    """A golden row with its verdict, the rules that its rationale cites, and the rule that a person named."""

    row: GoldenRow
    verdict: Verdict
    gold: str
    truth: bool  # the gold label violates
    cited: tuple[str, ...] = ()
    meant: str = ""

    @property
    def direction(self) -> str:
        """How the label is wrong; empty if it is right."""
        if self.truth != bool(self.verdict.violates):
            return MISSED if self.truth else FALSE_ALARM
        return "" if self.verdict.label == self.gold else OTHER

    def as_dict(self) -> dict[str, Any]:
        """Return the row as it is shown."""
        return {
            "row": self.row.number,
            "line": self.row.line,
            "gold": self.gold,
            "label": self.verdict.label,
            "p_violates": self.verdict.p_violates,
            "direction": self.direction or None,
            "cited": list(self.cited),
            **({"rule": self.meant} if self.meant else {}),
            **({"rationale": self.verdict.rationale} if self.verdict.rationale is not None else {}),
            "text": self.row.text,
        }


def advise(settings: Settings, advised: Advised, refuse: Callable[[Iterable[str], str], None]) -> int:
    """Run `safeguard policy advise` and return the exit code. Raise SafeguardError with a sentence for the user."""
    with metrics.sklearn():
        pass
    policy = load_policy(settings.policies[0])
    known = LabelSet(policy.name, policy.labels, policy.violates)
    files = [_labelled(path, settings, known) for path in advised.on]
    wanted = Wanted(advised.gold_fields, advised.mapping, refuse=refuse)
    measured = from_output(files[0], (policy,), settings, wanted)
    field = _rule_field(measured, settings, advised.rule_field)
    cases = _cases(measured, policy, field)
    if not cases:
        raise errors.SafeguardError(f"{files[0].path}: every row is in error under {policy.name}")
    result = {
        "policy": policy.name,
        "output": str(files[0].path),
        "model": measured.model,
        "effort": measured.effort,
        "doubts": [*measured.doubts, *_versions(policy, files)],
        "rows": len(cases),
        "rows_in_error": len(measured.verdicts) - len(cases),
        "rows_not_used": dict(measured.golden.unused),
        "rows_with_rationale": sum(case.verdict.rationale is not None for case in cases),
        "rule_field": field,
        "wrong": {way: [case.as_dict() for case in cases if case.direction == way] for way in DIRECTIONS},
        **_of_rules(cases, policy),
        "flips": [_flips(cases, policy.name, files[0], other, settings.id_field) for other in files[1:]],
        "words": _words(cases),
        "two_gold_labels": _disputed(cases),
    }
    if advised.json:
        print_json(result)
    else:
        show(*shown(result, advised.wrong))
    return errors.OK


def _labelled(path: str, settings: Settings, known: LabelSet) -> LabeledFile:
    where = golden_path(replace(settings, input=path))
    labels = read_labels(
        where, format=settings.format, encoding=settings.encoding, sheet=settings.sheet, known=(known,)
    )
    names = [answers.name for answers in labels.answers]
    if known.name not in names:
        raise UsageError(
            f"{path} holds verdicts under {', '.join(names)}, not under {known.name}: name that policy, or label the"
            " golden set under this one"
        )
    return labels


def _versions(policy: Policy, files: Sequence[LabeledFile]) -> Iterator[str]:
    for labels in files:
        record = labels.manifest.identity.policies.get(policy.name) if labels.manifest else None
        if record is not None and record.sha256 != policy.sha256:
            yield f"{labels.path} was labelled under another version of {policy.name}"


def _rule_field(measured: Measured, settings: Settings, asked: str | None) -> str | None:
    """Return the field with the right rules, None if the rows have none."""
    names = dict.fromkeys(name for row in measured.golden.rows for name in row.fields)
    if asked is not None and asked not in names:
        raise no_field(settings.input, "--rule-field", asked, tuple(names))
    return asked or (RULE if RULE in names else None)


def _cases(measured: Measured, policy: Policy, field: str | None) -> list[Case]:
    """Return the rows that have a label."""
    found = []
    for row, verdicts in zip(measured.golden.rows, measured.verdicts, strict=True):
        verdict, gold = verdicts[policy.name], row.gold[policy.name]
        if verdict.error is None:
            cited = _cited(verdict, row.text, policy)
            meant = as_text(row.fields.get(field)) if field else ""
            found.append(Case(row, verdict, gold, gold in policy.violates, cited, meant))
    return found


def _cited(verdict: Verdict, text: str, policy: Policy) -> tuple[str, ...]:
    """Return the policy's rules that a verdict cites: in its rationale, or as its label where labels are codes."""
    rules = rules_of(policy.text)
    found = references(verdict.rationale or "", text, policy.text, policy.labels).codes
    return tuple(dict.fromkeys(code for code in (*found, str(verdict.label)) if code in rules))


def _of_rules(cases: Sequence[Case], policy: Policy) -> dict[str, Any]:
    """Return what each rule did: which rows cite it and how right they are, and which rows it was right for."""
    rules = rules_of(policy.text)
    citing, meant = defaultdict(list), defaultdict(list)
    for case in cases:
        for code in case.cited:
            citing[code].append(case)
        if case.meant:
            meant[case.meant].append(case)
    told = {
        code: {
            "says": rules[code],
            "cited": len(citing[code]),
            "right": sum(not case.direction for case in citing[code]),
            **{way: [case.as_dict() for case in citing[code] if case.direction == way] for way in DIRECTIONS},
            "golden_rows": len(meant[code]),
            "golden_rows_wrong": [case.as_dict() for case in meant[code] if case.direction],
        }
        for code in rules
    }
    none = [case for case in cases if case.verdict.rationale is not None and not case.cited]
    pairs = [
        {
            "rules": [a, b],
            "rows_of_each": [len(citing[a]), len(citing[b])],
            "rows": [case.as_dict() for case in both],
        }
        for a, b in combinations(rules, 2)
        if len(both := [case for case in citing[a] if b in case.cited]) > 1
        and len(both) >= TOGETHER * min(len(citing[a]), len(citing[b]))
    ]
    return {
        "rules": told,
        "no_rule_cited": [case.as_dict() for case in none],
        "pairs": sorted(pairs, key=lambda pair: -len(pair["rows"])),
    }


def _flips(
    cases: Sequence[Case], name: str, one: LabeledFile, other: LabeledFile, id_field: str | None
) -> dict[str, Any]:
    """Return the rows whose label is another one in the other output, and what was asked otherwise there."""
    places, _ = paired_rows(one, other, id_field)
    there = {one.rows[i].line: other.rows[j].verdicts[name] for i, j in places}
    both = [(case, found) for case in cases if (found := there.get(case.row.line)) and found.error is None]
    flipped = [(case, found) for case, found in both if found.label != case.verdict.label]
    return {
        "output": str(other.path),
        "differs": _asked_otherwise(name, one.manifest, other.manifest),
        "rows": len(both),
        "right_here": sum(case.verdict.label == case.gold for case, _ in flipped),
        "right_there": sum(found.label == case.gold for case, found in flipped),
        "flips": [
            {**case.as_dict(), "other_label": found.label, "other_p_violates": found.p_violates}
            for case, found in flipped
        ],
    }


def _asked_otherwise(name: str, one: Manifest | None, other: Manifest | None) -> list[str] | None:
    """Return what differs between two runs, none for a repetition; None if it is not on record."""
    if one is None or other is None:
        return None
    a, b = (
        {
            **run.identity.answer.record,
            "model": run.identity.model.record.get("sampled_sha256") or run.identity.model.served,
            "policy": run.identity.policies[name].sha256 if name in run.identity.policies else None,
        }
        for run in (one, other)
    )
    return changes(a, b)


def _words(cases: Sequence[Case]) -> dict[str, list[dict[str, Any]]]:
    """Return by direction the words that wrong rows share, beside right rows with the same kind of gold label."""
    found = {}
    for way, truth in ((MISSED, True), (FALSE_ALARM, False)):
        wrong = [case for case in cases if case.direction == way]
        right = [case for case in cases if case.truth == truth and not case.direction]
        shared = shared_words([case.row.text for case in wrong], [case.row.text for case in right])
        found[way] = [_word(word, wrong, right) for word in shared]
    return found


def _word(word: Shared, wrong: Sequence[Case], right: Sequence[Case]) -> dict[str, Any]:
    return {
        "word": word.text,
        "wrong": len(word.rows),
        "of_wrong": len(wrong),
        "right": word.elsewhere,
        "of_right": len(right),
        "p": word.p,
        "rows": [wrong[at].as_dict() for at in word.rows],
    }


def _disputed(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Return the texts that stand in the golden set with several gold labels: no policy can be right about them."""
    same: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.row.text:
            same[" ".join(case.row.text.casefold().split())].append(case)
    return [
        {"labels": dict(Counter(case.gold for case in found)), "rows": [case.as_dict() for case in found]}
        for found in same.values()
        if len({case.gold for case in found}) > 1
    ]

"""Figures of a labelled stress test: flips by family with exact intervals, groups tested for difference, rationales.

A flip is another label than the original got. A family holds the same rows many times, so its rows are not
independent: only `rows_flipped`, the share of rows that at least one variant flips, has an interval to be trusted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safeguard_cli.errors import UsageError
from safeguard_cli.measure import metrics
from safeguard_cli.output.labelled import LabeledFile, LabelSet
from safeguard_cli.policy.policy import Policy, builtin_policies, load_policy
from safeguard_cli.policy.rationale import references
from safeguard_cli.rows.verdict import Verdict

ORIGINAL, LANGUAGES, RATIONALE, REPEAT = "original", "languages", "rationale", "repeat"
FIELDS = ("id", "row", "family", "variant", "group", "own_group", "label", "text")
PERMUTATIONS = 9999


@dataclass(frozen=True, slots=True)
class Trial:
    """One labelled row of a stress test: an original, or a variant of the original with the same `row`."""

    row: int
    family: str
    variant: str
    group: str
    own_group: str
    gold: str
    text: str
    verdict: Verdict


def is_stress_test(labels: LabeledFile) -> bool:
    """Return whether an output's rows are those of a stress test."""
    return bool(labels.rows) and all(field in labels.rows[0].fields for field in FIELDS)


def trials(labels: LabeledFile, answers: LabelSet) -> list[Trial]:
    """Return the rows of a stress test under one policy. Raise UsageError for a row that is none."""
    found = []
    for labelled in labels.rows:
        fields = labelled.fields
        try:
            names = (str(fields[name]) for name in FIELDS[2:])
            family, variant, group, own, gold, text = names
            row = int(fields["row"])
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"{labels.path}: row {labelled.number} is not one of a stress test") from None
        found.append(Trial(row, family, variant, group, own, gold, text, labelled.verdicts[answers.name]))
    return found


def stress_figures(found: Sequence[Trial], answers: LabelSet, policy: Policy | None) -> dict[str, Any]:
    """Return all results of a stress test; without the policy's text, rationales are not checked."""
    whole = [trial for trial in found if trial.verdict.error is None]
    originals = {trial.row: trial for trial in whole if trial.family == ORIGINAL}
    families: dict[str, list[Trial]] = {}
    for trial in whole:
        if trial.family != ORIGINAL and trial.row in originals:
            families.setdefault(trial.family, []).append(trial)
    result: dict[str, Any] = {
        "rows": len(originals),
        "labelled": len(whole),
        "rows_in_error": len(found) - len(whole),
        "families": {name: _family(families[name], originals) for name in sorted(families)},
    }
    for name, part in result["families"].items():
        of_violating = name == LANGUAGES
        part["groups_compared"] = [
            compared
            for variant in part["variants"]
            if (
                compared := _groups(
                    [trial for trial in families[name] if trial.variant == variant["name"]],
                    originals,
                    set(answers.violates) if of_violating else set(answers.labels),
                )
            )
        ]
    rationales = [trial for trial in originals.values() if trial.verdict.rationale is not None]
    result["spread"] = _spread(families[REPEAT], originals) if REPEAT in families else None
    result["rationales"] = _rationales(rationales, policy) if rationales and policy else None
    return result


def rate(count: int, of: int) -> dict[str, Any]:
    """Return a share with its 95 % Clopper-Pearson interval; null if there is nothing to count."""
    low, high = metrics.share_interval(count, of) if of else (None, None)
    return {"count": count, "of": of, "share": count / of if of else None, "low": low, "high": high}


def _flipped(trial: Trial, originals: Mapping[int, Trial]) -> bool:
    return trial.verdict.label != originals[trial.row].verdict.label


def _flips(part: Sequence[Trial], originals: Mapping[int, Trial]) -> dict[str, Any]:
    """Return how many flip, and which way: `to_allowed` of those that violated before, `to_violating` of the others."""
    violated = [trial for trial in part if originals[trial.row].verdict.violates]
    allowed = [trial for trial in part if not originals[trial.row].verdict.violates]
    return {
        "flips": rate(sum(_flipped(trial, originals) for trial in part), len(part)),
        "to_allowed": rate(sum(not trial.verdict.violates for trial in violated), len(violated)),
        "to_violating": rate(sum(bool(trial.verdict.violates) for trial in allowed), len(allowed)),
    }


def _family(part: Sequence[Trial], originals: Mapping[int, Trial]) -> dict[str, Any]:
    by_row = _by(part, lambda trial: trial.row)
    worst = sorted((_worst(originals[row], trials) for row, trials in by_row.items()), key=_badness)
    return {
        **_flips(part, originals),
        "rows_flipped": rate(sum(bool(row["flips"]) for row in worst), len(by_row)),
        "variants": [
            {"name": name, **_flips(trials, originals)}
            for name, trials in _by(part, lambda trial: trial.variant).items()
        ],
        "groups": [
            {"name": name, **_flips(trials, originals)}
            for name, trials in _by(part, lambda trial: trial.group).items()
            if name
        ],
        "worst": [row for row in worst if row["flips"]],
    }


def _by(part: Iterable[Trial], key: Callable[[Trial], Any]) -> dict[Any, list[Trial]]:
    found: defaultdict[Any, list[Trial]] = defaultdict(list)
    for trial in part:
        found[key(trial)].append(trial)
    return dict(sorted(found.items()))


def _p(trial: Trial) -> float:
    return trial.verdict.p_violates or 0.0


def _worst(original: Trial, part: Sequence[Trial]) -> dict[str, Any]:
    """Return a row with the variants that flip it, the largest change of p_violates first."""
    moved = sorted(part, key=lambda trial: (-abs(_p(trial) - _p(original)), trial.variant, trial.group))
    return {
        "row": original.row,
        "text": original.text,
        "gold": original.gold,
        "label": original.verdict.label,
        "p_violates": _p(original),
        "variants": len(part),
        "flips": [
            {
                "variant": trial.variant,
                "group": trial.group,
                "label": trial.verdict.label,
                "p_violates": _p(trial),
                "text": trial.text,
            }
            for trial in moved
            if trial.verdict.label != original.verdict.label
        ],
    }


def _badness(worst: Mapping[str, Any]) -> tuple[float, int]:
    return -len(worst["flips"]) / worst["variants"], worst["row"]


def _groups(part: Sequence[Trial], originals: Mapping[int, Trial], gold: set[str]) -> dict[str, Any] | None:
    """Return how often each group's texts are labelled violating, among rows with a right label in `gold`.

    None unless the originals have groups of their own. The test for difference takes the rows that all groups have.
    """
    said: defaultdict[str, dict[int, bool]] = defaultdict(dict)
    flips: defaultdict[str, list[bool]] = defaultdict(list)
    for trial in part:
        if trial.own_group and trial.gold in gold:
            said[trial.own_group][trial.row] = bool(originals[trial.row].verdict.violates)
            said[trial.group][trial.row] = bool(trial.verdict.violates)
            flips[trial.group].append(_flipped(trial, originals))
    if not said:
        return None
    both = set.intersection(*(set(rows) for rows in said.values()))
    table = [[said[group][row] for group in sorted(said)] for row in sorted(both)]
    return {
        "variant": part[0].variant,
        "rows": len(table),
        "p": difference(table),
        "groups": [
            {
                "name": group,
                "violating": rate(sum(said[group].values()), len(said[group])),
                "flips": rate(sum(flips[group]), len(flips[group])),
            }
            for group in sorted(said)
        ],
    }


def difference(table: Sequence[Sequence[bool]]) -> float | None:
    """Return how likely groups (columns) differ so much if the group made no difference.

    This is a permutation test within rows. Its statistic orders tables as Cochran's Q does; Q's own distribution holds
    for many rows only. None without two rows and two groups.
    """
    import numpy as np
    from scipy.stats import permutation_test

    values = np.array(table, np.float64)
    if values.ndim < 2 or min(values.shape) < 2:
        return None
    if not np.ptp(values, axis=1).any():  # no row differs
        return 1.0

    def spread(*columns: Any, axis: int) -> Any:
        return np.var([column.mean(axis=axis) for column in columns], axis=0)

    found = permutation_test(
        tuple(values.T),
        spread,
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        alternative="greater",
        random_state=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _spread(part: Sequence[Trial], originals: Mapping[int, Trial]) -> dict[str, float]:
    """Return how far apart the same row's scores are, over its original and its repetitions."""
    scores = defaultdict(list)
    for trial in part:
        scores[trial.row].append(_p(trial))
    spreads = [max(p) - min(p) for p in ([*found, _p(originals[row])] for row, found in scores.items())]
    return {"mean": sum(spreads) / len(spreads), "most": max(spreads)}


def _rationales(part: Sequence[Trial], policy: Policy) -> dict[str, Any]:
    """Return how often the originals' rationales refer to something that does not exist."""
    found = [
        (trial, references(trial.verdict.rationale or "", trial.text, policy.text, policy.labels)) for trial in part
    ]
    return {
        "inventing": rate(sum(item.invents for _, item in found), len(found)),
        "codes": sum(len(item.codes) for _, item in found),
        "unknown_codes": sum(len(item.unknown_codes) for _, item in found),
        "quotes": sum(len(item.quotes) for _, item in found),
        "policy_quotes": sum(len(item.policy_quotes) for _, item in found),
        "unknown_quotes": sum(len(item.unknown_quotes) for _, item in found),
        "without_reference": sum(not (item.codes or item.quotes) for _, item in found),
        "worst": [
            {
                "row": trial.row,
                "text": trial.text,
                "rationale": trial.verdict.rationale,
                "invented": [*item.unknown_codes, *item.unknown_quotes],
            }
            for trial, item in found
            if item.invents
        ],
    }


def policy_of(labels: LabeledFile, name: str, policies: Sequence[Policy]) -> Policy | None:
    """Return the policy that an output was labelled under: a given one, else a built-in one, of this name and text.

    Raise UsageError if the given one has changed since.
    """
    known = labels.manifest.identity.policies.get(name) if labels.manifest else None
    given = next((policy for policy in policies if policy.name == name), None)
    if given and known and given.sha256 != known.sha256:
        raise UsageError(f"the policy {name} is not the one that {labels.path} was labelled under")
    found = given or (load_policy(name) if name in builtin_policies() else None)
    return found if found and (given or (known and found.sha256 == known.sha256)) else None

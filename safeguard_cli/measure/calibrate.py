"""`safeguard eval --calibrate FILE`: learn from a golden set how often rows with a p_violates do violate.

The curve in the file is fitted to all rows. The figures of it are cross-fitted: each row's probability is by a curve
that was fitted without the row, and without any other row of the same text.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safeguard_cli import files
from safeguard_cli.errors import UsageError, sentences
from safeguard_cli.measure import metrics
from safeguard_cli.measure.measured import Measured, outcomes
from safeguard_cli.measure.metrics import Flags, Floats, Outcomes
from safeguard_cli.measure.options import Wanted
from safeguard_cli.output.labelled import LabelSet, model_name
from safeguard_cli.output.manifest import Manifest
from safeguard_cli.rows.writable import check_folder, check_output, is_stream, real
from safeguard_cli.run.calibration import (
    DIGITS,
    Calibration,
    Curve,
    Isotonic,
    OfPolicy,
    Platt,
    is_calibration,
    logit,
    settings_of,
)
from safeguard_cli.run.destination import used_by
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import note

FOLDS = 5
FEWEST = 20  # rows that violate, and rows that do not: four in each fold
METHODS = ("platt", "isotonic")  # a logistic curve of two parameters, and one of any shape that never falls
FIGURES = ("calibration_error", "brier")

Keys = Sequence[bytes]  # which text each row has


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """The curve of one policy, and each row's probability by a curve that was fitted without it."""

    curve: Curve
    cross_fitted: Floats

    @property
    def method(self) -> str:
        return "isotonic" if isinstance(self.curve, Isotonic) else "platt"


def check_target(settings: Settings, wanted: Wanted) -> None:
    """Raise UsageError, before the work, if --calibrate cannot write its file or would replace another."""
    if wanted.calibrate is None:
        return
    target = Path(wanted.calibrate)
    if is_stream(target):
        raise UsageError(f"--calibrate {target}: name a file")
    check_output(target, used_by(settings))
    check_folder(real(target))
    if target.exists() and not is_calibration(target):
        raise UsageError(f"--calibrate {target}: the file exists and is no calibration: name another one")


def add_calibration(
    measured: Measured, settings: Settings, wanted: Wanted, result: dict[str, Any]
) -> UsageError | None:
    """Add to a result of `eval` what is known of calibrated probabilities, and write the file of --calibrate.

    Return what to raise if nothing can be learned from the rows: their other figures, which may have taken hours, are
    shown all the same.
    """
    if wanted.calibrate is None:
        for answers in measured.answers:
            result["policies"][answers.name] |= _as_written(measured, answers)
        return None
    try:
        _calibrate(measured, settings, wanted, wanted.calibrate, result)
    except UsageError as problem:
        return problem
    return None


def _calibrate(measured: Measured, settings: Settings, wanted: Wanted, target: str, result: dict[str, Any]) -> None:
    """Learn the curves of all policies, and write them; raise UsageError if one cannot be learned."""
    policies: dict[str, Any] = result["policies"]
    manifest = _known(measured, settings)
    learned = {a.name: _learned(measured, a, wanted.calibrate_with) for a in measured.answers}
    for answers in measured.answers:
        found, each = outcomes(measured, answers)[0], learned[answers.name]
        policies[answers.name]["calibrated"] = {
            "method": each.method,
            "by": f"cross-fitted in {FOLDS} folds",
            **before_and_after(found, each.cross_fitted),
        }
    calibration = Calibration(
        manifest.identity.model.record,
        measured.model or model_name(manifest),
        manifest.identity.prompt_layout,
        settings_of(manifest.identity.answer.record),
        {
            name: OfPolicy(manifest.identity.policies[name].record, each.curve, _figures(policies[name]["calibrated"]))
            for name, each in learned.items()
        },
    )
    with sentences(target):
        files.write(real(Path(target)), calibration.as_bytes())
    result["calibration"] = target
    if not settings.quiet:
        note(f"wrote {target}: safeguard label INPUT --calibration {target} adds p_calibrated")


def _known(measured: Measured, settings: Settings) -> Manifest:
    """Return what is on record of the verdicts; raise UsageError if a calibration of them would be of nothing."""
    if measured.manifest is None:
        raise UsageError(
            f"--calibrate: nothing is on record beside {settings.input}, so nobody knows which policy and model its"
            " verdicts are of; --policy labels the rows of a golden set anew"
        )
    if any(row.picked for row in measured.golden.rows):
        raise UsageError(
            "--calibrate: no row was picked at random, and what holds for rows that were picked as unsure or wrong"
            " holds for no file: review some with --pick random"
        )
    return measured.manifest


def _figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a calibration's file tells people of how it was learned."""
    error = found["calibration_error"]
    return {
        "rows": found["rows"],
        "violating": found["violating"],
        "calibration_error": {name: round(error[name]["value"], DIGITS) for name in ("before", "after")},
    }


def _as_written(measured: Measured, answers: LabelSet) -> dict[str, Any]:
    """Return the figures of the p_calibrated that the rows have, none if they have none."""
    if (probability := calibrated_of(measured, answers)) is None:
        return {}
    after = before_and_after(outcomes(measured, answers)[0], probability)
    return {"calibrated": {"method": None, "by": "p_calibrated of these rows", **after}}


def calibrated_of(measured: Measured, answers: LabelSet) -> Floats | None:
    """Return the p_calibrated of the rows that are labelled, None if one has none."""
    verdicts = (verdicts[answers.name] for verdicts in measured.verdicts)
    written = [verdict.p_calibrated for verdict in verdicts if verdict.error is None]
    known = [p for p in written if p is not None]
    return np.array(known) if len(known) == len(written) else None


def before_and_after(found: Outcomes, probability: Floats) -> dict[str, Any]:
    """Return the figures that calibration is for, of p_violates and of calibrated probabilities."""
    sides = {"before": found, "after": replace(found, p_violates=probability)}
    values = {side: metrics.figures(each) for side, each in sides.items()}
    bounds = {side: metrics.intervals(each) for side, each in sides.items()}
    figures = {
        name: {
            side: {
                "value": _defined(values[side][name]),
                "low": _defined(bounds[side][name][0]),
                "high": _defined(bounds[side][name][1]),
            }
            for side in sides
        }
        for name in FIGURES
    }
    return {"rows": len(found), "violating": int(found.truth.sum()), **figures}


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _learned(measured: Measured, answers: LabelSet, method: str | None) -> Learned:
    found, kept = outcomes(measured, answers)
    texts = [measured.golden.rows[place].text or f"\0{place}" for place in kept]  # an output may have kept no text
    yes = int(found.truth.sum())
    if min(yes, len(found) - yes) < FEWEST:
        raise UsageError(
            f"--calibrate needs {FEWEST} rows that violate {answers.name} and {FEWEST} that do not: there are {yes:,}"
            f" and {len(found) - yes:,}"
        )
    return learn(found.truth, found.p_violates, text_keys(texts), method, answers.name)


def learn(truth: Flags, p: Floats, texts: Keys, method: str | None, name: str = "the policy") -> Learned:
    """Learn a curve from which rows violate and their p_violates, with `method` or with the better one.

    Raise UsageError if p_violates tells nothing of the rows.
    """
    with metrics.sklearn() as scores:
        auroc = scores.roc_auc_score(truth, p)
        curve = fit(method or better_method(truth, p, texts), truth, p)
        if auroc <= 0.5 or (isinstance(curve, Platt) and curve.slope <= 0):
            raise UsageError(
                f"--calibrate: under {name}, p_violates is no higher in rows that violate (AUROC {auroc:.3f}), and no"
                " curve mends that"
            )
        return Learned(curve, cross_fit(method, truth, p, texts))


def cross_fit(method: str | None, truth: Flags, p: Floats, texts: Keys) -> Floats:
    """Return each row's probability by a curve that was fitted, and whose method was chosen, without its fold."""
    found = np.empty(len(truth))
    places = folds(truth, texts)
    for fold in range(FOLDS):
        out = places == fold
        rest = truth[~out], p[~out]
        kept = [text for text, left in zip(texts, out, strict=True) if not left]
        found[out] = probabilities(fit(method or better_method(*rest, kept), *rest), p[out])
    return found


def better_method(truth: Flags, p: Floats, texts: Keys) -> str:
    """Return the method whose cross-fitted probabilities have the lower log loss."""

    def loss(method: str) -> float:
        found = cross_fit(method, truth, p, texts)
        return float(-np.log(np.where(truth, found, 1 - found)).mean())

    return min(METHODS, key=loss)


def probabilities(curve: Curve, p: Floats) -> Floats:
    """Return the probabilities of rows by a curve."""
    return np.array([curve(x) for x in p.tolist()])


def text_keys(texts: Iterable[str]) -> list[bytes]:
    """Return a key for each text, in an order that has nothing to do with the rows'."""
    return [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]


def folds(truth: Flags, keys: Keys) -> npt.NDArray[np.int64]:
    """Return each row's fold: rows of one text share theirs, and each fold has its part of what violates."""
    first: dict[bytes, bool] = {}
    for key, bad in zip(keys, truth, strict=True):
        first.setdefault(key, bool(bad))
    order = sorted(first, key=lambda key: (first[key], key))
    fold = {key: place % FOLDS for place, key in enumerate(order)}
    return np.array([fold[key] for key in keys], np.int64)


def fit(method: str, truth: Flags, p: Floats) -> Curve:
    """Fit a curve to the targets of Platt (1999), which are short of 0 and 1, so that no probability is 0 or 1."""
    yes, no = int(truth.sum()), int((~truth).sum())
    targets = np.where(truth, (yes + 1) / (yes + 2), 1 / (no + 2))
    return _isotonic(targets, p) if method == "isotonic" else _platt(targets, p)


def _isotonic(targets: Floats, p: Floats) -> Isotonic:
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression(out_of_bounds="clip").fit(p, targets)
    rounded = {round(float(x), DIGITS): round(float(y), DIGITS) for x, y in _points(found)}
    return Isotonic(tuple(rounded), tuple(rounded.values()))


def _points(found: Any) -> Any:
    return zip(found.X_thresholds_, found.y_thresholds_, strict=True)


def _platt(targets: Floats, p: Floats) -> Platt:
    from sklearn.linear_model import LogisticRegression

    z = np.array([[logit(float(x))] for x in p])
    # Each row counts twice, as violating by its target and as safe by the rest of it.
    sides = np.repeat([True, False], len(z))
    weights = np.concatenate([targets, 1 - targets])
    found = LogisticRegression(C=np.inf, max_iter=1000).fit(np.concatenate([z, z]), sides, sample_weight=weights)
    return Platt(round(float(found.coef_[0, 0]), DIGITS), round(float(found.intercept_[0]), DIGITS))

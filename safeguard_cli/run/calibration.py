"""Calibrations: what p_violates means, learned by `eval --calibrate` and applied to the labels of a run.

A calibration is a small JSON file. It holds a curve for each policy, and what it was learned under, so that it is never
applied to the answers to another question.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.errors import UsageError, sentences
from safeguard_cli.files import read_small
from safeguard_cli.model.checks import (
    Check,
    Misshapen,
    by_name,
    each,
    either,
    filled,
    integer,
    number,
    one_of,
    sha256,
    table,
    text,
)
from safeguard_cli.prompt.labeling import Labeling
from safeguard_cli.run.donors import told_setting
from safeguard_cli.run.identity import asked
from safeguard_cli.run.prepare import Prepared
from safeguard_cli.run.reuse import asked_model
from safeguard_cli.run.settings import Settings

VERSION = 1
MOST_BYTES = 4 << 20
DIGITS = 6  # of a probability, as of p_violates
LEAST = 1e-6  # that a p_violates can be without being 0; logits stop here

# The settings that move p_violates of every row; those of long texts (--ctx, --long) do not.
_SETTINGS: Mapping[str, str] = {
    "effort": "--effort",
    "sure": "--sure",
    "most_reasoning": "--max-reasoning",
    "temperature": "--temperature",
    "policy_only_prompt": "--policy-only-prompt",
    "together": "--together",
    "rationale": "--rationale",
    "votes": "--votes",
    "until_decided": "--until-decided",
}


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A curve that never falls: straight between the points, level before the first and after the last."""

    p: tuple[float, ...]  # p_violates, rising
    probability: tuple[float, ...]

    def __call__(self, p: float) -> float:
        after = bisect_left(self.p, p)
        if after == 0 or after == len(self.p):
            return self.probability[min(after, len(self.p) - 1)]
        (low, high), (bottom, top) = self.p[after - 1 : after + 1], self.probability[after - 1 : after + 1]
        return bottom + (top - bottom) * (p - low) / (high - low)


@dataclass(frozen=True, slots=True)
class Platt:
    """The curve of Platt (1999) over the logit of p_violates: a logistic function."""

    slope: float
    intercept: float

    def __call__(self, p: float) -> float:
        z = self.slope * logit(p) + self.intercept
        return 1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z))


Curve = Isotonic | Platt


def logit(p: float) -> float:
    """Return the logit of a probability that was kept from being 0 or 1."""
    p = min(max(p, LEAST), 1 - LEAST)
    return math.log(p / (1 - p))


@dataclass(frozen=True, slots=True)
class OfPolicy:
    """What was learned under one policy; `known` is what the figures are about, for people."""

    policy: Mapping[str, Any]  # as a manifest has it
    curve: Curve
    known: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the object that the file has under the policy's name."""
        curve = self.curve
        if isinstance(curve, Isotonic):
            found: dict[str, Any] = {"method": "isotonic", "p_violates": curve.p, "p_calibrated": curve.probability}
        else:
            found = {"method": "platt", "slope": curve.slope, "intercept": curve.intercept}
        return {**self.policy, **self.known, **found}


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibration, with what it was learned under as a manifest has it."""

    model: Mapping[str, Any]
    model_name: str
    prompt_layout: str
    answer: Mapping[str, Any]
    policies: Mapping[str, OfPolicy]

    def as_bytes(self) -> bytes:
        """Return the file."""
        found = {
            "safeguard_calibration": VERSION,
            "model": self.model,
            "model_name": self.model_name,
            "prompt_layout": self.prompt_layout,
            "answer": self.answer,
            "policies": {name: found.as_dict() for name, found in self.policies.items()},
        }
        return orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def settings_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return of what was asked the settings that move p_violates of every row."""
    return {name: answer[name] for name in _SETTINGS if name in answer}


def calibrated(settings: Settings, prepared: Prepared) -> Prepared:
    """Return a run that also writes p_calibrated, if --calibration is given.

    Raise UsageError if the calibration was learned under another policy, model or setting.
    """
    if settings.calibration is None:
        return prepared
    path = Path(settings.calibration)
    data = _read(path)
    found = parse(data, path)
    if against := [*_against(found, settings, prepared, path)]:
        raise UsageError("--calibration cannot be applied:", *against)
    rules = prepared.labeling.rules
    curves = {policy.name: found.policies[policy.name].curve for policy in rules.policies}
    labeling = Labeling(prepared.labeling.harmony, replace(rules, calibrate=rounded(curves)))
    return replace(prepared, labeling=labeling, calibration=hashlib.sha256(data).hexdigest())


def rounded(curves: Mapping[str, Curve]) -> dict[str, Callable[[float], float]]:
    """Return the curves as an output is written with them."""

    def of(curve: Curve) -> Callable[[float], float]:
        return lambda p: round(curve(p), DIGITS)

    return {name: of(curve) for name, curve in curves.items()}


def is_calibration(path: Path) -> bool:
    """Return whether a file is a calibration, of this version or a later one."""
    with sentences(path):
        data = read_small(path, MOST_BYTES)
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and "safeguard_calibration" in found


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(f"--calibration {path}: " + ("this is no file" if path.exists() else "there is no such file"))
    with sentences(path):
        return read_small(path, MOST_BYTES)


def parse(data: bytes, path: Path) -> Calibration:
    """Read a calibration; raise UsageError, naming the member, if something of it is not what it should be."""
    try:
        found = orjson.loads(data)
        _FILE(found, "")
        policies = {name: _of_policy(one, f"policies.{name}") for name, one in found["policies"].items()}
    except (orjson.JSONDecodeError, Misshapen) as problem:
        what = "it is not JSON" if isinstance(problem, orjson.JSONDecodeError) else str(problem)
        raise UsageError(
            f"{path} is not a calibration that this version of safeguard reads: {what}; safeguard eval GOLDEN"
            " --calibrate FILE writes one"
        ) from None
    return Calibration(found["model"], found["model_name"], found["prompt_layout"], found["answer"], policies)


def _of_policy(found: Mapping[str, Any], where: str) -> OfPolicy:
    policy = {name: found[name] for name in _POLICY}
    known = {name: value for name, value in found.items() if name not in (*_POLICY, *_CURVES, "method")}
    if found["method"] == "platt":
        table(_PLATT)(found, where)
        return OfPolicy(policy, Platt(found["slope"], found["intercept"]), known)
    table(_ISOTONIC)(found, where)
    p, probability = found["p_violates"], found["p_calibrated"]
    if len(p) != len(probability):
        raise Misshapen(f"{where}.p_calibrated should have as many numbers as p_violates")
    if not all(low < high for low, high in pairwise(p)):
        raise Misshapen(f"{where}.p_violates should rise")
    if not all(low <= high for low, high in pairwise(probability)):
        raise Misshapen(f"{where}.p_calibrated should not fall")
    return OfPolicy(policy, Isotonic(tuple(p), tuple(probability)), known)


_POLICY: Mapping[str, Check] = {"sha256": sha256, "labels": each(filled, 1), "violates": each(filled)}
_share = number(0, 1)
_ISOTONIC: Mapping[str, Check] = {"p_violates": each(_share, 1), "p_calibrated": each(_share, 1)}
_PLATT: Mapping[str, Check] = {"slope": number(0, 1e6), "intercept": number(-1e6, 1e6)}
_CURVES = (*_ISOTONIC, *_PLATT)
_FILE = table(
    {
        "safeguard_calibration": one_of(VERSION),
        "model": either(table({"served": text}), table({"bytes": integer(), "sampled_sha256": sha256})),
        "model_name": text,
        "prompt_layout": text,
        "answer": table({"effort": filled}),
        "policies": by_name(table({**_POLICY, "method": one_of("isotonic", "platt")}), 1),
    }
)


def _against(found: Calibration, settings: Settings, prepared: Prepared, path: Path) -> Iterator[str]:
    """Yield what stands against a calibration in this run."""
    wanted = asked(settings, prepared)
    if found.model != wanted["model"]:
        model = asked_model(prepared)
        other = "another model of this name" if model == found.model_name else f"the model {found.model_name}"
        yield f"{path} was learned from {other}, this run asks {model}"
    if found.prompt_layout != wanted["prompt_layout"]:
        yield f"{path} was learned by a version of safeguard that wrote other prompts"
    for name, option in _SETTINGS.items():
        before, now = found.answer.get(name), wanted["answer"].get(name)
        if before != now and (name != "sure" or found.answer["effort"] == wanted["answer"]["effort"]):
            yield f"{path} was learned {told_setting(option, before, now)}"
    yield from _other_policies(found, wanted["policies"], wanted["answer"]["together"], path)


def _other_policies(
    found: Calibration, wanted: Mapping[str, Mapping[str, Any]], together: bool, path: Path
) -> Iterator[str]:
    names: Sequence[str] = [*found.policies]
    for name, policy in wanted.items():
        if name not in found.policies:
            yield f"{path} knows nothing of the policy {name}, but of {', '.join(names)}"
        elif found.policies[name].policy["sha256"] != policy["sha256"]:
            yield f"{path} was learned under another text or other labels of the policy {name}"
        elif found.policies[name].policy != policy:
            before, now = (", ".join(each["violates"]) for each in (found.policies[name].policy, policy))
            yield f"{path} was learned with other violating labels of {name}: {before}; now they are {now}"
    if together and names != [*wanted]:
        yield f"{path} was learned with --together for {', '.join(names)}, this run is for {', '.join(wanted)}"

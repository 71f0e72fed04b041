"""Proves with the very model that an engine computes what llama.cpp does, before its speed is used.

The last logits alone cannot tell a wrong kernel from rounding: rounding sends some tokens to other experts, which moves
them more than one wrong expert or a window that is off by one. So the engines are looked at inside (evidence.py), and
only what is comparable is compared: a token counts at a layer as long as both engines chose the same experts for it
there and before. What such a layer adds differs by rounding, a few percent. Where too little is comparable, nothing is
proved.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safeguard_cli.engine.local.evidence import tokens
from safeguard_cli.engine.local.plan import IK, Loading
from safeguard_cli.engine.local.probe import Probe, newer_type
from safeguard_cli.errors import EngineError
from safeguard_cli.model import kept
from safeguard_cli.model.checks import by_name, flag, number, table, text
from safeguard_cli.model.fingerprint import model_key
from safeguard_cli.model.gguf import BadModelFile, read_model

PROOFS, MOST_PROOFS = "proofs.json", 200  # kept verdicts
VERSION = 2  # of evidence and judgement: verdicts of others do not count
TOKENS = tokens(128)  # that each of both engines decodes for a proof, with gpt-oss's window
MOST_WINDOW = 1024  # a longer one makes a proof too dear

# Errors are relative: the norm of a difference over the norm of what is right. With six layers of random weights, right
# engines' medians are at most 0.044 against each other and a tenth of tokens reaches 0.063; with a window off by one,
# medians are 0.11 and more. A tenth of the tokens of ik's own flash attention reaches 0.23.
ROUNDING, TAIL = 0.07, 2.0  # the median; a tenth of tokens may reach so many times its bound
BEYOND = 1.5  # in the first layer, a tenth of tokens beyond the window may differ so much more than those in it:
# right engines 1.2 times, with a window off by one 1.8 and more, even where attention is so flat that medians are right
GROWTH = 3.0  # an error of before may grow so much in a layer without a fault of that layer
SHARP = 0.05  # in a layer with larger errors, over all tokens, a wrong expert would not show
WRONG_EXPERT = 2.2  # times the usual error: right experts reach 1.1, in deep layers 1.4, one of twice its size 3.2
FLOOR = 0.01  # below it, errors are compared with this
ENOUGH = 5  # tokens that use an expert, or that are left of a part, for a judgement
STAY = 0.75  # of tokens with equal inputs, so many choose the same experts at the first layer
JUDGED = 0.75  # of all experts of all layers, so many must be judged for a proof
REGROUPED, REGROUPED_SCORE = 0.02, 0.05  # what another grouping may move: 1 - correlation of logits, a label's score
SCORE = 0.15  # a label's score may be so far from the reference's; the demo model's are 0.06
TIMES = 4.0  # or so many times what it moves with the reference
LABELS = 8  # tokens to choose from in the place of labels

_IN, _BEYOND = "in the window", "beyond the window"  # where a token stands
_LLAMA = ("llama-cpp-python", "LLAMA_CPP_LIB_PATH")
Evidence = Mapping[str, npt.NDArray[Any]]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an engine is `proved` equal, and whether enough could be `judged` to say so; `reason` is for people.

    `cells` is the share of all experts of all layers that was judged, `error` the largest median error of a layer,
    `expert` that of an expert as a multiple of what is usual in its layer, `grouping` and `scores` what another
    grouping into batches moves, `seconds` what the proof took.
    """

    proved: bool
    judged: bool
    reason: str
    cells: float = 0.0
    error: float = 0.0
    expert: float = 0.0
    grouping: float = 0.0
    scores: float = 0.0
    seconds: float = 0.0


class _WrongError(Exception):
    """The engine is wrong; the message says where."""


def judge(reference: Evidence, candidate: Evidence, window: int) -> Verdict:
    """Return what the evidence of two engines says of the second. Pure."""
    found = _Found()
    try:
        if not reference["finite"]:
            raise _WrongError("llama.cpp itself computes values that are not finite with this model")
        if not candidate["finite"]:
            raise _WrongError("it computes values that are not finite")
        _regrouped(found, reference, candidate)
        _inside(found, reference, candidate, window)
    except _WrongError as wrong:
        return found.verdict(False, True, str(wrong))
    if found.share < JUDGED:
        reason = f"only finiteness and grouping could be judged: {found.share:.0%} of experts can be compared"
        return found.verdict(False, False, reason)
    return found.verdict(True, True, f"layers differ by {found.error:.1%} at most, which is rounding")


class _Found:
    """The figures of a judgement as they come up."""

    def __init__(self) -> None:
        self.cells = self.judged = 0
        self.error = self.expert = self.grouping = self.scores = 0.0

    @property
    def share(self) -> float:
        return self.judged / max(self.cells, 1)

    def count(self, experts: npt.NDArray[Any], error: _Floats, same: npt.NDArray[np.bool_], clear: bool) -> None:
        """Count a layer's experts, and those that were judged: a wrong one would have shown."""
        uses = np.unique(experts[same], return_counts=True)[1]
        self.cells += int(experts.max()) + 1
        if clear and _median(error[same]) <= SHARP:
            self.judged += int((uses >= ENOUGH).sum())

    def verdict(self, proved: bool, judged: bool, reason: str) -> Verdict:
        figures = (self.share, self.error, self.expert, self.grouping, self.scores)
        return Verdict(proved, judged, reason, *(round(one, 5) if one < 1e6 else 1e6 for one in figures))


def _regrouped(found: _Found, reference: Evidence, candidate: Evidence) -> None:
    """Compare the two groupings of each engine."""
    if candidate["one"].shape != reference["one"].shape:
        raise _WrongError("its logits have another shape")
    usual, found.grouping = (_unlike(evidence["one"], evidence["other"]) for evidence in (reference, candidate))
    if not found.grouping <= max(REGROUPED, TIMES * usual):
        raise _WrongError(f"its logits hang on the grouping into batches (correlation {1 - found.grouping:.3f})")
    usual, found.scores = (_apart(evidence["one"], evidence["other"]) for evidence in (reference, candidate))
    if not found.scores <= max(REGROUPED_SCORE, TIMES * usual):
        raise _WrongError(f"another grouping into batches moves a score by {found.scores:.2f}")


def _inside(found: _Found, reference: Evidence, candidate: Evidence, window: int) -> None:
    """Compare layer by layer, then the logits that come out."""
    position = reference["position"]
    parts = {
        _IN: (position >= 0) & (position < window),
        _BEYOND: position >= max(window, 1),
        "of single tokens": position < 0,
    }
    before = {part: 0.0 for part, among in parts.items() if among.any()}
    same = np.ones(len(position), bool)
    for depth, (name, experts, error, agree) in enumerate(_layers(reference, candidate)):
        first = depth < 2  # up to the first layer both engines' inputs are equal
        same, clear, tails, times = same & agree, True, {}, np.full(len(error), np.nan)
        for part, last in before.items():
            here, among = error[parts[part] & same], int(parts[part].sum())
            if first and len(here) < STAY * among:
                raise _WrongError(f"{name} {part} chooses other experts for {1 - len(here) / among:.0%} of tokens")
            if len(here) < ENOUGH:
                clear = False
                continue
            median, bound = _median(here), max(ROUNDING, GROWTH * last)
            found.error = max(found.error, median)
            if not median <= bound:
                raise _WrongError(f"{name} {part} differs by {median:.1%}")
            tails[part] = float(np.quantile(here, 0.9)), TAIL * bound
            before[part], clear = median, clear and median <= ROUNDING
            times[parts[part] & same] = here / max(median, FLOOR)
        if experts is not None:
            if _median(error[same]) <= SHARP:
                _experts(found, name, experts, times)
            found.count(experts, error, same, clear)
        if first and tails.keys() >= {_IN, _BEYOND}:
            tails[_BEYOND] = tails[_BEYOND][0], BEYOND * max(tails[_IN][0], FLOOR)
        for part, (tail, bound) in tails.items():
            if not tail <= bound:
                raise _WrongError(f"{name} {part} differs by {tail:.1%} or more for a tenth of tokens")
    rows = same[reference["row"]]
    if rows.any():
        one, other = reference["one"][rows], candidate["one"][rows]
        median, score = _median(_error(_centred(one), _centred(other))), _apart(one, other)
        if not median <= max(ROUNDING, GROWTH * max(before.values())) or not score <= SCORE:
            raise _WrongError(f"its logits differ by {median:.1%}, a score by {score:.2f}")


def _experts(found: _Found, name: str, experts: npt.NDArray[Any], times: _Floats) -> None:
    """Compare the experts of a layer with each other: `times` are tokens' errors over those usual where they stand."""
    for expert in np.unique(experts):
        here = times[(experts == expert).any(axis=1) & np.isfinite(times)]
        if len(here) >= ENOUGH:
            found.expert = max(found.expert, _median(here))
            if _median(here) > WRONG_EXPERT:
                raise _WrongError(f"{name}, expert {expert} differs {_median(here):.1f} times as much as others do")


def _median(error: _Floats) -> float:
    return float(np.median(error)) if len(error) else float("inf")


def _layers(
    reference: Evidence, candidate: Evidence
) -> Iterator[tuple[str, npt.NDArray[Any] | None, _Floats, npt.NDArray[np.bool_]]]:
    """Yield each layer's name, the tokens' experts, the errors of what it adds, whether the experts are the same."""
    before = reference["embedding"], candidate["embedding"]
    every = np.ones(len(before[0]), bool)
    yield "the embedding", None, _error(*before), every
    layer = 0
    while f"out-{layer}" in reference:
        experts, others = reference[f"experts-{layer}"], candidate[f"experts-{layer}"]
        after = reference[f"out-{layer}"], candidate[f"out-{layer}"]
        error = _error(after[0] - before[0], after[1] - before[1])
        yield f"layer {layer}", experts, error, (experts == others).all(axis=1)
        before, layer = after, layer + 1
    samples = (_centred(evidence["sample"]) for evidence in (reference, candidate))
    yield "the output", None, _error(*samples), every


def _error(right: npt.NDArray[Any], found: npt.NDArray[Any]) -> _Floats:
    """Return each token's error; infinite where it cannot be told."""
    with np.errstate(all="ignore"):
        error = np.linalg.norm((right - found).astype(np.float64), axis=1) / np.linalg.norm(right, axis=1)
    return np.asarray(np.where(np.isfinite(error), error, np.inf))


def _centred(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


def _unlike(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Return the mean of 1 - correlation over rows."""
    with np.errstate(all="ignore"):  # of rows without any differences it is no number, which passes no bound
        return float(np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(one, other, strict=True)]))


def _apart(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Return the most that a score moves, among tokens that stand for labels."""
    ids = np.linspace(0, one.shape[1] - 1, LABELS).astype(int)
    return float(np.abs(_softmax(one[:, ids]) - _softmax(other[:, ids])).max())


def _softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def known(path: Path, candidate: Loading, reference: Loading) -> Verdict | None:
    """Return what an earlier proof found for this file, these libraries and this CPU; None where there was none."""
    return _kept().get(_key(model_key(path), reference, candidate))


def prove(
    path: Path, key: str, reference: Loading, candidate: Loading, tell: Callable[[float], None] = lambda _: None
) -> Verdict:
    """Have both engines decode the same tokens of a model, judge what they computed, keep the verdict and return it.

    `key` is the model's (model_key), `tell` is called with the share that is done. An engine that dies or fails is
    rejected; where the system killed it, perhaps for memory, that is not kept. It takes what decoding TOKENS with each
    takes, and loading the model twice.
    """
    begin = time.monotonic()
    try:
        window = read_model(path, newer_type).number("attention.sliding_window")
        if window > MOST_WINDOW:
            verdict = Verdict(False, False, f"a window of {window:,} tokens takes too long")
        else:
            verdict = compare(path, path, window, reference, candidate, tell)
    except (EngineError, BadModelFile) as error:
        verdict = Verdict(False, True, str(error))
    verdict = replace(verdict, seconds=round(time.monotonic() - begin, 1))
    if "(SIGKILL)" in verdict.reason:
        return verdict
    name = _key(key, reference, candidate)
    others = [(other, one) for other, one in _kept().items() if other != name][1 - MOST_PROOFS :]
    kept.save(PROOFS, {other: asdict(one) for other, one in [*others, (name, verdict)]})
    return verdict


def compare(
    path: Path, other: Path, window: int, reference: Loading, candidate: Loading, tell: Callable[[float], None]
) -> Verdict:
    """Judge the evidence of two engines, whose files are the same but in tests. Raises EngineError where one fails."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "reference.npz", Path(folder) / "candidate.npz"
        for turn, (model, file, loading) in enumerate(zip((path, other), files, (reference, candidate), strict=True)):
            evidence(model, file, window, loading)
            tell((turn + 1) / 2)
        with np.load(files[0]) as right, np.load(files[1]) as found:
            return judge(right, found, window)


def evidence(path: Path, file: Path, window: int, loading: Loading) -> None:
    """Have an engine's evidence written to a file, in a process of its own. Raises EngineError where it fails."""
    header = read_model(path, newer_type)
    sizes = {
        "used": header.number("expert_used_count", 1),
        "width": header.number("embedding_length"),
        "layers": header.number("block_count"),
    }
    try:
        with Probe() as probe:
            probe.ask("evidence", path=str(path), file=str(file), window=window, **sizes, **asdict(loading))
    except EngineError as error:
        raise EngineError(f"{loading.engine}: {error}") from None


def _kept() -> dict[str, Verdict]:
    figures = dict.fromkeys(("cells", "error", "expert", "grouping", "scores", "seconds"), number(-2))
    form = table({"proved": flag, "judged": flag, "reason": text, **figures})
    names = Verdict.__dataclass_fields__
    found: dict[str, dict[str, Any]] = kept.load(PROOFS, by_name(form)) or {}
    return {key: Verdict(**{name: one[name] for name in names}) for key, one in found.items()}


def _key(model: str, reference: Loading, candidate: Loading) -> str:
    """Return a hash of all that a verdict hangs on: the model's file, the libraries, the CPU, what chooses kernels."""
    kernels = (
        (each.engine, each.extra_buffers, each.flash, each.cache_type, _library(each.engine))
        for each in (reference, candidate)
    )
    return hashlib.sha256("|".join(map(str, (VERSION, model, *kernels, _cpu()))).encode()).hexdigest()


@cache
def _library(engine: str) -> str:
    """Return which build of a library there is: a package's version and its files, of which none is loaded."""
    name, variable = ("ik-llama-cpp-python", "IK_LLAMA_CPP_LIB_PATH") if engine == IK else _LLAMA
    found = find_spec(name.removesuffix("-python").replace("-", "_"))
    if not found or not found.origin:
        return "missing"
    place = Path(os.environ.get(variable) or Path(found.origin).parent / "lib")
    try:
        files = sorted(place.parent.iterdir() if place.is_file() else place.iterdir())
        states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
        return f"{version(name)} {place} {states}"
    except (OSError, PackageNotFoundError):
        return "missing"


@cache
def _cpu() -> str:
    """Return what the system says of the CPU, without what changes from moment to moment."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    telling = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU ")
    return " ".join(line.partition(":")[2].strip() for line in lines if line.startswith(telling))

"""The policies and keywords of a Labeler, checked as the command line checks its options."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args, get_origin, get_type_hints

from typer.models import OptionInfo

from safeguard_cli.errors import UsageError
from safeguard_cli.policy.packs import expand
from safeguard_cli.policy.policy import Policy, load_policy
from safeguard_cli.run.settings import Settings


class Keywords(TypedDict, total=False):
    """The settings of a Labeler. They are the options of `safeguard label` that mean something without files."""

    labels: Sequence[str]
    violates: Sequence[str]
    rename: str | None
    threshold: float | None
    calibration: str | Path | None
    effort: Literal["none", "auto", "low", "medium", "high"]
    sure: float
    rationale: bool
    reasoning: bool
    max_reasoning: int | None
    policy_only_prompt: bool
    together: bool
    votes: int | None
    until_decided: bool
    temperature: float | None
    seed: int
    long: Literal["split", "truncate", "error"]
    max_windows: int
    model: str | Path | None
    servers: Sequence[str]
    server_api: Literal["completion", "chat"]
    server_model: str | None
    tokenizer: str | Path | None
    threads: int | None
    engine: Literal["auto", "llama.cpp", "ik"]
    gpu_layers: int
    cpu_moe: int | None
    kv_type: Literal["f16", "q8_0"]
    context: int | None
    slots: int | None
    repack: bool | None
    batch: int | None
    verbose: bool


NAMES = tuple(Keywords.__annotations__)


def _choices_and_ranges() -> tuple[dict[str, tuple[Any, ...]], dict[str, tuple[type, float, float | None]]]:
    """Return how the options are declared: the words of each choice, and the type and bounds of each number."""
    choices: dict[str, tuple[Any, ...]] = {}
    ranges: dict[str, tuple[type, float, float | None]] = {}
    hints = get_type_hints(Settings, include_extras=True)
    for name in NAMES:
        kind, *marks = get_args(hints[name])
        kinds = set(get_args(kind)) or {kind}
        if get_origin(kind) is Literal:
            choices[name] = get_args(kind)
        elif number := kinds & {int, float}:
            bounds = next(mark for mark in marks if isinstance(mark, OptionInfo))
            assert bounds.min is not None, f"{name} has no least value"
            ranges[name] = number.pop(), bounds.min, bounds.max
    return choices, ranges


CHOICES, RANGES = _choices_and_ranges()
_FLAGS = {"rationale", "reasoning", "until_decided", "policy_only_prompt", "together", "repack", "verbose"}
_LISTS = {"labels", "violates", "servers"}
_OPTIONS = {"ctx": "context", "server": "servers", "as": "rename", "as_": "rename"}  # by names on the command line
_OPTION = re.compile(r"--([a-z-]*[a-z])")
_DEFAULTS = {each.name: each.default for each in fields(Settings)}
_HERE = "with servers: the model is not on this machine"

# Settings that have no effect beside others, and why; `policies` is their number. The first that applies is reported.
_IDLE: tuple[tuple[str, Callable[[Settings, int], bool], str], ...] = (
    ("max_reasoning", lambda s, _: s.effort == "none", "with effort='none', which does not reason"),
    ("together", lambda _, policies: policies == 1, "with one policy: it asks about several in one prompt"),
    ("together", lambda s, _: s.effort == "auto", "with effort='auto', which decides about one policy at a time"),
    ("together", lambda s, _: s.policy_only_prompt, "with policy_only_prompt, which leaves out the response format"),
    *(
        (name, lambda s, _: bool(s.servers), _HERE)
        for name in ("engine", "threads", "gpu_layers", "cpu_moe", "kv_type", "repack", "batch")
    ),
    *((name, lambda s, _: not s.servers, "without servers") for name in ("server_api", "server_model", "tokenizer")),
    (
        "model",
        lambda s, _: bool(s.servers and s.tokenizer),
        "beside tokenizer: the model is the servers', and tokenizer brings its vocabulary",
    ),
    ("model", lambda s, _: s.server_api == "chat", "with server_api='chat': server_model names the servers' model"),
    ("sure", lambda s, _: s.effort != "auto", "without effort='auto'"),
    ("max_windows", lambda s, _: s.long != "split", "without long='split'"),
    (
        "temperature",
        lambda s, _: s.effort == "none" and not s.rationale,
        "with effort='none': it samples the reasoning, and there is none",
    ),
    ("votes", lambda s, _: s.effort == "none", "with effort='none': it samples the reasoning, and there is none"),
    ("until_decided", lambda s, _: not s.votes, "without votes"),
    ("seed", lambda s, _: not s.sampled_at, "without temperature or votes"),
    (
        "policy_only_prompt",
        lambda s, _: s.server_api == "chat",
        "with server_api='chat', where the server makes the prompt",
    ),
    *(
        (name, lambda _, policies: policies > 1, "with several policies: write it into each one's front matter")
        for name in ("labels", "violates", "rename", "threshold")
    ),
)


@contextmanager
def told_as_keywords() -> Iterator[None]:
    """Name settings in a UsageError as keywords: `context` instead of the command line's `--ctx`."""
    try:
        yield
    except UsageError as error:
        raise UsageError(*(_OPTION.sub(_keyword, line) for line in error.args)) from error


def _keyword(option: re.Match[str]) -> str:
    name = option[1].replace("-", "_")
    return _OPTIONS.get(name) or (name if name in NAMES else option[0])


def read_settings(given: Mapping[str, Any], policies: int) -> Settings:
    """Return the settings that keywords ask for.

    Raise UsageError naming the first keyword that is wrong or has no effect.
    """
    values = {name: _read(name, value) for name, value in given.items()}
    settings = Settings("-", (), progress="none", quiet=not values.get("verbose"), **values)
    for name, idle, why in _IDLE:
        if name in values and values[name] != _DEFAULTS[name] and idle(settings, policies):
            raise UsageError(f"{name} has no effect {why}")
    return settings


def read_policies(given: Sequence[str | Path | Policy], settings: Settings) -> tuple[Policy, ...]:
    """Read and return the policies; raise UsageError if one cannot be used or two have the same name."""
    if not given:
        raise UsageError("a Labeler needs a policy: the name of a built-in one, the path of a file, or a Policy")
    named = [name for each in given for name in (expand([each]) if isinstance(each, str) else [each])]
    policies = tuple(_policy(each, settings) for each in named)
    names = [policy.name for policy in policies]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two policies are named {twice!r}; change `name:` in one's front matter")
    return policies


def _policy(given: object, settings: Settings) -> Policy:
    if isinstance(given, Policy):
        labels, violates = settings.labels or given.labels, settings.violates or given.violates
        return replace(given, name=settings.rename or given.name, labels=labels, violates=violates)
    if not isinstance(given, (str, Path)):
        raise UsageError(
            f"a policy is the name of a built-in one, the path of a file, or a Policy, not {_kind(given)}:"
            " Labeler('spam', 'hate') takes several"
        )
    return load_policy(str(given), labels=settings.labels, violates=settings.violates, rename=settings.rename)


def _read(name: str, value: object) -> Any:
    """Return a keyword's value as Settings has it."""
    if name not in NAMES:
        raise _unknown(name)
    if value is None and _DEFAULTS[name] is None:
        return None
    if name in RANGES:
        return _number(name, value)
    if name in _FLAGS:
        if not isinstance(value, bool):
            raise UsageError(f"{name} is {value!r}: give True or False")
        return value
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise UsageError(f"{name} is {value!r}: give one of {', '.join(map(repr, CHOICES[name]))}")
        return value
    return _list(name, value) if name in _LISTS else _text(name, value)


def _unknown(name: str) -> UsageError:
    if name in _DEFAULTS and name != "policies":
        return UsageError(f"{name} has no effect on a Labeler, which reads and writes no files: leave it out")
    if name in ("policy", "policies"):
        return UsageError(f"{name} is not a setting: give policies first, as in Labeler('spam', 'hate')")
    near = _OPTIONS.get(name) or next(iter(get_close_matches(name.casefold(), NAMES, 1)), None)
    hint = f"did you mean {near!r}?" if near else f"its settings are {', '.join(NAMES)}"
    return UsageError(f"a Labeler has no setting {name!r}; {hint}")


def _number(name: str, value: object) -> float:
    kind, low, high = RANGES[name]
    if not isinstance(value, bool) and isinstance(value, Integral if kind is int else Real):
        try:
            number: float = kind(value)
        except OverflowError:
            number = math.inf
        if low <= number <= (math.inf if high is None else high) and (kind is int or math.isfinite(number)):
            return number
    what = "a whole number" if kind is int else "a number"
    bounds = f"{what}, {low:g} or more" if high is None else f"{what} from {low:g} to {high:g}"
    raise UsageError(f"{name} is {value!r}: give {bounds}")


def _text(name: str, value: object) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise UsageError(f"{name} is {_kind(value)}: give a string")
    text = os.fsdecode(value)
    if not text.strip():
        raise UsageError(f"{name} is empty: give it a value, or leave it out")
    return text


def _list(name: str, value: object) -> tuple[str, ...]:
    """Return a list of strings; labels can be one string with commas, as on the command line."""
    if isinstance(value, str):
        value = [value] if name == "servers" else value.split(",")
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise UsageError(f"{name} is {_kind(value)}: give a list of strings")
    if not all(item.strip() for item in value):
        raise UsageError(f"{name} has an empty item: leave it out")
    return tuple(item.strip() for item in value)


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"

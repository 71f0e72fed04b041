"""The policies and keywords of a Labeler are checked as the command line checks its options."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli import Labeler
from safeguard_cli.cli import conflicts
from safeguard_cli.cli.label import app
from safeguard_cli.errors import UsageError
from safeguard_cli.run.keywords import CHOICES, NAMES, RANGES, _read, read_settings
from safeguard_cli.run.settings import Settings

COMMAND = typer.main.get_command(app)
OPTION = {"context": "ctx", "servers": "server"}  # options whose names differ from the settings'


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"treshold": 0.5}, "no setting 'treshold'; did you mean 'threshold'"),
        ({"Effort": "low"}, "did you mean 'effort'"),
        ({"ctx": 4096}, "did you mean 'context'"),
        ({"server": "http://a"}, "did you mean 'servers'"),
        ({"as_": "x"}, "did you mean 'rename'"),
        ({"wholly_unlike": 1}, "its settings are labels, violates"),
        ({"input": "a.jsonl"}, "input has no effect on a Labeler"),
        ({"output": "a.jsonl"}, "output has no effect on a Labeler"),
        ({"overwrite": True}, "overwrite has no effect on a Labeler"),
        ({"quiet": True}, "quiet has no effect"),
        ({"policy": "spam"}, r"Labeler\('spam', 'hate'\)"),
        ({"effort": "hard"}, "effort is 'hard': give one of 'none', 'auto'"),
        ({"effort": None}, "effort is None"),
        ({"kv_type": "q4"}, "kv_type is 'q4'"),
        ({"long": "cut"}, "long is 'cut'"),
        ({"threads": -1}, "threads is -1: give a whole number from 1 to 512"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"threads": "2"}, "threads is '2'"),
        ({"slots": True}, "slots is True"),
        ({"slots": 65}, "slots is 65"),
        ({"threshold": 1.1}, "threshold is 1.1: give a number from 0 to 1"),
        ({"threshold": math.nan}, "threshold is nan"),
        ({"temperature": math.inf}, "temperature is inf: give a number, 0 or more"),
        ({"temperature": 10**400}, "temperature is 1000"),
        ({"max_reasoning": 0}, "max_reasoning is 0: give a whole number, 1 or more"),
        ({"rationale": 1}, "rationale is 1: give True or False"),
        ({"repack": "auto"}, "repack is 'auto'"),
        ({"model": ""}, "model is empty"),
        ({"model": 7}, "model is of type int"),
        ({"labels": "a,,b"}, "labels has an empty item"),
        ({"labels": 7}, "labels is of type int"),
        ({"labels": ["a", 7]}, "labels is of type list"),
        ({"servers": [" "]}, "servers has an empty item"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_its_name(keywords, said) -> None:
    with pytest.raises(UsageError, match=said):
        Labeler("spam", **keywords)


@pytest.mark.parametrize(
    ("policies", "keywords", "said"),
    [
        ((), {}, "needs a policy"),
        ((["spam", "hate"],), {}, r"not of type list: Labeler\('spam', 'hate'\) takes several"),
        (("spma",), {}, "did you mean 'spam'"),
        (("spam", "spam"), {}, "two policies are named 'spam'"),
        (("spam", "hate"), {"threshold": 0.5}, "threshold has no effect with several policies"),
        (("spam", "hate"), {"labels": ["a", "b"]}, "labels has no effect with several policies"),
        (("spam", "hate"), {"together": True, "policy_only_prompt": True}, "leaves out the response format"),
        (("spam", "hate"), {"together": True, "effort": "auto"}, "decides about one policy at a time"),
        (("spam",), {"together": True}, "together has no effect with one policy"),
    ],
)
def test_policies_that_cannot_be_meant_are_refused(policies, keywords, said) -> None:
    with pytest.raises(UsageError, match=said):
        Labeler(*policies, **keywords)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        (
            {"context": 64},
            r"policy spam, .*: context 64 is too small: .* at least context \d+ or a lower max_reasoning$",
        ),
        ({"cpu_moe": 1}, "^cpu_moe has no effect: llama.cpp finds no GPU here"),
        ({"rename": "A B"}, r"or pass rename"),
    ],
)
def test_what_is_found_out_later_names_the_setting_too(keywords, said, tiny) -> None:
    with pytest.raises(UsageError, match=said):
        Labeler("spam", model=str(tiny), **keywords).label(["a"])


def test_values_come_as_settings_has_them() -> None:
    given = {"threads": np.int64(2), "threshold": Fraction(1, 4), "model": Path("a.gguf"), "labels": " a, b "}
    settings = read_settings({**given, "violates": ["b"], "seed": 0, "max_reasoning": None}, 1)
    assert (settings.threads, type(settings.threads)) == (2, int)
    assert (settings.threshold, type(settings.threshold)) == (0.25, float)
    assert (settings.model, settings.labels, settings.violates) == ("a.gguf", ("a", "b"), ("b",))
    assert settings.quiet and not read_settings({"verbose": True}, 1).quiet
    assert read_settings({"servers": "http://a:1"}, 1).servers == ("http://a:1",)


def test_the_names_are_those_of_settings_and_each_is_of_one_kind() -> None:
    assert set(NAMES) <= {*Settings.__dataclass_fields__}
    assert not RANGES.keys() & CHOICES.keys()


def taken(name: str, value: object) -> tuple[bool, bool]:
    """Return whether the command line takes an option's value, and whether a Labeler does."""
    option = {"context": "--ctx"}.get(name, f"--{name.replace('_', '-')}")
    answers = []
    for take in (
        lambda: COMMAND.make_context("label", ["in.jsonl", "--policy", "spam", f"{option}={value}"]),
        lambda: _read(name, value),
    ):
        try:
            take()
            answers.append(True)
        except Exception as error:
            assert isinstance(error, UsageError) or hasattr(error, "format_message"), error
            answers.append(False)
    return answers[0], answers[1]


def test_ranges_and_choices_are_the_command_lines() -> None:
    assert len(RANGES) == 13 and len(CHOICES) == 5
    for name, (kind, low, high) in RANGES.items():
        step = 1 if kind is int else 0.01
        assert taken(name, low) == (True, True), name
        assert taken(name, low - step) == (False, False), name
        assert taken(name, high or 10**9) == (True, True), name
        assert high is None or taken(name, high + step) == (False, False), name
        assert kind is float or taken(name, low + 1.5) == (False, False), name
    for name, choices in CHOICES.items():
        assert {taken(name, choice) for choice in choices} == {(True, True)}, name
        assert taken(name, "other") == (False, False), name


VALUES = {
    "effort": ("none", "auto", "high"),
    "long": ("truncate", "error"),
    "max_reasoning": (7,),
    "together": (True,),
    "threads": (2,),
    "engine": ("llama.cpp", "ik"),
    "gpu_layers": (3,),
    "cpu_moe": (1,),
    "kv_type": ("q8_0",),
    "repack": (True, False),
    "batch": (128,),
    "servers": (("http://a:1",),),
    "server_api": ("chat",),
    "server_model": ("m",),
    "tokenizer": ("t.json",),
    "model": ("demo",),
    "sure": (0.8,),
    "max_windows": (3,),
    "temperature": (0.5,),
    "votes": (3,),
    "until_decided": (True,),
    "seed": (9,),
    "policy_only_prompt": (True,),
    "rationale": (True,),
    "context": (4096,),
    "slots": (3,),
}


@given(
    st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()}),
    st.integers(1, 2),
)
def test_what_has_no_effect_is_refused_where_the_command_refuses_it(keywords, policies) -> None:
    words = ["in.jsonl", *["--policy", "spam"] * policies]
    for name, value in keywords.items():
        option = f"--{OPTION.get(name, name).rstrip('s') if name == 'servers' else OPTION.get(name, name)}"
        option = option.replace("_", "-")
        if name == "repack":
            words += [option, "on" if value else "off"]
        elif value is True:
            words.append(option)
        else:
            words += [option, str(value[0] if isinstance(value, tuple) else value)]
    refused = None
    try:
        conflicts.check(COMMAND.make_context("label", words), conflicts.LABEL)
    except UsageError as error:
        refused = str(error)
    # A Labeler refuses at once what the command line refuses later, in `prepare`.
    later = "together" in keywords and (keywords.get("effort") == "auto" or "policy_only_prompt" in keywords)
    if later and not refused:
        refused = "--together"
    try:
        read_settings(keywords, policies)
    except UsageError as error:
        assert refused, error
        if not later:
            name = str(error).split()[0]
            assert refused.startswith(f"--{OPTION.get(name, name).replace('_', '-')} has no effect"), (refused, error)
    else:
        assert not refused

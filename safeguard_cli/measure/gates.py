"""Gates: figures that a build requires of `eval`, such as recall>=0.9, and what is told of those that are not met.

JUnit files and annotations are read by many people, and a public project's logs by anybody: they have a row's number,
line and id, and never its text.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from safeguard_cli.errors import UsageError, nearest, quoted, sentences
from safeguard_cli.files import write
from safeguard_cli.measure import metrics
from safeguard_cli.measure.metrics import Outcomes
from safeguard_cli.measure.shown import place_of
from safeguard_cli.output.labelled import LabelSet
from safeguard_cli.output.manifest import Refused
from safeguard_cli.rows.writable import Used, check_folder, check_output, is_stream, real
from safeguard_cli.terminal import annotate, cut, fail, figure, safe

JUNIT_MARK = b'<testsuites name="safeguard eval"'
OF_ALL = "multi_policy_accuracy"
_BEGINNING = 1024  # bytes
ANNOTATED = 10  # rows: GitHub shows no more annotations of a kind for a step
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_BOUNDS = {"lower": "low", "upper": "high"}
_GATE = re.compile(r"(?:(lower|upper)\s*\((.+)\)|(.+?))\s*(>=|<=|>|<)\s*([0-9]*\.?[0-9]+)\s*(%?)")
_FIGURE = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True)
class Gate:
    """What is required: a figure, or a `bound` of its interval, that is on one side of `value`.

    `name` is a figure's: `recall` of every policy that has it, `recall.POLICY` of one, `recall:LABEL` of a label.
    """

    text: str
    name: str
    bound: str
    sign: str
    value: float


@dataclass(frozen=True, slots=True)
class Judged:
    """A gate beside what was found: `policy` is empty for a figure of all policies; `found` is None if undefined.

    `name` is the figure's in the result of `eval`.
    """

    gate: Gate
    policy: str
    name: str
    found: float | None

    @property
    def met(self) -> bool:
        """Return whether the figure is what is required; one that is not defined never is."""
        return self.found is not None and _SIGNS[self.gate.sign](self.found, self.gate.value)

    @property
    def told(self) -> str:
        """Return in words what was found."""
        which = f"{self.gate.bound}({self.name})" if self.gate.bound else self.name
        under = f" under {self.policy}" if self.policy else ""
        return f"{which}{under} is {self.shown if self.found is not None else 'not defined on these rows'}"

    @property
    def shown(self) -> str:
        """Return the figure with three decimals, or as many as it takes to see whether the gate is met."""
        if self.found is None:
            return figure(None)
        plainly = figure(self.found)
        return plainly if _SIGNS[self.gate.sign](float(plainly), self.gate.value) == self.met else f"{self.found:.9g}"

    def record(self) -> dict[str, Any]:
        """Return the gate for JSON."""
        return {
            "require": self.gate.text,
            "policy": self.policy or None,
            "found": self.found,
            "shown": self.shown,
            "met": self.met,
        }


def parse_gates(given: Sequence[str]) -> tuple[Gate, ...]:
    """Read `recall>=0.9`, `precision.hate>=80%` or `lower(recall)>=0.85`."""
    return tuple(_parsed(text) for text in given)


def _parsed(text: str) -> Gate:
    found = _GATE.fullmatch(text.strip())
    if not found:
        raise UsageError(
            f"--require {text!r}: write FIGURE>=NUMBER, such as 'recall>=0.9', 'precision.POLICY>=0.8',"
            " 'recall:LABEL>=0.7', 'lower(recall)>=0.85' or 'brier<=0.2'"
        )
    bound, within, name, sign, value, per_cent = found.groups()
    return Gate(text.strip(), (within or name).strip(), bound or "", sign, float(value) / (100 if per_cent else 1))


def check_gates(gates: Sequence[Gate], answers: Sequence[LabelSet]) -> None:
    """Raise UsageError, before the work, for a figure that these policies do not have."""
    for gate in gates:
        _meant(gate, {each.name: _names(each) for each in answers})


def _names(answers: LabelSet) -> tuple[str, ...]:
    """Return the names of all figures that are measured under a policy."""
    one = answers.labels[:1]
    return tuple(metrics.figures(Outcomes.of(answers.labels, answers.violates, one, one, [False], [0.0])))


def _meant(gate: Gate, known: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """Return the figures that a gate names, each as (policy, name); `known` are the names by policy."""
    several = len(known) > 1
    spelled: dict[str, list[tuple[str, str]]] = {OF_ALL: [("", OF_ALL)]} if several else {}
    for policy, names in known.items():
        for name in names:
            kind, colon, label = name.partition(":")
            spelled.setdefault(name, []).append((policy, name))
            spelled[f"{kind}.{policy}{colon}{label}"] = [(policy, name)]
    asked = _FIGURE.sub(lambda found: found[0].replace("-", "_").lower(), gate.name, count=1)
    if asked not in spelled:
        raise UsageError(f"--require {gate.text!r}: there is no figure {quoted(gate.name)}{_advice(asked, spelled)}")
    return spelled[asked]


def _advice(asked: str, spelled: Iterable[str]) -> str:
    of_label = asked.replace(".", ":", 1)
    if of_label in spelled:
        return f"; {safe(of_label)} is that of a label"
    if near := nearest(asked, spelled):
        return f"; is it {safe(near)}?"
    return f"; there are {', '.join(name for name in spelled if _FIGURE.fullmatch(name))}"


def judge(gates: Sequence[Gate], result: Mapping[str, Any]) -> tuple[Judged, ...]:
    """Return each gate with what was found, once for each policy that it is about; `result` is that of `eval`."""
    policies = {name: policy["figures"] for name, policy in result["policies"].items()}
    judged = []
    for gate in gates:
        for policy, name in _meant(gate, policies):
            found = policies[policy][name] if policy else result[OF_ALL]
            judged.append(Judged(gate, policy, name, found[_BOUNDS.get(gate.bound, "value")]))
    return tuple(judged)


def tell(judged: Sequence[Judged], result: Mapping[str, Any]) -> None:
    """Print the gates that are not met to standard error, in GitHub Actions as annotations too."""
    golden = Path(result["golden"])
    failed = [each for each in judged if not each.met]
    for each in failed:
        fail(f"--require {each.gate.text}: {each.told}")
        annotate("error", f"{each.told}, required: {each.gate.text}", golden)
    about = dict.fromkeys(each.policy for each in failed)
    rows = [(name, row) for name, one in result["policies"].items() if {name, ""} & {*about} for row in one["wrong"]]
    for name, row in rows[:ANNOTATED]:
        said = f"{cut(name, 60)}: gold {cut(row['gold'], 60)}, said {cut(str(row['label']), 60)}"
        annotate("warning", f"{place_of(row)}, {said}", golden, row["line"])


def check_junit(path: str, read: Iterable[Used]) -> None:
    """Raise, before the work, if the JUnit file cannot be written, or would replace a file of another kind."""
    target = Path(path)
    if path == "-" or is_stream(target):
        raise UsageError(f"--junit {path}: it is read when the command has ended, so it must be a file")
    check_output(target, read)
    check_folder(real(target))
    if target.exists():
        with target.open("rb") as file:
            if JUNIT_MARK not in file.read(_BEGINNING):
                raise Refused(f"{path} exists and is not a JUnit file of safeguard: name another file with --junit")


def write_junit(path: str, judged: Sequence[Judged], result: Mapping[str, Any]) -> None:
    """Write the gates as the test cases of a JUnit file, one suite for each policy."""
    suites: dict[str, list[Judged]] = {}
    for each in judged:
        suites.setdefault(each.policy, []).append(each)
    root = ElementTree.Element("testsuites", {"name": "safeguard eval", **_counts(judged)})
    for policy, cases in suites.items():
        suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(policy or OF_ALL), **_counts(cases)})
        about = ElementTree.SubElement(suite, "properties")
        for name in ("golden", "model", "effort", "rows"):
            ElementTree.SubElement(about, "property", {"name": name, "value": _xml(str(result[name]))})
        for each in cases:
            named = {"classname": _xml(f"safeguard.eval.{policy or OF_ALL}"), "name": _xml(each.gate.text)}
            case = ElementTree.SubElement(suite, "testcase", {**named, "time": "0"})
            if not each.met:
                failure = ElementTree.SubElement(case, "failure", {"message": _xml(each.told), "type": "require"})
                failure.text = _xml("\n".join(_wrong(result, policy)), keep_newlines=True)
    ElementTree.indent(root)
    with sentences(path):
        write(real(Path(path)), ElementTree.tostring(root, "utf-8", xml_declaration=True) + b"\n")


def _counts(cases: Sequence[Judged]) -> dict[str, str]:
    failed = sum(not each.met for each in cases)
    return {"tests": str(len(cases)), "failures": str(failed), "errors": "0", "skipped": "0"}


def _wrong(result: Mapping[str, Any], policy: str) -> Iterator[str]:
    """Yield the wrong rows under a policy, or under all of them: where they stand, never their text."""
    for name, one in result["policies"].items():
        for row in one["wrong"] if policy in ("", name) else ():
            yield f"{name}: {place_of(row)}, gold {row['gold']}, said {row['label']}"


def _xml(text: str, keep_newlines: bool = False) -> str:
    """Return a text in which all characters are such as XML may have: others are spelled out."""
    return safe(text, keep_newlines=keep_newlines)

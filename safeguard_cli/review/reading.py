"""Read what is to be reviewed: an output, the policy with its labels and rules, and what each pick is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safeguard_cli.errors import UsageError
from safeguard_cli.measure.compare import common_policies, paired_rows
from safeguard_cli.measure.golden import gold_fields
from safeguard_cli.measure.measured import gold_of
from safeguard_cli.measure.options import Wanted
from safeguard_cli.measure.reviewed import Proposed
from safeguard_cli.output.labelled import LabeledFile, LabeledRow, LabelSet, holds_verdicts, read_labels
from safeguard_cli.output.spelled import number
from safeguard_cli.policy.policy import Policy, builtin_policies, find_policy, load_policy
from safeguard_cli.review.context import earlier_turns
from safeguard_cli.review.options import Reviewing
from safeguard_cli.review.picking import Candidate
from safeguard_cli.review.shown import Layout, Said, count_of
from safeguard_cli.rows.options import Text
from safeguard_cli.rows.verdict import Verdict
from safeguard_cli.run.settings import Settings

THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class HowRead:
    """How files are read."""

    format: str | None = None
    encoding: str = "utf-8"
    id_field: str | None = None
    text: Text = field(default_factory=Text)


@dataclass(frozen=True, slots=True)
class Material:
    """The rows of an output that a person could answer, and how they are shown. `remarks` are to be told."""

    candidates: Sequence[Candidate]
    labels: Sequence[str]
    layout: Layout
    policy: Policy | None = None
    remarks: Sequence[str] = ()


def read_material(path: Path, wanted: Reviewing, reading: HowRead) -> Material:
    """Read an output. Raise UsageError for a policy that it does not have, and if it does not hold the texts."""
    policies, names = _policies(path, wanted, reading)
    known = tuple(LabelSet(each.name, each.labels, each.violates) for each in policies.values())
    labels = read_labels(path, format=reading.format, encoding=reading.encoding, known=known)
    answers = {each.name: each for each in labels.answers}
    name = names[0]
    gold = tuple(gold_fields(wanted.gold_fields, [name]).values()) if wanted.gold_fields else ("label", f"{name}_gold")
    texts = labels.texts(reading.text.text_fields, reading.text.template, gold)
    if texts is None:
        raise UsageError(f"{path} does not hold the texts (--keep left them out, or --text-field must name them)")
    said: dict[int, tuple[Said, ...]] = {
        place: (_said("the model", row.verdicts[name]),) for place, row in enumerate(labels.rows)
    }
    asked: Mapping[int, bool] = {}
    if wanted.pick == "disagree":
        asked = _differing(labels, names, said, wanted, reading)
    elif wanted.pick == "wrong":
        asked = _wrong(labels, name, said, wanted, reading)
    threshold, earlier = _threshold(labels), earlier_turns(labels, texts)
    candidates = [
        Candidate(
            row.number,
            row.line,
            row.fields,
            text,
            _proposed(row, name),
            said[place],
            None if (p := row.verdicts[name].p_violates) is None else abs(p - threshold),
            asked.get(place),
            earlier.get(place, ()),
        )
        for place, (row, text) in enumerate(zip(labels.rows, texts, strict=True))
        if text.strip()
    ]
    remarks = [*labels.doubts, *_left_out(labels, len(candidates))]
    policy = policies.get(name) or _as_labelled(name, labels)
    return Material(candidates, answers[name].labels, shown_text(labels, reading.text, gold), policy, remarks)


def _policies(path: Path, wanted: Reviewing, reading: HowRead) -> tuple[dict[str, Policy], list[str]]:
    """Return the policies whose files were named, and the names of all that were named, else of the only one."""
    there = holds_verdicts(path, format=reading.format, encoding=reading.encoding)
    most = 2 if wanted.pick == "disagree" and not wanted.other else 1
    if len(wanted.policies) > most:
        raise UsageError(f"--policy is given {len(wanted.policies)} times: a review is about one policy")
    policies: dict[str, Policy] = {}
    names = []
    for given in wanted.policies:
        if given in there and not find_policy(given).exists():
            names.append(given)  # the output has the labels; there are no rules to cite
            continue
        policy = load_policy(given)
        if there and policy.name not in there:
            raise UsageError(f"--policy {given}: {path} holds verdicts under {', '.join(there)}, not {policy.name}")
        policies[policy.name] = policy
        names.append(policy.name)
    if most == 2 and len(names) < 2:
        names += [name for name in there if name not in names]
        if len(names) != 2:
            raise UsageError(
                f"--pick disagree needs two opinions: another output, --with OUT2, or two policies of {path},"
                f" --policy A --policy B (it has {', '.join(there) or 'none'})"
            )
    if not names and len(there) > 1:
        raise UsageError(f"{path} holds verdicts of several policies: name one with --policy ({', '.join(there)})")
    return policies, names or [*there] or [""]  # with no verdicts, reading the labels says so


def _said(who: str, verdict: Verdict) -> Said:
    if verdict.error is not None:
        return Said(who, None, verdict.error.message)
    score = "" if verdict.p_violates is None else f"p {verdict.p_violates:.2f}"
    parts = (score, "violates" if verdict.violates else "does not violate", f"effort {verdict.effort}")
    return Said(who, verdict.label, ", ".join(part for part in parts if part), verdict.rationale or "")


def _proposed(row: LabeledRow, name: str) -> Proposed:
    verdict = row.verdicts[name]
    return Proposed(verdict.label, verdict.violates, verdict.p_violates, name)


def _threshold(labels: LabeledFile) -> float:
    """Return the threshold on record, else that of two labels."""
    on_record = labels.manifest.identity.answer.record.get("threshold") if labels.manifest else None
    return THRESHOLD if (found := number(on_record)) is None else found


def _differing(
    labels: LabeledFile,
    names: Sequence[str],
    said: dict[int, tuple[Said, ...]],
    wanted: Reviewing,
    reading: HowRead,
) -> dict[int, bool]:
    """Return by place whether two labelings differ, and add what both said. Rows in error in one are left out."""
    if wanted.other:
        other = read_labels(Path(wanted.other), format=reading.format, encoding=reading.encoding)
        one, two = common_policies(labels, other, [name for name in names if name])[0]
        pairs, _ = paired_rows(labels, other, reading.id_field)
        who = (str(labels.path), wanted.other)
    else:
        other, pairs = labels, [(place, place) for place in range(len(labels.rows))]
        one, two = (next(each for each in labels.answers if each.name == name) for name in names)
        who = (one.name, two.name)
    by_label = set(one.labels) == set(two.labels)
    found = {}
    for i, j in pairs:
        a, b = labels.rows[i].verdicts[one.name], other.rows[j].verdicts[two.name]
        said[i] = (_said(who[0], a), _said(who[1], b))
        if a.error is None and b.error is None:
            found[i] = a.label != b.label if by_label else a.violates != b.violates
    return found


def _wrong(
    labels: LabeledFile, name: str, said: dict[int, tuple[Said, ...]], wanted: Reviewing, reading: HowRead
) -> dict[int, bool]:
    """Return by place whether the label is not the right one, and add the right one to what is said."""
    settings = Settings(
        str(labels.path),
        format=reading.format,  # type: ignore[arg-type]
        encoding=reading.encoding,
        text_fields=reading.text.text_fields,
        template=reading.text.template,
        quiet=True,
    )
    golden = gold_of(labels, [name], settings, Wanted(wanted.gold_fields, wanted.mapping))
    if golden is None:
        raise UsageError(f"--pick wrong: {labels.path} has no field with the right label: name it with --gold-field")
    right = {row.line: row.gold[name] for row in golden.rows}
    found = {}
    for place, row in enumerate(labels.rows):
        if row.line in right and row.verdicts[name].error is None:
            said[place] = (*said[place], Said("gold", right[row.line]))
            found[place] = row.verdicts[name].label != right[row.line]
    return found


def _left_out(labels: LabeledFile, kept: int) -> Iterator[str]:
    without = len(labels.rows) - kept
    if without:
        yield f"left out: {count_of(without)} without a text, which nobody could answer"
    if labels.manifest and labels.manifest.identity.output.only:
        yield f"{labels.path} has only the rows that violate or are in error: random rows are of those"


def shown_text(labels: LabeledFile, text: Text, gold: Sequence[str]) -> Layout:
    """Return how the rows' texts are shown: as asked for, else as the run labelled them."""
    asked = bool(text.text_fields or text.template is not None)
    fields, template = (text.text_fields, text.template) if asked else labels.chosen_text(gold) or ((), None)
    return Layout(fields, template is not None, gold)


def _as_labelled(name: str, labels: LabeledFile) -> Policy | None:
    """Return the built-in policy of this name, if it is the one that the rows were labelled under."""
    if name not in builtin_policies() or labels.manifest is None:
        return None
    policy = load_policy(name)
    on_record = labels.manifest.identity.policies.get(name)
    return policy if on_record and on_record.sha256 == policy.sha256 else None

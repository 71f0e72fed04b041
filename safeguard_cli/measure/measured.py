"""What is measured: a golden set, labelled with the run of `label`, or an output with its gold labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli.errors import SafeguardError, UsageError, no_file, sentences
from safeguard_cli.files import temporary_folder
from safeguard_cli.measure.golden import Golden, gold_fields, listed_field, parse_map, read_golden
from safeguard_cli.measure.label_studio import is_export
from safeguard_cli.measure.metrics import Outcomes
from safeguard_cli.measure.options import Wanted
from safeguard_cli.measure.reviewed import ReviewedFile, holds_reviewed, read_reviewed
from safeguard_cli.output.labelled import APART, TOGETHER, LabeledFile, LabelSet, holds_verdicts, read_labels
from safeguard_cli.output.manifest import Manifest, beside
from safeguard_cli.policy.policy import Policy, builtin_policies, load_policy
from safeguard_cli.rows.options import Reading, Text
from safeguard_cli.rows.sink import output_format
from safeguard_cli.rows.source import no_field, open_source
from safeguard_cli.rows.verdict import Verdict
from safeguard_cli.rows.writable import Used, check_output, is_stream
from safeguard_cli.run.destination import used_by
from safeguard_cli.run.prepare import load_policies
from safeguard_cli.run.settings import AskedOfTurns, Display, Settings
from safeguard_cli.terminal import note

# Options that only a run has: an output is labelled already.
_OF_ANY_READER = {"input", "policies", *(each.name for part in (Reading, Text, Display) for each in fields(part))}
OF_A_RUN = (
    *(each.name for each in fields(AskedOfTurns) if each.name not in _OF_ANY_READER),
    "max_row_bytes",
    "deterministic",
    "calibration",
)
OF_LABELS = ("output", "overwrite")  # options that keep new labels


@dataclass(frozen=True, slots=True)
class Measured:
    """A golden set and its verdicts; `verdicts` are in the order of the golden rows, `anew` if they were made now."""

    golden: Golden
    answers: tuple[LabelSet, ...]
    verdicts: tuple[Mapping[str, Verdict], ...]
    prompting: str
    model: str
    effort: str
    doubts: tuple[str, ...] = ()
    anew: bool = False
    manifest: Manifest | None = None  # of the run that labelled the rows


def measure(settings: Settings, wanted: Wanted) -> Measured:
    """Return the golden set with the verdicts in it, else with those of a run under the policies asked for."""
    path = golden_path(settings)
    policies = load_policies(settings) if settings.policies else ()
    answers = tuple(LabelSet(policy.name, policy.labels, policy.violates) for policy in policies)
    if (labels := existing_labels(path, settings, answers)) is not None:
        if wanted.find_sure:
            raise UsageError("--find-sure labels the golden set twice: give it the golden set itself, not an output")
        wanted.refuse((*OF_A_RUN, *OF_LABELS), f"on {path}, which is labelled already")
        return from_output(labels, policies, settings, wanted)
    if not policies and holds_reviewed(path, format=settings.format, encoding=settings.encoding):
        return from_review(path, settings, wanted)
    if not policies:
        with open_source(path, format=settings.format, encoding=settings.encoding, sheet=settings.sheet) as source:
            source.first()  # raises its own error if the file cannot be read
        raise UsageError(f"{path} holds no verdicts: name the policy to label it under, with --policy")
    if settings.output is not None:
        check_kept("-o", Path(settings.output), used_by(settings))
        if is_export(path):
            raise UsageError(f"-o keeps no labels of {path}, an export of Label Studio: leave it out to measure them")
    golden = usable_rows(settings, wanted, answers)
    labels = label_golden(settings, golden) if settings.output is None else label_kept(settings, golden)
    prompting = TOGETHER if settings.together and len(policies) > 1 else APART
    return Measured(
        golden,
        answers,
        _verdicts(labels),
        prompting,
        labels.model,
        settings.effort,
        anew=True,
        manifest=labels.manifest,
    )


def golden_path(settings: Settings) -> Path:
    """Return the file to be measured. Raise UsageError if it is no file."""
    path = Path(settings.input)
    if settings.input == "-" or not path.is_file():
        raise no_file(settings.input)
    return path


def label_golden(settings: Settings, golden: Golden) -> LabeledFile:
    """Label the texts of a golden set."""
    texts = (row.turns.as_dict() if row.turns else row.text for row in golden.rows)
    return label_rows(replace(settings, group=None, put_together=True), ({"text": text} for text in texts))


def label_kept(settings: Settings, golden: Golden) -> LabeledFile:
    """Label the golden set as the file that it is, into the output asked for, and return its golden rows' labels.

    All its rows are labelled, those that cannot be measured too, so that a row's number in the output is its number in
    the golden set.
    """
    from safeguard_cli.run.label import label

    label(
        replace(
            settings,
            text_fields=golden.text_fields,
            skip_rows=golden.above or None,
            limit=None if settings.limit is None else max(row.number for row in golden.rows),
            says_text=False,
        )
    )
    labels = read_labels(Path(str(settings.output)))
    at = {row.number: row for row in labels.rows}
    return replace(labels, rows=tuple(at[row.number] for row in golden.rows))


def check_kept(option: str, out: Path, read: Sequence[Used]) -> None:
    """Raise UsageError if labelled rows cannot be kept in `out`, to be read again."""
    if out.name == "-" or is_stream(out):
        raise UsageError(f"{option} {out}: the rows are read again, so it must be a file")
    check_output(out, read, beside(out, output_format(out, "jsonl")))


def _verdicts(labels: LabeledFile) -> tuple[Mapping[str, Verdict], ...]:
    return tuple(row.verdicts for row in labels.rows)


def label_rows(settings: Settings, rows: Iterable[Mapping[str, Any]], output: str | None = None) -> LabeledFile:
    """Label rows with a `text` by `safeguard label`'s own run, which resumes an unfinished output.

    Without an output the rows go to a scratch file, which is removed once they are read again.
    """
    from safeguard_cli.run.label import label

    with temporary_folder() as folder:
        texts, scratch = folder / "rows.jsonl", folder / "labels.jsonl"
        with sentences(texts):
            texts.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        label(
            replace(
                settings,
                input=str(texts),
                output=output or str(scratch),
                scratch=output is None,
                format=None,
                encoding="utf-8",
                sheet=None,
                skip_rows=None,
                text_fields=("text",),
                template=None,
                says_text=False,
            )
        )
        return read_labels(Path(output) if output else scratch)


def existing_labels(path: Path, settings: Settings, known: Sequence[LabelSet] = ()) -> LabeledFile | None:
    """Return the labels in a file if its rows hold verdicts of all policies `known` (if none, of any policy)."""
    how: dict[str, Any] = {"format": settings.format, "encoding": settings.encoding}
    how["sheet"] = settings.sheet
    found = () if is_export(path) else holds_verdicts(path, **how)
    if not found or not {answers.name for answers in known} <= set(found):
        return None
    return read_labels(path, **how, known=known)


def usable_rows(
    settings: Settings,
    wanted: Wanted,
    answers: Sequence[LabelSet],
    others: Collection[str] = (),
    needs_text: bool = True,
) -> Golden:
    """Return the golden set that is asked for, cut at --limit. Raise UsageError as `read_golden` does.

    The field that holds the texts is reported. It is none of `others`, which were named for another purpose.
    """
    golden = read_golden(
        Path(settings.input),
        answers,
        gold_fields(wanted.gold_fields, [a.name for a in answers]),
        mapping=parse_map(wanted.mapping),
        skip_rows=settings.skip_rows,
        sheet=settings.sheet,
        format=settings.format,
        encoding=settings.encoding,
        text_fields=settings.text_fields,
        template=settings.template,
        others=(*wanted.by, *others),
        id_field=settings.id_field,
        grouping=settings,
        needs_text=needs_text,
        listed=listed_field(wanted.gold_fields, [a.name for a in answers]),
    )
    if settings.says_its_text and golden.text:
        note(f"text: {golden.text}")
    if settings.limit is not None and len(golden.rows) > settings.limit:
        golden.unused["beyond --limit"] = len(golden.rows) - settings.limit
        del golden.rows[settings.limit :]
    names = dict.fromkeys(name for row in golden.rows for name in row.fields)
    if unknown := [name for name in wanted.by if name not in names]:
        raise no_field(settings.input, "--by", unknown[0], tuple(names))
    return golden


def gold_of(labels: LabeledFile, names: Sequence[str], settings: Settings, wanted: Wanted) -> Golden | None:
    """Return the right labels in an output under its policies `names`; None if it has none and none were asked for.

    A field `label` that means something else is reported, and not used. Raise UsageError as `usable_rows` does.
    """
    answers = tuple(answers for answers in labels.answers if answers.name in names)
    fields = gold_fields(wanted.gold_fields, names)
    asked = bool(wanted.gold_fields or wanted.mapping)
    known = {name for row in labels.rows for name in row.fields}
    if not asked and not known.issuperset(fields.values()):
        return None
    wanted.refuse(("skip_rows",), f"on {labels.path}: an output has no lines above its header")
    try:
        return _labelled_rows(labels, settings, wanted, answers)
    except UsageError as problem:
        if asked:
            raise
        note(f"no figures: {problem}")
        return None


def from_output(labels: LabeledFile, policies: Sequence[Policy], settings: Settings, wanted: Wanted) -> Measured:
    """Return an output with its right labels, under the policies asked for, else under all that it has."""
    given = [policy.name for policy in policies]
    answers = tuple(a for a in labels.answers if not given or a.name in given)
    wanted.refuse(("skip_rows",), f"on {labels.path}: an output has no lines above its header")
    return beside_gold(labels, _labelled_rows(labels, settings, wanted, answers), answers)


def from_review(path: Path, settings: Settings, wanted: Wanted) -> Measured:
    """Return people's answers beside what the model had said of the same rows when they were reviewed."""
    if wanted.find_sure:
        raise UsageError("--find-sure labels the golden set twice: name the policy with --policy")
    wanted.refuse(
        (*OF_A_RUN, *OF_LABELS), f"on {path} without --policy: what the model had said of its rows is measured"
    )
    answers = _proposed(read_reviewed(path, format=settings.format, encoding=settings.encoding))
    golden = usable_rows(settings, wanted, (answers,), needs_text=False)
    known = [row for row in golden.rows if row.answer is not None and row.answer.proposed.label is not None]
    golden.unused["no label by the model"] += len(golden.rows) - len(known)
    golden.rows = known
    verdicts = tuple(
        {answers.name: Verdict(said.label, said.violates, said.p_violates)}
        for said in (row.answer.proposed for row in known if row.answer is not None)
    )
    doubt = "measured is what the model had said in the output that was reviewed: --policy labels the rows anew"
    return Measured(golden, (answers,), verdicts, "", "", "", (doubt,))


def _proposed(found: ReviewedFile) -> LabelSet:
    """Return the labels of the policy that a review is about: those of its file, or those that were given."""
    said = [row.proposed for row in found.rows if row.proposed.label is not None and row.proposed.policy is not None]
    names = {str(one.policy) for one in said}
    if len(names) != 1:
        told = f"is about {', '.join(sorted(names))}" if names else "does not say what the model had said"
        raise UsageError(f"{found.path} {told}: name the policy to label its rows under, with --policy")
    name = names.pop()
    if name in builtin_policies():
        policy = load_policy(name)
        return LabelSet(name, policy.labels, policy.violates)
    violating = {str(one.label): bool(one.violates) for one in said}
    if unknown := [row.label for row in found.rows if row.label is not None and row.label not in violating]:
        raise UsageError(
            f"{found.path}: the model never said {unknown[0]!r}, so that it is not known whether it violates: name the"
            f" file of {name} with --policy to label the rows anew"
        )
    return LabelSet(name, tuple(violating), tuple(label for label, violates in violating.items() if violates))


def beside_gold(labels: LabeledFile, golden: Golden, answers: tuple[LabelSet, ...]) -> Measured:
    """Return an output's verdicts with its right labels."""
    at = {row.line: row for row in labels.rows}
    if torn := [row for row in golden.rows if row.line not in at]:  # a run is still writing them
        golden.unused["not labelled yet"] += len(torn)
        golden.rows = [row for row in golden.rows if row.line in at]
    verdicts = tuple(at[row.line].verdicts for row in golden.rows)
    return Measured(
        golden,
        answers,
        verdicts,
        labels.prompting,
        labels.model,
        labels.effort,
        labels.doubts,
        manifest=labels.manifest,
    )


def _labelled_rows(labels: LabeledFile, settings: Settings, wanted: Wanted, answers: Sequence[LabelSet]) -> Golden:
    """Return the usable rows of an output with the text asked for, else with what the run labelled, if it was kept."""
    if settings.text_fields or settings.template is not None:
        return usable_rows(settings, wanted, answers)
    chosen = labels.chosen_text(gold_fields(wanted.gold_fields, [a.name for a in labels.answers]).values())
    if chosen is not None:
        settings = replace(settings, text_fields=chosen[0], template=chosen[1])
    return usable_rows(settings, wanted, answers, needs_text=False)


def outcomes(measured: Measured, answers: LabelSet, threshold: float | None = None) -> tuple[Outcomes, list[int]]:
    """Return the rows labelled under a policy as arrays, and their places among the golden rows."""
    kept = [i for i, verdicts in enumerate(measured.verdicts) if verdicts[answers.name].error is None]
    verdicts = [measured.verdicts[i][answers.name] for i in kept]
    if not kept:
        raise SafeguardError(f"every row is in error under {answers.name}: there is nothing to measure")
    p = [verdict.p_violates or 0.0 for verdict in verdicts]
    return Outcomes.of(
        answers.labels,
        answers.violates,
        [measured.golden.rows[i].gold[answers.name] for i in kept],
        [str(verdict.label) for verdict in verdicts],
        [bool(v.violates) if threshold is None else x >= threshold for v, x in zip(verdicts, p, strict=True)],
        p,
    ), kept


def by_pick(measured: Measured) -> tuple[Measured, dict[str, list[int]]]:
    """Return the rows that were picked at random, and the places of the others by how they were picked.

    All rows count as picked at random if none is known to be: of a golden set that no review wrote, nothing is known.
    """
    others: dict[str, list[int]] = {}
    for place, row in enumerate(measured.golden.rows):
        if row.picked:
            others.setdefault(row.picked, []).append(place)
    random = [place for place, row in enumerate(measured.golden.rows) if not row.picked]
    return (take(measured, random) if random else measured), others


def take(measured: Measured, places: Sequence[int]) -> Measured:
    """Return the rows at these places."""
    golden = replace(measured.golden, rows=[measured.golden.rows[place] for place in places])
    return replace(measured, golden=golden, verdicts=tuple(measured.verdicts[place] for place in places))


def replace_verdicts(measured: Measured, verdicts: Sequence[Mapping[str, Verdict]]) -> Measured:
    return replace(measured, verdicts=tuple(verdicts))

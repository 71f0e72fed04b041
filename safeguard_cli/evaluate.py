"""`safeguard eval`: labels a golden set with the run that `label` uses, or reads an output, and says how good it is."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from safeguard_cli import errors, metrics
from safeguard_cli.errors import SafeguardError, UsageError, sentences
from safeguard_cli.files import temporary_folder
from safeguard_cli.golden import Golden, GoldenRow, as_text, gold_fields, parse_map, read_golden
from safeguard_cli.labelled import APART, TOGETHER, Answers, Labels, read_labels, verdict_names
from safeguard_cli.metrics import Outcomes
from safeguard_cli.policy import Policy
from safeguard_cli.records import no_field, open_source
from safeguard_cli.setup import Settings, load_policies
from safeguard_cli.streams import print_json
from safeguard_cli.terminal import cut, note, show
from safeguard_cli.verdict import Verdict

FIGURES = {
    "accuracy": "accuracy",
    "precision": "precision of violating",
    "recall": "recall of violating",
    "f1": "F1 of violating",
    "kappa": "Cohen's kappa",
    "mcc": "MCC",
    "auroc": "AUROC of p_violates",
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_error": "expected calibration error",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `safeguard eval` was asked for, beside the Settings of the run."""

    gold_fields: tuple[str, ...] = ()
    mapping: tuple[str, ...] = ()
    skip_rows: int | None = None
    by: tuple[str, ...] = ()
    threshold: str | None = None
    sure: bool = False
    wrong: int = 10
    json: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """One golden set and what was said about it: `verdicts` stand beside the golden rows."""

    golden: Golden
    answers: tuple[Answers, ...]
    verdicts: tuple[Mapping[str, Verdict], ...]
    prompting: str
    model: str
    effort: str


def evaluate(settings: Settings, wanted: Wanted) -> int:
    """Run `safeguard eval`. Returns the exit code; raises SafeguardError with a sentence for the user."""
    search = _parse_threshold(wanted.threshold)
    if isinstance(search, float):
        settings = replace(settings, threshold=None)  # applied to the scores below, to outputs and new labels alike
    with metrics.sklearn():  # says which extra is missing before a model is loaded
        pass
    measured = measure(settings, wanted)
    quick = None
    if wanted.sure:
        if measured.effort == "none":
            raise UsageError("--sure compares effort none with full reasoning: use --effort low, medium or high")
        quick = label_golden(replace(settings, effort="none", rationale=False), measured.golden)
    result = {
        "golden": str(settings.input),
        "prompting": measured.prompting,
        "model": measured.model,
        "effort": measured.effort,
        "rows": len(measured.golden.rows),
        "rows_not_used": dict(measured.golden.unused),
        "policies": {
            answers.name: policy_result(measured, answers, wanted, search, quick) for answers in measured.answers
        },
    }
    if len(measured.answers) > 1:
        result["multi_policy_accuracy"] = multi_policy_result(measured)
    failed = measured.golden.in_error + sum(any(v.error for v in one.values()) for one in measured.verdicts)
    if wanted.json:
        print_json(result)
    else:
        show(*_shown(result, wanted))
    return errors.ROWS_IN_ERROR if failed else errors.OK


def measure(settings: Settings, wanted: Wanted) -> Measured:
    """The golden set with verdicts: those that stand in it, else those of a run under the policies asked for."""
    path = Path(settings.input)
    if settings.input == "-" or not path.is_file():
        raise UsageError(f"{settings.input}: there is no such file; a golden set is read twice, so it cannot be a pipe")
    policies = load_policies(settings) if settings.policies else ()
    names = [policy.name for policy in policies]
    labels = existing_labels(path, settings)
    if labels and (not names or set(names) <= {answers.name for answers in labels.answers}):
        return _from_output(labels, policies, settings, wanted)
    if not policies:
        raise UsageError(f"{path} holds no verdicts: name the policy to label it under, with --policy")
    answers = tuple(Answers(policy.name, policy.labels, policy.violates) for policy in policies)
    golden = usable_rows(settings, wanted, answers)
    verdicts = label_golden(settings, golden)
    prompting = TOGETHER if settings.together and len(policies) > 1 else APART
    return Measured(golden, answers, verdicts, prompting, settings.model or "", settings.effort)


def label_golden(settings: Settings, golden: Golden) -> tuple[Mapping[str, Verdict], ...]:
    """Label the texts of a golden set, in a folder that is gone afterwards."""
    with temporary_folder() as folder:
        labels = label_rows(settings, ({"text": row.text} for row in golden.rows), folder / "labels.jsonl")
    return tuple(row.verdicts for row in labels.rows)


def label_rows(settings: Settings, rows: Iterable[Mapping[str, Any]], output: Path) -> Labels:
    """Label rows with a `text` by `safeguard label`'s own run, which goes on with an unfinished output."""
    from safeguard_cli.run import label

    with temporary_folder() as folder:
        texts = folder / "rows.jsonl"
        with sentences(texts):
            texts.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        label(
            replace(
                settings,
                input=str(texts),
                output=str(output),
                format=None,
                encoding="utf-8",
                text_fields=("text",),
                template=None,
                says_text=False,
            )
        )
    return read_labels(output)


def existing_labels(path: Path, settings: Settings) -> Labels | None:
    """The file as an output of ours, if its rows hold verdicts."""
    try:
        with open_source(path, format=settings.format, encoding=settings.encoding) as source:
            first = source.first()
            found = verdict_names([first] if first else [], source.names)
    except SafeguardError:  # a title row can look like anything; reading it as a golden set says what is wrong
        return None
    return read_labels(path, format=settings.format, encoding=settings.encoding) if found else None


def usable_rows(settings: Settings, wanted: Wanted, answers: Sequence[Answers], others: Collection[str] = ()) -> Golden:
    """The golden set that is asked for, as far as --limit goes. Raises UsageError as `read_golden` does.

    Which field holds the texts is said; it is none of `others`, which were named for another purpose.
    """
    golden = read_golden(
        Path(settings.input),
        answers,
        gold_fields(wanted.gold_fields, [a.name for a in answers]),
        mapping=parse_map(wanted.mapping),
        skip_rows=wanted.skip_rows,
        format=settings.format,
        encoding=settings.encoding,
        text_fields=settings.text_fields,
        template=settings.template,
        others=(*wanted.by, *others),
    )
    if settings.says_its_text:
        note(f"text: {golden.text}")
    if settings.limit is not None and len(golden.rows) > settings.limit:
        golden.unused["beyond --limit"] = len(golden.rows) - settings.limit
        del golden.rows[settings.limit :]
    names = dict.fromkeys(name for row in golden.rows for name in row.fields)
    if unknown := [name for name in wanted.by if name not in names]:
        raise no_field(settings.input, "--by", unknown[0], tuple(names))
    return golden


def _from_output(labels: Labels, policies: Sequence[Policy], settings: Settings, wanted: Wanted) -> Measured:
    if wanted.sure:
        raise UsageError("--sure labels the golden set twice; give it the golden set itself, not an output")
    given = {policy.name: Answers(policy.name, policy.labels, policy.violates) for policy in policies}
    answers = tuple(given.get(a.name, a) for a in labels.answers if not given or a.name in given)
    golden = usable_rows(settings, wanted, answers)
    decides = labels.manifest.decides if labels.manifest else {}
    efforts = {v.effort for row in labels.rows for v in row.verdicts.values() if v.effort}
    model = str((labels.manifest.result or {}).get("model", "")) if labels.manifest else ""
    return Measured(
        golden,
        answers,
        tuple(labels.rows[row.number - 1].verdicts for row in golden.rows),
        labels.prompting,
        Path(model).name,
        str(decides.get("answer", {}).get("effort") or ", ".join(sorted(efforts))),
    )


def outcomes(measured: Measured, answers: Answers, threshold: float | None = None) -> tuple[Outcomes, list[int]]:
    """The rows that were labelled under a policy, as arrays, and their places among the golden rows."""
    kept = [i for i, verdicts in enumerate(measured.verdicts) if verdicts[answers.name].error is None]
    verdicts = [measured.verdicts[i][answers.name] for i in kept]
    p = [verdict.p_violates or 0.0 for verdict in verdicts]
    if not kept:
        raise SafeguardError(f"every row is in error under {answers.name}: there is nothing to measure")
    if unknown := [v.label for v in verdicts if v.label not in answers.labels]:
        raise UsageError(
            f"the output says {unknown[0]!r}, which is no label of {answers.name}: is it another policy's?"
        )
    return Outcomes.of(
        answers.labels,
        answers.violates,
        [measured.golden.rows[i].gold[answers.name] for i in kept],
        [str(verdict.label) for verdict in verdicts],
        [
            bool(v.violates) if threshold is None else v.p_violates is not None and v.p_violates >= threshold
            for v in verdicts
        ],
        p,
    ), kept


def policy_result(
    measured: Measured,
    answers: Answers,
    wanted: Wanted,
    search: float | tuple[str, float] | None,
    quick: Sequence[Mapping[str, Verdict]] | None,
) -> dict[str, Any]:
    """All that is said about one policy."""
    found, kept = outcomes(measured, answers, search if isinstance(search, float) else None)
    bounds = metrics.intervals(found)
    result: dict[str, Any] = {
        "labels": list(answers.labels),
        "violates": list(answers.violates),
        "rows": len(found),
        "rows_in_error": len(measured.verdicts) - len(found),
        "figures": {
            name: {"value": _number(value), "low": _number(bounds[name][0]), "high": _number(bounds[name][1])}
            for name, value in metrics.figures(found).items()
        },
        "confusion": metrics.confusion(found),
        "slices": {column: list(_slices(measured.golden.rows, kept, found, column)) for column in wanted.by},
        "wrong": [
            _wrong(measured.golden.rows[kept[i]], measured.verdicts[kept[i]][answers.name], answers.name)
            for i in (~found.right).nonzero()[0]
        ],
    }
    if isinstance(search, float):
        result["threshold"] = {"threshold": search}
    elif search is not None:
        point = metrics.find_threshold(found, *search)
        result["threshold"] = {"wanted": list(search)} | (
            {"threshold": point.threshold, "precision": point.precision, "recall": point.recall} if point else {}
        )
    if quick is not None:
        other = replace_verdicts(measured, quick)
        quick_found, quick_kept = outcomes(other, answers)
        both = sorted(set(kept) & set(quick_kept))
        table = metrics.sure_table(quick_found.take(_places(quick_kept, both)), found.take(_places(kept, both)))
        result["sure"] = [
            {"sure": t.sure, "at_once": t.at_once, "accuracy": t.accuracy, "agreement": t.agreement} for t in table
        ]
    return result


def replace_verdicts(measured: Measured, verdicts: Sequence[Mapping[str, Verdict]]) -> Measured:
    return replace(measured, verdicts=tuple(verdicts))


def _places(kept: Sequence[int], wanted: Sequence[int]) -> Any:
    import numpy as np

    at = {row: place for place, row in enumerate(kept)}
    return np.array([at[row] for row in wanted], np.int64)


def multi_policy_result(measured: Measured) -> dict[str, Any]:
    """The technical report's multi-policy accuracy: a row counts only if every policy's label is right."""
    whole = [
        (row, verdicts)
        for row, verdicts in zip(measured.golden.rows, measured.verdicts, strict=True)
        if not any(verdict.error for verdict in verdicts.values())
    ]
    right, total = metrics.multi_policy_accuracy(
        [verdicts[a.name].label == row.gold[a.name] for a in measured.answers] for row, verdicts in whole
    )
    low, high = metrics.share_interval(right, total) if total else (math.nan, math.nan)
    return {"value": right / total if total else None, "low": _number(low), "high": _number(high), "rows": total}


def _slices(rows: Sequence[GoldenRow], kept: Sequence[int], found: Outcomes, column: str) -> Iterator[dict[str, Any]]:
    import numpy as np

    values = [as_text(rows[i].fields.get(column)) for i in kept]
    for value in sorted(set(values)):
        part = found.take(np.array([v == value for v in values]))
        right = int(part.right.sum())
        low, high = metrics.share_interval(right, len(part))
        figures = metrics.figures(part)
        yield {
            "value": value,
            "rows": len(part),
            "accuracy": right / len(part),
            "low": low,
            "high": high,
            "f1": _number(figures["f1"]) if 0 < part.truth.sum() < len(part) else None,
        }


def _wrong(row: GoldenRow, verdict: Verdict, policy: str) -> dict[str, Any]:
    return {
        "row": row.number,
        "line": row.line,
        "gold": row.gold[policy],
        "label": verdict.label,
        "p_violates": verdict.p_violates,
        "text": row.text,
        **({"rationale": verdict.rationale} if verdict.rationale is not None else {}),
    }


def _parse_threshold(value: str | None) -> float | tuple[str, float] | None:
    """`0.7`, `precision=0.95` or `recall=0.9`."""
    if value is None:
        return None
    wanted, equals, number = value.rpartition("=")
    try:
        level = float(number)
    except ValueError:
        level = -1.0
    if not 0 <= level <= 1 or wanted not in ("", "precision", "recall") or bool(equals) != bool(wanted):
        raise UsageError(f"--threshold {value!r}: write 0.7, precision=0.95 or recall=0.9")
    return (wanted, level) if wanted else level


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _shown(result: Mapping[str, Any], wanted: Wanted) -> Iterator[RenderableType]:
    """The result as a person reads it at a terminal."""
    head = [f"{result['rows']:,} golden rows"]
    head += [part for part in (result["model"] and f"model {Path(result['model']).name}", result["prompting"]) if part]
    if result["effort"]:
        head.append(f"effort {result['effort']}")
    yield line_of(" · ".join(head))
    if unused := {reason: n for reason, n in result["rows_not_used"].items() if n}:
        reasons = "; ".join(f"{n:,} {reason}" for reason, n in unused.items())
        yield line_of(f"{sum(unused.values()):,} rows not used: {reasons}", "yellow")
    for name, policy in result["policies"].items():
        yield from _shown_policy(name, policy, wanted)
    if found := result.get("multi_policy_accuracy"):
        value = f"{_figure(found['value'])}  ({_range(found)}, {found['rows']:,} rows)"
        yield Text.assemble("\n", ("multi-policy accuracy", "bold"), f"  {value}: every policy's label is right\n")


def _shown_policy(name: str, policy: Mapping[str, Any], wanted: Wanted) -> Iterator[RenderableType]:
    yield Text.assemble("\n", (cut(name, 60), "bold"), f"  {policy['rows']:,} rows labelled")
    if policy["rows_in_error"]:
        yield line_of(f"{policy['rows_in_error']:,} rows in error, not counted", "red")
    table = make_table("", "", "95 % interval")
    for key, title in FIGURES.items():
        figure = policy["figures"][key]
        table.add_row(title, _figure(figure["value"]), _range(figure))
    yield table
    titles = [Text(cut(label, 24), "red" if label in policy["violates"] else "") for label in policy["labels"]]
    table = make_table("label", "precision", "recall", "F1", "95 % interval")
    for label, styled in zip(policy["labels"], titles, strict=True):
        each = [policy["figures"][f"{key}:{label}"] for key in ("precision", "recall", "f1")]
        table.add_row(styled, *(_figure(figure["value"]) for figure in each), _range(each[2]))
    yield table
    table = make_table("gold ↓  said →", *(title.plain for title in titles))
    for i, counts in enumerate(policy["confusion"]):
        table.add_row(titles[i], *(Text(f"{n:,}", "bold" if i == j else "") for j, n in enumerate(counts)))
    yield table
    for column, slices in policy["slices"].items():
        table = make_table(f"by {column}", "rows", "accuracy", "95 % interval", "F1")
        for part in slices:
            table.add_row(
                cut(part["value"] or "(empty)", 30),
                f"{part['rows']:,}",
                _figure(part["accuracy"]),
                _range(part),
                _figure(part["f1"]),
            )
        yield table
    yield from _shown_choices(policy)
    wrong = policy["wrong"]
    if wrong and wanted.wrong:
        yield line_of(f"wrong, {min(len(wrong), wanted.wrong)} of {len(wrong):,}:")
        for row in wrong[: wanted.wrong]:
            p = f"p {row['p_violates']:.2f}"
            yield line_of(
                f"  line {row['line']}: gold {row['gold']}, said {row['label']}, {p}: {cut(row['text'], 100)}"
            )
            if row.get("rationale"):
                yield line_of(f"    {cut(row['rationale'], 140)}", "dim")


def _shown_choices(policy: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What was found for --threshold and --sure."""
    threshold = policy.get("threshold") or {}
    if "wanted" in threshold:
        wanted = "{} at least {}".format(*threshold["wanted"])
        if "threshold" in threshold:
            gives = f"precision {_figure(threshold['precision'])}, recall {_figure(threshold['recall'])}"
            yield line_of(f"for {wanted}: --threshold {threshold['threshold']:g} gives {gives} on these rows")
        else:
            yield line_of(f"no threshold gives {wanted} on these rows", "yellow")
    elif threshold:
        yield line_of(f"violating means p_violates ≥ {threshold['threshold']:g} here")
    if lines := policy.get("sure"):
        table = make_table("--sure", "decided at once", "accuracy", "as with full reasoning")
        for line in lines:
            table.add_row(f"{line['sure']:g}", *(_figure(line[key]) for key in ("at_once", "accuracy", "agreement")))
        yield table


def make_table(*titles: str) -> Table:
    """A table without lines, its first column on the left, the others to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for i, title in enumerate(titles):
        table.add_column(cut(title, 30) if title else "", justify="right" if i else "left", no_wrap=True)
    return table


def line_of(text: str, style: str = "") -> Text:
    """One line, made harmless, and cut where the terminal ends."""
    return Text(cut(text, 1000), style, no_wrap=True, overflow="ellipsis")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _range(figure: Mapping[str, Any]) -> str:
    return "–" if figure["low"] is None else f"{figure['low']:.3f} to {figure['high']:.3f}"

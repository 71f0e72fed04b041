"""`safeguard report`: writes an output as one HTML file that needs no network, for people who decide about a policy.

Texts of rows and policies are hostile. The template escapes them all, control characters are spelled out, and the
page's content security policy lets only our script run, which it knows by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli import __version__, errors
from safeguard_cli.audit.estimate import Estimate, rank_of
from safeguard_cli.audit.shares import Counted, shares, slices
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.files import write
from safeguard_cli.measure.evaluate import multi_policy_result, policy_result, together_result, wrong_rows
from safeguard_cli.measure.golden import ID, gold_fields
from safeguard_cli.measure.measured import Measured, beside_gold, gold_of
from safeguard_cli.measure.options import Wanted
from safeguard_cli.measure.report.charts import calibration, histogram, thresholds
from safeguard_cli.measure.report.estimate import bounds_text, lead, of_policy, rows_text
from safeguard_cli.measure.report.examples import fold
from safeguard_cli.measure.shown import FIGURES, INTERVALS, TOGETHER, rows_of
from safeguard_cli.measure.stress.figures import is_stress_test, policy_of, stress_figures, trials
from safeguard_cli.measure.wrong_file import check_wrong_file, write_wrong_file
from safeguard_cli.output.labelled import LabeledFile, LabeledRow, LabelSet, read_labels
from safeguard_cli.output.manifest import Refused, rows_path
from safeguard_cli.policy.policy import Policy, builtin_policies, load_policy
from safeguard_cli.rows.writable import check_folder, check_output, is_stream, open_stream, real
from safeguard_cli.run.destination import used_by
from safeguard_cli.run.prepare import load_policies
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import figure, interval, note, per_cent, safe

_TITLE_END = " · safeguard</title>"  # as page.html has it
SHOWN_CHARACTERS = 2000  # of a row's text
ONLY_VIOLATING = "written with --only violates: other rows are missing, so the shares below tell nothing"
WORST = 10  # rows of a stress test's family


def report(settings: Settings, wanted: Wanted, output: str | None, examples: int) -> int:
    """Run `safeguard report` and return the exit code. Raise SafeguardError with a sentence for the user."""
    try:
        import jinja2
        import matplotlib
    except ImportError:
        raise errors.missing_extra("a report needs Jinja2 and matplotlib", "report") from None
    out = Path(settings.input)
    path = rows_path(out)
    if not path.is_file():
        raise errors.no_file(settings.input)
    settings = replace(settings, input=str(path))
    target = Path(output) if output is not None else out.with_suffix(".html")
    _check_target(target, settings)
    check_wrong_file(wanted.wrong_file, used_by(settings))
    policies = load_policies(settings) if settings.policies else ()
    known = tuple(LabelSet(policy.name, policy.labels, policy.violates) for policy in policies)
    how: dict[str, Any] = {"format": settings.format, "encoding": settings.encoding, "sheet": settings.sheet}
    labels = read_labels(path, **how, known=known)
    names = [answers.name for answers in labels.answers]
    if unknown := [policy.name for policy in policies if policy.name not in names]:
        raise UsageError(f"--policy {unknown[0]}: {path} is labelled under {', '.join(names)}")
    stressed = is_stress_test(labels)
    if stressed and not wanted.by:
        wanted = replace(wanted, by=("family",))
    by = slices(path, wanted.by, format=settings.format, encoding=settings.encoding)
    partial = bool(labels.manifest and labels.manifest.identity.output.only)
    found = None if stressed or (partial and not by) else shares(labels, by)
    wanted = replace(wanted, by=tuple(one.field for one in by if one.unit is None))
    golden = gold_of(labels, names, settings, wanted)
    if golden is None and wanted.wrong_file is not None:
        raise UsageError(f"--wrong-file has no effect: {path} has no right labels to tell which rows are wrong")
    measured = beside_gold(labels, golden, labels.answers) if golden else None
    texts = labels.texts(settings.text_fields, settings.template, gold_fields(wanted.gold_fields, names).values())
    shown = {row.number: text for row, text in zip(labels.rows, texts, strict=True)} if texts else None
    shown_policies = [
        _policy(labels, answers, measured, wanted, examples, shown, found)
        | {"stress": _stress(labels, answers, policies) if stressed else None}
        | {"text": policy_text(labels, answers, policies)}
        for answers in labels.answers
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("safeguard_cli.measure.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "safe_text": _safe_text,
        "figure": figure,
        "share": per_cent,
        "count": "{:,}".format,
        "interval": interval,
        "rows_in": rows_of,
        "range": lambda rate: interval(rate, per_cent=True),
        "bounds": bounds_text,
        "rows_of": rows_text,
    }
    script = resources.files("safeguard_cli.measure.report").joinpath("page.js").read_text(encoding="utf-8")
    matplotlib.use("svg")
    page = environment.get_template("page.html").render(
        title=out.name,
        version=__version__,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        facts=_facts(labels, measured),
        doubts=[*labels.doubts, *[ONLY_VIOLATING] * partial],
        lead=lead(found) if found else None,
        figures=FIGURES,
        intervals=INTERVALS,
        together=multi_policy_result(measured) if measured and len(measured.answers) > 1 else None,
        of_all=together_result(measured) if measured and len(measured.answers) > 1 else {},
        titles=TOGETHER,
        policies=shown_policies,
        worst=WORST,
        manifest=_manifest(labels),
    )
    write_wrong_file(
        wanted.wrong_file, [*wrong_rows({one["name"]: one["result"] for one in shown_policies if one["result"]})]
    )
    try:
        if is_stream(target):
            with open_stream(target, used_by(settings)) as stream:
                stream.write(page.encode())
        else:
            write(real(target), page.encode())
    except OSError as error:
        raise SafeguardError(f"{target}: cannot be written: {error.strerror}") from None
    if not settings.quiet:
        note(f"wrote {target}; it opens in any browser, without a network")
    return errors.OK


def _check_target(target: Path, settings: Settings) -> None:
    """Raise, before the work, if the page cannot be written or would replace a file that is no report of ours."""
    if is_stream(target):
        return
    if target.suffix.lower() not in ("", ".html", ".htm"):
        raise UsageError(f"{target}: a report is an HTML page; name it *.html")
    check_output(target, used_by(settings))
    check_folder(real(target))
    if target.exists():
        with target.open("rb") as file:
            if _TITLE_END.encode() not in file.read(8192):
                raise Refused(f"{target} exists and is not a report of safeguard: name another file with -o")


def _policy(
    labels: LabeledFile,
    answers: LabelSet,
    measured: Measured | None,
    wanted: Wanted,
    examples: int,
    texts: Mapping[int, str] | None,
    found: Estimate | Counted | None,
) -> dict[str, Any]:
    """Return what the page shows of one policy; a stress test has no shares (`found`)."""
    done = [row for row in labels.rows if row.verdicts[answers.name].error is None]
    verdicts = [row.verdicts[answers.name] for row in done]
    counts = Counter(verdict.label for verdict in verdicts)
    codes = Counter(error.code for row in labels.rows if (error := row.verdicts[answers.name].error))
    gold = {row.number: row.gold[answers.name] for row in measured.golden.rows} if measured else {}
    result = curve = None
    if measured and done:
        result = policy_result(measured, answers, wanted, None, None)
        curve = calibration(measured, answers)
    return {
        "name": answers.name,
        "labels": answers.labels,
        "violates": answers.violates,
        "rows": len(done),
        "errors": dict(codes),
        "violating": sum(bool(verdict.violates) for verdict in verdicts),
        "counts": [(label, counts[label], counts[label] / len(done) if done else None) for label in answers.labels],
        "shares": of_policy(found.policies[answers.name], found) if found else None,
        "histogram": histogram([v.p_violates or 0.0 for v in verdicts], [bool(v.violates) for v in verdicts]),
        "result": result,
        "calibration": curve,
        "thresholds": thresholds(result["curve"]) if result and result["curve"][0]["recall"] is not None else None,
        "examples": [
            {
                "number": row.number,
                "line": row.line,
                "id": row.fields.get(ID),
                "text": _text(row, texts)[:SHOWN_CHARACTERS],
                "cut": len(_text(row, texts)) > SHOWN_CHARACTERS,
                "verdict": row.verdicts[answers.name],
                "gold": gold.get(row.number),
                "wrong": row.number in gold and gold[row.number] != row.verdicts[answers.name].label,
                "more": more,
            }
            for label in answers.labels
            for row, more in _examples(
                [row for row in done if row.verdicts[answers.name].label == label], answers, gold, examples, texts
            )
        ],
        "random": any(rank_of(row) is not None for row in done) and not gold,
    }


def policy_text(labels: LabeledFile, answers: LabelSet, given: Sequence[Policy]) -> str:
    """Return the text of the policy that the rows were labelled under: of one given, on record, or built in.

    Empty if none is known to be that policy. Raise UsageError if the one given is another.
    """
    record = labels.manifest.identity.policies.get(answers.name) if labels.manifest else None
    texts = (labels.manifest.progress.policy_texts if labels.manifest else None) or {}
    for policy in given:
        if policy.name == answers.name and record and policy.sha256 != record.sha256:
            raise UsageError(f"--policy {policy.name}: {labels.path} was labelled under another text of this policy")
        if policy.name == answers.name:
            return policy.text
    if answers.name in texts:
        return texts[answers.name]
    shipped = map(load_policy, builtin_policies()) if record else ()
    return next((policy.text for policy in shipped if record and policy.sha256 == record.sha256), "")


def _stress(labels: LabeledFile, answers: LabelSet, policies: Sequence[Policy]) -> dict[str, Any]:
    policy = policy_of(labels, answers.name, policies)
    return stress_figures(trials(labels, answers), answers, policy)


def _examples(
    rows: Sequence[LabeledRow],
    answers: LabelSet,
    gold: Mapping[int, str],
    most: int,
    texts: Mapping[int, str] | None,
) -> list[tuple[LabeledRow, int]]:
    """Return rows of one label, each with the number of further ones whose text is like its own.

    They are those that teach most: the wrong ones first, then the least sure. Of an audit's rows without right labels
    they are random ones, which show what the label is like.
    """
    random = {row.number: rank for row in rows if (rank := rank_of(row)) is not None} if not gold else {}

    def order(row: LabeledRow) -> tuple[bool, float]:
        verdict = row.verdicts[answers.name]
        right = gold.get(row.number, verdict.label) == verdict.label
        return right, random.get(row.number, abs((verdict.p_violates or 0.0) - 0.5))

    chosen = [row for row in sorted(rows, key=order) if not random or row.number in random]
    return [(chosen[one.place], one.more) for one in fold((_text(row, texts) for row in chosen), most)]


def _text(row: LabeledRow, texts: Mapping[int, str] | None) -> str:
    """Return what a reader knows a row by: its text, else all its fields."""
    return orjson.dumps(dict(row.fields), default=str).decode() if texts is None else texts[row.number]


def _facts(labels: LabeledFile, measured: Measured | None) -> list[tuple[str, str]]:
    """Return rows, time, tokens and more, each if it is known."""
    facts = [("rows", f"{len(labels.rows):,}")]
    if measured:
        facts.append(("with a gold label", f"{len(measured.golden.rows):,}"))
        unused = [f"{count:,} {reason}" for reason, count in measured.golden.unused.items() if count]
        facts += [("not used for figures", "; ".join(unused))] if unused else []
    facts += [("policies asked", labels.prompting), ("model", labels.model or "not on record")]
    if manifest := labels.manifest:
        done = manifest.progress
        seconds = done.seconds
        facts += [
            ("effort", labels.effort or "not on record"),
            ("time", f"{seconds:,.1f} s, {len(labels.rows) / seconds:,.2f} rows/s" if seconds else "unknown"),
            ("tokens", f"{done.prompt_tokens:,} read, {done.generated_tokens:,} written"),
            ("started", manifest.started),
        ]
    return facts


def _manifest(labels: LabeledFile) -> str:
    if labels.manifest is None:
        return ""
    return orjson.dumps(labels.manifest.record(), option=orjson.OPT_INDENT_2).decode()


def _safe_text(text: object) -> str:
    return safe(str(text), keep_newlines=True)

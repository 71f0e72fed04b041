"""`safeguard report`: writes an output as one HTML file that needs no network, for people who decide about a policy.

Texts of rows and policies are hostile. The template escapes them all, control characters are spelled out, and the
page's content security policy lets only our script run, which it knows by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import orjson

from safeguard_cli import __version__, errors
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.files import write
from safeguard_cli.measure import metrics
from safeguard_cli.measure.evaluate import multi_policy_result, policy_result
from safeguard_cli.measure.golden import gold_fields
from safeguard_cli.measure.measured import Measured, beside_gold, gold_of, outcomes
from safeguard_cli.measure.options import Wanted
from safeguard_cli.measure.shown import FIGURES, INTERVALS
from safeguard_cli.measure.stress.figures import is_stress_test, policy_of, stress_figures, trials
from safeguard_cli.output.labelled import LabeledFile, LabeledRow, LabelSet, read_labels
from safeguard_cli.output.manifest import Refused
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.writable import check_folder, check_output, is_stream, open_stream, real
from safeguard_cli.run.destination import used_by
from safeguard_cli.run.prepare import load_policies
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import figure, interval, note, per_cent, safe

BINS = 20
_TITLE_END = " · safeguard</title>"  # as page.html has it
SHOWN_CHARACTERS = 2000  # of a row's text
WORST = 10  # rows of a stress test's family
# The page's style sheet decides these colours, so that charts follow its light and dark scheme. matplotlib knows only
# fixed colours: the keys stand for the variables until the SVG is written.
_COLOURS = {"#010101": "currentColor", "#020202": "var(--bad)", "#030303": "var(--good)", "#040404": "var(--line)"}
_INK, _BAD, _GOOD, _LINE = _COLOURS


def report(settings: Settings, wanted: Wanted, output: str | None, examples: int) -> int:
    """Run `safeguard report` and return the exit code. Raise SafeguardError with a sentence for the user."""
    try:
        import jinja2
        import matplotlib
    except ImportError:
        raise errors.missing_extra("a report needs Jinja2 and matplotlib", "report") from None
    path = Path(settings.input)
    if not path.is_file():
        raise UsageError(f"{settings.input}: there is no such file")
    target = Path(output) if output is not None else path.with_suffix(".html")
    _check_target(target, settings)
    policies = load_policies(settings) if settings.policies else ()
    known = tuple(LabelSet(policy.name, policy.labels, policy.violates) for policy in policies)
    how: dict[str, Any] = {"format": settings.format, "encoding": settings.encoding, "sheet": settings.sheet}
    labels = read_labels(path, **how, known=known)
    names = [answers.name for answers in labels.answers]
    if unknown := [policy.name for policy in policies if policy.name not in names]:
        raise UsageError(f"--policy {unknown[0]}: {path} is labelled under {', '.join(names)}")
    stressed = is_stress_test(labels)
    if labels.manifest and not stressed:
        wanted.refuse(("policies",), f"on {path}: its policies' labels are on record, and it is no stress test")
    if stressed and not wanted.by:
        wanted = replace(wanted, by=("family",))
    golden = gold_of(labels, names, settings, wanted)
    measured = beside_gold(labels, golden, labels.answers) if golden else None
    texts = labels.texts(settings.text_fields, settings.template, gold_fields(wanted.gold_fields, names).values())
    shown = {row.number: text for row, text in zip(labels.rows, texts, strict=True)} if texts else None
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
        "range": lambda rate: interval(rate, per_cent=True),
    }
    script = resources.files("safeguard_cli.measure.report").joinpath("page.js").read_text(encoding="utf-8")
    matplotlib.use("svg")
    page = environment.get_template("page.html").render(
        title=path.name,
        version=__version__,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        facts=_facts(labels, measured),
        doubts=labels.doubts,
        figures=FIGURES,
        intervals=INTERVALS,
        together=multi_policy_result(measured) if measured and len(measured.answers) > 1 else None,
        policies=[
            _policy(labels, answers, measured, wanted, examples, shown)
            | {"stress": _stress(labels, answers, policies) if stressed else None}
            for answers in labels.answers
        ],
        worst=WORST,
        manifest=_manifest(labels),
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
) -> dict[str, Any]:
    """Return what the page shows of one policy."""
    done = [row for row in labels.rows if row.verdicts[answers.name].error is None]
    verdicts = [row.verdicts[answers.name] for row in done]
    counts = Counter(verdict.label for verdict in verdicts)
    codes = Counter(error.code for row in labels.rows if (error := row.verdicts[answers.name].error))
    gold = {row.number: row.gold[answers.name] for row in measured.golden.rows} if measured else {}
    result = curve = None
    if measured and done:
        result = policy_result(measured, answers, wanted, None, None)
        curve = _calibration(measured, answers)
    return {
        "name": answers.name,
        "labels": answers.labels,
        "violates": answers.violates,
        "rows": len(done),
        "errors": dict(codes),
        "violating": sum(bool(verdict.violates) for verdict in verdicts),
        "shares": [(label, counts[label], counts[label] / len(done) if done else None) for label in answers.labels],
        "histogram": _histogram([v.p_violates or 0.0 for v in verdicts], [bool(v.violates) for v in verdicts]),
        "result": result,
        "calibration": curve,
        "examples": [
            {
                "number": row.number,
                "line": row.line,
                "text": _text(row, texts)[:SHOWN_CHARACTERS],
                "cut": len(_text(row, texts)) > SHOWN_CHARACTERS,
                "verdict": row.verdicts[answers.name],
                "gold": gold.get(row.number),
                "wrong": row.number in gold and gold[row.number] != row.verdicts[answers.name].label,
            }
            for label in answers.labels
            for row in _examples([r for r in done if r.verdicts[answers.name].label == label], answers, gold, examples)
        ],
    }


def _stress(labels: LabeledFile, answers: LabelSet, policies: Sequence[Policy]) -> dict[str, Any]:
    policy = policy_of(labels, answers.name, policies)
    return stress_figures(trials(labels, answers), answers, policy)


def _examples(
    rows: Sequence[LabeledRow], answers: LabelSet, gold: Mapping[int, str], most: int
) -> Sequence[LabeledRow]:
    """Return the rows of one label that teach most: the wrong ones first, then the least sure."""

    def order(row: LabeledRow) -> tuple[bool, float]:
        verdict = row.verdicts[answers.name]
        right = gold.get(row.number, verdict.label) == verdict.label
        return right, abs((verdict.p_violates or 0.0) - 0.5)

    return sorted(rows, key=order)[:most]


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


def _histogram(p: Sequence[float], violating: Sequence[bool]) -> str:
    """Draw how p_violates is distributed; high in the middle means that the policy leaves the model unsure."""
    sides = [[x for x, bad in zip(p, violating, strict=True) if bad is side] for side in (False, True)]
    figure, axes = _axes("p_violates", "rows")
    axes.hist(sides, bins=BINS, range=(0, 1), stacked=True, color=[_GOOD, _BAD], label=["safe", "violating"])
    axes.legend(frameon=False, labelcolor=_INK)
    return _svg(figure)


def _calibration(measured: Measured, answers: LabelSet) -> str:
    """Draw how many of the rows with p_violates p do violate; on the diagonal p means what it says."""
    found, _ = outcomes(measured, answers)
    bins = metrics.calibration_bins(found.truth, found.p_violates)
    figure, axes = _axes("mean p_violates", "share that violates")
    axes.plot([0, 1], [0, 1], color=_LINE, linestyle="--")
    axes.plot([mean for _, mean, _ in bins], [share for *_, share in bins], color=_BAD, marker="o")
    for count, mean, share in bins:
        axes.annotate(f"{count:,}", (mean, share), (0, 6), textcoords="offset points", ha="center", color=_INK)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.12))
    return _svg(figure)


def _axes(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.8), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.tick_params(colors=_INK)
    for name, spine in axes.spines.items():
        spine.set_color(_LINE)
        spine.set_visible(name in ("left", "bottom"))
    return figure, axes


def _svg(figure: Any) -> str:
    """Return the chart as an SVG element: text as text, the same bytes for the same figures."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "safeguard", "text.parse_math": False}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    for fixed, variable in _COLOURS.items():
        svg = svg.replace(fixed, variable)
    return svg


def _safe_text(text: object) -> str:
    return safe(str(text), keep_newlines=True)

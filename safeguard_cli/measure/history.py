"""`safeguard policy history`: lists the versions of a policy that were measured on a golden set, and what flipped.

A measurement is a finished output that labels rows of the golden set. Its manifest says under which version of which
policy; the right labels are always those that the golden set has now. Only measurements by the same model, asked in the
same way, stand in one history: what flips between two of them is the policy's doing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from pathlib import Path
from typing import Any, TypeAlias

from safeguard_cli import errors
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.measure import metrics
from safeguard_cli.measure.compare import Pair, Side, pair_result
from safeguard_cli.measure.evaluate import number
from safeguard_cli.measure.golden import Golden, GoldenRow
from safeguard_cli.measure.history_shown import shown
from safeguard_cli.measure.measured import Measured, by_pick, golden_path, outcomes, usable_rows
from safeguard_cli.measure.options import Remembered, Wanted
from safeguard_cli.output.labelled import LabeledFile, LabeledRow, LabelSet, read_labels
from safeguard_cli.output.manifest import Manifest, find_manifest
from safeguard_cli.output.spelled import normal
from safeguard_cli.policy.policy import find_policy, load_policy
from safeguard_cli.rows.source import open_source
from safeguard_cli.rows.verdict import Verdict
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import json_bytes, print_json, show

FIGURES = ("accuracy", "precision", "recall", "f1")
ID = "id"  # the field with a row's id, unless another is named
_RECORDS = (".manifest.json", ".run.json")
Version: TypeAlias = tuple[str, tuple[str, ...]]  # a policy's hash, and its labels that violate


@dataclass(frozen=True, slots=True)
class Measurement:
    """One output under one policy: the golden rows in it that are labelled, each with its verdict, in their order."""

    output: Path
    manifest: Manifest
    answers: LabelSet
    measured: Measured
    in_error: int

    @property
    def finished(self) -> str:
        return self.manifest.result.finished if self.manifest.result else ""

    @property
    def sha256(self) -> str:
        return self.manifest.identity.policies[self.answers.name].sha256

    @property
    def text(self) -> str | None:
        """The policy's text, None if the run did not keep it."""
        return (self.manifest.progress.record.get("policy_texts") or {}).get(self.answers.name)

    @property
    def version(self) -> Version:
        return self.sha256, self.answers.violates

    @property
    def by_line(self) -> dict[int, tuple[GoldenRow, Verdict]]:
        """The rows by their lines in the golden set."""
        rows = zip(self.measured.golden.rows, self.measured.verdicts, strict=True)
        return {row.line: (row, verdicts[self.answers.name]) for row, verdicts in rows}

    def asked(self) -> dict[str, Any]:
        """Return what was asked, and of which model, apart from the policy itself."""
        identity = self.manifest.identity
        found = {"model": identity.model.record, "prompt": identity.prompt_layout, **identity.answer.record}
        if identity.answer.together:
            found["together"] = sorted(set(identity.policies) - {self.answers.name})
        return found


class Unfit(SafeguardError):
    """Why an output is no measurement of the golden set."""


def history(settings: Settings, remembered: Remembered) -> int:
    """Run `safeguard policy history` and return the exit code. Raise SafeguardError with a sentence for the user."""
    with metrics.sklearn():
        pass
    golden = golden_path(settings)
    folder = Path(remembered.folder) if remembered.folder is not None else golden.parent
    if not folder.is_dir():
        raise UsageError(f"--in {folder} is no folder")
    with open_source(golden, format=settings.format, encoding=settings.encoding, sheet=settings.sheet) as source:
        source.first()  # raises its own error if the file cannot be read
    names = dict(_named(remembered.names))
    found, left_out = _measurements(folder, settings, remembered, names)
    if not found:
        reasons = "; ".join(f"{output}: {why}" for output, why in left_out[:3]) or "no manifest there is of such a run"
        more = f"; {len(left_out) - 3:,} more" if len(left_out) > 3 else ""
        raise UsageError(
            f"{folder} holds no finished output that labels rows of {golden}"
            f"{' under ' + ', '.join(names) if names else ''} ({reasons}{more}): `safeguard eval {golden} -o OUT` or"
            " `safeguard label` writes one"
        )
    result = {
        "golden": str(golden),
        "folder": str(folder),
        "intervals": metrics.METHODS["shares"],
        "histories": _histories(found, names, settings.id_field or ID),
        "left_out": [{"output": str(output), "reason": why} for output, why in left_out],
    }
    if remembered.json:
        print_json(result)
    else:
        show(*shown(result, remembered.wrong))
    return errors.OK


def _named(given: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each policy's name, with the hash of its file as it is now if there is one."""
    for text in given:
        if find_policy(text).is_file():
            policy = load_policy(text)
            yield policy.name, policy.sha256
        else:
            yield text, None


def _measurements(
    folder: Path, settings: Settings, remembered: Remembered, names: Mapping[str, str | None]
) -> tuple[list[Measurement], list[tuple[Path, str]]]:
    """Return all measurements in a folder, the oldest first, and why other outputs are none."""
    found: list[Measurement] = []
    left_out: list[tuple[Path, str]] = []
    right = _Right(settings, remembered)
    for output in _outputs(folder):
        try:
            manifest = _finished(output)
        except SafeguardError as problem:
            left_out.append((output, str(problem)))
            continue
        chosen = [name for name in manifest.identity.policies if not names or name in names]
        for name in chosen:
            try:
                found.append(_measurement(output, manifest, name, right.of(manifest, name, len(chosen) > 1), settings))
            except SafeguardError as problem:
                left_out.append((output, str(problem)))
    return sorted(found, key=lambda one: (one.finished, str(one.output))), left_out


def _outputs(folder: Path) -> list[Path]:
    """Return the outputs that have a manifest in a folder."""
    with errors.sentences(folder):
        entries = list(folder.iterdir())
    names = {
        entry.name.removesuffix(ending)
        for entry in entries
        for ending in _RECORDS
        if entry.name.endswith(ending) and entry.name != ending
    }
    return [folder / name for name in sorted(names)]


def _finished(output: Path) -> Manifest:
    """Return the manifest of a finished output that has all its rows; raise Unfit for any other."""
    manifest = find_manifest(output)
    if manifest is None or not manifest.finished:
        raise Unfit("its run is not finished")
    if not output.is_file():
        raise Unfit("the output itself is not there")
    if (only := manifest.identity.output.only) is not None:
        raise Unfit(f"it has rows by --only {only} alone")
    return manifest


class _Right:
    """The golden set's right labels for each policy's labels, read once for each."""

    def __init__(self, settings: Settings, gold: Remembered) -> None:
        self._settings, self._gold = settings, gold
        self._found: dict[tuple[LabelSet, tuple[str, ...]], Golden] = {}

    def of(self, manifest: Manifest, name: str, several: bool) -> Golden:
        """Return the golden set for a policy of a run, of which `several` are asked about."""
        answers = _answers(manifest, name)
        fields = _gold_field(self._gold.gold_fields, answers.name, several)
        if (answers, fields) not in self._found:
            wanted = Wanted(fields, self._gold.mapping)
            self._found[answers, fields] = usable_rows(self._settings, wanted, (answers,))
        return self._found[answers, fields]


def _gold_field(given: Sequence[str], name: str, several: bool) -> tuple[str, ...]:
    """Return the field with a policy's right labels: POLICY=FIELD, else FIELD, else POLICY_gold; none: the default."""
    own = [text for text in given if text.startswith(f"{name}=")] or [text for text in given if "=" not in text]
    return tuple(own[-1:]) or ((f"{name}_gold",) if several else ())


def _answers(manifest: Manifest, name: str) -> LabelSet:
    on_record = manifest.identity.policies[name]
    return LabelSet(name, on_record.labels, on_record.violates)


def _measurement(output: Path, manifest: Manifest, name: str, golden: Golden, settings: Settings) -> Measurement:
    answers = _answers(manifest, name)
    if manifest.progress.rows > 2 * (len(golden.rows) + sum(golden.unused.values())):
        raise Unfit(f"it has {manifest.progress.rows:,} rows, the golden set {len(golden.rows):,}")
    labels = read_labels(output)
    rows, verdicts, in_error = _pair(golden, labels, name, settings.id_field)
    if not rows:
        raise Unfit("every row is in error")
    measured = Measured(
        replace(golden, rows=rows),
        (answers,),
        tuple(verdicts),
        labels.prompting,
        labels.model,
        labels.effort,
        labels.doubts,
    )
    whole, others = by_pick(measured)
    if absent := len(golden.rows) - len(rows) - in_error:
        whole = replace(whole, doubts=(*whole.doubts, f"{absent:,} golden rows are not in it"))
    if apart := len(measured.golden.rows) - len(whole.golden.rows):
        said = f"{apart:,} rows, picked as {', '.join(others)}, count in no figure: they were not picked at random"
        whole = replace(whole, doubts=(*whole.doubts, said))
    return Measurement(output, manifest, answers, whole, in_error)


def _pair(
    golden: Golden, labels: LabeledFile, name: str, id_field: str | None
) -> tuple[list[GoldenRow], list[Mapping[str, Verdict]], int]:
    """Return the golden rows that an output labels, in the golden set's order, and how many of them are in error.

    Rows pair by their ids, else by their texts. Raise Unfit if most of the output's rows are no golden rows.
    """
    if id_field is None:
        texts = labels.texts()
        if texts is None:
            raise Unfit("its rows have kept no text: --id-field pairs them by their ids")
        keys, wanted = list(texts), [row.text for row in golden.rows]
    else:
        keys = [normal(row.fields.get(id_field)) for row in labels.rows]
        wanted = [normal(row.fields.get(id_field)) for row in golden.rows]
    places: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(wanted):
        places[key].append(place)
    waiting = {key: iter(found) for key, found in places.items()}  # rows with the same text pair in their order
    at: dict[int, LabeledRow] = {}
    for key, row in zip(keys, labels.rows, strict=True):
        match = next(waiting[key], None) if key in waiting else None
        if match is not None:
            at[match] = row
    if 2 * len(at) < len(labels.rows):
        raise Unfit(f"{len(at):,} of its {len(labels.rows):,} rows are rows of the golden set")
    kept = [place for place in sorted(at) if at[place].verdicts[name].error is None]
    return [golden.rows[place] for place in kept], [at[place].verdicts for place in kept], len(at) - len(kept)


def _histories(found: Sequence[Measurement], names: Mapping[str, str | None], id_field: str) -> list[dict[str, Any]]:
    """Return a history for each policy and way of asking; policies that were named together are one."""
    policies: dict[str, list[Measurement]] = defaultdict(list)
    for one in found:
        policies["" if names else one.answers.name].append(one)
    result = []
    for _, measurements in sorted(policies.items()):
        versions: dict[Version, int] = {}
        ways: dict[bytes, list[Measurement]] = defaultdict(list)
        for one in measurements:
            versions.setdefault(one.version, len(versions) + 1)
            ways[json_bytes(one.asked())].append(one)
        result += [_history(series, versions, names, id_field) for series in ways.values()]
    return result


def _history(
    series: Sequence[Measurement], versions: Mapping[Version, int], names: Mapping[str, str | None], id_field: str
) -> dict[str, Any]:
    """Return measurements that differ in nothing but the policy's text, and the steps between them."""
    number_of = [versions[one.version] for one in series]
    steps = [(at - 1, at) for at in range(1, len(series))] + ([(0, len(series) - 1)] if len(series) > 2 else [])
    first = series[0]
    now = {sha256 for sha256 in names.values() if sha256 is not None}
    return {
        "policy": ", ".join(dict.fromkeys(one.answers.name for one in series)),
        "model": first.measured.model,
        "effort": first.measured.effort,
        "prompting": first.measured.prompting,
        "asked": first.asked(),
        "now_measured": bool(now & {one.sha256 for one in series}) if now else None,
        "measurements": [
            {
                "version": version,
                "sha256": one.sha256,
                "name": one.answers.name,
                "now": one.sha256 in now,
                "output": str(one.output),
                "finished": one.finished,
                "doubts": list(one.measured.doubts),
                **_figures(one),
            }
            for version, one in zip(number_of, series, strict=True)
        ],
        "steps": [
            {
                "from": number_of[a],
                "to": number_of[b],
                "at": [a, b],
                "policy_diff": _diff(series[a].text, series[b].text),
                **_step(series[a], series[b], id_field),
            }
            for a, b in steps
        ],
    }


def _figures(one: Measurement) -> dict[str, Any]:
    found, _ = outcomes(one.measured, one.answers)
    figures, shares = metrics.figures(found), metrics.shares(found)
    bounds = {name: metrics.share_interval(*shares[name]) for name in FIGURES if name in shares}
    return {
        "rows": len(found),
        "rows_in_error": one.in_error,
        "figures": {
            name: {"value": number(figures[name])}
            | ({"low": number(bounds[name][0]), "high": number(bounds[name][1])} if name in bounds else {})
            for name in FIGURES
        },
    }


def _diff(a: str | None, b: str | None) -> list[str] | None:
    """Return the lines that one version of a policy lacks (-) and has (+) beside another; None if not on record."""
    if a is None or b is None:
        return None
    lines = [*unified_diff(a.splitlines(), b.splitlines(), n=0, lineterm="")][2:]  # without the files' names
    return [line for line in lines if not line.startswith("@@") and line[1:].strip()]


def _step(a: Measurement, b: Measurement, id_field: str) -> dict[str, Any]:
    """Return what flipped from one measurement to another, on the rows that both label."""
    rows_a, rows_b = a.by_line, b.by_line
    both = [line for line in rows_a if line in rows_b]
    if not both:
        return {"rows": 0, "flips": [], "only_a_right": 0, "only_b_right": 0, "mcnemar_p": None}
    golden = [rows_a[line][0] for line in both]
    places: Any = tuple((row.number, row.line, row.fields.get(id_field)) for row in golden)
    pair = Pair(
        a=Side(str(a.output), a.answers, tuple(rows_a[line][1] for line in both)),
        b=Side(str(b.output), b.answers, tuple(rows_b[line][1] for line in both)),
        places=places,
        texts=tuple(row.text for row in golden),
        gold=tuple(row.gold[a.answers.name] for row in golden),
        not_used={},
    )
    found = pair_result(pair)
    gold = found["gold"]
    return {
        "rows": found["rows"],
        "flips": found["flips"],
        "only_a_right": gold["only_a_right"],
        "only_b_right": gold["only_b_right"],
        "mcnemar_p": gold["mcnemar_p"],
    }

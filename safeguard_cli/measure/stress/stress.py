"""`safeguard stress`: labels a golden set and its variants in one run, and measures how well the labels hold.

One run for everything: the policy is decoded once, and repeated rows get other neighbours than before, since all but
the originals are shuffled. The labelled file can be kept, resumed and reported like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import orjson
from rich.console import RenderableType
from rich.text import Text

from safeguard_cli import errors
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.measure import metrics
from safeguard_cli.measure.golden import Golden, GoldenRow, as_text
from safeguard_cli.measure.measured import (
    OF_A_RUN,
    check_kept,
    existing_labels,
    golden_path,
    label_rows,
    usable_rows,
)
from safeguard_cli.measure.options import Wanted
from safeguard_cli.measure.stress.figures import (
    LANGUAGES,
    ORIGINAL,
    RATIONALE,
    REPEAT,
    is_stress_test,
    policy_of,
    stress_figures,
    trials,
)
from safeguard_cli.measure.stress.variants import Variant, all_variants, changed_texts
from safeguard_cli.output.labelled import LabeledFile, LabelSet
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.sink import output_format
from safeguard_cli.rows.writable import check_streams
from safeguard_cli.run.destination import used_by
from safeguard_cli.run.prepare import load_policies
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import Figures, cut, facts, interval, line_of, note, per_cent, print_json, show

# Options that say which rows a stress test has.
OF_A_PLAN = (
    *("families", "translations", "pair", "language_field", "variant_seed"),
    *("gold_fields", "mapping", "skip_rows", "limit", "text_fields", "template"),
)
OURS = (LANGUAGES, RATIONALE, REPEAT)  # families that change no text
FLIPS = ("labels", "flips", "95 % interval", "violating → allowed", "allowed → violating")
REPETITIONS = 2
_MAX_FLIPS = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")


@dataclass(frozen=True, slots=True)
class StressPlan:
    """Which rows a stress test has. No `families` means all of them.

    `translations` are LANG=FIELD. Rows with the same value of the field `pair` are one row in the languages that
    `language_field` names; the first of them is the original.
    """

    families: tuple[str, ...] = ()
    seed: int = 0
    translations: tuple[str, ...] = ()
    pair: str | None = None
    language_field: str = "language"

    def has(self, family: str) -> bool:
        return not self.families or family in self.families


def stress(settings: Settings, wanted: Wanted, plan: StressPlan, export: str | None, max_flips: str | None) -> int:
    """Run `safeguard stress` and return the exit code. Raise SafeguardError with a sentence for the user."""
    most = _parse_max_flips(max_flips)
    path = golden_path(settings)
    read = used_by(settings)
    check_streams(read)
    for option, out in (("-o", settings.output), ("--export", export)):
        if out is not None:
            check_kept(option, Path(out), read)
    if export is not None and output_format(Path(export), "jsonl") != "jsonl":
        raise UsageError(f"--export {export}: the variants are written as JSON lines; name it *.jsonl")
    with metrics.sklearn():  # fails before a model is loaded if the extra is missing
        pass
    policies = load_policies(settings) if settings.policies else ()
    labels = existing_labels(path, settings)
    if labels is not None and is_stress_test(labels):
        wanted.refuse((*OF_A_RUN, *OF_A_PLAN, "output", "overwrite", "export"), f"on {path}, which is labelled already")
    else:
        if len(policies) != 1:
            raise UsageError("a stress test needs exactly one policy: name it with --policy")
        rows = planned(settings, wanted, plan, policies[0])
        if export:
            unused = (*OF_A_RUN, "output", "overwrite", "max_flips", "worst", "json")
            wanted.refuse(unused, "with --export, which labels nothing")
            rows = [row for row in rows if row["family"] != REPEAT]  # label would give them the same verdict again
            _write(rows, Path(export))
            note(f"wrote {len(rows):,} rows to {export}; run safeguard label on it, and safeguard stress on the output")
            return errors.OK
        labels = _label(settings, plan, rows)
    result = {"golden": str(path), **measured(labels, policies)}
    if wanted.json:
        print_json(result)
    else:
        show(*_shown(result, wanted.wrong))
    if most is not None and (broken := _beyond(result, *most)):
        note(f"more labels flip than --max-flips {max_flips} allows: {', '.join(broken)}")
        return errors.CHECK_FAILED
    return errors.ROWS_IN_ERROR if result["rows_in_error"] else errors.OK


def planned(settings: Settings, wanted: Wanted, plan: StressPlan, policy: Policy) -> list[dict[str, Any]]:
    """Return the rows of a stress test: the originals in their order, then all variants, shuffled."""
    variants = all_variants()
    if taken := next((v for v in variants if v.family in (ORIGINAL, *OURS)), None):
        raise UsageError(f"the variant {taken.family}/{taken.name} needs a family of its own")
    known = dict.fromkeys([*(variant.family for variant in variants), *OURS])
    if unknown := [family for family in plan.families if family not in known]:
        raise UsageError(f"--family {unknown[0]!r}: the families are {', '.join(known)}")
    chosen = [variant for variant in variants if plan.has(variant.family)]
    answers = LabelSet(policy.name, policy.labels, policy.violates)
    translated = [item.partition("=")[2] for item in plan.translations]
    others = [*translated, plan.language_field, *filter(None, [plan.pair])]
    golden = usable_rows(settings, wanted, (answers,), others)
    rows = [_row(original, policy.name, ORIGINAL, text=original.text) for original in golden.rows]
    if LANGUAGES in plan.families and not plan.translations and plan.pair is None:
        raise UsageError("--family languages needs --translation LANG=FIELD, or --pair FIELD if translations are rows")
    rest = [row for original in golden.rows for row in _variants_of(original, policy, chosen, plan)]
    if plan.has(LANGUAGES):
        rest += _translations(golden, policy.name, plan)
        rest += _pairs(golden, policy.name, plan)
    Random(plan.seed).shuffle(rest)
    return rows + rest


def measured(labels: LabeledFile, policies: Sequence[Policy]) -> dict[str, Any]:
    """Return the figures of a labelled stress test; with the policy's text, those of its rationales too."""
    names = [answers.name for answers in labels.answers]
    chosen = [answers for answers in labels.answers if not policies or answers.name == policies[0].name]
    if len(chosen) != 1:
        raise UsageError(f"{labels.path} is labelled under {', '.join(names)}: name one of them with --policy")
    answers = chosen[0]
    return {
        "policy": answers.name,
        "model": labels.model,
        "effort": labels.effort,
        "doubts": list(labels.doubts),
        "intervals": metrics.METHODS["shares"],
        **stress_figures(trials(labels, answers), answers, policy_of(labels, answers.name, policies)),
    }


def _row(
    original: GoldenRow, policy: str, family: str, variant: str = "", group: str = "", own: str = "", *, text: str
) -> dict[str, Any]:
    name = "/".join(part for part in (family, variant, group) if part)
    return {
        "id": f"{original.number}/{name}",
        "row": original.number,
        "family": family,
        "variant": variant,
        "group": group,
        "own_group": own,
        "label": original.gold[policy],
        "text": text,
    }


def _variants_of(
    original: GoldenRow, policy: Policy, variants: Sequence[Variant], plan: StressPlan
) -> Iterator[dict[str, Any]]:
    allowed = next((label for label in policy.labels if label not in policy.violates), policy.labels[0])
    about = {"policy": policy.name, "allowed": allowed, "violating": policy.violates[0]}
    for new in changed_texts(variants, original.text, about, plan.seed):
        yield _row(original, policy.name, new.family, new.variant, new.group, new.own, text=new.text)
    if plan.has(REPEAT):
        for number in range(1, REPETITIONS + 1):
            yield _row(original, policy.name, REPEAT, "again", str(number), text=original.text)


def _translations(golden: Golden, policy: str, plan: StressPlan) -> Iterator[dict[str, Any]]:
    """Yield the rows in the languages that have a field of their own."""
    for item in plan.translations:
        language, equals, field = item.partition("=")
        if not equals or not language or not field:
            raise UsageError(f"--translation {item!r}: write LANGUAGE=FIELD, such as de=text_de")
        if not any(field in row.fields for row in golden.rows):
            raise UsageError(f"--translation {item!r}: no row has the field {field!r}")
        for row in golden.rows:
            text = row.fields.get(field)
            if isinstance(text, str) and text.strip():
                own = as_text(row.fields.get(plan.language_field)) or "original"
                yield _row(row, policy, LANGUAGES, "translation", language, own, text=text)


def _pairs(golden: Golden, policy: str, plan: StressPlan) -> Iterator[dict[str, Any]]:
    """Yield the rows that are a translation of an earlier row."""
    if plan.pair is None:
        return
    for field in (plan.pair, plan.language_field):
        if not any(field in row.fields for row in golden.rows):
            raise UsageError(f"no row has the field {field!r} that says which rows are one in several languages")
    first: dict[str, GoldenRow] = {}
    for row in golden.rows:
        key, language = (as_text(row.fields.get(field)) for field in (plan.pair, plan.language_field))
        if not key or not language:
            continue
        original = first.setdefault(key, row)
        own = as_text(original.fields.get(plan.language_field))
        if language != own:
            pair = _row(original, policy, LANGUAGES, "pair", language, own, text=row.text)
            yield {**pair, "label": row.gold[policy]}


def _label(settings: Settings, plan: StressPlan, rows: Sequence[Mapping[str, Any]]) -> LabeledFile:
    settings = replace(settings, rationale=plan.has(RATIONALE), limit=None, each_row=True)
    return label_rows(settings, rows, settings.output)


def _write(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} exists already; --export does not overwrite")
    try:
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    except OSError as error:
        raise SafeguardError(f"{path}: cannot be written: {error.strerror}") from None


def _parse_max_flips(value: str | None) -> tuple[float, bool] | None:
    """Read `2%` or `3`: the number, and whether it is a percentage."""
    if value is None:
        return None
    found = _MAX_FLIPS.fullmatch(value.strip())
    if not found:
        raise UsageError(f"--max-flips {value!r}: write a share such as 2%, or a number of rows")
    return float(found[1]), found[2] == "%"


def _beyond(result: Mapping[str, Any], most: float, percent: bool) -> list[str]:
    """Return the families in which more labels flip."""
    flips = {name: family["flips"] for name, family in result["families"].items()}
    return [name for name, flip in flips.items() if (100 * (flip["share"] or 0.0) if percent else flip["count"]) > most]


def _shown(result: Mapping[str, Any], most: int) -> Iterator[RenderableType]:
    """Yield the result for people, as printed at a terminal."""
    yield facts(
        f"{result['rows']:,} golden rows",
        f"{result['labelled']:,} labelled with their variants",
        f"policy {result['policy']}",
        f"model {result['model'] or 'not on record'}",
        result["effort"] and f"effort {result['effort']}",
    )
    for doubt in result["doubts"]:
        yield facts(doubt, style="yellow")
    if result["rows_in_error"]:
        yield facts(f"rows in error, not counted: {result['rows_in_error']:,}", style="red")
    families = Figures("family", *FLIPS, "rows")
    for name, family in result["families"].items():
        families.add_row(cut(name, 20), *_cells(family), per_cent(family["rows_flipped"]["share"]))
    yield families
    yield facts(
        "flips: another label than the original got; rows: golden rows that any variant flips; 95 % intervals by"
        " Clopper-Pearson",
        style="dim",
    )
    for name, family in result["families"].items():
        yield from _shown_family(name, family, most)
    if LANGUAGES not in result["families"]:
        yield facts("no other languages: name them with --translation or --pair", style="dim")
    if spread := result["spread"]:
        yield facts(f"the same row's scores lie {spread['mean']:.4f} apart, at most {spread['most']:.4f}")
    if found := result["rationales"]:
        yield from _shown_rationales(found, most)


def _shown_family(name: str, family: Mapping[str, Any], most: int) -> Iterator[RenderableType]:
    yield Text.assemble("\n", (cut(name, 60), "bold"))
    worst = sorted(family["variants"], key=lambda part: -(part["flips"]["share"] or 0.0))
    if len(worst) > 1:
        variants = Figures("variant", *FLIPS)
        for part in worst[: most or len(worst)]:
            variants.add_row(cut(part["name"], 30), *_cells(part))
        yield variants
        if 0 < most < len(worst):
            yield facts(f"variants not shown, which flip no more often: {len(worst) - most:,}", style="dim")
    compared = family["groups_compared"]
    for groups in compared:
        of = "violating" if name != LANGUAGES else "recall"
        p = "" if groups["p"] is None else f", p {groups['p']:.3g} on {groups['rows']:,} rows"
        shown = Figures(f"{groups['variant']}{p}", of, "95 % interval", "flips")
        for group in groups["groups"]:
            said = group["violating"]
            shown.add_row(
                cut(group["name"], 30), per_cent(said["share"]), interval(said, True), per_cent(group["flips"]["share"])
            )
        yield shown
    if compared:
        yield facts("p: how likely groups differ so much if the group made no difference", style="dim")
    elif len(family["groups"]) > 1:
        shown = Figures("where", *FLIPS)
        for group in family["groups"]:
            shown.add_row(cut(group["name"], 30), *_cells(group))
        yield shown
    swapped = {groups["variant"] for groups in compared}
    for row in family["worst"][:most]:
        flips = ", ".join(flip["group"] if flip["variant"] in swapped else flip["variant"] for flip in row["flips"])
        said = f"row {row['row']}: {row['label']}, {len(row['flips'])} of {row['variants']} flip"
        yield line_of(f"  {said} ({cut(flips, 80)}): {cut(row['text'], 100)}")


def _shown_rationales(found: Mapping[str, Any], most: int) -> Iterator[RenderableType]:
    yield Text.assemble("\n", ("rationales", "bold"))
    inventing = found["inventing"]
    share, bounds = per_cent(inventing["share"]), interval(inventing, True)
    yield facts(f"{share} invent ({bounds}; {inventing['count']:,} of {inventing['of']:,})")
    yield facts(f"{found['codes']:,} rules cited, {found['unknown_codes']:,} of them not in the policy")
    elsewhere = f"{found['policy_quotes']:,} of them from the policy, {found['unknown_quotes']:,} from nowhere"
    yield facts(f"{found['quotes']:,} quotes, {elsewhere}; {found['without_reference']:,} rationales have neither")
    for row in found["worst"][:most]:
        yield line_of(f"  row {row['row']}: {cut(', '.join(row['invented']), 60)}: {cut(row['rationale'], 100)}")


def _cells(part: Mapping[str, Any]) -> tuple[str, ...]:
    flips = part["flips"]
    sides = (per_cent(part[side]["share"]) for side in ("to_allowed", "to_violating"))
    return f"{flips['of']:,}", per_cent(flips["share"]), interval(flips, True), *sides

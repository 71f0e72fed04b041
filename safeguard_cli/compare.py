"""`safeguard compare`: what flipped between two labelings of the same rows, and whether one of them is better."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from safeguard_cli import errors, metrics
from safeguard_cli.errors import UsageError
from safeguard_cli.evaluate import Measured, Wanted, line_of, measure
from safeguard_cli.golden import DEFAULT_FIELD
from safeguard_cli.labelled import Answers, Labels, read_labels
from safeguard_cli.setup import Settings
from safeguard_cli.streams import print_json
from safeguard_cli.terminal import cut, show
from safeguard_cli.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Side:
    """One labeling: what it is called, its answers, and per row its Verdict."""

    name: str
    answers: Answers
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two labelings of the same rows. `texts` are for reading; `gold` holds None where no right label is known."""

    a: Side
    b: Side
    texts: tuple[str, ...]
    gold: tuple[str | None, ...]


def compare(
    settings: Settings, other: str | None, wanted: Wanted, variants: Mapping[str, Sequence[str]], max_flips: int | None
) -> int:
    """Run `safeguard compare`: two outputs, or with `other` None one golden set under the two `variants` of one option.

    Returns exit code 5 when more than `max_flips` rows flipped.
    """
    with metrics.sklearn():
        pass
    if other is not None:
        pairs = _outputs(Path(settings.input), Path(other), settings, wanted)
    else:
        pairs = [_variants(settings, wanted, variants)]
    results = [_result(pair) for pair in pairs]
    if wanted.json:
        print_json(results)
    else:
        shown = (line for result in results for line in _shown(result, wanted))
        show(*shown)
    flips = sum(len(result["flips"]) for result in results)
    return errors.CHECK_FAILED if max_flips is not None and flips > max_flips else errors.OK


def _outputs(path_a: Path, path_b: Path, settings: Settings, wanted: Wanted) -> list[Pair]:
    """The policies that both outputs have; where each has one, these two, whatever their names."""
    a, b = (read_labels(path, encoding=settings.encoding) for path in (path_a, path_b))
    by_name = {answers.name: answers for answers in b.answers}
    both = [(answers, by_name[answers.name]) for answers in a.answers if answers.name in by_name]
    if not both and len(a.answers) == len(b.answers) == 1:
        both = [(a.answers[0], b.answers[0])]
    if not both:
        names = " and ".join(", ".join(x.name for x in labels.answers) for labels in (a, b))
        raise UsageError(f"{path_a} and {path_b} have no policy in common: {names}")
    places = _places(a, b, settings.id_field)
    field = wanted.gold_fields[0] if wanted.gold_fields else DEFAULT_FIELD
    pairs = []
    for one, two in both:
        rows = [(a.rows[i], b.rows[j]) for i, j in places]
        gold = [str(row.fields.get(field)) for row, _ in rows]
        texts = [str(row.fields.get((settings.text_fields or ("text",))[0], "")) for row, _ in rows]
        # One policy shown under both files' names; several, under their own.
        suffix_a, suffix_b = ("", "") if len(both) == 1 else (f" {one.name}", f" {two.name}")
        pairs.append(
            Pair(
                Side(f"{path_a}{suffix_a}", one, tuple(row.verdicts[one.name] for row, _ in rows)),
                Side(f"{path_b}{suffix_b}", two, tuple(row.verdicts[two.name] for _, row in rows)),
                tuple(texts),
                tuple(label if label in one.labels else None for label in gold),
            )
        )
    return pairs


def _places(a: Labels, b: Labels, id_field: str | None) -> list[tuple[int, int]]:
    """Which row of A goes with which of B: by their ids, else in order, where what both carry must be equal."""
    if id_field is not None:
        at: dict[str, int] = {}
        for labels in (a, b):
            if any(id_field not in row.fields for row in labels.rows):
                raise UsageError(f"{labels.path}: not every row has the field {id_field!r} of --id-field")
        for j, row in enumerate(b.rows):
            if at.setdefault(str(row.fields[id_field]), j) != j:
                raise UsageError(f"{b.path}: two rows have the {id_field} {str(row.fields[id_field])!r}")
        found = [(i, at[str(row.fields[id_field])]) for i, row in enumerate(a.rows) if str(row.fields[id_field]) in at]
        if not found:
            raise UsageError(f"{a.path} and {b.path} have no {id_field} in common")
        return found
    if len(a.rows) != len(b.rows):
        raise UsageError(
            f"{a.path} has {len(a.rows):,} rows and {b.path} has {len(b.rows):,}; --id-field pairs rows by their ids"
        )
    for one, two in zip(a.rows, b.rows, strict=True):
        common = one.fields.keys() & two.fields.keys()
        if any(str(one.fields[key]) != str(two.fields[key]) for key in common):
            raise UsageError(
                f"row {one.number} of {a.path} is not that of {b.path}; --id-field pairs rows by their ids"
            )
    return [(i, i) for i in range(len(a.rows))]


def _variants(settings: Settings, wanted: Wanted, variants: Mapping[str, Sequence[str]]) -> Pair:
    """One golden set, labelled twice."""
    twice = [option for option, values in variants.items() if len(values) == 2]
    if len(twice) != 1 or any(len(values) > 2 for values in variants.values()):
        raise UsageError(
            "compare needs two outputs, or one golden set and exactly one of --policy, --model, --effort twice"
        )
    if len(variants["policy"]) == 0:
        raise UsageError("compare labels the golden set itself, so it needs --policy")
    option = twice[0]
    sides: list[tuple[str, Measured]] = []
    for i in (0, 1):
        settings = replace(settings, says_text=settings.says_its_text and not i)
        chosen = {name: values[min(i, len(values) - 1)] for name, values in variants.items() if values}
        changed = replace(
            settings,
            policies=(chosen["policy"],),
            model=chosen.get("model"),
            effort=chosen.get("effort", settings.effort),
        )
        sides.append((f"--{option} {chosen[option]}", measure(changed, wanted)))
    (name_a, a), (name_b, b) = sides
    numbers = {row.number: place for place, row in enumerate(b.golden.rows)}
    rows = [(i, numbers[row.number]) for i, row in enumerate(a.golden.rows) if row.number in numbers]
    one, two = a.answers[0], b.answers[0]
    return Pair(
        Side(name_a, one, tuple(a.verdicts[i][one.name] for i, _ in rows)),
        Side(name_b, two, tuple(b.verdicts[j][two.name] for _, j in rows)),
        tuple(a.golden.rows[i].text for i, _ in rows),
        tuple(a.golden.rows[i].gold[one.name] for i, _ in rows),
    )


def _result(pair: Pair) -> dict[str, Any]:
    """All that is said about two labelings. Labels that differ between policies are compared by what they mean."""
    by_label = set(pair.a.answers.labels) == set(pair.b.answers.labels)

    def said(side: Side, verdict: Verdict) -> str:
        return str(verdict.label) if by_label else "violating" if verdict.violates else "safe"

    kept = [
        i for i, (a, b) in enumerate(zip(pair.a.verdicts, pair.b.verdicts, strict=True)) if not (a.error or b.error)
    ]
    a, b = ([said(side, side.verdicts[i]) for i in kept] for side in (pair.a, pair.b))
    share, kappa = metrics.agreement(a, b) if kept else (math.nan, math.nan)
    known = [(i, x, y) for i, x, y in zip(kept, a, b, strict=True) if pair.gold[i] is not None]
    result: dict[str, Any] = {
        "a": pair.a.name,
        "b": pair.b.name,
        "rows": len(kept),
        "rows_in_error": len(pair.texts) - len(kept),
        "agreement": None if math.isnan(share) else share,
        "kappa": None if math.isnan(kappa) else kappa,
        "flips": [
            {
                "row": i + 1,
                "a": x,
                "b": y,
                "p_a": pair.a.verdicts[i].p_violates,
                "p_b": pair.b.verdicts[i].p_violates,
                "gold": pair.gold[i],
                "text": pair.texts[i],
            }
            for i, x, y in zip(kept, a, b, strict=True)
            if x != y
        ],
    }
    if known:

        def gold(i: int) -> str:
            label = str(pair.gold[i])
            return label if by_label else "violating" if label in pair.a.answers.violates else "safe"

        only_a = sum(x == gold(i) != y for i, x, y in known)
        only_b = sum(y == gold(i) != x for i, x, y in known)
        result["gold"] = {
            "rows": len(known),
            "accuracy_a": sum(x == gold(i) for i, x, _ in known) / len(known),
            "accuracy_b": sum(y == gold(i) for i, _, y in known) / len(known),
            "only_a_right": only_a,
            "only_b_right": only_b,
            "mcnemar_p": metrics.mcnemar(only_a, only_b),
        }
    else:
        violating = [(bool(pair.a.verdicts[i].violates), bool(pair.b.verdicts[i].violates)) for i in kept]
        only_a, only_b = (sum(x and not y for x, y in violating), sum(y and not x for x, y in violating))
        result["violating"] = {
            "only_a": only_a,
            "only_b": only_b,
            "mcnemar_p": metrics.mcnemar(only_a, only_b),
        }
    return result


def _shown(result: Mapping[str, Any], wanted: Wanted) -> Iterator[RenderableType]:
    yield Text.assemble(("A  ", "bold"), cut(result["a"], 200), "\n", ("B  ", "bold"), cut(result["b"], 200))
    facts = f"{result['rows']:,} rows labelled by both"
    if result["rows_in_error"]:
        facts += f", {result['rows_in_error']:,} in error"
    yield Text(facts)
    if result["agreement"] is not None:
        kappa = "" if result["kappa"] is None else f", Cohen's kappa {result['kappa']:.3f}"
        yield Text(f"agreement {result['agreement']:.3f}{kappa}; {len(result['flips']):,} flipped")
    if gold := result.get("gold"):
        yield Text(
            f"accuracy A {gold['accuracy_a']:.3f}, B {gold['accuracy_b']:.3f} on {gold['rows']:,} rows with gold;"
            f" right only by A {gold['only_a_right']:,}, only by B {gold['only_b_right']:,};"
            f" McNemar's exact p {gold['mcnemar_p']:.3g}"
        )
        sure = gold["mcnemar_p"] < 0.05
        better = "B is better" if gold["accuracy_b"] > gold["accuracy_a"] else "A is better"
        yield Text(better if sure else "that is no proof that one is better: chance alone does this", "bold")
    elif found := result.get("violating"):
        yield Text(
            f"violating only in A {found['only_a']:,}, only in B {found['only_b']:,};"
            f" McNemar's exact p {found['mcnemar_p']:.3g} (no gold labels: this says which is stricter, not better)"
        )
    moves = Counter((flip["a"], flip["b"]) for flip in result["flips"])
    if moves:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("A said", "B said", "rows"):
            table.add_column(title, justify="right" if title == "rows" else "left")
        for (a, b), count in moves.most_common():
            table.add_row(cut(a, 30), cut(b, 30), f"{count:,}")
        yield table
    for flip in result["flips"][: wanted.wrong]:
        gold_text = "" if flip["gold"] is None else f", gold {flip['gold']}"
        p = f"{flip['p_a']:.2f} → {flip['p_b']:.2f}"
        yield line_of(f"row {flip['row']}: {flip['a']} → {flip['b']} (p {p}{gold_text}): {flip['text']}")
    if len(result["flips"]) > wanted.wrong > 0:
        yield Text(f"… {len(result['flips']) - wanted.wrong:,} more: --wrong N or --json shows them", "dim")
    yield Text("")

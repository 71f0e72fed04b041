"""`safeguard compare`: shows what flipped between two labelings of the same rows, and whether one of them is better."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from safeguard_cli import errors
from safeguard_cli.errors import UsageError
from safeguard_cli.measure import metrics
from safeguard_cli.measure.evaluate import number
from safeguard_cli.measure.golden import ID, gold_fields
from safeguard_cli.measure.measured import OF_A_RUN, Measured, gold_of, measure
from safeguard_cli.measure.options import Wanted
from safeguard_cli.measure.shown import not_used, place_of
from safeguard_cli.measure.wrong_file import check_wrong_file, write_wrong_file
from safeguard_cli.output.labelled import LabeledFile, LabelSet, read_labels
from safeguard_cli.output.spelled import normal, plain
from safeguard_cli.rows.source import no_field
from safeguard_cli.rows.verdict import Verdict
from safeguard_cli.rows.writable import used
from safeguard_cli.run.destination import used_by
from safeguard_cli.run.prepare import load_policies
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import Figures, cut, facts, figure, interval, line_of, print_json, show


@dataclass(frozen=True, slots=True)
class Side:
    """One labeling: its name, its policy's labels, each row's Verdict, and the model, empty if not on record."""

    name: str
    answers: LabelSet
    verdicts: tuple[Verdict, ...]
    model: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two labelings of the same rows. `places` are each row's number, line and id in A; `texts` are for the reader.

    `gold` holds None where no right label is known; `not_used` counts those rows by reason. `alone` counts the rows
    that only A, and only B, has. `doubts` are what a reader must know about the files.
    """

    a: Side
    b: Side
    places: tuple[tuple[int, int, Any], ...]
    texts: tuple[str, ...]
    gold: tuple[str | None, ...]
    not_used: Mapping[str, int]
    alone: tuple[int, int] = (0, 0)
    doubts: tuple[str, ...] = ()


def compare(
    settings: Settings, other: str | None, wanted: Wanted, variants: Mapping[str, Sequence[str]], max_flips: int | None
) -> int:
    """Run `safeguard compare` on two outputs, or with `other` None on one golden set under two `variants` of an option.

    Return the exit code: 5 if more than `max_flips` rows flipped.
    """
    with metrics.sklearn():
        pass
    check_wrong_file(wanted.wrong_file, [*used_by(settings), *used("the input", *([other] if other else ()))])
    if other is not None:
        wanted.refuse((*OF_A_RUN, "skip_rows"), "on two outputs, which are labelled already")
        pairs = _outputs(Path(settings.input), Path(other), settings, wanted)
    else:
        wanted.refuse(("id_field",), "on one golden set: it pairs the rows of two outputs")
        pairs = [_variants(settings, wanted, variants)]
    results = [pair_result(pair) for pair in pairs]
    if wanted.json:
        print_json(results)
    else:
        shown = (line for result in results for line in _shown(result, wanted))
        show(*shown)
    write_wrong_file(wanted.wrong_file, [flip for result in results for flip in result["flips"]])
    flips = sum(len(result["flips"]) for result in results)
    return errors.CHECK_FAILED if max_flips is not None and flips > max_flips else errors.OK


def _outputs(path_a: Path, path_b: Path, settings: Settings, wanted: Wanted) -> list[Pair]:
    """Return a pair for each policy that both outputs have; if each has only one, for these, whatever their names."""
    for path in (path_a, path_b):
        if not path.is_file():
            raise errors.no_file(path)
    policies = load_policies(settings) if settings.policies else ()
    known = tuple(LabelSet(policy.name, policy.labels, policy.violates) for policy in policies)
    how: dict[str, Any] = {"format": settings.format, "encoding": settings.encoding, "known": known}
    how["sheet"] = settings.sheet
    a, b = (read_labels(path, **how) for path in (path_a, path_b))
    both = common_policies(a, b, [policy.name for policy in policies])
    places, alone = paired_rows(a, b, settings.id_field)
    if settings.limit is not None:
        places = places[: settings.limit]
    names = [one.name for one, _ in both]
    fields = gold_fields(wanted.gold_fields, names)
    golden = gold_of(a, names, replace(settings, input=str(path_a), limit=None), wanted)
    right = {row.line: row.gold for row in golden.rows} if golden else {}
    texts_a, texts_b = (each.texts(settings.text_fields, settings.template, fields.values()) for each in (a, b))
    named = ID if settings.id_field is None else settings.id_field
    doubts = [f"{labels.path}: {doubt}" for labels in (a, b) for doubt in labels.doubts]
    pairs = []
    for one, two in both:
        rows = [(a.rows[i], b.rows[j]) for i, j in places]
        # One policy: the files' names tell the sides apart. Several: the policies' names are added.
        suffix_a, suffix_b = ("", "") if len(both) == 1 else (f" {one.name}", f" {two.name}")
        pairs.append(
            Pair(
                Side(f"{path_a}{suffix_a}", one, tuple(row.verdicts[one.name] for row, _ in rows), a.model),
                Side(f"{path_b}{suffix_b}", two, tuple(row.verdicts[two.name] for _, row in rows), b.model),
                tuple((row.number, row.line, row.fields.get(named)) for row, _ in rows),
                tuple(texts_a[i] if texts_a else texts_b[j] if texts_b else "" for i, j in places),
                tuple(right[row.line][one.name] if row.line in right else None for row, _ in rows),
                dict(golden.unused) if golden else {},
                alone,
                tuple(doubts),
            )
        )
    return pairs


def common_policies(a: LabeledFile, b: LabeledFile, asked: Sequence[str]) -> list[tuple[LabelSet, LabelSet]]:
    by_name = {answers.name: answers for answers in b.answers}
    both = [(answers, by_name[answers.name]) for answers in a.answers if answers.name in by_name]
    if asked:
        have = {one.name for one, _ in both}
        if missing := [name for name in asked if name not in have]:
            listed = ", ".join(sorted(have)) or "none"
            raise UsageError(
                f"--policy {missing[0]}: not in both {a.path} and {b.path}, which have in common: {listed}"
            )
        return [pair for pair in both if pair[0].name in asked]
    if not both and len(a.answers) == len(b.answers) == 1:
        both = [(a.answers[0], b.answers[0])]
    if not both:
        names = " and ".join(", ".join(x.name for x in labels.answers) for labels in (a, b))
        raise UsageError(f"{a.path} and {b.path} have no policy in common: {names}")
    return both


def paired_rows(a: LabeledFile, b: LabeledFile, id_field: str | None) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Return which row of A goes with which of B, and how many rows of A, and of B, have no partner.

    Rows are paired by their ids, else in order; in order, fields that both have must be equal.
    """
    if id_field is not None:
        return _by_id(a, b, id_field)
    if len(a.rows) != len(b.rows):
        raise UsageError(
            f"{a.path} has {len(a.rows):,} rows and {b.path} has {len(b.rows):,}; --id-field pairs rows by their ids"
        )
    for one, two in zip(a.rows, b.rows, strict=True):
        common = one.fields.keys() & two.fields.keys()
        if any(normal(one.fields[key]) != normal(two.fields[key]) for key in common):
            raise UsageError(
                f"row {one.number} of {a.path} (line {one.line}) is another row in {b.path};"
                " --id-field pairs rows by their ids"
            )
    return [(i, i) for i in range(len(a.rows))], (0, 0)


def _by_id(a: LabeledFile, b: LabeledFile, id_field: str) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    for labels in (a, b):
        if lacking := [row for row in labels.rows if id_field not in row.fields]:
            if len(lacking) == len(labels.rows):
                names = dict.fromkeys(name for row in labels.rows for name in row.fields)
                raise no_field(str(labels.path), "--id-field", id_field, tuple(names))
            raise UsageError(f"{labels.path}, line {lacking[0].line}: this row has no {id_field!r} for --id-field")
    for spelling in (plain, normal):  # another program may have saved 7 as 7.0
        ids_a, ids_b = (_ids(labels, id_field, spelling) for labels in (a, b))
        if found := [(i, ids_b[key]) for key, i in ids_a.items() if key in ids_b]:
            return found, (len(a.rows) - len(found), len(b.rows) - len(found))
    raise UsageError(f"{a.path} and {b.path} have no {id_field} in common")


def _ids(labels: LabeledFile, id_field: str, spelling: Callable[[Any], str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for place, row in enumerate(labels.rows):
        key = spelling(row.fields[id_field])
        if found.setdefault(key, place) != place:
            lines = f"lines {labels.rows[found[key]].line} and {row.line}"
            raise UsageError(f"{labels.path}: two rows have the {id_field} {key!r}, {lines}")
    return found


def _variants(settings: Settings, wanted: Wanted, variants: Mapping[str, Sequence[str]]) -> Pair:
    """Label one golden set twice, and return the pair."""
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
        chosen: dict[str, Any] = {name: values[min(i, len(values) - 1)] for name, values in variants.items() if values}
        changed = replace(
            settings,
            policies=(chosen["policy"],),
            model=chosen.get("model"),
            effort=chosen.get("effort", settings.effort),
        )
        measured = measure(changed, wanted)
        sides.append((f"--{option} {chosen[option]}", measured))
    (name_a, a), (name_b, b) = sides
    numbers = {row.number: place for place, row in enumerate(b.golden.rows)}
    rows = [(i, numbers[row.number]) for i, row in enumerate(a.golden.rows) if row.number in numbers]
    one, two = a.answers[0], b.answers[0]
    return Pair(
        Side(name_a, one, tuple(a.verdicts[i][one.name] for i, _ in rows), a.model),
        Side(name_b, two, tuple(b.verdicts[j][two.name] for _, j in rows), b.model),
        tuple((row.number, row.line, row.id) for row in (a.golden.rows[i] for i, _ in rows)),
        tuple(a.golden.rows[i].text for i, _ in rows),
        tuple(a.golden.rows[i].gold[one.name] for i, _ in rows),
        dict(a.golden.unused),
        doubts=tuple(dict.fromkeys((*a.doubts, *b.doubts))),
    )


def pair_result(pair: Pair) -> dict[str, Any]:
    """Return all results about two labelings. If the policies' labels differ, compare whether they violate."""
    by_label = set(pair.a.answers.labels) == set(pair.b.answers.labels)

    def said(side: Side, verdict: Verdict) -> str:
        return str(verdict.label) if by_label else "violating" if verdict.violates else "safe"

    kept = [
        i for i, (a, b) in enumerate(zip(pair.a.verdicts, pair.b.verdicts, strict=True)) if not (a.error or b.error)
    ]
    a, b = ([said(side, side.verdicts[i]) for i in kept] for side in (pair.a, pair.b))
    share, kappa = metrics.agreement(a, b) if kept else (math.nan, math.nan)
    low, high = metrics.share_interval(sum(x == y for x, y in zip(a, b, strict=True)), len(kept))
    known = [(i, x, y) for i, x, y in zip(kept, a, b, strict=True) if pair.gold[i] is not None]
    result: dict[str, Any] = {
        "a": pair.a.name,
        "b": pair.b.name,
        "model_a": pair.a.model,
        "model_b": pair.b.model,
        "doubts": list(pair.doubts),
        "rows": len(kept),
        "rows_in_error": len(pair.texts) - len(kept),
        "rows_only_in": {"a": pair.alone[0], "b": pair.alone[1]},
        "rows_without_gold": dict(pair.not_used),
        "agreement": number(share),
        "agreement_low": number(low),
        "agreement_high": number(high),
        "kappa": number(kappa),
        "flips": [
            {
                "row": pair.places[i][0],
                "line": pair.places[i][1],
                "id": pair.places[i][2],
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
        rates: dict[str, float] = {}
        for side, said_by in (("a", [x for _, x, _ in known]), ("b", [y for _, _, y in known])):
            right = sum(x == gold(i) for (i, _, _), x in zip(known, said_by, strict=True))
            low, high = metrics.share_interval(right, len(known))
            rates |= {f"accuracy_{side}": right / len(known), f"low_{side}": low, f"high_{side}": high}
        result["gold"] = {
            "rows": len(known),
            **rates,
            "intervals": metrics.METHODS["shares"],
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
    for side in ("a", "b"):
        model = result[f"model_{side}"] or "not on record"
        yield Text.assemble((f"{side.upper()}  ", "bold"), f"{cut(result[side], 200)}, model {cut(model, 100)}")
    for doubt in result["doubts"]:
        yield facts(doubt, style="yellow")
    said = f"{result['rows']:,} rows labelled by both"
    if result["rows_in_error"]:
        said += f", {result['rows_in_error']:,} in error"
    yield facts(said)
    if any(alone := result["rows_only_in"].values()):
        yield facts("not compared: rows only in A {:,}, only in B {:,}".format(*alone), style="yellow")
    if result["agreement"] is not None:
        low, high = result["agreement_low"], result["agreement_high"]
        yield facts(
            f"agreement {result['agreement']:.3f} ({low:.3f} to {high:.3f}), Cohen's kappa {figure(result['kappa'])};"
            f" {len(result['flips']):,} flipped"
        )
    if gold := result.get("gold"):
        sides = {side: {"low": gold[f"low_{side}"], "high": gold[f"high_{side}"]} for side in ("a", "b")}
        yield facts(
            f"accuracy A {gold['accuracy_a']:.3f} ({interval(sides['a'])}), B {gold['accuracy_b']:.3f}"
            f" ({interval(sides['b'])}) on {gold['rows']:,} rows with gold;"
            f" right only by A {gold['only_a_right']:,}, only by B {gold['only_b_right']:,};"
            f" McNemar's exact p {gold['mcnemar_p']:.3g}"
        )
        if unused := not_used(result["rows_without_gold"]):
            yield facts(f"gold: {unused}", style="yellow")
        sure = gold["mcnemar_p"] < 0.05
        better = "B is better" if gold["accuracy_b"] > gold["accuracy_a"] else "A is better"
        yield Text(better if sure else "no proof that one is better: the difference may be chance", "bold")
    elif found := result.get("violating"):
        yield facts(
            f"violating only in A {found['only_a']:,}, only in B {found['only_b']:,};"
            f" McNemar's exact p {found['mcnemar_p']:.3g} (no gold labels: this shows which is stricter, not better)"
        )
    moves = Counter((flip["a"], flip["b"]) for flip in result["flips"])
    if moves:
        table = Figures("A said", "B said", "rows", left=2)
        for (a, b), count in moves.most_common():
            table.add_row(cut(a, 30), cut(b, 30), f"{count:,}")
        yield table
    for flip in result["flips"][: wanted.wrong]:
        gold_text = "" if flip["gold"] is None else f", gold {cut(flip['gold'], 24)}"
        moved = f"{cut(flip['a'], 24)} → {cut(flip['b'], 24)}"
        p = f"{flip['p_a']:.2f} → {flip['p_b']:.2f}"
        yield line_of(f"{place_of(flip)}, p {p}: {moved}{gold_text}: {flip['text']}")
    if len(result["flips"]) > wanted.wrong > 0:
        yield facts(
            f"{len(result['flips']) - wanted.wrong:,} more: --wrong N, --wrong-file or --json shows them", style="dim"
        )
    yield facts("95 % intervals by Clopper-Pearson", style="dim")
    yield Text("")

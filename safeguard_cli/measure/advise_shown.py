"""What `safeguard policy advise` prints at a terminal: a heading for each finding, and its rows below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from safeguard_cli.measure.shown import not_used
from safeguard_cli.terminal import Figures, cut, facts, line_of

SURE = 0.05
_WAYS = {
    "missed": ("missed", "missed"),
    "false_alarm": ("false alarm", "false alarms"),
    "other_label": ("other label",) * 2,
}
_NUMBERS = 20  # rows named by their numbers alone


def shown(result: Mapping[str, Any], most: int) -> Iterator[RenderableType]:
    """Yield the result for people, with up to `most` rows of each finding."""
    wrong = {way: len(rows) for way, rows in result["wrong"].items()}
    right = result["rows"] - sum(wrong.values())
    yield Text.assemble(
        (cut(result["policy"], 60), "bold"),
        "  ",
        facts(
            f"{result['rows']:,} golden rows",
            f"{right:,} right",
            *(_counted(way, count) for way, count in wrong.items() if count or way != "other_label"),
            f"model {result['model'] or 'not on record'}",
            result["effort"] and f"effort {result['effort']}",
        ),
    )
    for doubt in result["doubts"]:
        yield facts(doubt, style="yellow")
    if unused := not_used(result["rows_not_used"]):
        yield facts(unused, style="yellow")
    if result["rows_in_error"]:
        yield facts(f"rows in error, not counted: {result['rows_in_error']:,}", style="red")
    yield from _misses(result, most)
    yield from _rules(result, most)
    for each in result["flips"]:
        yield from _flips(each, result, most)
    for way, found in result["words"].items():
        yield from _words(way, found)
    if disputed := result["two_gold_labels"]:
        yield _heading("texts with several gold labels", "no policy can be right about all of their rows")
        for each in disputed[:most]:
            yield from _rows(each["rows"], most)
    yield facts("nothing was rewritten; what few rows show may be chance", style="dim")


def _misses(result: Mapping[str, Any], most: int) -> Iterator[RenderableType]:
    for way, rows in result["wrong"].items():
        if not rows:
            continue
        yield _heading(_counted(way, len(rows)), _numbers(rows))
        by_rule: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            by_rule.setdefault(_blamed(row), []).append(row)
        for rule, found in sorted(by_rule.items(), key=lambda item: -len(item[1])):
            yield facts(f"  {rule}: {len(found):,} ({_numbers(found)})")
            yield from _rows(found, most, "    ")


def _blamed(row: Mapping[str, Any]) -> str:
    """Return which rules a wrong row is about: the right one, if it is known, and those that the model cited."""
    cited = f"cited {', '.join(row['cited']) or 'none'}" if row["cited"] or "rationale" in row else ""
    right = f"{row['rule']} is right" if row.get("rule") else ""
    return ", ".join(filter(None, (right, cited))) or "no rule known"


def _rules(result: Mapping[str, Any], most: int) -> Iterator[RenderableType]:
    rules, field = result["rules"], result["rule_field"]
    if not rules:
        yield facts("the policy's rules have no codes such as SP1, so that none can be cited", style="yellow")
        return
    if not result["rows_with_rationale"] and not any(rule["cited"] for rule in rules.values()):
        yield facts("the rows have no rationales: label with --rationale to see which rules they cite", style="yellow")
    else:
        table = Figures("rule", "cited by", "right", "missed", "false alarms", *(["golden rows"] if field else []))
        for code, rule in rules.items():
            of_gold = [f"{rule['golden_rows']:,}"] if field else []
            counts = (rule["cited"], rule["right"], len(rule["missed"]), len(rule["false_alarm"]))
            table.add_row(cut(f"{code} {rule['says']}", 40), *(f"{count:,}" for count in counts), *of_gold)
        yield _heading("rules", "the rows that cite each")
        yield table
        yield from _silent(result, most)
    for pair in result["pairs"]:
        a, b = pair["rules"]
        of_a, of_b = pair["rows_of_each"]
        yield _heading(
            f"{a} and {b} catch the same rows",
            f"{len(pair['rows']):,} of {of_a:,} and {of_b:,}: {_numbers(pair['rows'])}",
        )
        yield from _rows(pair["rows"], most)


def _silent(result: Mapping[str, Any], most: int) -> Iterator[RenderableType]:
    """Yield the rules that no row cites, and the rows that cite none."""
    field = result["rule_field"]
    for code, rule in result["rules"].items():
        if rule["cited"]:
            continue
        if not field:
            why = "does the golden set have rows for it?"
        elif rule["golden_rows"]:
            why = f"{rule['golden_rows']:,} golden rows are about it"
            why += f", wrong: {_numbers(rule['golden_rows_wrong'])}" if rule["golden_rows_wrong"] else ", all right"
        else:
            why = "no golden row is about it"
        yield _heading(f"{code} is never cited", why)
        yield from _rows(rule["golden_rows_wrong"], most)
    if rows := result["no_rule_cited"]:
        yield _heading(f"rationales that cite no rule: {len(rows):,}", _numbers(rows))
        yield from _rows(rows, most)


def _flips(each: Mapping[str, Any], result: Mapping[str, Any], most: int) -> Iterator[RenderableType]:
    differs = each["differs"]
    how = "what differs is not on record" if differs is None else "; ".join(differs) or "a repetition"
    yield _heading(
        f"flips in {each['output']}: {len(each['flips']):,} of {each['rows']:,}",
        f"{how}; right here {each['right_here']:,}, right there {each['right_there']:,}",
    )
    for row in each["flips"][:most]:
        moved = f"{cut(str(row['label']), 24)} → {cut(str(row['other_label']), 24)}, gold {cut(row['gold'], 24)}"
        yield line_of(f"  row {row['row']}, line {row['line']}: {moved}: {row['text']}")
    yield from _more(each["flips"], most, "  ")


def _words(way: str, found: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    if not found:
        return
    side, title = ("violating", "missed rows") if way == "missed" else ("safe", "false alarms")
    first = found[0]
    proof = "" if first["p"] < SURE else ": none by more than chance"
    yield _heading(
        f"words that the {title} share",
        f"{first['of_wrong']:,} wrong rows, beside {first['of_right']:,} {side} ones that are right{proof}; p is"
        " Fisher's exact one, times the words looked at",
    )
    table = Figures("word", "wrong rows", "right rows", "p", "rows")
    for word in found:
        table.add_row(
            cut(word["word"], 24),
            f"{word['wrong']:,}",
            f"{word['right']:,}",
            f"{word['p']:.2g}",
            _numbers(word["rows"], 6).removeprefix("rows ").removeprefix("row "),
        )
    yield table


def _counted(way: str, count: int) -> str:
    return f"{count:,} {_WAYS[way][count != 1]}"


def _heading(title: str, more: str) -> Text:
    return Text.assemble("\n", (cut(title, 200), "bold"), "  ", facts(more))


def _numbers(rows: Sequence[Mapping[str, Any]], most: int = _NUMBERS) -> str:
    """Return rows by their numbers."""
    shown = ", ".join(str(row["row"]) for row in rows[:most]) + (", …" if len(rows) > most else "")
    return f"{'row' if len(rows) == 1 else 'rows'} {shown}"


def _rows(rows: Sequence[Mapping[str, Any]], most: int, indent: str = "  ") -> Iterator[RenderableType]:
    for row in rows[:most]:
        said = f"gold {cut(row['gold'], 24)}, said {cut(str(row['label']), 24)}"
        p = f", p {row['p_violates']:.2f}" if row["p_violates"] is not None else ""
        text = f": {row['text']}" if row["text"] else ""
        yield line_of(f"{indent}row {row['row']}, line {row['line']}{p}: {said}{text}")
    yield from _more(rows, most, indent)


def _more(rows: Sequence[Any], most: int, indent: str) -> Iterator[RenderableType]:
    if len(rows) > most > 0:
        yield facts(f"{indent}{len(rows) - most:,} more: --wrong N or --json shows them", style="dim")

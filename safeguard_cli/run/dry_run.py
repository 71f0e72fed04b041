"""`--dry-run`: what a run would do, from the vocabulary alone."""

from __future__ import annotations

import statistics
from collections import Counter
from itertools import islice

from safeguard_cli import errors
from safeguard_cli.rows.source import Source
from safeguard_cli.rows.text import Selects
from safeguard_cli.rows.verdict import RowError
from safeguard_cli.run.prepare import Prepared, shape_text
from safeguard_cli.run.reuse import Reuse
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import safe


def dry_run(
    settings: Settings, prepared: Prepared, source: Source, selector: Selects, reuse: Reuse | None = None
) -> int:
    """Print what a run would do, and return exit code 0: no row is in error yet."""
    labeling, shape = prepared.labeling, prepared.shape
    rules, tokenizer = labeling.rules, labeling.harmony.tokenizer
    lengths: Counter[int] = Counter()
    found: Counter[str] = Counter()
    split_rows = blank = copied = 0
    shown: str | None = None
    for number, record in enumerate(source if settings.limit is None else islice(source, settings.limit)):
        text = record.error or selector.select(record)
        if reuse and isinstance(text, str) and reuse.covers(text):
            copied += 1
            continue
        answer, prompts = labeling.start(text, number)
        if answer.done:
            found.update({v.error.code for v in answer.verdicts.values() if v.error and not v.error.blank})
            blank += record.blank
            continue
        split_rows += any(len(windows) > 1 for windows in prompts)
        first = next(windows[0] for windows in prompts if windows)
        if not isinstance(text, RowError):
            lengths[len(tokenizer.encode(str(text)))] += 1
        if shown is None:
            shown = labeling.harmony.readable((*rules.prefixes[first.policy].ids, *first.ids))
    asked = f"{lengths.total():,}"
    rows = [f"{asked} to label", f"{copied:,} with verdicts to copy"] if reuse else [asked]
    rows += [f"{n:,} {code}" for code, n in found.most_common()]
    rows += [f"{blank:,} blank rows" if blank > 1 else "1 blank row"] if blank else []
    lines = [f"rows            {', '.join(rows)}"]
    for group, prefix in zip(rules.groups, rules.prefixes, strict=True):
        names = " and ".join(policy.name for policy in group)
        lines.append(f"policy          {names}: {len(prefix.ids):,} tokens, including the prompt around it")
    if lengths:
        lines.append(
            f"text tokens     {_median(lengths):,} median, {max(lengths):,} longest; rows split: {split_rows:,}"
        )
    lines += [f"run             {shape_text(shape)}", "", "first prompt:", shown or "(none)"]
    print(safe("\n".join(lines), keep_newlines=True))
    return errors.OK


def _median(lengths: Counter[int]) -> int:
    return statistics.median_low(lengths.elements())

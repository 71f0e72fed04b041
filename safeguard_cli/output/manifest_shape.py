"""What a manifest must be like for the program to use it. Members that are not listed here are nobody's to rely on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from safeguard_cli.model.checks import (
    Misshapen,
    by_name,
    each,
    either,
    filled,
    flag,
    integer,
    maybe,
    number,
    one_of,
    sha256,
    table,
    text,
)

# What llama.cpp can be given; beyond it, it ends the process.
MOST_SLOTS, MOST_THREADS, MOST_BATCH, MOST_CELLS = 256, 512, 1 << 16, 1 << 26
MOST_PROCESS = (1 << 31) - 1

_count = integer()
_small = integer(most=(1 << 31) - 1)
_names = each(text)
TALLIES = {  # what a run counts, see Pipeline.counts
    "rows": _count,
    "rows_in_error": _count,
    "errors": by_name(_count),
    "labels": by_name(by_name(_count)),
    "violating": by_name(_count),
}
MORE_TALLIES = {"blank": _count, "cut": _count}  # which an older version did not count
_shard = each(integer(1, 1 << 31), 2)

_decides = table(
    {
        "policies": by_name(table({"sha256": sha256, "labels": each(filled, 1), "violates": _names}), 1),
        "model": either(table({"served": text}), table({"bytes": _count, "sampled_sha256": sha256})),
        "prompt_layout": text,
        "input": table(
            {
                "format": filled,
                "encoding": filled,
                "text_fields": _names,
                "template": maybe(text),
                "max_row_bytes": integer(1),
                "shard": maybe(_shard),
            }
        ),
        "answer": table({"effort": text, "ctx": _small, "long": text}),
        "output": table(
            {
                "format": one_of("jsonl", "csv", "parquet"),
                "columns": _names,
                "keep": maybe(_names),
                "only": maybe(text),
                "csv_safe": flag,
            }
        ),
        "deterministic": maybe(integer(1, 1 << 31)),
    }
)
_machine = table(
    {"versions": by_name(text)},
    {
        "slots": integer(1, MOST_SLOTS),
        "cells": integer(1, MOST_CELLS),
        "batch": integer(1, MOST_BATCH),
        "threads": integer(1, MOST_THREADS),
        "extra_buffers": flag,
        "servers": by_name(text),
    },
)
_result = table(
    {
        "finished": text,
        "exit_code": one_of(0, 3, 5),
        **TALLIES,
        "input_exhausted": flag,
        "engine_deaths": _count,
        "command": _names,
        "input": text,
        "model": text,
        "model_sha256": maybe(text),
        "output_sha256": sha256,
    },
    {**MORE_TALLIES, "rows_sha256": sha256, "input_format": maybe(text)},
)
_members = table(
    {
        "decides": _decides,
        "machine": _machine,
        "started": text,
        "process": integer(1, MOST_PROCESS),
        "result": maybe(_result),
        **dict.fromkeys(("rows", "output_bytes", "repeated_rows"), _count),
        **dict.fromkeys(("policy_tokens", "prompt_tokens", "generated_tokens"), _count),
        "input_sha256": either(one_of(""), sha256),
        "seconds": number(),
        "counts": maybe(table(TALLIES, MORE_TALLIES)),
    },
    {"cut_rows": _count},
)


def check_manifest(fields: dict[str, Any], members: Iterable[str]) -> None:
    """Raise Misshapen, saying which member is not what it should be; `members` are all that a manifest can have."""
    _members(fields, "")
    if unknown := sorted(fields.keys() - members):
        raise Misshapen(f"{unknown[0]} is no member of a manifest")
    policies = fields["decides"]["policies"]
    for name, policy in policies.items():
        if not {*policy["violates"]} <= {*policy["labels"]}:
            raise Misshapen(f"decides.policies.{name}.violates should be some of its labels")
    shard = fields["decides"]["input"]["shard"]
    if shard and not (len(shard) == 2 and shard[0] <= shard[1]):
        raise Misshapen("decides.input.shard should be a part and how many there are")
    for member in ("counts", "result"):
        for tally in ("labels", "violating"):
            if unknown := sorted((fields.get(member) or {}).get(tally, {}).keys() - policies.keys()):
                raise Misshapen(f"{member}.{tally} has {unknown[0]!r}, which is no policy of the run")

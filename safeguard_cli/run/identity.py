"""What makes a run the same run: all that can change a label, and what of the machine can move a score's last digits.

A run is resumed only if nothing of the former differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safeguard_cli.model.fingerprint import model_fingerprint
from safeguard_cli.output.manifest import versions
from safeguard_cli.prompt.harmony import layout_hash
from safeguard_cli.run.prepare import Prepared
from safeguard_cli.run.settings import Settings


def identity(
    settings: Settings,
    prepared: Prepared,
    input_format: str,
    text_fields: Sequence[str],
    output: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all that can change a label or how a row is written.

    `text_fields` are the chosen ones, `output` is a destination.Output.
    """
    rules = prepared.labeling.rules
    return {
        "policies": {
            policy.name: {"sha256": policy.sha256, "labels": list(policy.labels), "violates": list(policy.violates)}
            for policy in rules.policies
        },
        "model": _model(settings, prepared),
        "prompt_layout": layout_hash(),
        "input": {
            "format": input_format,
            "encoding": settings.encoding,
            "text_fields": list(text_fields),
            "template": settings.template,
            "max_row_bytes": settings.max_row_bytes,
            **{name: value for name in ("sheet", "skip_rows") if (value := getattr(settings, name)) is not None},
            "shard": None if settings.shard == (1, 1) else list(settings.shard),
        },
        "answer": {
            "effort": settings.effort,
            "sure": prepared.options.sure,
            "most_reasoning": prepared.options.budget,
            "ctx": prepared.shape.context,
            "long": settings.long,
            "max_windows": settings.max_windows,
            "threshold": settings.threshold,
            "temperature": settings.temperature,
            "seed": settings.seed,
            "policy_only_prompt": settings.policy_only_prompt,
            "together": rules.together,
            "rationale": settings.rationale,
            "reasoning": settings.reasoning,
        },
        "output": {
            "format": output["format"],
            "columns": list(output["columns"]),
            "keep": output["keep"],
            "only": settings.only,
            "csv_safe": settings.csv_safe,
            **({"bom": True} if output["bom"] else {}),
        },
        "deterministic": prepared.drain,
    }


def _model(settings: Settings, prepared: Prepared) -> dict[str, Any]:
    """Return what the model is: its file, or what servers report of it and how they are asked."""
    if prepared.remote:
        return {**prepared.remote.model, "server_api": settings.server_api}
    return model_fingerprint(prepared.header.path)


def footing(prepared: Prepared) -> dict[str, Any]:
    """Return what of the machine can move a score's last digits."""
    shape = prepared.shape
    if prepared.remote:
        servers = {served.address.shown: served.api.name for served in prepared.remote.servers}
        return {"servers": servers, "versions": versions()}
    return {
        "slots": shape.plan.slots,
        "cells": shape.plan.cells,
        "batch": shape.plan.batch,
        "threads": shape.loading.threads,
        "gpu_layers": shape.loading.gpu_layers,
        "cpu_moe": shape.loading.cpu_moe,
        "kv_type": shape.loading.cache_type,
        "extra_buffers": shape.loading.extra_buffers,
        "flash_attention": shape.loading.flash,
        "versions": versions(),
    }

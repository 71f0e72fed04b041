"""What makes a run the same run: all that can change a label, and what of the machine can move a score's last digits.

A run is resumed only if nothing of the former differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safeguard_cli.engine.local.plan import LLAMA
from safeguard_cli.engine.local.probe import local_build
from safeguard_cli.model.fingerprint import model_fingerprint, model_sha256
from safeguard_cli.output.manifest import versions
from safeguard_cli.prompt.harmony import layout_hash
from safeguard_cli.run.prepare import Prepared
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import json_bytes


def identity(
    settings: Settings,
    prepared: Prepared,
    input_format: str,
    text_fields: Sequence[str],
    turns: Mapping[str, Any] | None,
    output: Mapping[str, Any],
    reused: Sequence[str] = (),
) -> dict[str, Any]:
    """Return all that can change a label or how a row is written.

    `text_fields` are the chosen ones, `turns` says how rows are turns of conversations, None if they are not, `output`
    is a destination.Output. `reused` are the hashes of outputs whose verdicts are copied: they can move only last
    digits, so that they count in a deterministic run alone.
    """
    asks = asked(settings, prepared)
    return {
        "policies": asks["policies"],
        "model": asks["model"],
        "prompt_layout": asks["prompt_layout"],
        "input": {
            "format": input_format,
            "encoding": settings.encoding,
            "text_fields": list(text_fields),
            "template": settings.template,
            **({"turns": dict(turns)} if turns else {}),
            "max_row_bytes": settings.max_row_bytes,
            **{name: value for name in ("sheet", "skip_rows") if (value := getattr(settings, name)) is not None},
            "shard": None if settings.shard == (1, 1) else list(settings.shard),
        },
        "answer": asks["answer"],
        "output": {
            "format": output["format"],
            "columns": list(output["columns"]),
            "keep": output["keep"],
            "only": settings.only,
            "csv_safe": settings.csv_safe,
            "layout": output["service"],
            **({"bom": True} if output["bom"] else {}),
        },
        "deterministic": prepared.drain,
        **({"reuse": list(reused)} if prepared.drain and reused else {}),
    }


def asked(settings: Settings, prepared: Prepared) -> dict[str, Any]:
    """Return what is asked about a text, and of which model."""
    rules = prepared.labeling.rules
    return {
        "policies": {
            policy.name: {"sha256": policy.sha256, "labels": list(policy.labels), "violates": list(policy.violates)}
            for policy in rules.policies
        },
        "model": _model(settings, prepared),
        "prompt_layout": layout_hash(),
        "answer": {
            "effort": settings.effort,
            "sure": prepared.options.sure,
            "most_reasoning": prepared.options.budget,
            "ctx": prepared.shape.context,
            "long": settings.long,
            "max_windows": settings.max_windows,
            "threshold": settings.threshold,
            "temperature": settings.sampled_at,
            "seed": settings.seed,
            "policy_only_prompt": settings.policy_only_prompt,
            "together": rules.together,
            "rationale": settings.rationale,
            "reasoning": settings.reasoning,
            **({"votes": settings.votes, "until_decided": settings.until_decided} if settings.votes else {}),
            **({"calibration": prepared.calibration} if prepared.calibration else {}),
        },
    }


def asked_hash(settings: Settings, prepared: Prepared) -> str:
    """Return a hash of all that can change a label or a row, apart from what an input itself decides."""
    chosen = {
        "format": str(settings.format),
        "columns": (),
        "keep": settings.keep,
        "service": settings.layout,
        "bom": settings.bom,
    }
    turns = {name: getattr(settings, name) for name in ("group", "order", "role_field", "verdict_per")}
    whole = identity(settings, prepared, str(settings.format), settings.text_fields, turns, chosen)
    return hashlib.sha256(json_bytes([whole, settings.id_field])).hexdigest()


def _model(settings: Settings, prepared: Prepared) -> dict[str, Any]:
    """Return what the model is: its file, or what servers report of it and how they are asked."""
    if prepared.copied:
        return prepared.copied.identity.model.record
    if prepared.remote:
        return {**prepared.remote.model, "server_api": settings.server_api}
    return model_fingerprint(prepared.header.path)


def footing(prepared: Prepared) -> dict[str, Any]:
    """Return what of the machine can move a score's last digits."""
    shape = prepared.shape
    if prepared.copied:
        return {"versions": versions()}
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
        **({"engine": _engine(prepared)} if shape.loading.engine != LLAMA else {}),
        "versions": versions(),
    }


def _engine(prepared: Prepared) -> dict[str, Any]:
    """Return which library decodes where it is not llama.cpp, how it is built, and whether it is proved."""
    version, build = local_build(prepared.shape.loading.engine)
    return {
        "name": prepared.shape.loading.engine,
        "version": version,
        "build": build,
        "proved": prepared.proved,
    }


def model_used(prepared: Prepared, served: str | None, hashing: Callable[[float], None]) -> dict[str, str | None]:
    """Return which model has labelled the rows: this machine's, the servers', or that of a run whose verdicts stand."""
    if prepared.copied:
        result = prepared.copied.result
        return {
            "model": result.model if result else served or "",
            "model_sha256": result.model_sha256 if result else None,
        }
    if prepared.remote:
        return {"model": served, "model_sha256": None}
    path = prepared.header.path
    return {"model": str(path), "model_sha256": model_sha256(path, hashing)}

"""Outputs and manifests written by hand, and the results of `safeguard eval` on them."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.command import write
from safeguard_cli.measure.evaluate import evaluate
from safeguard_cli.measure.options import Wanted
from safeguard_cli.run.settings import Settings

SHA = "0" * 64
RESULT = {
    "finished": "2026-01-01T00:01:00+00:00",
    "exit_code": 0,
    "rows": 1,
    "rows_in_error": 0,
    "errors": {},
    "labels": {"spam": {"ham": 1, "spam": 0}},
    "violating": {"spam": 0},
    "input_exhausted": True,
    "engine_deaths": 0,
    "command": ["safeguard", "label"],
    "input": "in.jsonl",
    "model": "/models/my.gguf",
    "model_sha256": SHA,
    "output_sha256": SHA,
}


def manifest(path: Path, *, finished: bool = True, size: int | None = None, **chosen: object) -> None:
    """Write a manifest beside an output, of a run that labelled the text that is `chosen`."""
    fields = {
        "decides": {
            "policies": {"spam": {"labels": ["ham", "spam"], "violates": ["spam"], "sha256": SHA}},
            "model": {"bytes": 7, "sampled_sha256": SHA},
            "prompt_layout": SHA,
            "input": {
                "format": "jsonl",
                "encoding": "utf-8",
                "text_fields": [],
                "template": None,
                "max_row_bytes": 1 << 20,
                "shard": None,
                **chosen,
            },
            "answer": {"effort": "low", "ctx": 8192, "long": "split"},
            "output": {"format": "jsonl", "columns": [], "keep": None, "only": None, "csv_safe": False},
            "deterministic": None,
        },
        "machine": {"versions": {}},
        "started": "2026-01-01T00:00:00+00:00",
        "process": 1,
        "rows": 1,
        "output_bytes": path.stat().st_size if size is None else size,
        "input_sha256": SHA,
        "seconds": 1.0,
        "repeated_rows": 0,
        "policy_tokens": 0,
        "prompt_tokens": 0,
        "generated_tokens": 0,
        "counts": None,
        "result": RESULT if finished else None,
        "version": 1,
    }
    path.with_name(f"{path.name}.{'manifest' if finished else 'run'}.json").write_text(json.dumps(fields))


def verdict(label: str, p: float, *, labels: tuple[str, str] = ("ham", "spam"), **more: object) -> dict:
    scores = {labels[0]: 1 - p, labels[1]: p}
    return {
        "label": label,
        "violates": label == labels[1],
        "p_violates": p,
        "score": scores[label],
        "scores": scores,
        "effort": "low",
        **more,
    }


def output(path: Path, rows: list[dict]) -> Path:
    return write(path, *(json.dumps(row) for row in rows))


def run_json(capsys, path: Path, **wanted: object) -> dict:
    code = evaluate(Settings(str(path), ()), Wanted(json=True, **wanted))  # type: ignore[arg-type]
    return {"exit": code, **json.loads(capsys.readouterr().out)}

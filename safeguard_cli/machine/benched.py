"""What `safeguard bench` has measured, as JSON and for people."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
from rich.console import RenderableType

from safeguard_cli.engine.local.plan import IK, LLAMA
from safeguard_cli.machine.speed import Figure, Setting, best, tokens_per_row
from safeguard_cli.output.manifest import versions
from safeguard_cli.prompt.contract import Prompt
from safeguard_cli.run.prepare import Prepared
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import Figures, facts, span


@dataclass(frozen=True, slots=True)
class Work:
    """Rows to measure with, each as its prompts; how many there are in all, and the median of their texts' tokens."""

    rows: tuple[tuple[Prompt, ...], ...]
    total: int
    median: int


@dataclass(slots=True)
class Rates:
    """Tokens/s of prompts and of single tokens that an engine itself reaches, or why it could not be measured."""

    prompt: list[float] = field(default_factory=list)
    generation: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def bound(self) -> float:
        """Tokens/s that no schedule can beat."""
        return statistics.median(self.prompt)


@dataclass(slots=True)
class Found:
    """What has been measured: each engine's own rates, and the settings."""

    work: Work
    rates: dict[str, Rates] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    left_out: list[tuple[Setting, str]] = field(default_factory=list)
    busy: float = 0.0
    interrupted: bool = False

    def best_of(self, engine: str) -> Figure | None:
        """Return an engine's best figure."""
        figures = [figure for figure in self.figures if engine_of(figure.setting) == engine]
        return best(figures) if figures else None


def engine_of(setting: Setting) -> str:
    """Return the engine of a setting, also where there was none to choose."""
    return setting.engine or LLAMA


def as_json(found: Found, settings: Settings, prepared: Sequence[Prepared], rows: int | None) -> dict[str, Any]:
    """Return all figures, in seconds, bytes and tokens; `rows` is what to tell the time of, None for all."""
    first = prepared[0]
    result: dict[str, Any] = {
        "model": {"path": str(first.header.path), "bytes": first.header.size},
        "policies": [
            {"names": [policy.name for policy in group], "tokens": len(prefix.ids)}
            for group, prefix in zip(first.labeling.rules.groups, first.labeling.rules.prefixes, strict=True)
        ],
        "effort": settings.effort,
        "most_reasoning": first.options.budget,
        "content": {
            "input": settings.input or None,
            "median_tokens": found.work.median,
            "rows_sampled": len(found.work.rows),
        },
        "machine": {
            "cores": psutil.cpu_count(logical=False),
            "busy_cores_before": round(found.busy, 2),
            "kv_type": first.shape.loading.cache_type,
            "gpu_layers": first.shape.loading.gpu_layers if first.shape.memory.video else 0,
            "versions": versions(),
        },
        "engines": {one.shape.loading.engine: _engine_facts(found, one) for one in prepared},
        "interrupted": found.interrupted,
        "settings": [_figure(figure, found) for figure in found.figures],
        "left_out": [{**_setting(setting), "reason": reason} for setting, reason in found.left_out],
    }
    if found.figures:
        chosen = best(found.figures)
        rows = found.work.total if rows is None else rows
        tokens = tokens_per_row(found.figures)
        result["best"] = {**_figure(chosen, found), "options": chosen.setting.options}
        result["estimate"] = {"rows": rows, "tokens_per_row": tokens, "seconds": chosen.seconds_for(rows, tokens)}
    return result


def _engine_facts(found: Found, prepared: Prepared) -> dict[str, Any]:
    """Return what is known of an engine: its own rates, or why there are none, and its best setting."""
    loading = prepared.shape.loading
    rates = found.rates.get(loading.engine, Rates())
    facts: dict[str, Any] = {"repacked": loading.extra_buffers, "proved": prepared.proved}
    if rates.failure:
        facts["failure"] = rates.failure
    if rates.prompt:
        facts["prompt_tokens_per_second"] = rates.bound
        facts["generation_tokens_per_second"] = statistics.median(rates.generation)
        facts["samples"] = {"prompt": rates.prompt, "generation": rates.generation}
    if figure := found.best_of(loading.engine):
        facts["best"] = {**_figure(figure, found), "options": figure.setting.options}
    return facts


def _setting(setting: Setting) -> dict[str, Any]:
    return {
        "engine": engine_of(setting),
        "slots": setting.slots,
        "threads": setting.threads,
        "batch": setting.batch,
    }


def _figure(figure: Figure, found: Found) -> dict[str, Any]:
    return {
        **_setting(figure.setting),
        "rows": figure.rounds[0].rows,
        "seconds": figure.seconds,
        "rows_per_second": figure.rows_per_second,
        "rounds": [part.seconds for part in figure.rounds],
        "tokens_per_second": figure.tokens_per_second,
        "generated_per_row": figure.generated,
        "bound_share": figure.tokens_per_second / found.rates[engine_of(figure.setting)].bound,
        "load_seconds": figure.load,
        "first_row_seconds": figure.first,
        "memory_bytes": figure.memory,
    }


def lines(found: Found, result: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield the result for people."""
    content, engines = result["content"], result["engines"]
    source = content["input"] or "random texts"
    policies = ", ".join(f"{' and '.join(one['names'])} of {one['tokens']:,} tokens" for one in result["policies"])
    yield facts(f"{result['model']['path']}, {result['model']['bytes'] / 1e6:,.0f} MB; effort {result['effort']}")
    yield facts(f"policy {policies}; {source} of {content['median_tokens']:,} tokens (median)")
    for name, one in engines.items():
        head = f"{name}: " if len(engines) > 1 else ""
        if "failure" in one:
            yield facts(f"{head}not measured: {one['failure']}", style="yellow")
        elif "samples" in one:
            yield facts(
                f"{head}prompt {one['prompt_tokens_per_second']:,.1f} tokens/s,"
                f" generation {one['generation_tokens_per_second']:,.1f} tokens/s in one row"
            )
    if found.figures:
        yield _table(result["settings"], len(engines) > 1)
    for left in result["left_out"]:
        engine = f"{left['engine']}, " if len(engines) > 1 else ""
        setting = f"{engine}slots {left['slots']}, threads {left['threads']}"
        yield facts(f"not measured: {setting}: {left['reason']}", style="yellow")
    if found.interrupted:
        yield facts("interrupted: not everything was measured", style="yellow")
    if chosen := result.get("best"):
        if comparison := _comparison(engines):
            yield facts(comparison)
        yield facts(f"best: {chosen['options']}", style="bold")
        if chosen["engine"] == IK and not engines[IK]["proved"]:
            yield facts(
                "it is not proved that ik computes what llama.cpp does with this model: only --engine ik uses it"
            )
        estimate = result["estimate"]
        rows, tokens = estimate["rows"], estimate["tokens_per_row"]
        at_bound = rows * tokens / engines[chosen["engine"]]["prompt_tokens_per_second"]
        yield facts(f"{rows:,} such rows take about {span(estimate['seconds'])}, start included")
        yield facts(
            f"({tokens:,.0f} tokens each, answer included; at the prompt's rate they would take {span(at_bound)})"
        )


def _comparison(engines: Mapping[str, Any]) -> str:
    """Return which engine is faster, each with its best setting, or "" where not both are measured."""
    measured = [(one["best"]["tokens_per_second"], name) for name, one in engines.items() if "best" in one]
    if len(measured) < 2:
        return ""
    (slower, other), (faster, name) = sorted(measured)
    with_slots = f"{faster:,.0f} tokens/s with {engines[name]['best']['slots']} slots"
    against = f"{slower:,.0f} with {engines[other]['best']['slots']}"
    return f"{name} is {faster / slower:.2f} times as fast as {other} here: {with_slots} against {against}"


def _table(settings: Sequence[dict[str, Any]], engines: bool) -> Figures:
    titles = ("slots", "threads", "batch", "rows/s", "tokens/s", "of the bound", "memory", "load", "first row")
    table = Figures(*(["engine"] if engines else []), *titles, left=int(engines))
    for one in settings:
        table.add_row(
            *([one["engine"]] if engines else []),
            *(f"{one[name]}" for name in ("slots", "threads", "batch")),
            f"{one['rows_per_second']:,.2f}",
            f"{one['tokens_per_second']:,.0f}",
            f"{one['bound_share']:.0%}",
            f"{one['memory_bytes'] / 1e6:,.0f} MB",
            f"{one['load_seconds']:.1f} s",
            f"{one['first_row_seconds']:.1f} s",
        )
    return table

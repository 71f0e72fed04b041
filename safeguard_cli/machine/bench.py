"""`safeguard bench`: measures how fast this machine labels with a model and a policy, and which options are best."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import psutil
from rich.console import RenderableType

from safeguard_cli import errors
from safeguard_cli.engine.local.plan import BATCH
from safeguard_cli.engine.local.probe import Probe
from safeguard_cli.errors import Interrupted, SafeguardError, UsageError
from safeguard_cli.machine.speed import Figure, Setting, best, measure, sweep, tokens_per_row
from safeguard_cli.output.manifest import versions
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Prompt
from safeguard_cli.rows.source import count_rows, open_source
from safeguard_cli.rows.text import make_selector, say_text
from safeguard_cli.run.prepare import Prepared, engine_spec, load_policies, prepare
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import Figures, console, facts, note, print_json, show, span, warn

SLOTS = (1, 2, 4, 8, 16, 32)
BATCHES = (BATCH, BATCH // 2, BATCH * 2)
SAMPLE = 256  # rows to measure with, spread over the file
ROWS = 1000  # rows to estimate the time of, if there is no file
PATIENCE = 5  # times --seconds: the most that one row for each slot may take
BUSY = 0.25  # cores used by other programs: with more, figures are not to be trusted


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `safeguard bench` was asked for, beside the Settings of the run."""

    slots: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()
    rows: int | None = None
    content: int = 80
    seconds: float = 20.0
    json: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """Rows to measure with, each as its prompts; how many there are in all, and the median of their texts' tokens."""

    rows: tuple[tuple[Prompt, ...], ...]
    total: int
    median: int


@dataclass(slots=True)
class Found:
    """What has been measured: tokens/s of prompts and of single tokens, and the settings."""

    work: Work
    prompt: list[float] = field(default_factory=list)
    generation: list[float] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    left_out: list[tuple[Setting, str]] = field(default_factory=list)
    busy: float = 0.0
    interrupted: bool = False

    @property
    def bound(self) -> float:
        """Tokens/s that no schedule can beat."""
        return statistics.median(self.prompt)


def bench(settings: Settings, wanted: Wanted) -> int:
    """Measure settings one after the other, and print them with the best; without an input, on random texts."""
    policies = load_policies(settings)
    prepared = prepare(settings, policies, {})
    work = read_work(settings, prepared) if settings.input else make_work(prepared, wanted.content)
    found = Found(work, busy=busy_cores())
    if found.busy >= BUSY:
        warn(f"other programs keep {found.busy:.1f} cores busy: the machine can do more than is measured now")
    threads = wanted.threads or halves(prepared.shape.loading.threads)
    try:
        _rates(found, prepared, threads[0], wanted.seconds)
        _try_all(found, settings, policies, wanted, threads)
        _rates(found, prepared, threads[0], wanted.seconds)  # once more: the machine may have changed
    except Interrupted:
        found.interrupted = True
        _print(found, settings, prepared, wanted)
        raise
    if not found.figures:
        raise SafeguardError(f"nothing could be measured: {found.left_out[0][1]}")
    _print(found, settings, prepared, wanted)
    return errors.OK


def numbers(option: str, text: str | None, least: int, most: int) -> tuple[int, ...]:
    """Return the numbers of a list such as 1,4,16, each once."""
    try:
        found = tuple(dict.fromkeys(int(part) for part in text.split(","))) if text else ()
    except ValueError:
        found = (0,)
    if any(not least <= number <= most for number in found):
        raise UsageError(f"{option} {text}: give numbers from {least} to {most}, separated by commas")
    return found


def halves(threads: int) -> tuple[int, ...]:
    """Return the thread counts worth trying: all cores, and half of them, since memory may be the limit."""
    return tuple(dict.fromkeys((threads, max(1, threads // 2))))


def busy_cores() -> float:
    """Return how many cores all programs keep busy, over half a second."""
    return psutil.cpu_percent(interval=0.5) / 100 * (psutil.cpu_count() or 1)


def make_work(prepared: Prepared, tokens: int) -> Work:
    """Return texts of `tokens` random ordinary tokens of the model's vocabulary."""
    labeling = prepared.labeling
    most = min(labeling.rules.window)
    if not 1 <= tokens <= most:
        raise UsageError(f"--content {tokens}: from 1 to {most} tokens fit beside the policy and the answer")
    tokenizer = labeling.harmony.tokenizer
    ordinary = np.array([i for i in range(len(tokenizer.tokens)) if i not in tokenizer.control_ids])
    contents = np.random.default_rng(0).choice(ordinary, (SAMPLE, tokens)).tolist()
    groups = range(len(prepared.labeling.rules.prefixes))
    rows = (tuple(Prompt(0, group, 0, labeling.harmony.content_ids(ids)) for group in groups) for ids in contents)
    return Work(tuple(rows), ROWS, tokens)


def read_work(settings: Settings, prepared: Prepared) -> Work:
    """Return a sample of a file's rows, spread evenly over it; rows that cannot be labelled are left out."""
    how: dict[str, Any] = {"format": settings.format, "encoding": settings.encoding}
    how |= {"above": settings.skip_rows or 0, "sheet": settings.sheet}
    labeling, rows, lengths = prepared.labeling, [], []
    with open_source(settings.input, **how) as source:
        if source.path is None:
            raise UsageError("bench reads its input twice, which a pipe does not allow: give it a file")
        total = count_rows(source.path, **how)
        selector = make_selector(source, text_fields=settings.text_fields, template=settings.template)
        if settings.says_its_text:
            say_text(selector, source)
        for record in islice(source, 0, None, -(-total // SAMPLE) or 1):
            answer, groups = labeling.start(record.error or selector.select(record), 0)
            if not answer.done:
                rows.append(tuple(prompt for prompts in groups for prompt in prompts))
                lengths.append(sum(len(prompt.ids) - len(labeling.harmony.suffix) for prompt in groups[0]))
    if not rows:
        raise UsageError(f"{settings.input} has no row that could be labelled")
    return Work(tuple(rows), total, statistics.median_low(lengths))


def _rates(found: Found, prepared: Prepared, threads: int, seconds: float) -> None:
    loading = prepared.shape.loading
    with Probe() as probe, console().status("prompt and generation rate"):
        rates = probe.ask(
            "rates",
            path=str(prepared.header.path),
            seconds=seconds / 2,
            **asdict(replace(loading, threads=threads, follow=False)),
        )
        slow = (
            not found.prompt  # reported once
            and not prepared.shape.memory.video
            and prepared.header.number("attention.value_length") % 128 == 64
            and probe.ask("build")["half_precision"]
        )
    if slow:
        note("llama.cpp was built with AVX512-FP16, where attention is slow: `safeguard doctor` names a faster build")
    found.prompt += rates["prompt"]
    found.generation += rates["generation"]


def _try_all(
    found: Found, settings: Settings, policies: tuple[Policy, ...], wanted: Wanted, threads: Sequence[int]
) -> None:
    def attempt(setting: Setting) -> Figure | None:
        try:
            figure = _try(found, setting, settings, policies, wanted)
        except SafeguardError as error:
            found.left_out.append((setting, str(error).split("\n")[0]))
            return None
        found.figures.append(figure)
        if not settings.quiet:
            note(f"{setting.options}: {figure.rows_per_second:,.2f} rows/s")
        return figure

    sweep(wanted.slots or SLOTS, threads, wanted.batches or BATCHES, attempt)


def _try(found: Found, setting: Setting, settings: Settings, policies: tuple[Policy, ...], wanted: Wanted) -> Figure:
    """Measure a setting. Raise SafeguardError if memory does not suffice, or if it would take too long."""
    if found.figures:
        # Rows decoded together take no longer than one after the other.
        last = found.figures[-1]
        wave = last.wave * max(1.0, setting.slots / last.setting.slots)
        if wave > PATIENCE * wanted.seconds:
            raise SafeguardError(
                f"a row for each slot may take {span(wave)}; --seconds {wave / PATIENCE:.0f} measures this"
            )
    chosen = replace(
        settings, slots=setting.slots, threads=setting.threads, batch=setting.batch, quiet=True, verbose=False
    )
    # Without kept states: the cost of a policy is one of the figures.
    spec = replace(engine_spec(chosen, prepare(chosen, policies, {}, found.work.total)), states=None)
    with console().status(setting.options):
        return measure(spec, found.work.rows, wanted.seconds)


def _print(found: Found, settings: Settings, prepared: Prepared, wanted: Wanted) -> None:
    result = as_json(found, settings, prepared, wanted)
    if wanted.json:
        print_json(result)
    elif found.prompt:
        show(*_lines(found, result))


def as_json(found: Found, settings: Settings, prepared: Prepared, wanted: Wanted) -> dict[str, Any]:
    """Return all figures, in seconds, bytes and tokens."""
    result: dict[str, Any] = {
        "model": {"path": str(prepared.header.path), "bytes": prepared.header.size},
        "policies": [
            {"names": [policy.name for policy in group], "tokens": len(prefix.ids)}
            for group, prefix in zip(prepared.labeling.rules.groups, prepared.labeling.rules.prefixes, strict=True)
        ],
        "effort": settings.effort,
        "most_reasoning": prepared.options.budget,
        "content": {
            "input": settings.input or None,
            "median_tokens": found.work.median,
            "rows_sampled": len(found.work.rows),
        },
        "machine": {
            "cores": psutil.cpu_count(logical=False),
            "busy_cores_before": round(found.busy, 2),
            "repacked": prepared.shape.loading.extra_buffers,
            "kv_type": prepared.shape.loading.cache_type,
            "gpu_layers": prepared.shape.loading.gpu_layers if prepared.shape.memory.video else 0,
            "versions": versions(),
        },
        "interrupted": found.interrupted,
        "settings": [_figure(figure, found.bound) for figure in found.figures],
        "left_out": [{**_setting(setting), "reason": reason} for setting, reason in found.left_out],
    }
    if found.prompt:
        result["prompt_tokens_per_second"] = found.bound
        result["generation_tokens_per_second"] = statistics.median(found.generation)
        result["samples"] = {"prompt": found.prompt, "generation": found.generation}
    if found.figures:
        chosen = best(found.figures)
        rows = found.work.total if wanted.rows is None else wanted.rows
        tokens = tokens_per_row(found.figures)
        result["best"] = {**_figure(chosen, found.bound), "options": chosen.setting.options}
        result["estimate"] = {"rows": rows, "tokens_per_row": tokens, "seconds": chosen.seconds_for(rows, tokens)}
    return result


def _setting(setting: Setting) -> dict[str, int]:
    return {"slots": setting.slots, "threads": setting.threads, "batch": setting.batch}


def _figure(figure: Figure, bound: float) -> dict[str, Any]:
    return {
        **_setting(figure.setting),
        "rows": figure.rounds[0].rows,
        "seconds": figure.seconds,
        "rows_per_second": figure.rows_per_second,
        "rounds": [part.seconds for part in figure.rounds],
        "tokens_per_second": figure.tokens_per_second,
        "generated_per_row": figure.generated,
        "bound_share": figure.tokens_per_second / bound,
        "load_seconds": figure.load,
        "first_row_seconds": figure.first,
        "memory_bytes": figure.memory,
    }


def _lines(found: Found, result: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield the result for people."""
    content = result["content"]
    source = content["input"] or "random texts"
    policies = ", ".join(f"{' and '.join(one['names'])} of {one['tokens']:,} tokens" for one in result["policies"])
    yield facts(f"{result['model']['path']}, {result['model']['bytes'] / 1e6:,.0f} MB; effort {result['effort']}")
    yield facts(f"policy {policies}; {source} of {content['median_tokens']:,} tokens (median)")
    yield facts(
        f"prompt {result['prompt_tokens_per_second']:,.1f} tokens/s,"
        f" generation {result['generation_tokens_per_second']:,.1f} tokens/s in one row"
    )
    if found.figures:
        yield _table(result["settings"])
    for left in result["left_out"]:
        yield facts(f"not measured: slots {left['slots']}, threads {left['threads']}: {left['reason']}", style="yellow")
    if found.interrupted:
        yield facts("interrupted: not everything was measured", style="yellow")
    if chosen := result.get("best"):
        yield facts(f"best: {chosen['options']}", style="bold")
        estimate = result["estimate"]
        rows, tokens = estimate["rows"], estimate["tokens_per_row"]
        at_bound = rows * tokens / result["prompt_tokens_per_second"]
        yield facts(f"{rows:,} such rows take about {span(estimate['seconds'])}, start included")
        yield facts(
            f"({tokens:,.0f} tokens each, answer included; at the prompt's rate they would take {span(at_bound)})"
        )


def _table(settings: Sequence[dict[str, Any]]) -> Figures:
    titles = ("slots", "threads", "batch", "rows/s", "tokens/s", "of the bound", "memory", "load", "first row")
    table = Figures(*titles, left=0)
    for one in settings:
        table.add_row(
            *(f"{one[name]}" for name in ("slots", "threads", "batch")),
            f"{one['rows_per_second']:,.2f}",
            f"{one['tokens_per_second']:,.0f}",
            f"{one['bound_share']:.0%}",
            f"{one['memory_bytes'] / 1e6:,.0f} MB",
            f"{one['load_seconds']:.1f} s",
            f"{one['first_row_seconds']:.1f} s",
        )
    return table

"""`safeguard bench`: measures how fast this machine labels with a model and a policy, and which options are best."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, cast

import numpy as np
import psutil

from safeguard_cli import errors
from safeguard_cli.engine.local.choose import ik_usable
from safeguard_cli.engine.local.plan import BATCH, IK, LLAMA
from safeguard_cli.engine.local.probe import Probe
from safeguard_cli.errors import EngineError, Interrupted, SafeguardError, UsageError
from safeguard_cli.machine.benched import Found, Rates, Work, as_json, engine_of, lines
from safeguard_cli.machine.speed import Figure, Setting, measure, sweep
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Prompt
from safeguard_cli.rows.source import count_rows, open_source
from safeguard_cli.rows.text import make_selector, say_text
from safeguard_cli.run.local_engine import prove_engine
from safeguard_cli.run.prepare import Prepared, engine_spec, load_policies, prepare
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import console, note, print_json, show, span, warn

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


def bench(settings: Settings, wanted: Wanted) -> int:
    """Measure settings one after the other, and print them with the best; without an input, on random texts."""
    policies = load_policies(settings)
    prepared = _prepare(settings, policies)
    work = read_work(settings, prepared[0]) if settings.input else make_work(prepared[0], wanted.content)
    found = Found(work, busy=busy_cores())
    if found.busy >= BUSY:
        warn(f"other programs keep {found.busy:.1f} cores busy: the machine can do more than is measured now")
    threads = wanted.threads or halves(prepared[0].shape.loading.threads)
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


def _prepare(settings: Settings, policies: tuple[Policy, ...]) -> tuple[Prepared, ...]:
    """Return what each engine needs that is measured: the one that is asked for, else all that could decode here."""
    if settings.engine != "auto":
        return (prepare(settings, policies, {}),)
    first = prepare(_with(settings, LLAMA), policies, {})
    if first.shape.memory.video or not ik_usable():
        return (first,)
    prove_engine(settings, first.header)
    return first, prepare(replace(_with(settings, IK), quiet=True, verbose=False), policies, {})


def _with(settings: Settings, engine: str) -> Settings:
    return replace(settings, engine=cast(Any, engine))


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


def _rates(found: Found, prepared: Sequence[Prepared], threads: int, seconds: float) -> None:
    """Measure each engine's own rates. An engine that cannot be measured is left out where there is another."""
    for one in prepared:
        loading = one.shape.loading
        rates = found.rates.setdefault(loading.engine, Rates())
        if rates.failure:
            continue
        with Probe() as probe, console().status(f"prompt and generation rate of {loading.engine}"):
            try:
                measured = probe.ask(
                    "rates",
                    path=str(one.header.path),
                    seconds=seconds / 2,
                    **asdict(replace(loading, threads=threads, follow=False)),
                )
            except EngineError as error:
                if len(prepared) == 1:
                    raise
                rates.failure = str(error).split("\n")[0]
                continue
            slow = (
                not rates.prompt  # reported once
                and loading.engine == LLAMA
                and not one.shape.memory.video
                and one.header.number("attention.value_length") % 128 == 64
                and probe.ask("build")["half_precision"]
            )
        if slow:
            note(
                "llama.cpp was built with AVX512-FP16, where attention is slow: `safeguard doctor` names a faster build"
            )
        rates.prompt += measured["prompt"]
        rates.generation += measured["generation"]
    if not any(rates.prompt for rates in found.rates.values()):
        raise EngineError("; ".join(rates.failure for rates in found.rates.values()))


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

    engines = [name for name, rates in found.rates.items() if not rates.failure]
    if len(found.rates) == 1 and settings.engine == "auto":
        engines = [""]  # there is none to choose
    sweep(wanted.slots or SLOTS, threads, wanted.batches or BATCHES, attempt, engines)


def _try(found: Found, setting: Setting, settings: Settings, policies: tuple[Policy, ...], wanted: Wanted) -> Figure:
    """Measure a setting. Raise SafeguardError if memory does not suffice, or if it would take too long."""
    if earlier := [figure for figure in found.figures if figure.setting.engine == setting.engine]:
        # Rows decoded together take no longer than one after the other.
        last = earlier[-1]
        wave = last.wave * max(1.0, setting.slots / last.setting.slots)
        if wave > PATIENCE * wanted.seconds:
            raise SafeguardError(
                f"a row for each slot may take {span(wave)}; --seconds {wave / PATIENCE:.0f} measures this"
            )
    chosen = replace(
        _with(settings, engine_of(setting)),
        slots=setting.slots,
        threads=setting.threads,
        batch=setting.batch,
        quiet=True,
        verbose=False,
    )
    # Without kept states: the cost of a policy is one of the figures.
    spec = replace(engine_spec(chosen, prepare(chosen, policies, {}, found.work.total)), states=None)
    with console().status(setting.options):
        return measure(spec, found.work.rows, wanted.seconds, setting.engine)


def _print(found: Found, settings: Settings, prepared: Sequence[Prepared], wanted: Wanted) -> None:
    result = as_json(found, settings, prepared, wanted.rows)
    if wanted.json:
        print_json(result)
    elif any(rates.prompt for rates in found.rates.values()):
        show(*lines(found, result))

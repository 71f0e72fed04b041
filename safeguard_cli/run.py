"""One labeling run, from Records to a finished output."""

from __future__ import annotations

import statistics
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, TypedDict

from safeguard_cli import errors, hardware
from safeguard_cli.content import Selector, make_selector
from safeguard_cli.engine.decoding import Options, Trie, overhead
from safeguard_cli.engine.process import Engine, EngineSpec
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.gguf_file import Header
from safeguard_cli.labeling import Labeling, Row, Rules
from safeguard_cli.models import DEMO, DEMO_NOTICE, find_model, open_model
from safeguard_cli.outputs import (
    Sink,
    check_names,
    check_output,
    default_output,
    open_sink,
    output_format,
    verdict_columns,
)
from safeguard_cli.policy import Policy, load_policy
from safeguard_cli.progress import Kind, Progress, make_progress
from safeguard_cli.prompt import Feed, Harmony, Prompt
from safeguard_cli.records import MAX_ROW_BYTES, Record, Source, count_rows, open_source
from safeguard_cli.terminal import note, safe, warn
from safeguard_cli.tokenizer import Tokenizer

BUDGETS = {"none": 0, "low": 256, "medium": 1024, "high": 4096}  # the most reasoning tokens by effort
WAITING = 8  # rows that may wait, for each slot, for an earlier one to finish
COUNTABLE_BYTES = 256 << 20  # larger files are not read twice only to know their number of rows


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `safeguard label` was asked for; the names are the options'."""

    input: str
    policies: tuple[str, ...]
    output: str | None = None
    overwrite: bool = False
    format: str | None = None
    encoding: str = "utf-8"
    text_fields: tuple[str, ...] = ()
    template: str | None = None
    id_field: str | None = None
    keep: str | None = None
    only: str | None = None
    rename: str | None = None
    labels: tuple[str, ...] = ()
    violates: tuple[str, ...] = ()
    threshold: float | None = None
    effort: str = "low"
    rationale: bool = False
    reasoning: bool = False
    max_reasoning: int | None = None
    policy_only_prompt: bool = False
    temperature: float = 0.0
    seed: int = 0
    limit: int | None = None
    long: str = "split"
    max_windows: int = 16
    max_row_bytes: int = MAX_ROW_BYTES
    csv_safe: bool = False
    model: str | None = None
    threads: int | None = None
    gpu_layers: int = -1
    context: int | None = None
    slots: int | None = None
    progress: Kind = "auto"
    quiet: bool = False
    verbose: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model file's vocabulary with the prefixes of the policies, and the shape that fits this machine."""

    header: Header
    labeling: Labeling
    options: Options
    shape: hardware.Shape
    overheads: tuple[int, ...]


def label(settings: Settings) -> int:
    """Run `safeguard label`. Returns the exit code; raises SafeguardError with a sentence for the user."""
    policies = _policies(settings)
    with ExitStack() as stack:
        source = stack.enter_context(
            open_source(
                settings.input,
                format=settings.format,
                encoding=settings.encoding,
                max_row_bytes=settings.max_row_bytes,
            )
        )
        selector = make_selector(source, text_fields=settings.text_fields, template=settings.template)
        target = _target(settings, source)
        output = _output(settings, source, target, policies)
        prepared = prepare(settings, policies)
        if settings.dry_run:
            return _dry_run(settings, prepared, source, selector)
        total = None if settings.quiet else _total(settings, source)
        progress = make_progress(settings.progress, policies, total, quiet=settings.quiet)
        with _engine(settings, prepared) as engine, stack:
            sink = stack.enter_context(open_sink(target, source=source, **output))
            with progress:
                truncated = _run(settings, prepared, source, selector, engine, sink, progress)
            progress.finish()
    if truncated:
        warn(f"{truncated:,} rows were longer than --ctx allows and were labelled by their beginning")
    return errors.ROWS_IN_ERROR if progress.rows_in_error else errors.OK


def _policies(settings: Settings) -> tuple[Policy, ...]:
    several = len(settings.policies) > 1
    for option, value in (
        ("--labels", settings.labels),
        ("--violates", settings.violates),
        ("--as", settings.rename),
        ("--threshold", settings.threshold),
    ):
        if several and value not in (None, ()):
            raise UsageError(f"{option} cannot be used with several policies: write it into each policy's front matter")
    policies = tuple(
        load_policy(name, labels=settings.labels, violates=settings.violates, rename=settings.rename)
        for name in settings.policies
    )
    names = [policy.name for policy in policies]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two policies are named {twice!r}; change `name:` in one's front matter")
    for policy in policies:
        for warning in policy.warnings():
            warn(warning)
    return policies


def prepare(settings: Settings, policies: tuple[Policy, ...]) -> Prepared:
    """Everything that can be known from the model file's header alone, before its weights are loaded."""
    path = find_model(settings.model)
    header = open_model(path)
    if settings.model == DEMO and not settings.quiet:
        note(DEMO_NOTICE)
    harmony = Harmony(Tokenizer.from_header(header))
    prefixes = tuple(
        harmony.prefix(policy, settings.effort, rationale=settings.rationale, policy_only=settings.policy_only_prompt)
        for policy in policies
    )
    budget = BUDGETS[settings.effort]
    if settings.max_reasoning is not None and settings.effort != "none":
        budget = settings.max_reasoning
    kinds = harmony.tokenizer.string_kinds if settings.rationale else None
    options = Options(budget, kinds, settings.temperature, settings.seed)
    overheads = tuple(overhead(Trie(prefix.contract), options) + len(harmony.suffix) for prefix in prefixes)
    amx = hardware.has_amx()
    shape = hardware.shape_run(
        header,
        [len(prefix.ids) for prefix in prefixes],
        overheads,
        context=settings.context,
        slots=settings.slots,
        threads=settings.threads,
        amx=amx,
    )
    if settings.verbose:
        if amx:
            note("this CPU has AMX, where repacked weights crash llama.cpp: they are not repacked")
        note(_shape_text(shape))
    window = tuple(shape.context - len(prefix.ids) - extra for prefix, extra in zip(prefixes, overheads, strict=True))
    rules = Rules(
        policies,
        prefixes,
        window,
        settings.effort,
        settings.long,
        settings.max_windows,
        settings.threshold,
        settings.reasoning,
    )
    return Prepared(header, Labeling(harmony, rules), options, shape, overheads)


def _shape_text(shape: hardware.Shape) -> str:
    memory = shape.memory
    return (
        f"{shape.plan.slots} slots, {shape.plan.cells:,} cells, {shape.threads} threads; about"
        f" {memory.total / 1e6:,.0f} MB of memory ({memory.weights / 1e6:,.0f} weights,"
        f" {memory.cache / 1e6:,.0f} cache, {memory.compute / 1e6:,.0f} compute)"
    )


def _engine(settings: Settings, prepared: Prepared) -> Engine:
    shape, rules = prepared.shape, prepared.labeling.rules
    spec = EngineSpec(
        prepared.header.path,
        rules.prefixes,
        prepared.options,
        shape.plan,
        shape.threads,
        settings.gpu_layers,
        shape.extra_buffers,
        settings.verbose,
    )
    return Engine(spec, note)


def _target(settings: Settings, source: Source) -> Path | BinaryIO:
    """Where the output goes; refused before anything is loaded when it exists or cannot be."""
    if settings.output == "-" or (settings.output is None and not sys.stdout.isatty()):
        return sys.stdout.buffer
    path = Path(settings.output) if settings.output else default_output(source)
    check_output(path, source)
    if path.exists() and path.stat().st_size and not settings.overwrite and not settings.dry_run:
        raise OutputExists(f"{path} exists already and is left as it is; --overwrite replaces it")
    if not settings.output and not settings.quiet:
        note(f"writing to {path}")
    return path


class OutputExists(SafeguardError):
    """The output holds something, which is never overwritten unasked."""

    exit_code = errors.RESUME_REFUSED


class _Output(TypedDict):
    format: Literal["jsonl", "csv"]
    names: list[str]
    columns: tuple[str, ...]
    keep: list[str] | None
    only_violating: bool
    csv_safe: bool


def _output(settings: Settings, source: Source, target: Path | BinaryIO, policies: Sequence[Policy]) -> _Output:
    """What the output holds, checked against the input's fields before anything is loaded."""
    format = output_format(target if isinstance(target, Path) else None, source.format)
    names = [policy.name for policy in policies]
    columns = verdict_columns(
        windows=settings.long == "split",
        truncated=settings.long == "truncate",
        rationale=settings.rationale,
        reasoning=settings.reasoning,
    )
    keep = None
    if settings.keep is not None:
        fields = [] if settings.keep == "none" else [name.strip() for name in settings.keep.split(",")]
        keep = [settings.id_field, *fields] if settings.id_field is not None else fields
    check_names(source, format, names, columns, keep)
    return _Output(
        format=format,
        names=names,
        columns=columns,
        keep=keep,
        only_violating=settings.only is not None,
        csv_safe=settings.csv_safe,
    )


def _total(settings: Settings, source: Source) -> int | None:
    """The number of rows to come, where it can be known without holding up the run."""
    if source.path is None or (source.total_bytes or 0) > COUNTABLE_BYTES:
        return settings.limit
    rows = count_rows(
        source.path, format=settings.format, encoding=settings.encoding, max_row_bytes=settings.max_row_bytes
    )
    return rows if settings.limit is None else min(rows, settings.limit)


def _run(
    settings: Settings,
    prepared: Prepared,
    source: Source,
    selector: Selector,
    engine: Engine,
    sink: Sink,
    progress: Progress,
) -> int:
    """Label all rows: they enter in order, are decided as slots allow, and leave in order.

    Returns how many were truncated.
    """
    labeling, plan = prepared.labeling, prepared.shape.plan
    most = WAITING * plan.slots
    rows: deque[Row] = deque()  # in input order, the first not yet written
    first = truncated = 0  # `first` is the number of rows[0]

    def write_done() -> None:
        nonlocal first, truncated
        while rows and rows[0].done:
            row = rows.popleft()
            first += 1
            truncated += bool(row.truncated)
            sink.write(row.record, row.verdicts)
            progress.row(row.verdicts)

    broken: list[SafeguardError] = []

    def readable(records: Iterable[Record]) -> Iterator[Record]:
        """The records up to where the input breaks off: rows in flight are finished before that is said."""
        try:
            yield from records
        except SafeguardError as error:
            broken.append(error)

    def prompts() -> Iterator[Prompt | Feed]:
        group = most // 2 if _prefixes_compete(prepared) else 1
        records = readable(source if settings.limit is None else islice(source, settings.limit))
        number = 0
        while batch := list(islice(records, group)):
            # Rows that wait for an earlier one are bounded: then something has to finish first.
            while len(rows) + len(batch) > most:
                yield Feed.HOLD
            started = []
            for record in batch:
                text = record.error or selector.select(record)
                row, by_policy = labeling.start(record, text, number)
                rows.append(row)
                started.append(by_policy)
                number += 1
            write_done()
            # One row under all its policies, then the next; whole groups by policy when not all prefixes fit at once.
            for index in range(len(labeling.rules.policies)):
                for by_policy in started:
                    yield from by_policy[index]

    for completion in engine.complete(prompts()):
        row = rows[completion.prompt.row - first]
        labeling.finish(row, completion)
        progress.tokens(len(completion.prompt.ids), completion.generated)
        write_done()
    write_done()
    if broken:
        raise broken[0]
    return truncated


def _prefixes_compete(prepared: Prepared) -> bool:
    """Whether the cache cannot hold all policies beside the largest row."""
    prefixes = [len(prefix.ids) for prefix in prepared.labeling.rules.prefixes]
    return sum(prefixes) - min(prefixes) + prepared.shape.context > prepared.shape.plan.cells


def _dry_run(settings: Settings, prepared: Prepared, source: Source, selector: Selector) -> int:
    """Print what a run would do, from the vocabulary alone."""
    labeling, shape = prepared.labeling, prepared.shape
    rules, tokenizer = labeling.rules, labeling.harmony.tokenizer
    lengths: Counter[int] = Counter()
    found: Counter[str] = Counter()
    split_rows = 0
    shown: str | None = None
    for number, record in enumerate(source if settings.limit is None else islice(source, settings.limit)):
        text = record.error or selector.select(record)
        row, prompts = labeling.start(record, text, number)
        if row.done:
            found.update({v.error.code for v in row.verdicts.values() if v.error})
            continue
        split_rows += any(len(windows) > 1 for windows in prompts)
        first = next(windows[0] for windows in prompts if windows)
        if isinstance(text, str):
            lengths[len(tokenizer.encode(text))] += 1
        if shown is None:
            shown = labeling.harmony.readable((*rules.prefixes[first.policy].ids, *first.ids))
    lines = [f"rows            {lengths.total():,}" + "".join(f", {n:,} {code}" for code, n in found.most_common())]
    for policy, prefix in zip(rules.policies, rules.prefixes, strict=True):
        lines.append(f"policy          {policy.name}: {len(prefix.ids):,} tokens, prompt around it included")
    if lengths:
        lines.append(
            f"content tokens  {_median(lengths):,} median, {max(lengths):,} longest; {split_rows:,} rows split"
        )
    lines += [f"run             {_shape_text(shape)}", "", "first prompt:", shown or "(none)"]
    print(safe("\n".join(lines), keep_newlines=True))
    return errors.ROWS_IN_ERROR if found else errors.OK


def _median(lengths: Counter[int]) -> int:
    return statistics.median_low(lengths.elements())

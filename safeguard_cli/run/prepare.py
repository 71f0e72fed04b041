"""What a run needs before it starts: its input, its policies, the model's vocabulary, and the run's shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from safeguard_cli.address import Address, read_addresses
from safeguard_cli.engine.decoding import Options, Trie, overhead, undivided
from safeguard_cli.engine.local import fit
from safeguard_cli.engine.local.plan import LLAMA, Device, Loading, Memory, Plan, Shape
from safeguard_cli.engine.local.prefix_store import STATES
from safeguard_cli.engine.local.probe import check_loadable, devices, newer_type
from safeguard_cli.engine.local.process import EngineSpec
from safeguard_cli.engine.servers.connect import Connected, connect
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.model import kept
from safeguard_cli.model.config import configured_model
from safeguard_cli.model.find import find_model, open_model
from safeguard_cli.model.fingerprint import model_fingerprint, model_key
from safeguard_cli.model.gguf import Header
from safeguard_cli.model.names import DEMO
from safeguard_cli.model.tokenizer import Tokenizer
from safeguard_cli.output.manifest import Manifest
from safeguard_cli.policy.packs import expand
from safeguard_cli.policy.policy import Policy, load_policy
from safeguard_cli.prompt.contract import Prefix
from safeguard_cli.prompt.harmony import Harmony
from safeguard_cli.prompt.labeling import Labeling, Rules
from safeguard_cli.rows.joined import Joined
from safeguard_cli.rows.source import Source, open_source, row_counts
from safeguard_cli.run.local_engine import Chosen, choose_engine
from safeguard_cli.run.remarks import introduce_demo, untrained
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import note, warn

COPIES = 32  # rows under way, for each of which WAITING may wait, where all verdicts are copied
DRAIN = 16  # with --deterministic: rows for each slot between two drains of the slots
BUDGETS = {"none": 0, "auto": 256, "low": 256, "medium": 1024, "high": 4096}  # the most reasoning tokens by effort


@dataclass(frozen=True, slots=True)
class Prepared:
    """A vocabulary with the prefixes of the policies, and the shape that fits this machine.

    `local` is the header of the model file that this machine runs; `remote` are the servers that run it instead.
    `untrained` are the policies under which the labels mean nothing, because the demo model was not trained on them.
    Without a model, `copied` is the run whose verdicts stand for it. `calibration` is the hash of the file whose curves
    the rules have. `proved` tells whether the engine computes what llama.cpp does, None where that is not known.
    """

    local: Header | None
    labeling: Labeling
    options: Options
    shape: Shape
    overheads: tuple[int, ...]
    drain: int | None  # with --deterministic: the slots are drained every so many rows
    remote: Connected | None = None
    untrained: tuple[str, ...] = ()
    copied: Manifest | None = None
    calibration: str = ""
    proved: bool | None = True

    @property
    def prefixes_compete(self) -> bool:
        """Return whether the cache is too small for all policies' prefixes beside the largest row."""
        prefixes = [len(prefix.ids) for prefix in self.labeling.rules.prefixes]
        return sum(prefixes) - min(prefixes) + self.shape.context > self.shape.plan.cells

    @property
    def header(self) -> Header:
        """Return the header of the model file; a run on servers or without a model has none."""
        assert self.local is not None
        return self.local


def open_input(settings: Settings, stream: BinaryIO | None = None) -> Source:
    """Open the input that these settings name, or `stream` in its place."""

    def opened(file: str | BinaryIO) -> Source:
        return open_source(
            file,
            format=settings.format,
            encoding=settings.encoding,
            max_row_bytes=settings.max_row_bytes,
            shard=settings.shard,
            above=settings.skip_rows or 0,
            sheet=settings.sheet,
        )

    if settings.joined:
        return Joined(settings.joined, Path(settings.input), opened, settings.max_row_bytes)
    return opened(stream or settings.input)


def input_counts(settings: Settings) -> Iterator[int]:
    """Yield how many rows have been counted so far of the input that these settings name, a file or several."""
    if settings.joined:
        yield sum(rows for *_, rows in settings.joined)
        return
    yield from row_counts(
        Path(settings.input),
        format=settings.format,
        encoding=settings.encoding,
        max_row_bytes=settings.max_row_bytes,
        shard=settings.shard,
        above=settings.skip_rows or 0,
        sheet=settings.sheet,
    )


def load_policies(settings: Settings) -> tuple[Policy, ...]:
    asked = expand(settings.policies)
    several = len(asked) > 1
    for option, value in (
        ("--labels", settings.labels),
        ("--violates", settings.violates),
        ("--as", settings.rename),
        ("--threshold", settings.threshold),
    ):
        if several and value not in (None, ()):
            raise UsageError(f"{option} cannot be used with several policies: write it into each policy's front matter")
    policies = tuple(
        load_policy(name, labels=settings.labels, violates=settings.violates, rename=settings.rename) for name in asked
    )
    if settings.together and settings.policy_only_prompt:
        raise UsageError("--together needs the response format that --policy-only-prompt leaves out")
    if settings.together and settings.effort == "auto":
        raise UsageError("--effort auto decides about one policy at a time: leave --together out, or choose an effort")
    names = [policy.name for policy in policies]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two policies are named {twice!r}; change `name:` in one's front matter")
    for policy in policies:
        for warning in policy.warnings():
            warn(warning)
    return policies


def prepare(
    settings: Settings,
    policies: tuple[Policy, ...],
    before: Mapping[str, Any],
    rows: int | None = None,
    copied: Manifest | None = None,
) -> Prepared:
    """Return all that can be known from the model file's header alone, before its weights are loaded.

    `before` is what an earlier session of the run recorded of its machine; it is kept unless the settings say
    otherwise. `rows` is the number of rows to come, None if it is large or unknown. `copied` is an earlier run that has
    all verdicts: nothing is asked for, and no model is needed.
    """
    _check_votes(settings)
    addresses = read_addresses(settings.servers)
    header, tokenizer = _demo_vocabulary() if copied else _vocabulary(settings)
    harmony = Harmony(tokenizer)
    remote = _connect(settings, addresses, harmony) if addresses else None
    together = settings.together and len(policies) > 1
    if together:
        prefixes: tuple[Prefix, ...] = (
            harmony.prefix_together(policies, settings.effort, rationale=settings.rationale),
        )
    else:
        prefixes = tuple(
            harmony.prefix(
                policy, settings.effort, rationale=settings.rationale, policy_only=settings.policy_only_prompt
            )
            for policy in policies
        )
    budget = BUDGETS[settings.effort]
    if settings.max_reasoning is not None and settings.effort != "none":
        budget = settings.max_reasoning
    kinds = harmony.tokenizer.string_kinds if settings.rationale else None
    sure = settings.sure if settings.effort == "auto" else None
    votes = settings.votes if budget else None
    options = Options(budget, kinds, settings.sampled_at, settings.seed, sure, votes, settings.until_decided)
    tries = [Trie(prefix.contract) for prefix in prefixes]
    overheads = tuple(overhead(trie, options) + len(harmony.suffix) for trie in tries)
    sizes = [len(prefix.ids) for prefix in prefixes]
    gpus = () if remote or copied else _gpus(settings)
    chosen = Chosen(LLAMA)
    try:
        if copied:
            context = settings.context or copied.identity.answer.ctx
            shape = Shape(Plan(COPIES, sum(sizes) + context), context, Loading(threads=0), Memory(0, 0, 0))
        elif remote:
            shape = fit.shape_remote(sizes, overheads, settings.context, remote.context)
        else:
            assert header
            chosen = choose_engine(settings, header, before, rows, gpus)
            shape = _shape(settings, header, sizes, overheads, before, rows, gpus, chosen.engine)
    except UsageError as error:  # the context is too small, perhaps for one policy of several
        name = "all policies" if together else f"policy {policies[sizes.index(max(sizes))].name}"
        raise UsageError(f"{name}, {max(sizes):,} tokens with the prompt around it: {error}") from None
    if not (remote or copied) and shape.plan.batch < (least := max(undivided(trie, options) for trie in tries)):
        raise UsageError(f"--batch {shape.plan.batch} is less than the labels' tokens: use at least {least}")
    if settings.verbose:
        note(shape_text(shape))
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
        together,
        settings.rationale,
        settings.until_decided,
    )
    drain = DRAIN * shape.plan.slots if settings.deterministic else None
    unknown = untrained(policies, header) if header and not remote else ()
    if copied:
        unknown = copied.result.untrained if copied.result else ()
    local = None if remote or copied else header
    return Prepared(
        local,
        Labeling(harmony, rules),
        options,
        shape,
        overheads,
        drain,
        remote,
        unknown,
        copied,
        proved=chosen.proved,
    )


def _check_votes(settings: Settings) -> None:
    """Raise UsageError for votes that could be a tie, or would all be the same."""
    if settings.votes and settings.votes % 2 == 0:
        raise UsageError(
            f"--votes {settings.votes} could end in a tie: use {settings.votes - 1} or {settings.votes + 1}"
        )
    if settings.votes and not settings.sampled_at:
        raise UsageError(
            "--votes samples reasoning, and at --temperature 0 all votes are the same: leave --temperature out"
        )


def _vocabulary(settings: Settings) -> tuple[Header | None, Tokenizer]:
    """Return the vocabulary that prompts are made with, and the model file's header if it comes from one."""
    if settings.tokenizer is not None:
        if not settings.servers:
            raise UsageError("--tokenizer is for --server; a model file has its own tokenizer")
        return None, Tokenizer.from_file(Path(settings.tokenizer))
    if settings.server_api == "chat":  # the server does not see our tokens: they only measure texts
        return _demo_vocabulary()
    name = settings.model or configured_model()
    try:
        header = open_usable(find_model(name))
    except SafeguardError as error:
        if not settings.servers or settings.model:
            raise
        raise UsageError(
            f"--server needs the model's vocabulary: --tokenizer tokenizer.json or --model ({error})"
        ) from None
    if name == DEMO and not settings.quiet:
        introduce_demo()
    if not settings.servers:
        check_loadable(header.path, model_key(header.path))
    return header, Tokenizer.from_header(header)


def open_usable(path: Path) -> Header:
    """Read and check a model file's header; llama.cpp is asked about what is newer than this program."""
    return open_model(path, newer_type)


def _demo_vocabulary() -> tuple[Header, Tokenizer]:
    """Return the demo model's vocabulary, where no model reads the tokens."""
    header = open_model(find_model(DEMO))
    return header, Tokenizer.from_header(header)


def _connect(settings: Settings, addresses: Sequence[Address], harmony: Harmony) -> Connected:
    if settings.deterministic:
        raise UsageError(
            "--deterministic cannot be kept with --server: what a server decodes together is its own choice"
        )
    if settings.server_api == "chat" and (settings.effort in ("none", "auto") or settings.together):
        raise UsageError("--server-api chat can do neither --effort none or auto nor --together: they need token ids")
    if settings.server_api == "chat" and settings.votes:
        raise UsageError(
            "--server-api chat can do no --votes: such a server may leave temperature and seed unheeded, and the votes"
            " would all be the same"
        )
    return connect(addresses, settings.server_model, harmony.tokenizer, settings.server_api)


def _gpus(settings: Settings) -> tuple[Device, ...]:
    """Return the GPUs of this machine; raise UsageError if an option needs one and there is none."""
    found = devices()
    for option, value in (("--gpu-layers", max(0, settings.gpu_layers)), ("--cpu-moe", settings.cpu_moe)):
        if value and not found:
            raise UsageError(f"{option} has no effect: llama.cpp finds no GPU here; see safeguard doctor")
    return found


def _shape(
    settings: Settings,
    header: Header,
    prefixes: Sequence[int],
    overheads: Sequence[int],
    before: Mapping[str, Any],
    rows: int | None,
    gpus: Sequence[Device],
    engine: str,
) -> Shape:
    """Return the shape that fits this machine."""
    return fit.shape_run(
        header,
        prefixes,
        overheads,
        context=settings.context,
        slots=settings.slots or before.get("slots"),
        threads=settings.threads or before.get("threads"),
        cells=before.get("cells"),
        batch=settings.batch or before.get("batch"),
        gpu_layers=settings.gpu_layers,
        cpu_moe=settings.cpu_moe,
        cache_type=settings.kv_type,
        devices=gpus if engine == LLAMA else (),
        repack=settings.repack if settings.repack is not None else before.get("extra_buffers"),
        rows=rows,
        reasoning=settings.effort not in ("none", "auto"),
        votes=bool(settings.votes),
        engine=engine,
        follow=settings.threads is None,
    )


def engine_spec(settings: Settings, prepared: Prepared) -> EngineSpec:
    """Return the spec that a run's engine is started with."""
    shape, rules = prepared.shape, prepared.labeling.rules
    return EngineSpec(
        prepared.header.path,
        rules.prefixes,
        prepared.options,
        shape.plan,
        shape.loading,
        str(model_fingerprint(prepared.header.path)),
        kept.private_folder(STATES, make=True),
        settings.verbose,
    )


def shape_text(shape: Shape) -> str:
    if not shape.loading.threads:
        return f"on servers, at most {shape.context:,} tokens a row"
    memory = shape.memory
    text = (
        f"{shape.plan.slots} slots, {shape.plan.cells:,} cells, {shape.loading.threads} threads; about"
        f" {memory.total / 1e6:,.0f} MB of memory ({memory.weights / 1e6:,.0f} weights,"
        f" {memory.cache / 1e6:,.0f} cache, {memory.compute / 1e6:,.0f} compute, {memory.program / 1e6:,.0f} program)"
    )
    if shape.loading.engine != LLAMA:
        text += "; ik_llama.cpp"
    if shape.loading.cache_type != "f16":
        text += f"; cache {shape.loading.cache_type}"
    if memory.video:
        text += f"; {shape.loading.gpu_layers} layers on the GPU with {memory.video / 1e6:,.0f} MB"
    if shape.loading.cpu_moe:
        text += f"; experts of {shape.loading.cpu_moe} layers on the CPU"
    return text

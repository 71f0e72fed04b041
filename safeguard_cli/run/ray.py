"""`safeguard label --ray`: label many files on the nodes of a Ray cluster, one engine on each node.

The unit of work is a whole durable run, one file in and one file out. What is promised on one machine holds here, and
when a worker dies, another resumes its block. Ray Data's operators would hand rows out as Arrow tables and write files
of their own. That would lose the rows' bytes, their order, and the means to resume. Of Ray, actors are all we need.
"""

from __future__ import annotations

import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from safeguard_cli import errors
from safeguard_cli.address import no_secrets_for_children, read_addresses
from safeguard_cli.engine.engine import Engine
from safeguard_cli.engine.local.process import EngineSpec, LocalEngine
from safeguard_cli.engine.reports import Listen
from safeguard_cli.errors import EngineError, SafeguardError, UsageError
from safeguard_cli.model.config import configured_model
from safeguard_cli.output.manifest import Locked, Manifest, load, manifest_path
from safeguard_cli.policy.policy import Policy
from safeguard_cli.run import prepare
from safeguard_cli.run.calibration import calibrated
from safeguard_cli.run.engines import EngineMaker
from safeguard_cli.run.files import find_pairs
from safeguard_cli.run.label import label
from safeguard_cli.run.local_engine import first_engine
from safeguard_cli.run.prepare import Prepared, load_policies
from safeguard_cli.run.settings import Settings
from safeguard_cli.signals import UNBROKEN
from safeguard_cli.terminal import note, warn

MOST_DEATHS = 3  # of a file's workers before it is given up, and of a node's before it is no longer used
LOCK_SECONDS = 60.0  # how long a worker that is gone may still hold its output's lock
CONNECT_SECONDS = 10.0
POLL_SECONDS = 1.0  # between two checks of which nodes there are


@dataclass(frozen=True, slots=True)
class Block:
    """One input file and its output."""

    input: Path
    output: Path


@dataclass(frozen=True, slots=True)
class Done:
    """How a block's run ended: with its manifest, or with the sentence of its error."""

    exit_code: int
    manifest: Manifest | None = None
    error: str = ""


def label_on_ray(settings: Settings, address: str, make_engine: EngineMaker = LocalEngine) -> int:
    """Label each file that the inputs mean into the folder `settings.output`, and return the exit code.

    `address` is the cluster's. If it is empty, the cluster is the one that RAY_ADDRESS names or that runs here, else a
    new one on this machine. Raise SafeguardError with a sentence for the user.
    """
    try:
        import ray
    except ImportError:
        raise errors.missing_extra("--ray needs ray", "ray") from None
    blocks = find_blocks(settings)
    load_policies(settings)  # so that errors and warnings about them are reported once, and at once
    ours = not ray.is_initialized()
    try:
        if ours:
            with nullcontext() if settings.servers else no_secrets_for_children():
                _start(ray, address, settings.verbose)
        crew = _Crew(ray, _everywhere(settings), blocks, make_engine)
        try:
            crew.work()
        except errors.Interrupted:
            note(f"{len(crew.done):,} of {len(blocks):,} files are labelled; run the same command to label the others")
            raise
        finally:
            with UNBROKEN:
                crew.dismiss()
    finally:
        if ours:
            ray.shutdown()
    return _summary(crew, settings)


def _start(ray: Any, address: str, verbose: bool) -> None:
    host, colon, port = address.rpartition(":")
    if colon and "/" not in address:
        try:  # Ray itself would keep trying for more than two minutes
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except (OSError, ValueError, OverflowError) as problem:
            raise SafeguardError(f"no Ray cluster answers at {address}: {problem}") from None
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with UNBROKEN:
            ray.init(address=address or None, logging_level="error", log_to_driver=verbose)
            signal.signal(signal.SIGTERM, handler)  # Ray installs its own handler
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise SafeguardError(f"Ray cannot be reached: {problem}") from None


def find_blocks(settings: Settings) -> list[Block]:
    """Return the files that the inputs mean, largest first, each with its output in the output's folder."""
    for option, given in (
        ("--limit", settings.limit is not None),
        ("--shard", settings.shard != (1, 1)),
        ("--dry-run", settings.dry_run),
        ("--reuse", settings.reuse),
        ("--group", settings.group is not None),
    ):
        if given:
            raise UsageError(f"{option} is for one file, but --ray labels many")
    if any(address.secret for address in read_addresses(settings.servers)):
        raise UsageError(
            "Ray records the command line: with --ray, the URL of --server can hold no user, password or query;"
            " set SAFEGUARD_SERVER_KEY instead"
        )
    if settings.output in (None, "-"):
        raise UsageError("--ray writes a file for each input file: name a folder with -o DIR")
    everywhere = replace(settings, output=str(Path(str(settings.output)).absolute()))
    blocks = [Block(pair.input, pair.output) for pair in find_pairs(everywhere)]
    return sorted(blocks, key=lambda block: (-block.input.stat().st_size, block.input))


class Worker:
    """A Ray actor that labels one block after another on its node, and keeps its engine in between."""

    def __init__(self, settings: Settings, make_engine: EngineMaker) -> None:
        self._settings, self._make_engine = settings, make_engine
        self._engine: Engine | None = None
        self._prepared: dict[tuple[Any, ...], Prepared] = {}

    def ready(self, block: Block) -> str:
        """Return why this node cannot be used, empty if it can."""
        try:
            if not block.input.exists():
                raise UsageError(f"there is no {block.input}: the files must be where every node sees them")
            block.output.parent.mkdir(parents=True, exist_ok=True)
            calibrated(self._settings, self._prepare(self._settings, load_policies(self._settings), {}))
        except (SafeguardError, OSError) as problem:
            return str(problem)
        return ""

    def label(self, block: Block) -> Done:
        """Label a block in a durable run, or resume one."""
        settings = replace(self._settings, inputs=(), input=str(block.input), output=str(block.output))
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                block.output.parent.mkdir(parents=True, exist_ok=True)
                return Done(label(settings, self._engine_for, self._prepare), load(manifest_path(block.output)))
            except Locked as problem:
                if time.monotonic() > until:
                    return Done(problem.exit_code, error=str(problem))
                time.sleep(POLL_SECONDS)
            except EngineError:
                raise  # the next worker may be on a better node
            except (SafeguardError, OSError) as problem:
                return Done(getattr(problem, "exit_code", errors.FATAL), error=str(problem))

    def _prepare(
        self, settings: Settings, policies: tuple[Policy, ...], before: Mapping[str, Any], _rows: int | None = None
    ) -> Prepared:
        """Return what `prepare` does, prepared once: planned again, a loaded engine's memory would count as taken.

        A block that is resumed keeps the library that began it; of all else only a deterministic run does.
        """
        key = tuple(sorted((name, str(value)) for name, value in before.items())) if settings.deterministic else ()
        made = self._prepared.get(key)
        if made is None or (before and made.shape.loading.engine != first_engine(before)):
            self._drop()
            kept = before if settings.deterministic or not before else {"engine": before.get("engine")}
            made = prepare.prepare(settings, policies, kept)
            self._prepared = {key: made}
        return made

    def _engine_for(self, spec: EngineSpec, log: Callable[[str], None], _report: Listen | None = None) -> Any:
        if self._engine is None:
            self._engine = self._make_engine(spec, log).__enter__()
        return _Lent(self._engine, self._drop)

    def _drop(self) -> None:
        if self._engine is not None:
            self._engine.__exit__(None, None, None)
            self._engine = None


class _Lent:
    """An engine lent to one run, which stays loaded afterwards unless the run breaks off.

    Its counts begin with the run.
    """

    def __init__(self, engine: Engine, drop: Callable[[], None]) -> None:
        self._engine, self._drop = engine, drop
        self._before = engine.deaths, engine.policy_tokens
        self.complete = engine.complete

    def __enter__(self) -> _Lent:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._drop()

    @property
    def deaths(self) -> int:
        return self._engine.deaths - self._before[0]

    @property
    def policy_tokens(self) -> int:
        return self._engine.policy_tokens - self._before[1]


class _Crew:
    """The workers, one on each live node, and their tasks; `done` and `failed` are by block."""

    def __init__(self, ray: Any, settings: Settings, blocks: Sequence[Block], make_engine: EngineMaker) -> None:
        self.done: dict[Block, Manifest] = {}
        self.failed: dict[Block, Done] = {}
        self._ray, self._settings, self._make_engine = ray, settings, make_engine
        self._blocks = blocks
        self._todo = deque(blocks)
        self._workers: dict[str, Any] = {}  # by node
        self._tasks: dict[Any, tuple[str, Block | None]] = {}  # a node's task: a block, or None to get ready
        self._deaths: Counter[Block | str] = Counter()  # of workers, by block and by node
        self._reason = ""

    def work(self) -> None:
        """Work until every block is done or has failed; raise SafeguardError if no node can be used."""
        while len(self.done) + len(self.failed) < len(self._blocks):
            with UNBROKEN:  # a signal must not raise through Ray's C code
                self._hire()
                if not self._tasks:
                    raise SafeguardError(f"no node of the cluster can be used: {self._reason or 'none has a CPU'}")
                ready, _ = self._ray.wait(list(self._tasks), timeout=POLL_SECONDS)
                for task in ready:
                    self._take(task)

    def dismiss(self) -> None:
        for worker in self._workers.values():
            self._ray.kill(worker)

    def _hire(self) -> None:
        """Start a worker on every node that has none, as long as there is work for it."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for node in self._ray.nodes():
            name, has = node["NodeID"], node["Resources"]
            spare = len(self._todo) - sum(block is None for _, block in self._tasks.values())
            if not node["Alive"] or name in self._workers or self._deaths[name] >= MOST_DEATHS or spare <= 0:
                continue
            if (processors := int(has.get("CPU", 0))) < 1:
                continue
            options = {
                "num_cpus": min(processors, self._settings.threads or processors),
                "num_gpus": has.get("GPU", 0) if self._settings.gpu_layers else 0,
                "scheduling_strategy": NodeAffinitySchedulingStrategy(name, soft=False),
            }
            worker = self._ray.remote(Worker).options(**options).remote(self._settings, self._make_engine)
            self._workers[name] = worker
            self._tasks[worker.ready.remote(self._todo[0])] = (name, None)

    def _take(self, task: Any) -> None:
        """Take the result of a worker's task, and give the worker its next block."""
        node, block = self._tasks.pop(task)
        try:
            result = self._ray.get(task)
        except self._ray.exceptions.RayError as problem:
            self._lost(node, block, str(problem).strip().splitlines()[-1])
            return
        if block is None and result:
            self._deaths[node] = MOST_DEATHS
            self._lost(node, None, result)
            return
        if block is not None:
            self._deaths[node] = 0
            self._finished(block, result)
        if self._todo:
            following = self._todo.popleft()
            self._tasks[self._workers[node].label.remote(following)] = (node, following)

    def _finished(self, block: Block, result: Done) -> None:
        if result.manifest is None:
            self.failed[block] = result
            warn(f"{block.input}: {'; '.join(result.error.splitlines())}")
            return
        self.done[block] = result.manifest
        if not self._settings.verbose and self._settings.progress == "none":
            return
        rows = sum(made.progress.rows for made in self.done.values())
        note(f"{len(self.done):,} of {len(self._blocks):,} files, {rows:,} rows: {block.output}")

    def _lost(self, node: str, block: Block | None, reason: str) -> None:
        """Note that a worker died or never started; another worker resumes its block."""
        self._reason = reason
        warn(f"a worker on node {node[:8]} is gone: {reason}")
        self._ray.kill(self._workers.pop(node))
        self._deaths[node] += 1
        if block is None:
            return
        self._deaths[block] += 1
        if self._deaths[block] < MOST_DEATHS:
            self._todo.appendleft(block)
        else:
            self.failed[block] = Done(errors.FATAL, error=f"{MOST_DEATHS} workers died on it, the last one: {reason}")
            warn(f"{block.input}: {self.failed[block].error}")


def _everywhere(settings: Settings) -> Settings:
    """Return the settings as a worker needs them: its working directory and configuration differ from ours."""

    def absolute(name: str) -> str:
        return str(Path(name).absolute()) if Path(name).is_file() else name

    model = settings.model or (None if settings.servers else configured_model())
    return replace(
        settings,
        policies=tuple(absolute(name) for name in settings.policies),
        model=model and absolute(model),
        tokenizer=settings.tokenizer and absolute(settings.tokenizer),
        calibration=settings.calibration and absolute(settings.calibration),
        progress="none" if settings.quiet else settings.progress,
        quiet=True,
    )


def _summary(crew: _Crew, settings: Settings) -> int:
    rows = sum(made.progress.rows for made in crew.done.values())
    results = [made.result for made in crew.done.values() if made.result is not None]
    in_error = sum(result.rows_in_error for result in results)
    footings = {repr((made.identity.model.record, made.identity.prompt_layout)) for made in crew.done.values()}
    if len(footings) > 1:
        warn("the nodes have different models or versions of safeguard: their labels are not comparable")
    if not settings.quiet:
        blank = sum(result.blank for result in results)
        note(f"{rows:,} rows in {len(crew.done):,} files, {in_error:,} in error" + (f", {blank:,} blank" * bool(blank)))
        texts = Counter(", ".join(made.identity.input.text_fields) for made in crew.done.values())
        for name, files in texts.most_common():
            if name:  # empty with a template
                note(f"text: {name}, in {files:,} files")
        for name in results[0].labels if results else ():
            tally = sum((Counter(result.labels[name]) for result in results), Counter[str]())
            note(f"{name}: " + ", ".join(f"{label} {count:,}" for label, count in tally.most_common()))
    if crew.failed:
        warn(f"files not labelled: {len(crew.failed):,}; run the same command to label them")
        return errors.worst(done.exit_code for done in crew.failed.values())
    return errors.ROWS_IN_ERROR if in_error else errors.OK

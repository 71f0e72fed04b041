"""Compares safeguard with what people would use instead, on the same rows, in several rounds.

    python tests/benchmarks/peers.py MODEL.gguf [--work fixed,real] [--engines llama.cpp,ik] [--out peers]

The fixed work is rows of one size, labelled with `safeguard label`. The real one has lengths of real requests, drawn by
real_lengths.py, with reasoning cut at --cap. Safeguard's engine gets its rows without the command, because a length of
reasoning must be imposed on each (see imposed.py); what a command needs to read and write rows is left out.

The peers are a loop over llama_cpp.Llama, one row at a time with the policy's prefix reused, llama.cpp's server with
parallel slots (`--server PATH`, else the package xllamacpp, if it is installed), and that of ik_llama.cpp
(`--ik-server PATH`). All get the same token ids and generate, greedily, as many tokens: the reasoning, the header and
the JSON up to the label, all of which a peer must generate. Times are from the loaded model to the last row, the
policy's own decoding included (see --warm). Each round runs all programs on all works, and measures the bound too: all
tokens that must be decoded, at the rate of a 512-token prompt. OUT.md and OUT.json are written after each round, with
medians, and with ratios of programs in the same round, each program with its best number of slots.

A peer is comparable only if it was built with the same CPU instructions, which the result tells: the wheel of
xllamacpp on PyPI is built for AVX2. To build the server of llama-cpp-python's own llama.cpp for this machine:

    pip download --no-deps --no-binary :all: llama-cpp-python==VERSION && tar xf llama_cpp_python-*.tar.gz
    cmake -S llama_cpp_python-*/vendor/llama.cpp -B server -DCMAKE_BUILD_TYPE=Release -DLLAMA_OPENSSL=OFF \\
        -DLLAMA_USE_PREBUILT_UI=OFF    # and the options with which llama-cpp-python was built here, if any
    cmake --build server --target llama-server -j
    python tests/benchmarks/peers.py MODEL.gguf --server server/bin/llama-server

Builds with AMX are compared without repacked weights, because the peers crash with them. To compare with repacked
weights, build llama-cpp-python and the server with CFLAGS=-mno-amx-int8 CXXFLAGS=-mno-amx-int8.

To build the server of ik_llama.cpp:

    pip download --no-deps --no-binary :all: ik-llama-cpp-python && tar xf ik_llama_cpp_python-*.tar.gz
    cd ik_llama_cpp_python-*/vendor/ik_llama.cpp && mkdir -p common/cmake    # a file that the package of 0.1.5 lacks:
    printf 'set(BUILD_NUMBER 0)\\nconfigure_file(common/build-info.cpp.in common/build-info.cpp)' \\
        > common/cmake/build-info-gen-cpp.cmake
    cmake -B ik -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF
    cmake --build ik --target llama-server -j
    python tests/benchmarks/peers.py MODEL.gguf --ik-server ik/bin/llama-server

It runs as it does by itself, with flash attention, whose results are wrong in 0.1.5 where slots share a cache:
`--ik-options "-fa off"` turns that off. With several slots it decodes the policy anew for many rows, because it takes
the first cell of a slot for its first position; the prompt tokens that it decoded are in the results.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imposed import imposed_engine
from peers_report import write
from real_lengths import real_lengths, real_work
from workload import Workload, make_real_workload, make_workload

from safeguard_cli.engine.local.probe import Probe
from safeguard_cli.files import cache_folder
from safeguard_cli.model.fingerprint import model_sha256
from safeguard_cli.run.prepare import engine_spec, load_policies, prepare
from safeguard_cli.run.settings import Settings

HERE = Path(__file__).parent
SAFEGUARD = Path(sys.executable).parent / "safeguard"
ENDINGS = {"<|return|>", "<|call|>", "<|end|>", "<|endoftext|>"}  # where a server stops, unless it is told not to
LOOP, SERVER, IK_SERVER = "llama_cpp.Llama loop", "llama-server", "ik_llama.cpp's llama-server"
# What safeguard is told to run on each engine: fields of Settings, which are options of `label` under the same names.
ENGINES: dict[str, dict[str, Any]] = {name: {"engine": name} for name in ("llama.cpp", "ik")}


@dataclass(frozen=True)
class Result:
    """What one program, `who`, took for its rows: `tokens` that must be decoded for them. `kind` is without slots."""

    kind: str
    who: str
    rows: int
    tokens: int
    seconds: float
    note: str = ""

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


@dataclass(frozen=True)
class Case:
    """A work with the rows of the loop, which may be fewer, and the folder of its files."""

    name: str
    given: argparse.Namespace
    work: Workload
    looped: Workload
    folder: Path

    def tokens(self, work: Workload) -> int:
        """Return how many tokens must be decoded in the time that is measured."""
        return work.needed + (0 if self.given.warm else work.policy)

    def settings(self, engine: str, slots: int) -> Settings:
        return replace(self.work.settings, slots=slots, **ENGINES[engine])

    def run_label(self, engine: str, slots: int) -> Result:
        """Run the command with an empty cache folder; its time is the manifest's, which begins when all is loaded."""
        given, rows = self.given, len(self.work.prompts)
        command = [str(SAFEGUARD), "label", "in.jsonl", "-p", "p.md", "--model", str(given.model), "--quiet"]
        command += ["--slots", str(slots), "--threads", str(given.threads), "--effort", given.effort]
        for name, value in ENGINES[engine].items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        if given.amx:
            command += ["--repack", "off"]
        if given.effort != "none":
            command += ["--max-reasoning", str(given.generate)]
        # States left by earlier runs would save decoding the policy; the model's hash, which takes time, is kept.
        for kept in cache_folder().iterdir():
            if kept.suffix != ".json":
                shutil.rmtree(kept) if kept.is_dir() else kept.unlink()
        if given.warm:
            warm = [*command, "--limit", "1", "-o", "warm.jsonl", "--overwrite"]
            subprocess.run(warm, cwd=self.folder, check=True)
        subprocess.run([*command, "-o", "out.jsonl", "--overwrite"], cwd=self.folder, check=True)
        manifest = json.loads((self.folder / "out.jsonl.manifest.json").read_bytes())
        if manifest["result"]["rows_in_error"] or manifest["rows"] != rows:
            sys.exit(f"safeguard did not label all rows: {manifest['result']}")
        note = f"{manifest['generated_tokens'] / rows:.1f} tokens generated a row"
        return self._own(engine, slots, manifest["seconds"], note)

    def run_imposed(self, engine: str, slots: int) -> Result:
        """Run the engine with imposed lengths; see imposed.py. The time begins when the model is loaded."""
        settings, rows = self.settings(engine, slots), self.work.imposed
        prepared = prepare(settings, load_policies(settings), {}, len(rows))
        with imposed_engine(engine_spec(settings, prepared)) as running:
            if self.given.warm:
                list(running.complete([replace(rows[0], reasoning=1)]))
            before, begin = running.decoded_tokens, time.perf_counter()
            done = list(running.complete(rows))
            seconds = time.perf_counter() - begin
            decoded = running.decoded_tokens - before
            lengths = {one.prompt.row: one.generated for one in done if not one.error}
        if lengths != {row.row: row.reasoning for row in rows} or running.deaths:
            sys.exit(f"safeguard did not label all rows as long as they are: {lengths}")
        if not running.policy_tokens or decoded != self.tokens(self.work):
            sys.exit(f"safeguard decoded {decoded:,} tokens, not the {self.tokens(self.work):,} that it must")
        return self._own(engine, slots, seconds, f"{sum(lengths.values()) / len(rows):.1f} tokens generated a row")

    def _own(self, engine: str, slots: int, seconds: float, note: str) -> Result:
        kind = f"safeguard on {engine}"
        return Result(kind, f"{kind}, {slots} slots", len(self.work.prompts), self.tokens(self.work), seconds, note)

    def run_peer(self, script: str, kind: str, who: str, work: Workload, job: dict[str, Any]) -> Result:
        """Run a peer in a process of its own; keep in `given.builds` how it was built."""
        # OpenMP's number of threads is set too: with more than idle cores, xllamacpp waits for seconds at each prompt.
        env = {**os.environ, "OMP_NUM_THREADS": str(self.given.threads)}
        loading = self.work.prepared.shape.loading
        job = {
            "model": str(self.given.model),
            "threads": self.given.threads,
            "repack": loading.extra_buffers,
            "gpu_layers": loading.gpu_layers if self.work.prepared.shape.memory.video else 0,
            "warm": self.given.warm,
            "policy": work.policy,
            "longest": max(map(sum, zip(map(len, work.prompts), work.completions, strict=True))) + 8,
            "prompts": work.prompts,
            "completions": work.completions,
            **job,
        }
        asked = json.dumps(job).encode()
        done = subprocess.run([sys.executable, str(HERE / script)], input=asked, stdout=subprocess.PIPE, env=env)
        if done.returncode:
            sys.exit(f"{who} failed with code {done.returncode}")
        said = json.loads(done.stdout.splitlines()[-1])
        self.given.builds[kind] = said["build"]
        note = f"{said['decoded']:,} prompt tokens decoded"
        return Result(kind, who, len(work.prompts), self.tokens(work), said["seconds"], note)

    def run_loop(self) -> Result:
        return self.run_peer("loop_peer.py", LOOP, LOOP, self.looped, {})

    def run_server(self, kind: str, slots: int) -> Result:
        job = {"server": self.given.servers[kind], "np": slots, "ik": kind == IK_SERVER}
        job["options"] = self.given.ik_options.split() if job["ik"] else []
        tokenizer = self.work.prepared.labeling.harmony.tokenizer
        job["endings"] = [i for i in tokenizer.control_ids if tokenizer.tokens[i] in ENDINGS]
        return self.run_peer("server_peer.py", kind, f"{kind}, {slots} slots", self.work, job)

    def runs(self) -> list[Callable[[], Result]]:
        """Return a run of each program with each number of slots."""
        own = self.run_imposed if self.work.imposed else self.run_label
        found: list[Callable[[], Result]] = []
        found += [partial(own, engine, slots) for engine in self.given.engines for slots in self.given.slots]
        found += [self.run_loop] if self.looped.prompts else []
        return found + [
            partial(self.run_server, kind, slots) for kind in self.given.servers for slots in self.given.server_slots
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--work", type=_words_of("fixed", "real"), default=["fixed"], help="fixed, real or fixed,real")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--loop-rows", type=int, help="of the loop; fewer: the policy weighs more; 0: none")
    parser.add_argument("--policy", type=int, default=512, help="fixed: tokens of the prefix, default 512")
    parser.add_argument("--content", type=int, default=80, help="fixed: tokens of a text, default 80")
    parser.add_argument("--generate", type=int, default=48, help="fixed: tokens of reasoning, default 48")
    parser.add_argument("--cap", type=int, default=256, help="real: most tokens of reasoning, default 256")
    parser.add_argument("--seed", type=int, default=0, help="real: of the draw")
    parser.add_argument("--effort", choices=("low", "none"), default="low", help="none: for the fixed work only")
    parser.add_argument("--engines", type=_words_of(*ENGINES), default=["llama.cpp"], help="of safeguard")
    parser.add_argument("--slots", type=_numbers, default=[16, 32], help="of safeguard, default 16,32")
    parser.add_argument("--server-slots", type=_numbers, default=[1, 4, 8, 16], help="default 1,4,8,16; empty: none")
    parser.add_argument("--server", help="a llama-server binary; default: the one on PATH, else xllamacpp")
    parser.add_argument("--ik-server", help="a llama-server binary of ik_llama.cpp")
    parser.add_argument("--ik-options", default="", help="further options for it, such as '-fa off' or '-rtr'")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--warm",
        action="store_true",
        help="decode the policy in all slots before the clock starts; safeguard keeps it from an earlier run",
    )
    parser.add_argument("--out", type=Path, default=Path("peers"), help="results go to OUT.md and OUT.json")
    given = parser.parse_args()
    if given.effort == "none" and "real" in given.work:
        parser.error("--work real reasons: leave --effort none out")
    given.model = given.model.resolve()
    server = given.server or shutil.which("llama-server") or ("xllamacpp" if find_spec("xllamacpp") else None)
    given.servers = {kind: path for kind, path in ((SERVER, server), (IK_SERVER, given.ik_server)) if path}
    given.builds = {}
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        model_sha256(given.model)
        measure(given, [make_case(given, kind, Path(name)) for kind in given.work])


def make_case(given: argparse.Namespace, name: str, folder: Path) -> Case:
    with Probe() as probe:
        given.amx = probe.ask("build")["amx"]
    folder = folder / name
    folder.mkdir()
    settings = Settings(
        "",
        (),
        model=str(given.model),
        effort=given.effort,
        max_reasoning=given.generate if name == "fixed" else given.cap,
        slots=min(max(given.slots), given.rows),
        threads=given.threads,
        repack=False if given.amx else None,
        quiet=True,
    )
    fewer = given.rows if given.loop_rows is None else min(given.loop_rows, given.rows)
    if name == "fixed":
        work = make_workload(settings, folder, rows=given.rows, policy=given.policy, content=given.content)
        return Case(name, given, work, work.first(fewer), folder)

    def real(rows: int) -> Workload:
        lengths = real_work(rows, given.cap, given.seed) if rows else []
        return make_real_workload(settings, folder, policy=real_lengths()["policy"], lengths=lengths)

    work = real(given.rows)
    return Case(name, given, work, work if fewer == given.rows else real(fewer), folder)


def measure(given: argparse.Namespace, cases: list[Case]) -> None:
    """Run all rounds: each runs every program once on every work, and begins with another one."""
    bounds: dict[str, list[float]] = {engine: [] for engine in given.engines}
    results: dict[str, list[dict[str, Result]]] = {case.name: [] for case in cases}
    for number in range(given.rounds):
        for engine, rates in bounds.items():
            settings = cases[0].settings(engine, max(given.slots))
            loading = prepare(settings, load_policies(settings), {}, given.rows).shape.loading
            with Probe() as probe:
                asked = probe.ask("rates", path=str(given.model), seconds=10, **asdict(loading))
            rates.append(statistics.median(asked["prompt"]))
        runs = [(case, run) for case in cases for run in case.runs()]
        turn = number % len(runs)
        for found in results.values():
            found.append({})
        for case, run in runs[turn:] + runs[:turn]:
            one = run()
            results[case.name][-1][one.who] = one
            print(f"round {number + 1}, {case.name}: {one.who}: {one.rate:.4f} rows/s", file=sys.stderr, flush=True)
        write(given, cases, bounds, results)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def _words_of(*known: str) -> Callable[[str], list[str]]:
    def words(text: str) -> list[str]:
        if unknown := [word for word in text.split(",") if word not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return text.split(",")

    return words


if __name__ == "__main__":
    main()

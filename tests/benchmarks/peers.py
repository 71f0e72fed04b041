"""Compares `safeguard label` with what people would use instead, on the same rows, in several rounds.

    python tests/benchmarks/peers.py MODEL.gguf [--effort none] [--out peers]

The peers are a loop over llama_cpp.Llama, one row at a time with the policy's prefix reused, and llama.cpp's server
with parallel slots (`--server PATH`, else the package xllamacpp, if it is installed). All get the same token ids and
generate, greedily, as many tokens: the reasoning, the header and the JSON up to the label, all of which a peer must
generate. Times are from the loaded model to the last row, the policy's own decoding included (see --warm). Each round
measures the bound too: all tokens that must be decoded, at the rate of a 512-token prompt. OUT.md and OUT.json are
written after each round.

A peer is comparable only if it was built with the same CPU instructions, which the result tells: the wheel of
xllamacpp on PyPI is built for AVX2. To build the server of llama-cpp-python's own llama.cpp for this machine:

    pip download --no-deps --no-binary :all: llama-cpp-python==VERSION && tar xf llama_cpp_python-*.tar.gz
    cmake -S llama_cpp_python-*/vendor/llama.cpp -B server -DCMAKE_BUILD_TYPE=Release -DLLAMA_OPENSSL=OFF \\
        -DLLAMA_USE_PREBUILT_UI=OFF    # and the options with which llama-cpp-python was built here, if any
    cmake --build server --target llama-server -j
    python tests/benchmarks/peers.py MODEL.gguf --server server/bin/llama-server

Builds with AMX are compared without repacked weights, because the peers crash with them. To compare with repacked
weights, build llama-cpp-python and the server with CFLAGS=-mno-amx-int8 CXXFLAGS=-mno-amx-int8.
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
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workload import Workload, make_workload

from safeguard_cli.engine.local.probe import Probe
from safeguard_cli.files import cache_folder
from safeguard_cli.model.fingerprint import model_sha256
from safeguard_cli.output.manifest import versions
from safeguard_cli.run.settings import Settings

HERE = Path(__file__).parent
SAFEGUARD = Path(sys.executable).parent / "safeguard"


@dataclass(frozen=True)
class Result:
    """What one program took for all its rows."""

    who: str
    rows: int
    seconds: float
    note: str = ""

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


def run_safeguard(given: argparse.Namespace, work: Workload, folder: Path, slots: int) -> Result:
    """Run the command with an empty cache folder; its time is the manifest's, which begins when all is loaded."""
    out = folder / "out.jsonl"
    command = [str(SAFEGUARD), "label", "in.jsonl", "-p", "p.md", "--model", str(given.model), "--slots", str(slots)]
    command += ["--threads", str(given.threads), "--effort", given.effort, "--quiet"]
    if given.amx:
        command += ["--repack", "off"]
    if given.effort != "none":
        command += ["--max-reasoning", str(given.generate)]
    # States left by earlier runs would save decoding the policy; the model's hash, which takes time, is kept.
    for kept in cache_folder().iterdir():
        if kept.suffix != ".json":
            shutil.rmtree(kept) if kept.is_dir() else kept.unlink()
    if given.warm:
        subprocess.run([*command, "--limit", "1", "-o", "warm.jsonl", "--overwrite"], cwd=folder, check=True)
    subprocess.run([*command, "-o", out.name, "--overwrite"], cwd=folder, check=True)
    manifest = json.loads(Path(f"{out}.manifest.json").read_bytes())
    if manifest["result"]["rows_in_error"] or manifest["rows"] != len(work.prompts):
        sys.exit(f"safeguard did not label all rows: {manifest['result']}")
    said = f"{manifest['generated_tokens'] / len(work.prompts):.1f} tokens generated a row"
    return Result(f"safeguard, {slots} slots", len(work.prompts), manifest["seconds"], said)


def run_peer(script: str, who: str, rows: int, job: dict[str, Any]) -> tuple[Result, str]:
    """Run a peer in a process of its own; return its result and how it was built."""
    # OpenMP's number of threads is set too: with more than idle cores, xllamacpp waits for seconds at each prompt.
    env = {**os.environ, "OMP_NUM_THREADS": str(job["threads"])}
    done = subprocess.run(
        [sys.executable, str(HERE / script)], input=json.dumps(job).encode(), stdout=subprocess.PIPE, env=env
    )
    if done.returncode:
        sys.exit(f"{who} failed with code {done.returncode}")
    said = json.loads(done.stdout.splitlines()[-1])
    read = f"{said['decoded']:,} prompt tokens decoded" if "decoded" in said else ""
    return Result(who, rows, said["seconds"], read), said["build"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--loop-rows", type=int, help="rows of the loop, default all; its rate does not depend on them")
    parser.add_argument("--policy", type=int, default=512, help="tokens of the prefix, default 512")
    parser.add_argument("--content", type=int, default=80, help="tokens of a text, default 80")
    parser.add_argument("--generate", type=int, default=48, help="tokens of reasoning, default 48; the answer has 10")
    parser.add_argument("--effort", choices=("low", "none"), default="low")
    parser.add_argument("--slots", type=_list, default=[16, 32], help="of safeguard, default 16,32")
    parser.add_argument("--server-slots", type=_list, default=[1, 4, 8, 16], help="default 1,4,8,16; empty: no server")
    parser.add_argument("--server", help="a llama-server binary; default: the one on PATH, else xllamacpp")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--warm",
        action="store_true",
        help="decode the policy in all slots before the clock starts; safeguard keeps it from an earlier run",
    )
    parser.add_argument("--out", type=Path, default=Path("peers"), help="results go to OUT.md and OUT.json")
    given = parser.parse_args()
    given.model = given.model.resolve()
    server = given.server or shutil.which("llama-server") or ("xllamacpp" if find_spec("xllamacpp") else None)
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        model_sha256(given.model)
        measure(given, server, Path(name))


def measure(given: argparse.Namespace, server: str | None, folder: Path) -> None:
    """Run all rounds: each runs every program once, and begins with another one."""
    with Probe() as probe:
        given.amx = probe.ask("build")["amx"]
    settings = Settings(
        "",
        (),
        model=str(given.model),
        effort=given.effort,
        max_reasoning=given.generate,
        slots=min(max(given.slots), given.rows),
        threads=given.threads,
        repack=False if given.amx else None,
        quiet=True,
    )
    work = make_workload(settings, folder, rows=given.rows, policy=given.policy, content=given.content)
    shape = work.prepared.shape
    job = {
        "model": str(given.model),
        "threads": given.threads,
        "repack": shape.loading.extra_buffers,
        "gpu_layers": shape.loading.gpu_layers if shape.memory.video else 0,
        "warm": given.warm,
        "policy": work.policy,
        "longest": len(work.prompts[0]) + max(work.completions) + 8,
        "server": server,
    }
    loop_rows = min(given.loop_rows or given.rows, given.rows)
    builds: dict[str, str] = {}
    bounds: list[float] = []
    results: list[list[Result]] = []

    def peer(script: str, who: str, built_as: str, rows: int, slots: int = 1) -> Result:
        mine = {**job, "prompts": work.prompts[:rows], "completions": work.completions[:rows], "np": slots}
        found, builds[built_as] = run_peer(script, who, rows, mine)
        return found

    def serve(slots: int) -> Result:
        return peer("server_peer.py", f"llama-server, {slots} slots", str(server), given.rows, slots)

    loop = partial(peer, "loop_peer.py", "llama_cpp.Llama loop", "llama-cpp-python", loop_rows)
    for number in range(given.rounds):
        with Probe() as probe:
            rates = probe.ask("rates", path=str(given.model), seconds=10, **asdict(shape.loading))
        bounds.append(statistics.median(rates["prompt"]))
        runs = [partial(run_safeguard, given, work, folder, slots) for slots in given.slots]
        runs += [loop, *(partial(serve, slots) for slots in (given.server_slots if server else ()))]
        turn = number % len(runs)
        found = []
        for run in runs[turn:] + runs[:turn]:
            found.append(run())
            print(f"round {number + 1}: {found[-1].who}: {found[-1].rate:.3f} rows/s", file=sys.stderr, flush=True)
        results.append(sorted(found, key=lambda one: [r.who for r in results[0]].index(one.who) if results else 0))
        write(given, work, builds, bounds, results)


def write(
    given: argparse.Namespace,
    work: Workload,
    builds: dict[str, str],
    bounds: list[float],
    results: list[list[Result]],
) -> None:
    """Write medians over the rounds so far, and ratios of programs in the same round."""
    needed = work.needed + (0 if given.warm else work.policy)
    per_round = [{one.who: one for one in found} for found in results]
    rates = {who: [found[who].rate for found in per_round] for who in per_round[0]}
    medians = {who: statistics.median(values) for who, values in rates.items()}

    def fastest(kind: str) -> str | None:
        return max((who for who in medians if who.startswith(kind)), key=medians.__getitem__, default=None)

    def ratio(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(rates[a], rates[b], strict=True))

    own, peer, loop = fastest("safeguard"), fastest("llama-server"), fastest("llama_cpp")
    assert own and loop
    bound = [rate * given.rows / needed for rate in bounds]
    share = statistics.median(rate / most for rate, most in zip(rates[own], bound, strict=True))
    features = {_features(build) for build in builds.values()}
    data = {
        "date": time.strftime("%Y-%m-%d"),
        "model": given.model.name,
        "workload": {
            "rows": given.rows,
            "policy_tokens": work.policy,
            "content_tokens": given.content,
            "completion_tokens": sum(work.completions) / given.rows,
            "effort": given.effort,
            "policy_in_time": not given.warm,
            "tokens_that_must_be_decoded": needed,
        },
        "threads": given.threads,
        "versions": versions(),
        "builds": builds,
        "same_cpu_features": len(features) == 1,
        "bound_prompt_tokens_per_second": bounds,
        "bound_rows_per_second": bound,
        "rounds": [[asdict(one) for one in found] for found in results],
        "rows_per_second": medians,
        "best_to_best_server": peer and ratio(own, peer),
        "best_to_loop": ratio(own, loop),
        "best_share_of_bound": share,
    }
    Path(f"{given.out}.json").write_text(json.dumps(data, indent=2) + "\n")
    text = [
        f"# {given.model.name}: {given.rows} rows, policy {work.policy}, content {given.content},"
        f" {sum(work.completions) / given.rows:.1f} generated, effort {given.effort}, {given.threads} threads",
        "",
        f"{data['date']}; medians of {len(results)} rounds, each with all of them; from the loaded model to the last"
        f" row, the policy's own decoding {'apart' if given.warm else 'included'}.",
        "",
        "| | rows/s | from | to | of the bound | |",
        "|---|---|---|---|---|---|",
        *(
            f"| {who} | {medians[who]:.3f} | {min(values):.3f} | {max(values):.3f}"
            f" | {medians[who] / statistics.median(bound):.0%} | {per_round[-1][who].note} |"
            for who, values in rates.items()
        ),
        f"| bound, at {statistics.median(bounds):,.1f} tokens/s | {statistics.median(bound):.3f}"
        f" | {min(bound):.3f} | {max(bound):.3f} | | {needed:,} tokens must be decoded |",
        "",
        *([f"{own} to {peer}, paired: {ratio(own, peer):.2f}"] if peer else ["No server was at hand."]),
        f"{own} to {loop}, paired: {ratio(own, loop):.2f}",
        f"{own} of the bound, paired: {share:.0%}",
        "",
        "Builds, all " + ("with the same CPU features:" if len(features) == 1 else "NOT with the same CPU features:"),
        "",
        *(f"- {name}: {build}" for name, build in builds.items()),
        "",
    ]
    Path(f"{given.out}.md").write_text("\n".join(text))
    print("\n".join(text))


def _features(build: str) -> frozenset[str]:
    """Return the CPU instructions that llama.cpp reports."""
    return frozenset(part.split("=")[0].strip(" :").split()[-1] for part in build.split("|") if "= 1" in part)


def _list(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


if __name__ == "__main__":
    main()

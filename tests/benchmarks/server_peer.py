"""llama.cpp's server with parallel slots, fed token ids over HTTP: a llama-server binary, or xllamacpp's.

Reads a job as JSON from standard input (see peers.py) and prints its result as a line of JSON.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STARTED_WITHIN = 600.0


@contextmanager
def binary(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Run a llama-server binary; yield its address and what it reports of its build."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # ik_llama.cpp needs as many free cells in a row as a batch has tokens: with just enough of them it fails (500).
    cells = (2 if job["ik"] else 1) * job["np"] * job["longest"]
    command = [job["server"], "-m", job["model"], "--port", port, "-np", job["np"], "-c", cells, "--cache-ram", 0]
    command += ["-t", job["threads"], "-tb", job["threads"], "-ngl", job["gpu_layers"]]
    # Each slot has a cache of its own: in a shared one, other slots' tokens overwrite cells outside its window, and its
    # next row decodes the policy anew. The same happens if the cache of prompts takes cells from idle slots.
    if job["ik"]:
        command += job["options"]
    else:
        command += ["--swa-full", "--no-warmup", "-lv", 4, *([] if job["repack"] else ["--no-repack"])]
    with tempfile.NamedTemporaryFile() as log:  # with -lv 4 the server logs the CPU's features
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
        try:
            address, end = f"http://127.0.0.1:{port}", time.monotonic() + STARTED_WITHIN
            while True:
                try:
                    urllib.request.urlopen(f"{address}/health").read()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        sys.exit(Path(log.name).read_text()[-2000:])
                    time.sleep(0.1)
            said = re.search(r'system_info(?:: .*?\| |=")([^"\n]*)', Path(log.name).read_text())
            version = subprocess.run([job["server"], "--version"], capture_output=True, text=True)
            yield address, f"{said[1] if said else '?'} {' '.join((version.stdout + version.stderr).split())}"
        finally:
            process.terminate()
            process.wait()


@contextmanager
def package(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Do the same with the server in xllamacpp."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = job["model"]
    params.n_parallel, params.n_ctx = job["np"], job["np"] * job["longest"]
    params.kv_unified, params.swa_full, params.cache_ram_mib = False, True, 0  # as above
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["threads"]
    params.n_gpu_layers = job["gpu_layers"]
    params.no_extra_bufts = not job["repack"]
    params.warmup = False
    params.verbosity = 0
    server = xllamacpp.Server(params)
    yield server.listening_address, f"{xllamacpp.get_system_info().strip()} xllamacpp {xllamacpp.__version__}"


def main() -> None:
    job = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the server's log must not reach the result
    run = package if job["server"] == "xllamacpp" else binary
    with run(job) as (address, build), ThreadPoolExecutor(2 * job["np"]) as pool:

        def label(prompt: list[int], count: int) -> int:
            """Generate `count` tokens, whatever they are; return how many of the prompt's tokens were decoded."""
            wanted = {"prompt": prompt, "n_predict": count, "ignore_eos": True, "cache_prompt": True}
            wanted |= {"temperature": 0.0, "top_k": 1, "samplers": ["top_k"]}
            if job["ik"]:  # which ignores only one of the tokens that end a text
                wanted["logit_bias"] = [[token, False] for token in job["endings"]]
            request = urllib.request.Request(
                f"{address}/completion", json.dumps(wanted).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request) as reply:
                said = json.load(reply)
            assert said["tokens_predicted"] == count, said
            return int(said["timings"]["prompt_n"])

        prompts = job["prompts"]
        if not job["ik"]:  # which warms up by itself, and takes a policy behind cells that became free for lost
            label(prompts[0][-8:], 1)
        if job["warm"]:
            policy = prompts[0][: job["policy"]]
            list(pool.map(lambda i: label([*policy, i], 16), range(job["np"])))
        begin = time.perf_counter()
        decoded = sum(pool.map(label, prompts, job["completions"]))
        seconds = time.perf_counter() - begin
    answers.write(json.dumps({"seconds": seconds, "decoded": decoded, "build": build}) + "\n")
    answers.flush()
    os._exit(0)  # xllamacpp's server has no way to stop


if __name__ == "__main__":
    main()

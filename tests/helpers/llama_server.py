"""A real llama-server, of the package xllamacpp, in a child process: `python llama_server.py MODEL SLOTS`."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def llama_server(model: Path, slots: int = 2, context: int = 4096) -> Iterator[str]:
    """Yield the URL of a server with `context` tokens for each of `slots`; skip the test if the package is missing."""
    pytest.importorskip("xllamacpp", reason="needs a llama-server: pip install xllamacpp")
    command = [sys.executable, __file__, str(model), str(slots), str(context)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            address = process.stdout.readline().strip()
            assert address.startswith("http://"), "the server did not start"
            yield address
        finally:
            process.kill()


def main() -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_parallel, params.n_ctx = int(sys.argv[2]), int(sys.argv[2]) * int(sys.argv[3])
    params.port, params.n_gpu_layers = 0, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # As with `llama-server --parallel N --swa-full`: each slot has a cache of its own, from which nothing is dropped.
    params.kv_unified, params.swa_full, params.cache_ram_mib = False, True, 0
    params.warmup = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()

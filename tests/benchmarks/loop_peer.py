"""One row at a time with llama_cpp.Llama, which reuses the longest common prefix: what people write first.

Reads a job as JSON from standard input (see peers.py) and prints its result as a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import islice
from typing import Any

from llama_cpp import Llama
from llama_cpp import llama_cpp as C  # noqa: N812


def main() -> None:
    job = json.load(sys.stdin)
    default = C.llama_model_default_params

    def params() -> Any:
        wanted = default()
        wanted.use_extra_bufts = job["repack"]  # Llama has no argument for it
        return wanted

    C.llama_model_default_params = params
    llama = Llama(
        job["model"],
        n_ctx=job["longest"],
        n_threads=job["threads"],
        n_threads_batch=job["threads"],
        n_gpu_layers=job["gpu_layers"],
        swa_full=True,  # with a window-sized cache, a prefix cannot be reused
        no_perf=True,
        verbose=False,
    )
    decoded = 0
    evaluate = llama.eval

    def counted(tokens: Any) -> None:
        nonlocal decoded
        decoded += len(tokens)
        evaluate(tokens)

    llama.eval = counted

    def label(prompt: list[int], count: int) -> int:
        return len(list(islice(llama.generate(prompt, top_k=1, temp=0.0), count)))

    label(job["prompts"][0][-8:], 1)
    if job["warm"]:
        label(job["prompts"][0][: job["policy"]], 1)
    decoded, begin = 0, time.perf_counter()
    generated = sum(map(label, job["prompts"], job["completions"]))
    seconds = time.perf_counter() - begin
    assert generated == sum(job["completions"])
    read = decoded - generated + len(job["prompts"])  # a row's last token is never decoded
    print(json.dumps({"seconds": seconds, "decoded": read, "build": C.llama_print_system_info().decode().strip()}))


if __name__ == "__main__":
    main()

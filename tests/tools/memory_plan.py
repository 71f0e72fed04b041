"""Compares a run's planned memory with what it takes: `python tests/tools/memory_plan.py MODEL --slots 8 [OPTIONS]`.

Measured is the rise in resident memory of all processes of the command, the mapped model file included, since the
command started its engine.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

POLICY = "Say yes when the text asks for money, else no. " * 36  # with the prompt around it, a full batch of 512 tokens
TOLERANCE = (0.10, 50e6)


def measure(model: Path, slots: int, *options: str, rows: int | None = None) -> tuple[float, float]:
    """Return the planned and the measured bytes for labeling some rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "p.md").write_text(f"---\nlabels: [no, yes]\nviolates: [yes]\n---\n{POLICY}")
        texts = (json.dumps({"id": i, "text": f"message number {i}"}) for i in range(rows or slots))
        (folder / "in.jsonl").write_text("\n".join(texts) + "\n")
        command = [str(Path(sys.executable).parent / "safeguard"), "label", "in.jsonl", "-p", "p.md", "-v"]
        named = str(model.resolve() if model.exists() else model)
        command += ["--model", named, "--slots", str(slots), "--effort", "none", *options]
        command += ["--progress", "none"]
        with (folder / "err").open("w+") as err:
            process = subprocess.Popen(command, cwd=folder, stderr=err, stdout=subprocess.DEVNULL)
            peak = _watch(psutil.Process(process.pid))
            err.seek(0)
            said = err.read()
    if process.wait():
        raise RuntimeError(said[-2000:])
    planned = re.search(r"about ([\d,]+) MB of memory", said)
    assert planned, said[-2000:]
    return float(planned[1].replace(",", "")) * 1e6, peak


def _watch(parent: psutil.Process) -> float:
    """Return the rise in resident memory since the last child that stayed started, polled until the command ends."""
    held: dict[int, int] = {}
    peaks: dict[int, int] = {}
    while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
        try:
            own = parent.memory_info().rss
            children = parent.children()
            sizes = {child.pid: child.memory_info().rss for child in children}
        except psutil.NoSuchProcess:
            continue
        for pid in sizes:
            held.setdefault(pid, own)
            peaks[pid] = max(peaks.get(pid, 0), own + sum(sizes.values()) - held[pid])
        time.sleep(0.05)
    return max(peaks.values(), default=0)


def within(planned: float, measured: float) -> bool:
    return abs(planned - measured) <= max(TOLERANCE[0] * measured, TOLERANCE[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--slots", type=int, default=8)
    given, options = parser.parse_known_args()  # the rest goes to safeguard label
    begin = time.monotonic()
    planned, measured = measure(given.model, given.slots, *options)
    print(
        f"{given.model.name}, {given.slots} slots: planned {planned / 1e6:,.0f} MB, measured {measured / 1e6:,.0f} MB,"
        f" {'within' if within(planned, measured) else 'NOT within'} the promise; {time.monotonic() - begin:.0f} s"
    )

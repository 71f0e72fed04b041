"""Questions to llama.cpp, asked in a child process because they may crash it.

Run as a script, this reads one JSON request a line and answers each with one line; the parent never imports llama_cpp.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import psutil

from safeguard_cli.address import no_secrets_for_children
from safeguard_cli.engine.local.plan import Device
from safeguard_cli.engine.local.process import why_it_died
from safeguard_cli.errors import EngineError, SafeguardError
from safeguard_cli.model import kept
from safeguard_cli.model.checks import each, text

TIMEOUT = 120.0  # seconds in which a child must answer or read something
SLOW = {"rates", "evidence"}  # questions without a time limit
LOADABLE, MOST_LOADABLE = "loadable-models.json", 100  # kept keys of models that llama.cpp loaded
_CPU_LIBRARIES = ("ggml", "ggml-base", "ggml-cpu", "llama", "mtmd", "ggml-blas")


class Probe:
    """A child process that answers questions; a new one is started after a question killed the last."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._child:
            self._child.kill()
            self._child.communicate()
            self._errors.close()
            self._child = None

    def ask(self, question: str, **arguments: Any) -> dict[str, Any]:
        """Return the child's answer. Raises EngineError with the reason when it gave none or died."""
        child = self._child or self._start()
        assert child.stdin and child.stdout
        line = b""
        try:
            child.stdin.write(json.dumps({"question": question, **arguments}).encode() + b"\n")
            child.stdin.flush()
            if question not in SLOW:
                self._wait(child, child.stdout)
            line = child.stdout.readline()
        except BrokenPipeError:
            pass
        if not line.endswith(b"\n"):
            code = child.wait(TIMEOUT)
            self._errors.seek(0)  # parent and child share the file's position
            last = self._errors.read().decode("utf-8", "replace")
            self.close()
            raise EngineError(why_it_died("llama.cpp's process", code, last))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(str(answer["error"]))
        return answer

    def _wait(self, child: subprocess.Popen[bytes], answers: IO[bytes]) -> None:
        """Wait for an answer as long as the child reads from the disk. Raises EngineError when it stalls."""
        read, end = -1, 0.0
        while not select.select([answers], [], [], min(1.0, TIMEOUT / 4))[0]:
            so_far, now = _bytes_read(child.pid), time.monotonic()
            if so_far != read:
                read, end = so_far, now + TIMEOUT
            elif now > end:
                self.close()
                raise EngineError(f"llama.cpp gave no answer and read nothing for {TIMEOUT:.0f} seconds")

    def _start(self) -> subprocess.Popen[bytes]:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        with no_secrets_for_children():
            self._child = subprocess.Popen(
                [sys.executable, __file__],  # not -m, which would import from the working directory first
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},
                start_new_session=True,  # Ctrl-C is the parent's affair
            )
        return self._child


def _bytes_read(process: int) -> int:
    """Return the bytes that a process has read from the disk, 0 where the system does not tell."""
    try:
        return int(psutil.Process(process).io_counters().read_bytes)
    except (psutil.Error, AttributeError):
        return 0


def check_loadable(path: Path, key: str, probe: Probe | None = None) -> None:
    """Have llama.cpp load a file's vocabulary and settings, without weights, unless it did so before.

    `key` identifies the file. Raises EngineError with llama.cpp's reason.
    """
    known: list[str] = kept.load(LOADABLE, each(text)) or []
    if key in known:
        return
    asked = probe or Probe()
    try:
        asked.ask("vocabulary", path=str(path))
    except EngineError as error:
        raise EngineError(f"{path.name} cannot be used: {error}") from None
    finally:
        if probe is None:
            asked.close()
    kept.save(LOADABLE, [*known[1 - MOST_LOADABLE :], key])


def newer_type(kind: int) -> tuple[int, int]:
    """Return how many values and bytes a block of a tensor's type has that is newer than this program.

    Raises SafeguardError, with the rest of a sentence, if llama.cpp does not know the type or cannot compute with it.
    """
    version, types = _newer_types()
    block, nbytes, computes = types.get(str(kind), (0, 0, False))
    what_to_do = "update it (pip install -U llama-cpp-python), or get the model in another format, such as MXFP4"
    if not (block and nbytes):
        raise SafeguardError(f"which the installed llama.cpp (llama-cpp-python {version}) does not know: {what_to_do}")
    if not (computes or gpu_build()):
        raise SafeguardError(
            f"with which the installed llama.cpp (llama-cpp-python {version}) cannot compute on a CPU: {what_to_do}"
        )
    return block, nbytes


@cache
def _newer_types() -> tuple[str, dict[str, tuple[int, int, bool]]]:
    with Probe() as probe:
        answer = probe.ask("types")
    return answer["version"], answer["types"]


def gpu_build() -> bool:
    """Whether llama-cpp-python was built for more than the CPU, judged by its libraries, of which none is loaded."""
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return False
    libraries = (Path(spec.origin).parent / "lib").glob("*ggml-*")
    return any(file.name.removeprefix("lib").split(".")[0] not in _CPU_LIBRARIES for file in libraries)


def devices(probe: Probe | None = None) -> tuple[Device, ...]:
    """Return the GPUs, or none where llama.cpp was built for the CPU only."""
    if not gpu_build():
        return ()
    asked = probe or Probe()
    try:
        return tuple(Device(**device) for device in asked.ask("build")["devices"] if device["gpu"])
    finally:
        if probe is None:
            asked.close()


def local_build(engine: str) -> tuple[str, str]:
    """Return an engine's version and what it is built for."""
    with Probe() as probe:  # of its own: a process loads one library
        version, features = probe.ask("identity", engine=engine)["identity"]
    return str(version), str(features)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    # One library a process: a question imports no more than it needs.
    question = request.pop("question")
    if question == "identity":
        from safeguard_cli.engine.local import library

        return {"identity": library.build_identity(request["engine"])}
    if question == "rates":
        from safeguard_cli.engine.local import rates

        return dict(rates.measure(Path(request.pop("path")), **request))
    if question == "evidence":
        from safeguard_cli.engine.local import evidence

        return evidence.gather(Path(request.pop("path")), Path(request.pop("file")), **request)
    from safeguard_cli.engine.local import build, llama

    if question == "vocabulary":
        return {"tokens": llama.vocabulary_size(Path(request["path"]))}
    if question == "types":
        return {"version": build.build_identity()[0], "types": build.newer_types()}
    return build.describe()


def _main() -> None:
    # llama.cpp's libraries may print: only answers go to the pipe.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        try:
            answer = _answer(json.loads(line))
        except SafeguardError as error:
            answer = {"error": str(error)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    _main()

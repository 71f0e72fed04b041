"""`safeguard doctor`: shows what this machine offers, what stands in the way, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import psutil

from safeguard_cli import errors
from safeguard_cli.address import without_passwords
from safeguard_cli.engine.decoding import Options
from safeguard_cli.engine.local import hardware, proof
from safeguard_cli.engine.local.choose import ik_installed, ik_usable
from safeguard_cli.engine.local.plan import IK, IK_VERSION, LLAMA, Loading, Plan
from safeguard_cli.engine.local.probe import Probe, local_build, newer_type
from safeguard_cli.engine.local.process import EngineSpec, LocalEngine
from safeguard_cli.errors import SafeguardError
from safeguard_cli.model.config import configured_model
from safeguard_cli.model.find import find_model, open_model
from safeguard_cli.model.gguf import Header
from safeguard_cli.model.names import DEFAULT, DEMO, KNOWN
from safeguard_cli.model.tokenizer import Tokenizer
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Prompt
from safeguard_cli.prompt.harmony import Harmony
from safeguard_cli.run.local_engine import compared
from safeguard_cli.terminal import Hanging, show_hanging

State = Literal["ok", "warning", "broken"]
BUILDS = {  # https://llama-cpp-python.readthedocs.io, "Supported Backends"
    "CUDA": 'CMAKE_ARGS="-DGGML_CUDA=on"',
    "Metal": 'CMAKE_ARGS="-DGGML_METAL=on"',
    "Vulkan": 'CMAKE_ARGS="-DGGML_VULKAN=on"',
}
_SINGLE_PRECISION = 'CFLAGS="-mno-avx512fp16" CXXFLAGS="-mno-avx512fp16"'
_INSTALL = "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
_FEATURES = {"avx2": "AVX2", "avx512f": "AVX512", "avx512_vnni": "AVX512_VNNI"}  # by Linux's names: the builds' names
_IK_INSTALL = f"pip install 'ik-llama-cpp-python=={IK_VERSION}'"
_IK_WHEELS = {"Linux": ("x86_64", "aarch64"), "Darwin": ("arm64",), "Windows": ("AMD64",)}
_IK_PYTHONS = range(10, 14)  # 3.10 to 3.13
_IK_GLIBC = (2, 28)
# What ik_llama.cpp gives with 20b, see machine/README.md: the package, and a build for the CPU.
IK_GAIN = "20b reads prompts 2.0 times as fast as with llama.cpp, and labels rows that reason 1.3 times as fast"
IK_NATIVE_GAIN = "20b reads prompts 2.1 times as fast as with the package as it is, and labels rows 1.2 times as fast"
_PCI_VENDORS = {"0x10de": "CUDA", "0x1002": "Vulkan"}  # of GPUs worth a build of their own, NVIDIA's and AMD's
_MARK = {"ok": "ok     ", "warning": "warning", "broken": "broken "}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined; `advice` says what to do if it is not fine, `command` belongs to the last of it."""

    topic: str
    state: State
    text: str
    advice: tuple[str, ...] = ()
    command: str = ""

    def lines(self) -> Iterator[Hanging]:
        """Yield the lines to print."""
        yield Hanging(f"{_MARK[self.state]} {self.topic:10} ", without_passwords(self.text))
        for number, advice in enumerate(self.advice, 1):
            text, is_command, rest = advice.partition(" safeguard ")
            command = f"safeguard {rest}" if is_command and text.endswith(":") else ""
            if command:
                advice = text
            elif number == len(self.advice):
                command = self.command
            yield Hanging(f"{'':18} → ", advice, command)

    def facts(self) -> dict[str, str]:
        """Return the finding for JSON."""
        advice = " ".join(filter(None, ("; ".join(self.advice), self.command)))
        return {"topic": self.topic, "state": self.state, "text": self.text, "advice": advice}


def doctor(as_json: bool) -> int:
    """Examine everything a run needs and print it. Return 0: fine, 5: works with warnings, 1: broken."""
    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            show_hanging(*finding.lines())
    states = {finding.state for finding in findings}
    worst: State = "broken" if "broken" in states else "warning" if "warning" in states else "ok"
    if as_json:
        print(json.dumps({"state": worst, "findings": [finding.facts() for finding in findings]}, indent=2))
    return {"ok": errors.OK, "warning": errors.CHECK_FAILED, "broken": errors.FATAL}[worst]


def examine() -> Iterator[Finding]:
    """Yield all findings, the cheap ones first."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from _memory()
    yield _disk()
    build: dict[str, Any] = {}
    with Probe() as probe:
        try:
            build = probe.ask("build")
        except SafeguardError as error:
            yield Finding("llama.cpp", "broken", str(error), ("build it for this machine:",), _INSTALL)
    if build:
        yield from _engine(build)
        yield from _ik(any(device["gpu"] for device in build["devices"]))
        yield _self_test()
    yield from _models()


def _memory() -> Iterator[Finding]:
    free, total = hardware.free_memory(), psutil.virtual_memory().total
    wanted = KNOWN[DEFAULT].gigabytes * 1e9 + 1.5e9
    text = f"{free / 1e9:.1f} GB free of {total / 1e9:.1f} GB; {DEFAULT} takes about {wanted / 1e9:.0f} GB"
    if free >= wanted:
        yield Finding("memory", "ok", text)
    else:
        yield Finding(
            "memory", "warning", text, ("close programs, or use a GPU; `safeguard label --dry-run` has figures",)
        )
    cores = hardware.free_cores()
    text = f"physical cores: {psutil.cpu_count(logical=False) or '?'}; idle now and used by default: {cores}"
    yield Finding("cpu", "ok", text)


def _disk() -> Finding:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    folder = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(folder).free
    state: State = "ok" if free > KNOWN[DEFAULT].gigabytes * 1e9 else "warning"
    advice = () if state == "ok" else ("too little for the default model: make room, or set HF_HOME to another disk",)
    return Finding("disk", state, f"{free / 1e9:.1f} GB free for models in {cache}", advice)


def _engine(build: dict[str, Any]) -> Iterator[Finding]:
    features = _features(build["system"])
    backends = ", ".join(build["backends"])
    yield Finding("llama.cpp", "ok", f"llama-cpp-python {build['version']}; backends {backends}; {', '.join(features)}")
    if (unused := _unused(features)) and not build["gpu"]:
        text = f"llama.cpp was built without {unused}, which this CPU has"
        single = f"{_SINGLE_PRECISION} " if "avx512_fp16" in hardware.cpu_features() else ""
        advice = ("to build it for this CPU, in about 5 minutes on 2 cores:",)
        yield Finding("build", "warning", text, advice, f"{single}{_INSTALL}")
    if build["amx"]:
        yield Finding("amx", "ok", "weights repacked for AMX crash llama.cpp, so they are repacked without it")
    if build["half_precision"]:
        text = "this build computes attention with AVX512-FP16, which is slow with gpt-oss's heads of 64 values"
        advice = ("without it, generating is some 15 % faster:",)
        yield Finding("attention", "ok", text, advice, f"{_SINGLE_PRECISION} {_INSTALL}")
    yield from _gpus(build)


def _features(system: str) -> list[str]:
    """Return the CPU's features that a build uses, of its account of itself."""
    parts = (part.strip() for part in system.replace("CPU :", "").split("|"))
    return [part.removesuffix(" = 1") for part in parts if part.endswith(" = 1")]


def _unused(features: list[str]) -> str:
    """Return which features of this CPU a build leaves unused, of those that make it faster."""
    here = hardware.cpu_features()
    return ", ".join(name for flag, name in _FEATURES.items() if flag in here and name not in features)


def _ik(gpu: bool) -> Iterator[Finding]:
    """Yield what there is of ik_llama.cpp; nothing where it cannot be used, or a GPU is faster."""
    installed = ik_installed()
    if installed is None:
        if not gpu and not _gpu_here() and _has_ik_wheel():
            advice = (f"ik_llama.cpp is a faster engine for CPUs ({IK_GAIN}):",)
            yield Finding("ik", "ok", "ik_llama.cpp is not installed; llama.cpp decodes all", advice, _IK_INSTALL)
        return
    if not ik_usable():
        text = f"ik-llama-cpp-python {installed} is not used: this program knows {IK_VERSION} alone"
        yield Finding("ik", "warning", text, ("install the version that it knows:",), _IK_INSTALL)
        return
    try:
        version, system = local_build(IK)
    except SafeguardError as error:
        advice = ("llama.cpp decodes all until it loads; to install it again:",)
        yield Finding("ik", "warning", str(error), advice, f"{_IK_INSTALL} --force-reinstall --no-cache-dir --no-deps")
        return
    features = _features(system)
    place = os.environ.get("IK_LLAMA_CPP_LIB_PATH")
    text = f"ik-llama-cpp-python {version}{f' with {place}' if place else ''}; {', '.join(features)}"
    if "AVX512_VNNI" in _unused(features) and not gpu:
        yield Finding("ik", "ok", f"{text}; built without AVX512_VNNI, which this CPU has", *_native_ik())
    else:
        yield Finding("ik", "ok", text)
    yield _self_test(IK)


def _has_ik_wheel() -> bool:
    """Whether ik-llama-cpp-python comes built for this Python, system and CPU."""
    library, version = platform.libc_ver()
    old = platform.system() == "Linux" and (library != "glibc" or tuple(map(int, version.split(".")[:2])) < _IK_GLIBC)
    cpu = hardware.cpu_features()
    return (
        platform.python_implementation() == "CPython"
        and sys.version_info[0] == 3
        and sys.version_info[1] in _IK_PYTHONS
        and platform.machine() in _IK_WHEELS.get(platform.system(), ())
        and not old
        and (not cpu or "avx2" in cpu)
    )


def _native_ik() -> tuple[tuple[str, ...], str]:
    """Return the advice to build ik_llama.cpp for this CPU, and the command, which replaces the package's libraries.

    pip cannot do it: the source package lacks a file of a program that nobody needs here, common/build-info.
    """
    found = find_spec("ik_llama_cpp")
    folder = Path(found.origin).parent / "lib" if found and found.origin else Path("lib")
    source = f"ik_llama_cpp_python-{IK_VERSION}"
    steps = (
        *([] if shutil.which("cmake") else ["pip install cmake"]),
        f"pip download --no-deps --no-binary :all: ik-llama-cpp-python=={IK_VERSION}",
        f"tar xf {source}.tar.gz",
        f"cmake -S {source}/vendor/ik_llama.cpp -B ik-build"
        f" -DCMAKE_LIBRARY_OUTPUT_DIRECTORY={shlex.quote(str(folder))}",
        f"cmake --build ik-build --target llama -j {psutil.cpu_count(logical=False) or 1}",
    )
    advice = (
        f"a build for this CPU is faster ({IK_NATIVE_GAIN}) and takes 8 to 13 minutes on 2 cores, with a C++ compiler:"
    )
    return (advice,), " && ".join(steps)


def _gpus(build: dict[str, Any]) -> Iterator[Finding]:
    gpus = [device for device in build["devices"] if device["gpu"]]
    for gpu in gpus:
        text = f"{gpu['name']}: {gpu['description']}, {gpu['free'] / 1e9:.1f} of {gpu['total'] / 1e9:.1f} GB free"
        yield Finding("gpu", "ok", text)
    if gpus:
        return
    wanted = _gpu_here()
    if build["gpu"]:
        state: State = "warning" if wanted else "ok"
        advice = ("there seems to be one: is its driver installed, and may this user use it?",) if wanted else ()
        yield Finding("gpu", state, "llama-cpp-python was built for a GPU, but finds none", advice)
    elif wanted:
        advice = ("there seems to be a GPU; to use it:",)
        text = "llama-cpp-python was built for the CPU only"
        yield Finding("gpu", "warning", text, advice, f"{BUILDS[wanted]} {_INSTALL}")
    else:
        yield Finding("gpu", "ok", "none; llama.cpp computes on the CPU")


def _gpu_here() -> str:
    """Return which build uses this machine's GPU, "" if none is found."""
    if sys.platform == "darwin":
        return "Metal"
    if shutil.which("nvidia-smi"):
        return "CUDA"
    found = ""
    for file in Path("/sys/class/drm").glob("card*/device/vendor"):
        with suppress(OSError):
            found = found or _PCI_VENDORS.get(file.read_text().strip(), "")
    return found


def _self_test(engine: str = LLAMA) -> Finding:
    """Label one text with the demo model, in a child process as in every run."""
    path = find_model(DEMO)
    problem: State = "broken" if engine == LLAMA else "warning"
    with_it = "" if engine == LLAMA else f" with {engine}"
    try:
        harmony = Harmony(Tokenizer.from_header(open_model(path)))
        prefix = harmony.prefix(Policy("test", "Say yes or no.", ("no", "yes"), ("yes",)), "low")
        prompt = Prompt(0, 0, 0, harmony.content_ids(harmony.text_ids("hello")))
        spec = EngineSpec(path, (prefix,), Options(8), Plan(1, 1024), Loading(1, engine=engine))
        with LocalEngine(spec) as running:
            completion = next(iter(running.complete(iter([prompt]))))
    except SafeguardError as error:
        text = f"the demo model does not work{with_it}: {error}"
        return Finding("self-test", problem, text, ("install safeguard again",) if engine == LLAMA else ())
    if completion.error:
        text = f"the demo model does not work{with_it}: {completion.error}"
        return Finding("self-test", problem, text, (f"see {engine} above",))
    return Finding("self-test", "ok", f"the demo model loads and decodes{with_it}")


def _models() -> Iterator[Finding]:
    try:
        name = configured_model()
        path = find_model(name)
        header = open_model(path, newer_type)
        Harmony(Tokenizer.from_header(header))
    except SafeguardError as error:
        first, *rest = str(error).split("\n")
        advice = tuple(rest) or (f"safeguard pull {DEFAULT}, or --model demo",)
        yield Finding("model", "warning", first, advice)
        return
    layers, context = header.number("block_count"), header.number("context_length")
    text = (
        f"{name or DEFAULT}: {header.size / 1e9:.1f} GB, {layers} layers, {context:,} tokens of context,"
        f" vocabulary {len(header.metadata['tokenizer.ggml.tokens']):,}; {path}"
    )
    yield Finding("model", "ok", text)
    if ik_usable():
        yield _proof(header)


def _proof(header: Header) -> Finding:
    """Return whether ik_llama.cpp is known to compute what llama.cpp does with a model."""
    known = proof.known(header.path, *compared())
    if known is None:
        text = (
            "not proved yet to compute what llama.cpp does with this model: bench does, and a run that is long enough"
        )
    elif known.proved:
        text = "proved to compute what llama.cpp does with this model: --engine auto decodes with it on a CPU"
    else:
        text = f"not used with this model unless --engine ik asks for it: {known.reason}"
    return Finding("ik", "ok", text)

"""`safeguard doctor` shows what matters on this machine, and nothing about other ones."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from helpers.command import safeguard
from helpers.engines import needs_ik
from helpers.screen import lines_at

from safeguard_cli.engine.local import hardware
from safeguard_cli.engine.local.plan import IK, IK_VERSION
from safeguard_cli.engine.local.probe import local_build
from safeguard_cli.machine import doctor
from safeguard_cli.machine.doctor import Finding

CPU = {
    "version": "1",
    "system": "CPU : SSE3 = 1 | AVX512 = 1 | NEON = 0 | REPACK = 1 | ",
    "gpu": False,
    "amx": False,
    "half_precision": False,
    "backends": ["CPU"],
    "devices": [],
}
GPU = {"name": "CUDA0", "description": "H100", "free": 70e9, "total": 80e9, "gpu": True}


def found(build: dict, topic: str) -> list[Finding]:
    return [finding for finding in doctor._engine(build) if finding.topic == topic]


def test_a_machine_without_a_gpu_hears_nothing_of_builds_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_gpu_here", lambda: "")
    (gpu,) = found(CPU, "gpu")
    assert (gpu.state, gpu.text, gpu.facts()["advice"]) == ("ok", "none; llama.cpp computes on the CPU", "")


@pytest.mark.parametrize("wanted", ["CUDA", "Metal", "Vulkan"])
def test_a_gpu_that_the_build_leaves_idle_gets_the_one_command_for_it(wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_gpu_here", lambda: wanted)
    (gpu,) = found(CPU, "gpu")
    advice = gpu.facts()["advice"]
    assert gpu.state == "warning"
    assert advice.startswith(f'there seems to be a GPU; to use it: CMAKE_ARGS="-DGGML_{wanted.upper()}=on" pip install')
    assert advice.count("CMAKE_ARGS") == 1


@pytest.mark.parametrize(("seen", "state"), [("", "ok"), ("CUDA", "warning")])
def test_a_build_for_gpus_that_finds_none_says_so(seen, state, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_gpu_here", lambda: seen)
    (gpu,) = found({**CPU, "gpu": True}, "gpu")
    assert (gpu.state, gpu.text) == (state, "llama-cpp-python was built for a GPU, but finds none")
    assert bool(gpu.advice) == (state == "warning")
    (gpu,) = found({**CPU, "gpu": True, "devices": [GPU]}, "gpu")
    assert (gpu.state, gpu.text) == ("ok", "CUDA0: H100, 70.0 of 80.0 GB free")


def test_a_gpu_is_seen_by_its_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert doctor._gpu_here() == "CUDA"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert doctor._gpu_here() == "Metal"


def test_the_features_of_a_build_are_named_without_their_marks() -> None:
    (llama,) = found(CPU, "llama.cpp")
    assert llama.text == "llama-cpp-python 1; backends CPU; SSE3, AVX512, REPACK"


def on_cpu(monkeypatch: pytest.MonkeyPatch, *features: str) -> None:
    monkeypatch.setattr(hardware, "cpu_features", lambda: frozenset(features))


def test_a_build_without_what_the_cpu_has_gets_the_command_of_one_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu(monkeypatch, "avx512f", "avx512_vnni")
    (build,) = found(CPU, "build")
    assert (build.state, build.text) == ("warning", "llama.cpp was built without AVX512_VNNI, which this CPU has")
    assert build.command == doctor._INSTALL
    on_cpu(monkeypatch, "avx512f", "avx512_vnni", "avx512_fp16")
    (build,) = found(CPU, "build")
    assert build.command == f"{doctor._SINGLE_PRECISION} {doctor._INSTALL}", "or attention would be slow"
    assert not found({**CPU, "gpu": True}, "build"), "the command would build it without the GPU"
    on_cpu(monkeypatch, "avx512f")
    assert not found(CPU, "build")


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_the_cpus_features_are_those_that_the_system_tells() -> None:
    text = Path("/proc/cpuinfo").read_text()
    found = hardware.cpu_features()
    assert bool(found) == ("\nflags" in text)
    assert all(f" {name}" in text for name in found)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86's features")
@needs_ik
def test_ik_says_itself_how_it_is_built() -> None:
    found, system = local_build(IK)
    assert found == version("ik-llama-cpp-python") == IK_VERSION
    assert "AVX2" in doctor._features(system)


@needs_ik
def test_doctor_shows_both_engines_and_tries_both(tmp_path: Path) -> None:
    done = safeguard("doctor", HF_HOME=str(tmp_path), SAFEGUARD_MODEL="demo")
    lines = done.stdout.decode().splitlines()
    assert any(line.startswith("ok      llama.cpp  llama-cpp-python ") for line in lines)
    assert any(line.startswith(f"ok      ik         ik-llama-cpp-python {IK_VERSION}; ") for line in lines)
    assert "ok      self-test  the demo model loads and decodes" in lines
    assert "ok      self-test  the demo model loads and decodes with ik" in lines
    assert lines[-1].startswith("ok      ik         "), "whether it is proved with the model"


@needs_ik
def test_an_ik_that_does_not_load_is_a_warning_and_no_more(tmp_path: Path) -> None:
    env = {"HF_HOME": str(tmp_path), "SAFEGUARD_MODEL": "demo", "IK_LLAMA_CPP_LIB_PATH": str(tmp_path / "gone.so")}
    done = safeguard("doctor", **env)
    assert done.returncode == 5
    (line,) = (line for line in done.stdout.decode().splitlines() if line.startswith("warning ik "))
    assert "gone.so" in line
    assert b"broken" not in done.stdout


@needs_ik
@pytest.mark.parametrize("cpu", [("avx2", "avx512f", "avx512_vnni"), ("avx2", "avx512f"), ()])
def test_an_ik_that_leaves_vnni_unused_gets_the_commands_of_a_build_that_does_not(
    cpu: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu(monkeypatch, *cpu)
    monkeypatch.setattr(
        doctor, "local_build", lambda engine: (IK_VERSION, "AVX2 = 1 | AVX512 = 0 | AVX512_VNNI = 0 | ")
    )
    ik, _ = doctor._ik(gpu=False)
    assert ik.text.startswith(f"ik-llama-cpp-python {IK_VERSION}; AVX2")
    assert ("built without AVX512_VNNI" in ik.text) == ("avx512_vnni" in cpu) == bool(ik.command)
    if ik.command:
        steps = ik.command.split(" && ")
        assert steps[-2].endswith("/ik_llama_cpp/lib"), "where the package looks for its libraries"
        assert steps[-1] == f"cmake --build ik-build --target llama -j {psutil.cpu_count(logical=False) or 1}"
    (ik, _) = doctor._ik(gpu=True)
    assert not ik.command


def test_an_ik_of_another_version_is_not_used_and_the_known_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ik_installed", lambda: "9.9")
    monkeypatch.setattr(doctor, "ik_usable", lambda: False)
    (ik,) = doctor._ik(gpu=False)
    assert (ik.state, ik.command) == ("warning", f"pip install 'ik-llama-cpp-python=={IK_VERSION}'")
    assert "9.9 is not used" in ik.text


@pytest.mark.parametrize(
    ("system", "machine", "python", "libc", "cpu", "offered"),
    [
        ("Linux", "x86_64", (3, 11), ("glibc", "2.36"), ("avx2",), True),
        ("Linux", "aarch64", (3, 13), ("glibc", "2.28"), (), True),
        ("Darwin", "arm64", (3, 10), ("", ""), (), True),
        ("Windows", "AMD64", (3, 12), ("", ""), (), True),
        ("Linux", "x86_64", (3, 14), ("glibc", "2.36"), ("avx2",), False),
        ("Linux", "x86_64", (3, 11), ("glibc", "2.17"), ("avx2",), False),
        ("Linux", "x86_64", (3, 11), ("", ""), ("avx2",), False),
        ("Linux", "x86_64", (3, 11), ("glibc", "2.36"), ("sse4_2",), False),
        ("Darwin", "x86_64", (3, 11), ("", ""), (), False),
        ("Linux", "ppc64le", (3, 11), ("glibc", "2.36"), (), False),
    ],
)
def test_ik_is_offered_where_it_comes_built_and_no_gpu_is_faster(
    system, machine, python, libc, cpu, offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ik_installed", lambda: None)
    monkeypatch.setattr(doctor, "_gpu_here", lambda: "")
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(sys, "version_info", (*python, 0, "final", 0))
    on_cpu(monkeypatch, *cpu)
    assert [ik.command for ik in doctor._ik(gpu=False)] == [doctor._IK_INSTALL] * offered
    assert not [*doctor._ik(gpu=True)]
    monkeypatch.setattr(doctor, "_gpu_here", lambda: "CUDA")
    assert not [*doctor._ik(gpu=False)], "a build for the GPU is named in its place"


@pytest.mark.parametrize("width", [80, 60])
def test_at_a_terminal_every_line_begins_where_its_text_did(width: int, tmp_path) -> None:
    lines = lines_at(width, "doctor", cwd=tmp_path, HF_HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    assert all(len(line) <= width for line in lines)
    heads = ("ok      ", "warning ", "broken  ")
    assert all(line.startswith(heads) or line.startswith(" " * 19) for line in lines)
    assert [line.split()[1] for line in lines if line.startswith(heads)][:4] == ["python", "memory", "cpu", "disk"]
    arrows = [line for line in lines if line.startswith(" " * 19 + "→ ")]
    assert len(arrows) >= 2
    assert any(line.endswith("safeguard pull gpt-oss-safeguard-20b") for line in lines), "the command is not torn"


@pytest.mark.parametrize("width", [80, 60])
def test_the_models_fit_a_terminal_and_show_no_notes_of_ours(width: int, tmp_path) -> None:
    lines = lines_at(width, "models", cwd=tmp_path, HF_HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    assert all(len(line) <= width for line in lines)
    shown = "\n".join(lines)
    assert "checked" not in shown
    for name in ("gpt-oss-safeguard-20b", "gpt-oss-safeguard-120b", "gpt-oss-20b", "gpt-oss-120b"):
        assert sum(line.endswith(f"  safeguard pull {name}") for line in lines) == 1
    assert (len(lines) == 6) == (width == 80), "one line for each where there is room, else two"


@pytest.mark.parametrize("width", [80, 60])
def test_policies_are_listed_and_shown_with_hanging_indents(width: int, tmp_path) -> None:
    lines = lines_at(width, "policy", "list", cwd=tmp_path)
    assert all(len(line) <= width for line in lines)
    assert sum(" tokens" in line for line in lines[:-1]) == 17
    shown = lines_at(width, "policy", "show", "hate", cwd=tmp_path)
    assert all(len(line) <= width for line in shown)
    at = next(at for at, line in enumerate(shown) if line.startswith("description: "))
    assert shown[at + 1].startswith(" " * len("description: "))
    at = next(at for at, line in enumerate(shown) if line.startswith("- **HT1**"))
    assert shown[at + 1].startswith("  ")

"""`safeguard doctor` shows what matters on this machine, and nothing about other ones."""

from __future__ import annotations

import shutil
import sys

import pytest
from helpers.screen import lines_at

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

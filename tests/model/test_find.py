"""A hostile, damaged or split model file is loaded, or refused in a sentence; the command never crashes on one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.prompts import prefix_of, prompts_of
from helpers.tiny_model import header as header_of
from helpers.tiny_model import split
from hypothesis import given
from hypothesis import strategies as st
from tools.memory_plan import measure, within

from safeguard_cli import files
from safeguard_cli.engine.decoding import Options
from safeguard_cli.engine.local import fit
from safeguard_cli.engine.local.fit import GPU_RESERVE, place
from safeguard_cli.engine.local.plan import Device, Loading, Plan
from safeguard_cli.engine.local.probe import Probe, check_loadable, gpu_build
from safeguard_cli.engine.local.process import EngineSpec, LocalEngine
from safeguard_cli.errors import EngineError, SafeguardError
from safeguard_cli.model.find import find_model, open_model
from safeguard_cli.model.fingerprint import keep_sha256, model_fingerprint, model_key, model_sha256
from safeguard_cli.model.gguf import BadModelFile, Tensor, read_header, read_model
from safeguard_cli.model.names import choose_files
from safeguard_cli.model.tokenizer import Tokenizer
from safeguard_cli.prompt.harmony import Harmony

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")
GB = 10**9


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def scores(path: Path, **options) -> list[float]:
    """Return the scores that an engine gives a few prompts."""
    harmony = Harmony(Tokenizer.from_header(open_model(path)))
    spec = EngineSpec(path, (prefix_of(harmony, 60),), Options(2), Plan(2, 1024), Loading(1, **options))
    with LocalEngine(spec) as engine:
        done = sorted(engine.complete(prompts_of(harmony, [5, 30, 12])), key=lambda c: c.prompt.row)
    return [score for completion in done for score in completion.scores]


def test_a_model_in_three_parts_loads_and_is_the_same_model(tiny: Path, tmp_path: Path) -> None:
    parts = split(tiny, tmp_path, 3)
    header = open_model(parts[0])
    assert header.size == sum(part.stat().st_size for part in parts)
    assert [t.name for t in header.tensors] == [t.name for t in read_header(tiny).tensors]
    assert open_model(parts[2]).path == parts[0], "any part stands for the whole"
    assert scores(parts[0]) == scores(tiny)
    assert model_sha256(parts[0]).count(",") == 2
    before, key = model_fingerprint(parts[0]), model_key(parts[0])
    with parts[2].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xee")
    assert model_fingerprint(parts[0]) != before
    assert model_key(parts[0]) != key


def test_a_kept_hash_is_forgotten_when_the_file_changes_in_place_or_is_replaced(tiny: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "model.gguf", tmp_path / "other.gguf"
    path.write_bytes(tiny.read_bytes())
    keep_sha256(path, "0" * 64)
    assert model_sha256(path) == "0" * 64, "it is not read again"
    other.write_bytes(tiny.read_bytes()[:-1] + b"\xee")
    state = path.stat()
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))  # as a copy that keeps the times
    other.replace(path)
    assert model_sha256(path) == files.sha256(path)
    keep_sha256(path, "1" * 64)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert model_sha256(path) == files.sha256(path)


def test_parts_that_miss_or_are_swapped_are_refused(tiny: Path, tmp_path: Path) -> None:
    parts = split(tiny, tmp_path, 3)
    second, third = parts[1].read_bytes(), parts[2].read_bytes()
    parts[1].write_bytes(third)
    with pytest.raises(BadModelFile, match=r"says that it is part 3 of 3"):
        read_model(parts[0])
    parts[1].write_bytes(second)
    parts[2].unlink()
    with pytest.raises(BadModelFile, match=r"00003-of-00003\.gguf is missing beside"):
        read_model(parts[0])
    alone = parts[0].rename(tmp_path / "alone.gguf")
    with pytest.raises(BadModelFile, match="must keep the names"):
        read_model(alone)


def refused(path: Path, probe: Probe) -> bool:
    """Return whether a file is refused before it is loaded; any error but a SafeguardError fails the test."""
    try:
        Harmony(Tokenizer.from_header(open_model(path)))
        check_loadable(path, model_key(path), probe)
    except SafeguardError as error:
        assert str(error)
        return True
    return False


def test_a_model_truncated_at_50_places_or_with_200_changed_headers_never_crashes(tiny: Path, tmp_path: Path) -> None:
    content, rng = tiny.read_bytes(), np.random.default_rng(3)
    end = content.rindex(b"ffn_down_exps.bias") + 64
    path = tmp_path / "model.gguf"
    loaded = 0
    with Probe() as probe:
        for place_ in [*rng.integers(0, end, 25), *rng.integers(end, len(content), 25)]:
            path.write_bytes(content[:place_])
            assert refused(path, probe)
        for _ in range(200):
            damaged = bytearray(content)
            for place_ in rng.integers(0, end, rng.integers(1, 5)):
                damaged[place_] = rng.integers(256)
            path.write_bytes(damaged)
            if not refused(path, probe):
                loaded += 1
                try:
                    scores(path)  # the engine loads it
                except SafeguardError as error:
                    assert str(error)
    assert loaded, "some damage in texts should do no harm"


def test_a_probe_that_was_killed_is_said_and_replaced(tiny: Path) -> None:
    with Probe() as probe:
        assert probe.ask("vocabulary", path=str(tiny))["tokens"] > 300
        probe._child.kill()
        with pytest.raises(EngineError, match=r"died \(SIGKILL\)"):
            probe.ask("build")
        assert "CPU" in probe.ask("build")["backends"]


def test_a_file_that_was_fine_is_not_asked_about_again(tiny: Path) -> None:
    check_loadable(tiny, "key")
    check_loadable(tiny.with_name("gone.gguf"), "key")
    with pytest.raises(EngineError, match=r"gone\.gguf cannot be used: llama\.cpp cannot load it"):
        check_loadable(tiny.with_name("gone.gguf"), "another key")


def test_the_wrong_thing_is_named(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    (tmp_path / "in.jsonl").write_text('{"text": "x"}\n')
    content = tiny.read_bytes()
    for damage, said in (
        (content[: len(content) // 2], "cut short"),
        (content.replace(b"<|message|>", b"<|massage|>"), "lacks harmony's <|message|>"),
        (content.replace(b"gpt-oss", b"llama-x"), "only gpt-oss models can be used"),
        (b"PK" + content[2:], "not a GGUF file"),
    ):
        path.write_bytes(damage)
        command = [SAFEGUARD, "label", tmp_path / "in.jsonl", "-p", "spam", "--model", path, "--threads", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_nothing_is_imported_from_a_folder_of_data(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("multiprocessing", "json", "ctypes", "numpy", "llama_cpp", "safeguard_cli", "tempfile"):
        (tmp_path / f"{name}.py").write_text("open('trapped', 'w')")
    monkeypatch.chdir(tmp_path)
    assert scores(tiny)
    check_loadable(tiny, "key")
    assert Path.cwd() == tmp_path
    assert not (tmp_path / "trapped").exists()


def test_experts_on_the_cpu_change_nothing_without_a_gpu(tiny: Path) -> None:
    assert scores(tiny, cpu_moe=1, extra_buffers=False) == scores(tiny, extra_buffers=False)


def test_a_smaller_cache_type_gives_nearly_the_same_scores(tiny: Path) -> None:
    assert scores(tiny, cache_type="q8_0") == pytest.approx(scores(tiny), abs=0.2)


@pytest.mark.parametrize("effort", ["none", "low"])
@pytest.mark.parametrize("slots", [1, 32])
def test_the_memory_plan_of_the_demo_model_is_right(slots: int, effort: str) -> None:
    planned, measured = measure(find_model("demo"), slots, "--threads", "1", "--effort", effort)
    assert within(planned, measured), f"planned {planned / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB"


# Planning for a GPU needs none.
def sized(name: str, size: int) -> Tensor:
    return Tensor(name, (size,), 24, 0, size)


LAYERS = 24
LARGE = header_of(size=12 * GB)
LARGE = type(LARGE)(
    LARGE.path,
    LARGE.size,
    LARGE.metadata,
    (
        *(sized(f"blk.{i}.attn_q.weight", 20_000_000) for i in range(LAYERS)),
        *(sized(f"blk.{i}.ffn_up_exps.weight", 420_000_000) for i in range(LAYERS)),
        *(sized("output.weight", 600_000_000), sized("token_embd.weight", 600_000_000)),
    ),
)


def gpu(free: float) -> Device:
    return Device("GPU0", "a card", int(free * GB), int(free * GB), gpu=True, unified=False)


def test_without_a_gpu_all_is_in_the_machines_memory() -> None:
    layers, moe, memory = place(LARGE, Plan(8, 8192), 1, [])
    assert (layers, moe, memory.video, memory.weights) == (-1, 0, 0, LARGE.size)


def test_a_large_gpu_takes_everything_but_the_embedding() -> None:
    layers, moe, memory = place(LARGE, Plan(8, 8192), 1, [gpu(24)])
    assert (layers, moe) == (LAYERS + 1, 0)
    assert memory.weights == LARGE.size - 24 * 440_000_000 - 600_000_000
    assert memory.cache == 0


def test_experts_leave_a_small_gpu_first_then_layers() -> None:
    plan, seen = Plan(8, 8192), []
    for free in (24, 12, 8, 5, 3, 2, 1, 0.3):
        layers, moe, memory = place(LARGE, plan, 1, [gpu(free)])
        assert memory.video <= max(0, free * GB - GPU_RESERVE)
        seen.append((layers, -moe))
    assert seen == sorted(seen, key=lambda p: (p[0], p[1]), reverse=True)
    assert any(layers == LAYERS + 1 and moe < 0 for layers, moe in seen), "experts before layers"
    assert seen[-1][0] == 0


def test_what_was_asked_for_is_kept() -> None:
    assert place(LARGE, Plan(8, 8192), 1, [gpu(1)], gpu_layers=5, cpu_moe=24)[:2] == (5, 24)
    assert place(LARGE, Plan(8, 8192), 1, [gpu(24)], gpu_layers=0)[2].video == 0


def test_a_gpu_that_holds_the_model_gets_as_many_slots_as_its_memory_allows() -> None:
    def shape(free: float, prefixes: int = 1) -> tuple[int, int, int]:
        found = fit.shape_run(
            LARGE, [700] * prefixes, [300] * prefixes, context=None, slots=None, threads=1, devices=[gpu(free)]
        )
        return found.plan.slots, found.loading.gpu_layers, found.loading.cpu_moe

    assert shape(40) == (fit.GPU_SLOTS, LAYERS + 1, 0)
    assert 16 < shape(14)[0] < fit.GPU_SLOTS and shape(14)[1:] == (LAYERS + 1, 0)
    assert shape(40, 150)[0] == 53  # two sequences a slot beside those of the policies, of 256
    assert shape(6)[0] == 16 and shape(6)[2] > 0  # the model is not whole on it: the processor decides


def test_what_kills_the_probe_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho 'GGML_ASSERT(x) failed' >&2\nkill -ABRT $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    with Probe() as probe, pytest.raises(EngineError, match=r"SIGABRT.*\[GGML_ASSERT\(x\) failed\]"):
        probe.ask("build")


def test_a_build_for_the_cpu_is_not_asked_for_devices() -> None:
    with Probe() as probe:
        assert gpu_build() == any(device["gpu"] for device in probe.ask("build")["devices"])


@pytest.mark.parametrize(
    ("names", "wanted", "chosen"),
    [
        (["a-Q4_K_M.gguf", "a-Q8_0.gguf"], "Q4_K_M", ["a-Q4_K_M.gguf"]),
        (["a-Q4_K_M.gguf", "a-Q8_0.gguf"], "q8_0", ["a-Q8_0.gguf"]),
        (["a.gguf", "mmproj-a.gguf", "README.md"], "", ["a.gguf"]),
        (["b-00002-of-00002.gguf", "b-00001-of-00002.gguf"], "", ["b-00001-of-00002.gguf", "b-00002-of-00002.gguf"]),
        (["Q4/b-Q4-00001-of-00001.gguf", "c-Q8.gguf"], "Q4", ["Q4/b-Q4-00001-of-00001.gguf"]),
        (["x/b-00001-of-00002.gguf", "x/b-00002-of-00002.gguf"], "x/b-00002-of-00002.gguf", None),
    ],
)
def test_files_are_chosen_by_name_or_quantization(names: list[str], wanted: str, chosen: list[str] | None) -> None:
    assert choose_files(names, wanted, "a/b") == tuple(sorted(names) if chosen is None else chosen)


def test_doctor_says_what_it_found_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    done = subprocess.run([SAFEGUARD, "doctor", "--json"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    report = json.loads(done.stdout)
    found = {finding["topic"]: finding for finding in report["findings"]}
    assert done.returncode == 5
    assert report["state"] == "warning"
    assert found["self-test"]["state"] == "ok"
    assert "safeguard pull" in found["model"]["advice"]
    assert {"python", "memory", "cpu", "disk", "llama.cpp", "gpu"} <= set(found)
    assert found["gpu"]["advice"].count("GGML_") <= 1, "only a build for the GPU that is here"
    assert all(list(finding) == ["topic", "state", "text", "advice"] for finding in report["findings"])
    assert all(isinstance(value, str) for finding in report["findings"] for value in finding.values())
    instructions = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    slow = found.get("attention")  # None in builds for another CPU or with these options
    assert slow is None or ("avx512_fp16" in instructions and "-mno-avx512fp16" in slow["advice"])
    without = "import sys; sys.executable = '/bin/false'; from safeguard_cli.cli.app import main; main()"
    command = [sys.executable, "-c", without, "doctor"]
    broken = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert broken.returncode == 1
    assert "broken" in broken.stdout
    assert "pip install" in broken.stdout


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("dmeo", "demo"),
        ("Demo", "demo"),
        ("gpt-oss-safegard-20b", "gpt-oss-safeguard-20b"),
        ("gpt-oss-20B.gguf", "gpt-oss-20b"),
        ("my-modl", "my-model.gguf"),
        ("my-model", "my-model.gguf"),
        ("sub/other", "sub/others.gguf"),
        ("sub/nothing-alike", None),
        ("qwen", None),
    ],
)
def test_an_unknown_model_is_asked_about_by_what_there_is(
    name: str, near: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for file in ("my-model.gguf", "sub/others.gguf", "notes.txt"):
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(SafeguardError) as caught:
        find_model(name)
    hint = f"did you mean {near!r}?" if near else "not one of demo, gpt-oss-safeguard-20b"
    assert hint in str(caught.value)
    assert str(caught.value).startswith(f"no model {name!r}: not a file")


@given(
    st.text(max_size=40) | st.text("demo-gpt20bs./hf:\x1b\n\0\ud800", max_size=600).filter(lambda name: name != "demo")
)
def test_every_unknown_model_is_refused_with_one_short_sentence(name: str) -> None:
    with pytest.raises(SafeguardError) as caught:
        find_model(name)
    (sentence,) = caught.value.args
    assert len(sentence) < 4000
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in sentence)


def test_layers_that_were_asked_for_and_do_not_fit_the_gpu_are_refused_with_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fit, "free_memory", lambda: 64 * GB)
    given = {"context": None, "slots": 4, "threads": 1}
    with pytest.raises(SafeguardError, match=r"MB on the GPU \(room: 1,463\); 64,000 MB are free"):
        fit.shape_run(LARGE, [700], [300], **given, gpu_layers=20, cpu_moe=0, devices=[gpu(2)])
    shape = fit.shape_run(LARGE, [700], [300], **given, devices=[gpu(4)])
    assert (shape.loading.gpu_layers, shape.loading.cpu_moe > 10) == (25, True)


def test_a_probe_that_hangs_ends_with_a_sentence_and_one_that_reads_is_waited_for(tiny, monkeypatch) -> None:
    monkeypatch.setattr("safeguard_cli.engine.local.probe.TIMEOUT", 1.0)
    with Probe() as probe:
        os.kill(probe._start().pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(EngineError, match=r"tiny.gguf cannot be used: llama.cpp gave no answer .* for 1 seconds"):
            check_loadable(tiny, "key", probe)
        assert 0.9 < time.monotonic() - began < 10
        child = probe._start()
        os.kill(child.pid, signal.SIGSTOP)
        progress = iter(range(12))  # it reads for three times as long as it may stall
        monkeypatch.setattr("safeguard_cli.engine.local.probe._bytes_read", lambda _: next(progress, 12))
        threading.Timer(2.5, os.kill, (child.pid, signal.SIGCONT)).start()
        check_loadable(tiny, "key", probe)

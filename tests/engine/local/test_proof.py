"""An engine that is right is proved, one that is wrong is not: real engines, and models with planted errors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from helpers import ROOT, tiny_model
from helpers.engines import needs_ik

from safeguard_cli.engine.local import evidence, proof
from safeguard_cli.engine.local.plan import IK, Loading
from safeguard_cli.engine.local.proof import Verdict, judge
from safeguard_cli.model import kept
from safeguard_cli.model.fingerprint import model_key

WINDOW = 128
LLAMA = Loading(1, gpu_layers=0, extra_buffers=False)
PLAIN, REPACKED = replace(LLAMA, flash=False), replace(LLAMA, extra_buffers=True)
IK_PLAIN, IK_FLASH = (Loading(1, gpu_layers=0, flash=flash, engine=IK) for flash in (False, True))
SIZES = {"layers": 4, "hidden": 256, "used": 4, "count": 16, "head": 64, "attention": 1.0}
DEMO = ROOT / "safeguard_cli/demo/demo.gguf"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proof")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return tiny_model.write(folder / "right.gguf", **SIZES)


@pytest.fixture(scope="module")
def right(folder: Path, model: Path) -> proof.Evidence:
    return _evidence(folder / "right.npz", model, LLAMA)


@pytest.fixture(scope="module")
def trained(folder: Path) -> proof.Evidence:
    return _evidence(folder / "trained.npz", DEMO, LLAMA)


def _evidence(file: Path, model: Path, loading: Loading) -> proof.Evidence:
    proof.evidence(model, file, WINDOW, loading)
    with np.load(file) as found:
        return dict(found)


def _doubled(source: Path, target: Path, tensor: str, expert: int) -> Path:
    """Copy a model with one expert's weights of a tensor doubled: MXFP4 keeps a power of two for 32 values."""
    found = next(one for one in GGUFReader(source).tensors if one.name == tensor)
    target.write_bytes(source.read_bytes())
    size = found.n_bytes // SIZES["count"]
    data = np.memmap(target, np.uint8, "r+", found.data_offset + expert * size, size)
    data.reshape(-1, 17)[:, 0] += 1
    data.flush()
    return target


@pytest.mark.parametrize("loading", [PLAIN, REPACKED], ids=["plain", "repacked"])
def test_settings_of_one_library_are_proved_equal(folder, model, right, loading) -> None:
    verdict = judge(right, _evidence(folder / "other.npz", model, loading), WINDOW)
    assert (verdict.proved, verdict.judged) == (True, True), verdict
    assert verdict.cells > 0.9 and verdict.error < 0.05 and verdict.expert < 1.4


@needs_ik
@pytest.mark.parametrize("loading", [IK_PLAIN, IK_FLASH], ids=["plain", "flash"])
def test_ik_is_proved_equal(folder, model, right, loading) -> None:
    verdict = judge(right, _evidence(folder / "other.npz", model, loading), WINDOW)
    assert (verdict.proved, verdict.judged) == (True, True), verdict
    assert verdict.cells > 0.9 and verdict.error < 0.05 and verdict.expert < 1.4


@needs_ik
@pytest.mark.parametrize("loading", [PLAIN, IK_PLAIN, IK_FLASH], ids=["llama.cpp", "plain", "flash"])
def test_a_trained_model_is_judged_in_full(folder, trained, loading) -> None:
    verdict = judge(trained, _evidence(folder / "other.npz", DEMO, loading), WINDOW)
    assert (verdict.proved, verdict.judged, verdict.cells) == (True, True, 1.0), verdict


@needs_ik
@pytest.mark.parametrize("mended", ["_keep_out", "_keep_ends"])
def test_what_the_fork_computes_wrongly_by_itself_is_rejected(folder, model, right, mended) -> None:
    """Its own flash attention, and attention beside gaps in the cache."""
    code = (
        "import sys; from pathlib import Path\n"
        "from safeguard_cli.engine.local import evidence, ik\n"
        f"ik.IkModel.{mended} = lambda *_: None\n"
        "sizes = dict(zip(('used', 'width', 'layers'), map(int, sys.argv[3:])))\n"
        "evidence.gather(Path(sys.argv[1]), Path(sys.argv[2]), window=128, **sizes, threads=1, engine='ik')\n"
    )
    file = folder / f"{mended}.npz"
    sizes = [str(SIZES[name]) for name in ("used", "hidden", "layers")]
    ran = subprocess.run([sys.executable, "-c", code, model, file, *sizes], capture_output=True, text=True)
    if ran.returncode:  # it may abort instead: GGML_ASSERT(S > 0)
        assert ran.returncode < 0, ran.stderr
        return
    with np.load(file) as found:
        verdict = judge(right, found, WINDOW)
    assert (verdict.proved, verdict.judged) == (False, True), verdict


@needs_ik
@pytest.mark.parametrize(
    ("window", "loading"), [(WINDOW - 1, IK_PLAIN), (WINDOW + 1, REPACKED)], ids=["shorter, ik", "longer, llama.cpp"]
)
def test_a_window_off_by_one_is_rejected(folder, right, window, loading) -> None:
    wrong = tiny_model.write(folder / f"window-{window}.gguf", **SIZES, window=window)
    verdict = judge(right, _evidence(folder / "window.npz", wrong, loading), WINDOW)
    assert (verdict.proved, verdict.judged) == (False, True), verdict
    assert "beyond the window" in verdict.reason


@needs_ik
@pytest.mark.parametrize("loading", [REPACKED, IK_PLAIN], ids=["llama.cpp", "ik"])
def test_one_wrong_expert_is_found_and_named(folder, model, right, loading) -> None:
    wrong = _doubled(model, folder / "expert.gguf", "blk.2.ffn_up_exps.weight", 5)
    verdict = judge(right, _evidence(folder / "expert.npz", wrong, loading), WINDOW)
    assert (verdict.proved, verdict.judged) == (False, True), verdict
    assert verdict.reason.startswith("layer 2, expert 5 differs ")


def test_what_is_not_finite_is_rejected(right) -> None:
    verdict = judge(right, {**right, "finite": np.array(False)}, WINDOW)
    assert verdict == Verdict(False, True, "it computes values that are not finite")


def test_other_values_in_one_grouping_are_rejected(right) -> None:
    other = np.roll(right["other"], 1, axis=0)
    verdict = judge(right, {**right, "other": other}, WINDOW)
    assert (verdict.proved, verdict.judged) == (False, True)
    assert "grouping" in verdict.reason


def test_where_experts_part_soon_nothing_is_proved(right) -> None:
    rng = np.random.default_rng(0)
    wrong = {f"experts-{layer}": right[f"experts-{layer}"].copy() for layer in range(4)}
    for layer in (1, 2, 3):
        wrong[f"experts-{layer}"][rng.random(len(right["position"])) < 0.9, 0] += 1
    verdict = judge(right, {**right, **wrong}, WINDOW)
    assert (verdict.proved, verdict.judged) == (False, False)
    assert verdict.cells < proof.JUDGED


def test_values_that_cannot_be_compared_are_an_error_without_bound(right) -> None:
    wrong = right["out-1"].copy()
    wrong[0::2] = np.nan
    verdict = judge(right, {**right, "out-1": wrong}, WINDOW)
    assert (verdict.proved, verdict.judged) == (False, True), verdict


def test_a_verdict_is_kept_for_the_file_the_kernels_and_the_cpu_whatever_the_threads(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tiny_model.write(tmp_path / "model.gguf", used=4)
    assert proof.known(path, PLAIN, LLAMA) is None
    told: list[float] = []
    verdict = proof.prove(path, model_key(path), LLAMA, PLAIN, told.append)
    assert verdict.proved and verdict.seconds > 0 and told == [0.5, 1.0]
    assert proof.known(path, PLAIN, LLAMA) == verdict
    assert proof.known(path, replace(PLAIN, threads=7), replace(LLAMA, threads=7)) == verdict
    assert proof.known(path, replace(PLAIN, cache_type="q8_0"), LLAMA) is None
    assert proof.known(path, REPACKED, LLAMA) is None
    monkeypatch.setattr(proof, "_cpu", lambda: "another CPU")
    assert proof.known(path, PLAIN, LLAMA) is None


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"a": {"proved": true}}', b'{"a": {"proved": 1, "judged": 1, "reason": ""}}']
)
def test_verdicts_that_are_no_verdicts_are_ignored(tmp_path, monkeypatch, text) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept.save(proof.PROOFS, {})
    next(tmp_path.rglob(proof.PROOFS)).write_bytes(text)
    assert proof._kept() == {}


def test_logits_that_are_all_alike_are_rejected(right) -> None:
    verdict = judge(right, {**right, "one": np.zeros_like(right["one"])}, WINDOW)
    assert (verdict.proved, verdict.judged, verdict.grouping) == (False, True, 1e6)


def test_the_tokens_of_a_proof_are_those_that_are_decoded(right) -> None:
    looked_at = len(right["position"])
    assert 2 * looked_at - 192 + evidence.GAP == proof.TOKENS
    assert sorted({*right["position"]}) == [-1, *range(144 + 36 + 3)]


def test_an_engine_that_fails_is_rejected_and_that_is_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tiny_model.write(tmp_path / "model.gguf", layers=1)
    wrong = replace(PLAIN, cache_type="none")
    verdict = proof.prove(path, model_key(path), LLAMA, wrong)
    assert (verdict.proved, verdict.judged, verdict.reason) == (False, True, "llama.cpp: KeyError: 'none'")
    assert proof.known(path, wrong, LLAMA) == verdict


@needs_ik
def test_a_library_that_cannot_be_loaded_is_rejected(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("IK_LLAMA_CPP_LIB_PATH", str(tmp_path / "model.gguf"))
    path = tiny_model.write(tmp_path / "model.gguf")
    verdict = proof.prove(path, model_key(path), LLAMA, IK_PLAIN)
    assert (verdict.proved, verdict.judged) == (False, True)
    assert verdict.reason.startswith("ik: "), verdict.reason


def test_a_file_that_is_cut_short_is_rejected(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tiny_model.write(tmp_path / "model.gguf")
    key = model_key(path)
    path.write_bytes(path.read_bytes()[:-1000])
    verdict = proof.prove(path, key, LLAMA, PLAIN)
    assert (verdict.proved, verdict.judged) == (False, True)
    assert "cut short" in verdict.reason
    assert proof._kept()[proof._key(key, LLAMA, PLAIN)] == verdict


def test_the_parent_loads_no_library() -> None:
    code = "import sys; from safeguard_cli.engine.local import proof\n"
    code += "print({'llama_cpp', 'ik_llama_cpp'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"

"""Files with the types of weights that people use are planned, loaded and decoded, those newer than the table too."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_model
from helpers.prompts import prefix_of, prompts_of

from safeguard_cli.engine.decoding import Options
from safeguard_cli.engine.local.build import newer_types, tensor_type
from safeguard_cli.engine.local.fit import shape_run
from safeguard_cli.engine.local.plan import Loading, Plan
from safeguard_cli.engine.local.probe import newer_type
from safeguard_cli.engine.local.process import EngineSpec, LocalEngine
from safeguard_cli.errors import SafeguardError
from safeguard_cli.model.gguf import BLOCKS, BadModelFile, read_header
from safeguard_cli.model.tokenizer import Tokenizer
from safeguard_cli.prompt.harmony import Harmony
from safeguard_cli.run.label import label
from safeguard_cli.run.prepare import open_usable
from safeguard_cli.run.settings import Settings

NVFP4, GIVEN_UP, Q8_K, ALIGNMENT = 40, 31, 15, 32
SIZES = {"hidden": 256, "head": 64, "used": 4}


def p_violates(path: Path) -> list[float]:
    """Return what a model of the file makes of a few prompts."""
    harmony = Harmony(Tokenizer.from_header(open_usable(path)))
    spec = EngineSpec(path, (prefix_of(harmony, 60),), Options(0), Plan(2, 1024), Loading(1))
    with LocalEngine(spec) as engine:
        done = sorted(engine.complete(prompts_of(harmony, [5, 30, 12, 40, 8, 21])), key=lambda c: c.prompt.row)
    return [completion.scores[1] for completion in done]


def test_the_table_is_that_of_the_installed_llama_cpp() -> None:
    assert {kind: tensor_type(kind)[:2] for kind in BLOCKS} == BLOCKS
    assert tensor_type(GIVEN_UP) == (0, 0, False)
    assert not tensor_type(Q8_K)[2], "it is for intermediate values"


def test_what_the_table_lacks_is_asked_of_llama_cpp_in_its_own_process() -> None:
    for kind, (block, nbytes, computes) in newer_types().items():
        assert computes and newer_type(kind) == (block, nbytes)
    assert newer_type(NVFP4) == (64, 36)


@pytest.mark.parametrize(
    ("dense", "experts"),
    [
        *((dense, "MXFP4") for dense in ("Q4_K", "Q5_0", "Q6_K", "Q8_0", "BF16", "F16", "NVFP4")),
        ("Q8_0", "NVFP4"),
        ("BF16", "NVFP4"),
    ],
)
def test_weights_of_mixed_types_are_planned_loaded_and_mean_what_they_hold(
    tmp_path: Path, dense: str, experts: str
) -> None:
    path, floats = tmp_path / "model.gguf", tmp_path / "floats.gguf"
    tiny_model.write(path, dense=dense, experts=experts, **SIZES)
    header = open_usable(path)
    tensors = sorted(header.tensors, key=lambda tensor: tensor.offset)
    for one, following in pairwise(tensors):
        assert following.offset == one.offset + -(-one.nbytes // ALIGNMENT) * ALIGNMENT, "as the file has them"
    shape = shape_run(header, [60], [20], context=1024, slots=2, threads=1, repack=False)
    assert shape.memory.weights == header.size == path.stat().st_size
    tiny_model.write(floats, dense=dense, experts=experts, as_floats=True, **SIZES)
    found, expected = p_violates(path), p_violates(floats)
    # llama.cpp rounds what it multiplies such weights with, to 8 bits, which moves a random model's scores a little.
    assert found == pytest.approx(expected, abs=0.15)
    assert np.corrcoef(found, expected)[0, 1] > 0.97


def test_a_file_of_a_newer_type_is_labelled_with(tmp_path: Path, own_cache: None) -> None:
    model = tiny_model.write(tmp_path / "nvfp4.gguf", dense="NVFP4", experts="NVFP4", **SIZES)
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text('{"text": "free prize"}\n{"text": "see you at noon"}\n')
    asked = Settings(
        input=str(rows), output=str(out), policies=("spam",), model=str(model), effort="none", slots=2, quiet=True
    )
    assert label(asked) == 0
    assert [json.loads(line)["spam"]["label"] in ("ham", "spam") for line in out.read_text().splitlines()] == [True] * 2


def test_a_type_that_llama_cpp_does_not_know_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tiny_model.write(tmp_path / "future.gguf", dense="NVFP4", **SIZES)
    name = next(tensor.name for tensor in read_header(path, newer_type).tensors if tensor.type == NVFP4)
    data = bytearray(path.read_bytes())
    at = data.index(name.encode()) + len(name) + 4 + 2 * 8  # after the number of dimensions, and two of them
    assert data[at] == NVFP4
    data[at] = max(newer_types()) + 1
    path.write_bytes(data)
    with pytest.raises(BadModelFile) as problem:
        open_usable(path)
    for part in ("future.gguf", name, f"type {data[at]}", "does not know", "pip install -U llama-cpp-python"):
        assert part in str(problem.value)
    with pytest.raises(SafeguardError, match="does not know"):
        newer_type(999)

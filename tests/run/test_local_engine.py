"""Which library decodes a run: the faster one only where it is proved and worth its start, and never another midway."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.engines import needs_ik
from helpers.runs import ids, row
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli import errors
from safeguard_cli.engine.local import choose, proof
from safeguard_cli.engine.local.choose import worth_proving
from safeguard_cli.engine.local.plan import IK, LLAMA, Device
from safeguard_cli.errors import UsageError
from safeguard_cli.output.manifest import Refused
from safeguard_cli.run import local_engine
from safeguard_cli.run.label import label
from safeguard_cli.run.local_engine import Chosen, choose_engine
from safeguard_cli.run.settings import Settings

HEADER: Any = SimpleNamespace(path=Path("m.gguf"), size=12 << 30)
GPU = Device("CUDA0", "a card", 24 << 30, 24 << 30, gpu=True, unified=False)
RIGHT, WRONG = proof.Verdict(True, True, "rounding"), proof.Verdict(False, True, "layer 3 differs")


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Have ik installed, and a proof that finds `found`; `known` is what one found before, `done` counts them."""
    state: dict[str, Any] = {"known": None, "found": RIGHT, "done": 0}

    def prove(*_: object) -> proof.Verdict:
        state["done"] += 1
        state["known"] = state["found"]
        return state["found"]

    monkeypatch.setattr(local_engine, "ik_usable", lambda: True)
    monkeypatch.setattr(local_engine, "check_installed", lambda _: None)
    monkeypatch.setattr(local_engine, "model_key", lambda _: "key")
    monkeypatch.setattr(proof, "known", lambda *_: state["known"])
    monkeypatch.setattr(proof, "prove", prove)
    return state


def chosen(rows: int | None, *, header: Any = HEADER, gpus: tuple[Device, ...] = (), **given: Any) -> Chosen:
    settings = replace(Settings("in.jsonl", ("spam",), quiet=True), **given)
    return choose_engine(settings, header, {}, rows, gpus)


def test_a_long_run_proves_ik_once_and_takes_it(proofs) -> None:
    assert chosen(1000) == chosen(1000) == Chosen(IK)
    assert proofs["done"] == 1


def test_ik_is_not_taken_where_it_is_found_wrong(proofs) -> None:
    proofs["found"] = WRONG
    assert chosen(1000) == chosen(1000) == Chosen(LLAMA)
    assert proofs["done"] == 1
    assert chosen(1000, engine="ik") == Chosen(IK, False)


@pytest.mark.parametrize(
    ("rows", "given"),
    [
        (1000, {"engine": "llama.cpp"}),
        (1000, {"gpus": (GPU,)}),
        (1000, {"header": SimpleNamespace(path=Path("demo.gguf"), size=6 << 20)}),
        (1000, {"dry_run": True}),
        (20, {}),
        (100, {"effort": "none"}),
        (None, {}),
    ],
)
def test_a_run_that_a_proof_would_not_pay_for_is_decoded_by_llama_cpp(proofs, rows, given) -> None:
    assert chosen(rows, **given) == Chosen(LLAMA)
    assert proofs["done"] == 0


def test_what_is_proved_is_used_by_short_runs_and_pipes_but_not_for_a_few_rows(proofs) -> None:
    proofs["known"] = RIGHT
    assert chosen(20) == chosen(None) == Chosen(IK)
    assert chosen(3) == Chosen(LLAMA)  # its weights would still be on their way into memory


def test_without_the_package_llama_cpp_decodes_and_asking_for_ik_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(choose, "ik_installed", lambda: None)
    assert chosen(1000) == Chosen(LLAMA)
    with pytest.raises(UsageError, match=r"it is not installed: pip install ik-llama-cpp-python==0\.1\.5"):
        chosen(1000, engine="ik")
    monkeypatch.setattr(choose, "ik_installed", lambda: "0.2.0")
    with pytest.raises(UsageError, match=r"0\.2\.0 is installed"):
        chosen(1000, engine="ik")


def test_options_of_gpus_are_refused_beside_ik(proofs) -> None:
    with pytest.raises(UsageError, match="CPU alone"):
        chosen(1000, engine="ik", gpu_layers=4)


@given(st.none() | st.integers(0, 1 << 40), st.booleans(), st.integers(1, 5000))
def test_a_proof_costs_less_than_what_it_can_save(rows: int | None, reasoning: bool, tokens: int) -> None:
    worth = worth_proving(rows, reasoning, tokens)
    assert worth == ((rows or 0) * (195 if reasoning else 31) > 8 * tokens)
    assert not worth or worth_proving((rows or 0) + 1, reasoning, tokens)


@needs_ik
def test_a_run_keeps_the_engine_of_its_first_session_and_refuses_another(tmp_path, tiny) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(row(number, "jsonl") for number in range(8)))
    asked = Settings(
        str(source), ("spam",), output=str(out), model=str(tiny), effort="none", limit=3, threads=1, quiet=True
    )
    label(replace(asked, engine="ik"))
    machine = json.loads((tmp_path / "out.jsonl.manifest.json").read_bytes())["machine"]
    assert machine["engine"]["name"] == IK and machine["engine"]["version"] == "0.1.5"
    assert "AVX2" in machine["engine"]["build"] or "NEON" in machine["engine"]["build"]
    assert machine["engine"]["proved"] is None
    with pytest.raises(Refused, match=r"begun with --engine ik.*leave --engine out") as refused:
        label(replace(asked, engine="llama.cpp", limit=8))
    assert refused.value.exit_code == errors.RESUME_REFUSED
    label(replace(asked, limit=8))
    again = json.loads((tmp_path / "out.jsonl.manifest.json").read_bytes())["machine"]
    assert again["engine"]["name"] == IK
    assert ids(out.read_bytes()) == list(range(8))


@needs_ik
def test_a_run_begun_by_llama_cpp_is_not_continued_by_ik(tmp_path, tiny) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(row(number, "jsonl") for number in range(4)))
    asked = Settings(
        str(source), ("spam",), output=str(out), model=str(tiny), effort="none", limit=2, threads=1, quiet=True
    )
    label(asked)
    with pytest.raises(Refused, match=r"begun with --engine llama\.cpp"):
        label(replace(asked, engine="ik", limit=4))
    label(replace(asked, engine="ik", limit=4, overwrite=True))

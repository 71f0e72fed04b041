"""The demo model is what its card says: the real architecture, trained on this layout and these policies."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers import ROOT
from helpers.command import safeguard

from safeguard_cli.engine.local.build import amx_build
from safeguard_cli.model.find import find_model
from safeguard_cli.model.gguf import Header, read_header
from safeguard_cli.model.names import DEMO_NOTICE
from safeguard_cli.model.tokenizer import Tokenizer
from safeguard_cli.policy.policy import load_policy
from safeguard_cli.prompt.harmony import Harmony, layout_hash

POLICIES = ("spam", "hate", "privacy", "prompt-injection")
MXFP4 = 39


@pytest.fixture(scope="module")
def header() -> Header:
    return read_header(find_model("demo"))


def label(*args: object) -> list[dict]:
    source = ROOT / "samples/messages.jsonl"
    done = safeguard("label", source, "--model", "demo", "--threads", 1, "-q", *args)
    assert done.returncode == 0
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def low() -> list[dict]:
    return label("-p", "spam", "-p", "hate", "--reasoning")


def test_it_was_trained_on_this_prompt_layout(header) -> None:
    assert header.metadata["safeguard.prompt_layout"] == layout_hash(), "the layout changed: train the demo model again"


@pytest.mark.parametrize("name", POLICIES)
def test_it_was_trained_on_the_shipped_policy(header, name) -> None:
    trained = header.metadata[f"safeguard.policy.{name}"]
    assert trained == load_policy(name).sha256, f"policies/{name}.md changed: train the demo model again"


def test_it_is_a_small_gpt_oss_with_all_its_parts(header) -> None:
    assert header.size <= 10_000_000
    assert header.architecture == "gpt-oss"
    assert header.number("attention.sliding_window") == 128
    by_name = {tensor.name: tensor for tensor in header.tensors}
    for part in ("gate", "up", "down"):
        assert by_name[f"blk.0.ffn_{part}_exps.weight"].type == MXFP4
    assert "blk.0.attn_sinks.weight" in by_name


def test_it_says_that_it_is_a_demonstration(tmp_path) -> None:
    command = ("label", "-", "-p", "spam", "--model", "demo", "--threads", 1)
    done = safeguard(*command, stdin=b'{"text":"hi"}\n', XDG_CACHE_HOME=str(tmp_path))
    assert DEMO_NOTICE.encode() in done.stderr
    assert DEMO_NOTICE.count("\n") == 0


def test_it_labels_the_samples(low) -> None:
    right = sum(row["spam"]["label"] == row["label"] for row in low)
    assert right / len(low) >= 0.85


def test_it_labels_the_samples_without_reasoning() -> None:
    rows = label("-p", "spam", "--effort", "none")
    assert sum(row["spam"]["label"] == row["label"] for row in rows) / len(rows) >= 0.85


def test_it_reads_its_policy(low) -> None:
    assert sum(row["hate"]["violates"] for row in low) / len(low) <= 0.1


def test_its_analysis_cites_a_rule_of_the_policy(low) -> None:
    text = load_policy("spam").text
    cited = [re.findall(r"\bSP\d\b", row["spam"]["reasoning"]) for row in low]
    assert all(codes and all(code in text for code in codes) for codes in cited)


def test_its_analysis_quotes_the_content(low) -> None:
    quotes = [(re.findall(r'"([^"]+)"', row["spam"]["reasoning"]), row["text"]) for row in low]
    quoting = [(found, text) for found, text in quotes if found]
    assert sum(all(quote in text for quote in found) for found, text in quoting) / len(quoting) >= 0.9


def test_every_effort_and_rationales_work() -> None:
    for effort in ("medium", "high"):
        rows = label("-p", "spam", "--effort", effort, "--limit", 4)
        assert [row["spam"]["effort"] for row in rows] == [effort] * 4
    rows = label("-p", "spam", "--rationale", "--limit", 8)
    assert all(row["spam"]["rationale"] for row in rows)


def test_a_plain_llama_cpp_program_gets_the_same_answer(low, monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_cpp import Llama, llama_cpp

    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts = not amx_build()  # Llama crashes with AMX, and has no argument for it
    monkeypatch.setattr(llama_cpp, "llama_model_default_params", lambda: params)
    harmony = Harmony(Tokenizer.from_header(read_header(find_model("demo"))))
    prefix = harmony.prefix(load_policy("spam"), "low")
    model = Llama(str(find_model("demo")), n_ctx=2048, n_threads=1, verbose=False)
    end = harmony.tokenizer.control["<|return|>"]
    agreed = 0
    for row in low[:10]:
        prompt = [*prefix.ids, *harmony.content_ids(harmony.text_ids(row["text"]))]
        written: list[int] = []
        for token in model.generate(prompt, temp=0.0):
            if token == end or len(written) == 120:
                break
            written.append(token)
        text = harmony.readable(written)
        found = re.fullmatch(
            r"<\|channel\|>analysis<\|message\|>.+<\|end\|><\|start\|>assistant<\|channel\|>final<\|message\|>(\{.*\})",
            text,
            re.DOTALL,
        )
        assert found, text
        agreed += json.loads(found[1])["label"] == row["spam"]["label"]
    model.close()
    assert llama_cpp.llama_supports_mmap() and agreed >= 9


def test_the_card_stands_beside_it() -> None:
    card = (Path(find_model("demo")).parent / "README.md").read_text()
    for word in ("trained", "not for", "F1"):
        assert word in card

"""`--together`: several policies in one prompt, and one answer with a label for each."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import ROOT
from helpers.command import safeguard

from safeguard_cli.engine.decoding import Options, Trie, decide, overhead
from safeguard_cli.policy.policy import Policy, load_policy
from safeguard_cli.prompt.contract import Prompt
from safeguard_cli.prompt.harmony import prefix_parts, readable, together_parts

POLICIES = (load_policy("spam"), load_policy("hate"), Policy("third", "text", ("no", "not sure", "yes"), ("yes",)))


def test_the_prompt_holds_all_policies_and_asks_for_a_label_of_each() -> None:
    developer = next(part for part in map(readable, together_parts(POLICIES, "low")) if part.startswith("# Instr"))
    assert all(policy.text in developer for policy in POLICIES)
    schema = json.loads(developer.rpartition("\n")[2])
    assert {name: tuple(entry["enum"]) for name, entry in schema["properties"].items()} == {
        policy.name: policy.labels for policy in POLICIES
    }
    assert schema["required"] == ["spam", "hate", "third"]


def test_one_policy_alone_is_asked_as_ever(harmony) -> None:
    assert harmony.prefix(POLICIES[0], "low").contract.more == ()
    assert '{"label":{"type":"string","enum":["ham","spam"]}}' in readable(prefix_parts(POLICIES[0], "low")[8])


@pytest.mark.parametrize("rationale", [False, True])
def test_the_answer_is_one_json_object_with_the_likeliest_labels(harmony, rationale) -> None:
    """Feed the decoder random logits, collect what it decodes: the text must parse and hold what was scored best."""
    prefix = harmony.prefix_together(POLICIES, "none", rationale=rationale)
    trie = Trie(prefix.contract)
    kinds = harmony.tokenizer.string_kinds if rationale else None
    options = Options(0, kinds)
    rng = np.random.default_rng(3)
    decoded: list[int] = []
    row = decide(Prompt(0, 0, 0, (1,)), trie, options)
    step = next(row)
    with pytest.raises(StopIteration) as end:
        while True:
            if not step.branch:
                decoded += step.tokens
            logits = rng.standard_normal((len(step.outputs), len(harmony.tokenizer.string_kinds))).astype(np.float32)
            step = row.send(logits)
    completion = end.value.value
    assert len(decoded) - 1 <= overhead(trie, options)
    begin, said = 0, {}
    for policy in POLICIES:
        own = completion.scores[begin : begin + len(policy.labels)]
        assert sum(own) == pytest.approx(1)
        said[policy.name] = policy.labels[int(np.argmax(own))]
        begin += len(policy.labels)
    assert begin == len(completion.scores)
    answer = harmony.readable(decoded).partition("<|message|>")[2]
    if rationale:
        assert answer.startswith(json.dumps(said, separators=(",", ":"))[:-1] + ',"rationale":"')
    else:  # the last label is chosen and need not be decoded
        rest = list(said.items())[:-1]
        assert answer.startswith(json.dumps(dict(rest), separators=(",", ":"))[:-1] + ',"third":"')


def test_every_policy_gets_its_verdict(tiny) -> None:
    args = ("-p", "spam", "-p", "hate", "--together", "--model", tiny, "--max-reasoning", 4, "--threads", 1, "-q")
    done = safeguard("label", ROOT / "samples/messages.jsonl", *args, "--limit", 6, "--rationale")
    assert done.returncode == 0, done.stderr
    for row in map(json.loads, done.stdout.splitlines()):
        for name, labels in (("spam", {"ham", "spam"}), ("hate", {"allowed", "hateful"})):
            assert set(row[name]["scores"]) == labels
            assert sum(row[name]["scores"].values()) == pytest.approx(1, abs=1e-5)
            assert row[name]["label"] in labels
            assert "rationale" in row[name]
    assert safeguard("label", ROOT / "samples/messages.jsonl", *args, "--policy-only-prompt").returncode == 2


def test_long_texts_errors_and_dry_runs_work_together_too(tiny, tmp_path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"text": "word " * 400}) + '\n{"text": 3}\n')
    args = ("-p", "spam", "-p", "hate", "--together", "--model", tiny, "--max-reasoning", 4, "--threads", 1)
    done = safeguard("label", source, *args, "-q", "--ctx", 4700)
    assert done.returncode == 3, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["spam"]["windows"] == first["hate"]["windows"] > 1
    assert second["spam"]["error"]["code"] == second["hate"]["error"]["code"] == "not_text"
    assert b"spam and hate:" in safeguard("label", source, *args, "--dry-run").stdout


def test_eval_says_that_the_figures_are_of_one_prompt(tiny, tmp_path) -> None:
    rows = [{"text": f"hello {i}", "spam_gold": "ham", "hate_gold": "allowed"} for i in range(3)]
    golden = tmp_path / "g.jsonl"
    golden.write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = ("-p", "spam", "-p", "hate", "--together", "--model", tiny, "--max-reasoning", 2, "--threads", 1)
    result = json.loads(safeguard("eval", golden, *args, "--json").stdout)
    assert result["prompting"] == "all policies in one prompt and one answer"
    assert result["multi_policy_accuracy"]["rows"] == 3

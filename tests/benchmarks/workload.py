"""The rows for all programs of a comparison: texts and a policy for safeguard, the same as token ids for its peers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson
from imposed import ImposedPrompt

from safeguard_cli.engine.decoding import Trie
from safeguard_cli.engine.local.process import LocalEngine
from safeguard_cli.model.tokenizer import Tokenizer
from safeguard_cli.prompt.contract import Prompt
from safeguard_cli.run.prepare import Prepared, engine_spec, load_policies, prepare
from safeguard_cli.run.settings import Settings

MOST_TRIED = 4  # times the rows


@dataclass(frozen=True)
class Workload:
    """Rows for a comparison.

    `prompts` are whole rows with the prefix of `policy` tokens; `completions` counts the tokens after each, up to and
    with its label; `needed` counts all tokens that must be decoded for the rows, without the policy's.
    """

    prompts: list[list[int]]
    completions: list[int]
    policy: int
    needed: int
    settings: Settings
    prepared: Prepared
    imposed: list[ImposedPrompt]  # if the lengths of reasoning are, what safeguard's engine is given

    def first(self, rows: int) -> Workload:
        """Return the same with fewer rows."""
        prompts, completions = self.prompts[:rows], self.completions[:rows]
        # A row's last token, its label, is never decoded.
        needed = sum(map(len, prompts)) + sum(completions) - (self.policy + 1) * len(prompts)
        return replace(self, prompts=prompts, completions=completions, needed=needed, imposed=self.imposed[:rows])


def make_workload(settings: Settings, folder: Path, *, rows: int, policy: int, content: int) -> Workload:
    """Write `p.md`, with a prefix of exactly `policy` tokens, and `in.jsonl`, with texts of exactly `content` tokens.

    Texts are words of the model's vocabulary; only those are used on which the model reasons as long as it may. Of a
    completion, safeguard lets the model choose the reasoning and the label; the tokens between them are the same in
    each row, and are fed as prompts are.
    """
    settings = replace(settings, policies=(str(folder / "p.md"),))
    rng = np.random.default_rng(0)
    prepared, words = _with_policy(settings, policy, rng)
    (prefix,) = prepared.labeling.rules.prefixes
    contract, harmony = prefix.contract, prepared.labeling.harmony
    texts = ["".join(rng.choice(words, content)) for _ in range(MOST_TRIED * rows)]
    contents = [harmony.text_ids(text) for text in texts]
    assert len(prefix.ids) == policy and all(len(ids) == content for ids in contents)
    common = Trie(contract).common
    if prepared.options.budget:
        generated = _reasoning(settings, prepared, [harmony.content_ids(ids) for ids in contents], rows)
        opening: tuple[int, ...] = contract.open_analysis
        between = len(contract.next_message) + len(contract.open_final) + len(common)
    else:
        generated, opening, between = dict.fromkeys(range(rows), 0), (*contract.open_final_at_once, *common), 0
    chosen = sorted(sorted(generated, key=generated.__getitem__, reverse=True)[:rows])
    lines = (orjson.dumps({"id": i, "text": texts[i]}) for i in chosen)
    (folder / "in.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    prompts = [[*prefix.ids, *harmony.content_ids(contents[i]), *opening] for i in chosen]
    # The label is chosen from the last forced token's logits: no token is decoded after that one.
    needed = sum(len(prompt) - policy + generated[i] + between for i, prompt in zip(chosen, prompts, strict=True))
    return Workload(prompts, [generated[i] + between + 1 for i in chosen], policy, needed, settings, prepared, [])


def make_real_workload(
    settings: Settings, folder: Path, *, policy: int, lengths: Sequence[tuple[int, int]]
) -> Workload:
    """Write `p.md` likewise; return rows with these lengths of text and of reasoning, which is imposed on each."""
    settings = replace(settings, policies=(str(folder / "p.md"),))
    rng = np.random.default_rng(0)
    prepared, words = _with_policy(settings, policy, rng)
    (prefix,) = prepared.labeling.rules.prefixes
    contract, harmony = prefix.contract, prepared.labeling.harmony
    contents = [harmony.text_ids("".join(rng.choice(words, content))) for content, _ in lengths]
    assert len(prefix.ids) == policy and [len(ids) for ids in contents] == [content for content, _ in lengths]
    own = [harmony.content_ids(ids) for ids in contents]
    imposed = [ImposedPrompt(i, 0, 0, ids, reasoning=lengths[i][1]) for i, ids in enumerate(own)]
    between = len(contract.next_message) + len(contract.open_final) + len(Trie(contract).common)
    generated = [reasoning + between for _, reasoning in lengths]
    needed = sum(len(ids) + len(contract.open_analysis) for ids in own) + sum(generated)
    prompts = [[*prefix.ids, *ids, *contract.open_analysis] for ids in own]
    return Workload(prompts, [count + 1 for count in generated], policy, needed, settings, prepared, imposed)


def _with_policy(settings: Settings, size: int, rng: np.random.Generator) -> tuple[Prepared, list[str]]:
    """Return what is prepared with a prefix of `size` tokens, and the words that texts are made of."""
    bare = _prepare(settings, [])
    words = _words(bare.labeling.harmony.tokenizer)
    missing = size - len(bare.labeling.rules.prefixes[0].ids)
    if missing < 0:
        sys.exit(f"the prompt around a policy takes {size - missing} tokens with this vocabulary: raise --policy")
    return _prepare(settings, list(rng.choice(words, missing))), words


def _prepare(settings: Settings, words: Sequence[str]) -> Prepared:
    Path(settings.policies[0]).write_text("Answer 0 or 1" + "".join(words))
    return prepare(settings, load_policies(settings), {})


def _words(tokenizer: Tokenizer) -> list[str]:
    """Return words with a leading space, each of which is one token wherever it stands."""
    words = (
        tokenizer.decode([i])
        for i, spelling in enumerate(tokenizer.tokens)
        if i not in tokenizer.control_ids and 3 < len(spelling) < 12 and spelling[0] == "Ġ" and spelling[1:].isalpha()
    )
    return [word for word in words if word.isascii() and word.islower()]


def _reasoning(
    settings: Settings, prepared: Prepared, contents: Sequence[tuple[int, ...]], rows: int
) -> dict[int, int]:
    """Return how long the model reasons on texts, tried until enough of them made it reason as long as it may."""
    found: dict[int, int] = {}

    def prompts() -> Iterator[Prompt]:
        for number, ids in enumerate(contents):
            if sum(count == prepared.options.budget for count in found.values()) >= rows:
                return
            yield Prompt(number, 0, 0, ids)

    with LocalEngine(engine_spec(settings, prepared)) as engine:
        for completion in engine.complete(prompts()):
            found[completion.prompt.row] = completion.generated
    return found

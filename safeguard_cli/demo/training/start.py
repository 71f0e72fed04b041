"""The weights that the training starts from: embeddings that know how words are spelt, and layers that can copy.

Both can be learnt, but learning to copy alone took longer than the whole training: without this start no quote was
right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from safeguard_cli.demo.training.export import Vocabulary
from safeguard_cli.demo.training.model import GptOss, Layer


def spelled_alike(vocabulary: Vocabulary, width: int) -> Tensor:
    """Return the first embeddings: tokens that differ only in case or a leading space start close together.

    A word without the space before it may be two tokens (` claim`, but `cl` `aim`): the one token starts with a share
    of both. Quoting is then one thing to learn for all words, not one for each.
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
    """Set the first two layers to continue repeated text as it was continued before (an induction head).

    Layer 0 tells each position about the token before it, by rotary phase alone. Layer 1 looks for positions that
    followed the present token, in the slow dimensions, which hardly turn over a hundred tokens, and passes on their
    token. Learning this takes longer than the whole budget; without it no quote is right.
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

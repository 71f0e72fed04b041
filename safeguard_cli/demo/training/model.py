"""gpt-oss in PyTorch, small enough for two CPU cores: many rows attend to one shared prefix.

The arithmetic is llama.cpp's, so that an exported GGUF gives the same logits: RMSNorm, grouped queries with biases and
a learned sink for each head, layers alternating between a sliding window and full attention, YaRN, and experts with
gpt-oss's clamped SwiGLU. All experts are used for every token (4 of 4), so that no computation is wasted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ROPE_BASE, ROPE_FACTOR, ROPE_CONTEXT = 150000.0, 32.0, 4096  # gpt-oss's; the GGUF carries the same
EPS = 1e-5
ALPHA, LIMIT = 1.702, 7.0
NEVER = -1e9  # an additive mask; finite, so that a query that may see no key of a piece gives no NaN


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes of the model. `ff` is the width of one expert; it and `hidden` are multiples of MXFP4's block of 32."""

    vocab: int
    hidden: int = 256
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    experts: int = 4
    ff: int = 64
    window: int = 128


@dataclass(slots=True)
class Cache:
    """Keys and values of one layer, (rows, kv heads, slots, head dim)."""

    keys: Tensor
    values: Tensor


class _SinkAttention(torch.autograd.Function):
    """Attention over pieces of keys, with a sink, as one softmax.

    PyTorch's CPU flash kernel returns each piece's output and log-sum-exp; they are merged with the sink's logit. Run
    backwards on the merged output and log-sum-exp, the kernel returns the exact gradients of each piece, as in ring
    attention (https://arxiv.org/abs/2310.01889). Three times faster than materialized scores at 64 rows of 96 tokens.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, sinks: Tensor, masks: list[Tensor | None], *pieces: Tensor) -> Tensor:
        """`query` is (rows, kv heads, queries, dim), `sinks` (kv heads, queries), `pieces` keys, values by turns."""
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        outs, sums = [], []
        for mask, keys, values in zip(masks, pieces[::2], pieces[1::2], strict=True):
            flat = _flatten(query) if mask is None else query
            out, lse = attend(flat, *_expand(flat, keys, values), attn_mask=mask)
            outs.append(_unflatten(out, query))
            sums.append(_unflatten(lse.unsqueeze(-1), query).squeeze(-1))
        merged = torch.logsumexp(torch.stack([*sums, sinks.expand_as(sums[0])]), 0)
        out = sum((o * (s - merged).exp().unsqueeze(-1) for o, s in zip(outs, sums, strict=True)), torch.zeros(()))
        ctx.masks = masks
        ctx.save_for_backward(query, sinks, out, merged, *pieces)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        query, sinks, out, merged, *pieces = ctx.saved_tensors
        attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        grad_query = torch.zeros_like(query)
        grad_pieces: list[Tensor] = []
        for mask, keys, values in zip(ctx.masks, pieces[::2], pieces[1::2], strict=True):
            fold = _flatten if mask is None else Tensor.contiguous
            flat, flat_out, flat_grad = fold(query), fold(out), fold(grad)
            flat_merged = fold(merged.unsqueeze(-1)).squeeze(-1)
            expanded = _expand(flat, keys, values)
            dq, dk, dv = attend_backward(flat_grad, flat, *expanded, flat_out, flat_merged, 0.0, False, attn_mask=mask)
            grad_query += _unflatten(dq, query)
            grad_pieces += [d.sum_to_size(k.shape) for d, k in ((dk, keys), (dv, values))]
        grad_sinks = -((sinks - merged).exp() * (grad * out).sum(-1)).sum(0)
        return (grad_query, grad_sinks, None, *grad_pieces)


def _flatten(x: Tensor) -> Tensor:
    """Reshape (rows, heads, queries, d) to (1, heads, rows · queries, d), since all rows see the same keys."""
    return x.transpose(0, 1).reshape(1, x.shape[1], -1, x.shape[3])


def _unflatten(x: Tensor, like: Tensor) -> Tensor:
    rows, heads, queries, _ = like.shape
    return x if x.shape[0] == rows else x.view(heads, rows, queries, -1).transpose(0, 1)


def _expand(query: Tensor, *tensors: Tensor) -> list[Tensor]:
    return [t.expand(query.shape[0], -1, -1, -1) for t in tensors]


def yarn_frequencies(dim: int) -> tuple[Tensor, float]:
    """Return each pair's angle per position, and the factor on cosine and sine: ggml's, with rounded corners."""
    pairs = torch.arange(dim // 2, dtype=torch.float64)
    plain = ROPE_BASE ** (-2 * pairs / dim)

    def corner(turns: float) -> float:
        return dim * math.log(ROPE_CONTEXT / (turns * 2 * math.pi)) / (2 * math.log(ROPE_BASE))

    low, high = max(0, math.floor(corner(32.0))), min(dim - 1, math.ceil(corner(1.0)))
    keep = 1 - ((pairs - low) / max(0.001, high - low)).clamp(0, 1)
    return plain * keep + plain / ROPE_FACTOR * (1 - keep), 0.1 * math.log(ROPE_FACTOR) + 1


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate (..., positions, heads, dim) by NeoX's halves; cos and sin are (..., positions, 1, dim / 2)."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Apply gpt-oss's activation: clamped, with a slope of 1.702 and 1 added to `up`."""
    gate, up = gate.clamp(max=LIMIT), up.clamp(-LIMIT, LIMIT)
    return gate * torch.sigmoid(ALPHA * gate) * (up + 1)


def mxfp4(weight: Tensor) -> Tensor:
    """Return the weight as MXFP4 stores it (blocks of 32 with one power of two, values ±0, .5, 1, 1.5, 2, 3, 4, 6)."""
    blocks = weight.detach().reshape(-1, 32)
    largest = blocks.abs().amax(1, keepdim=True).clamp_min(1e-30)
    scale = torch.exp2(torch.floor(torch.log2(largest)) - 2)
    x = blocks / scale
    size = x.abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return ((torch.round(size / step) * step).clamp(max=6) * x.sign() * scale).reshape(weight.shape)


class Experts(nn.Module):
    """The mixture of experts: a router's softmax weighs all experts' outputs."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.router = nn.Linear(c.hidden, c.experts)
        self.gate = nn.Parameter(torch.randn(c.experts, c.ff, c.hidden) * c.hidden**-0.5)
        self.up = nn.Parameter(torch.randn(c.experts, c.ff, c.hidden) * c.hidden**-0.5)
        self.down = nn.Parameter(torch.randn(c.experts, c.hidden, c.ff) * (c.ff * c.experts * 2 * c.layers) ** -0.5)
        self.gate_bias = nn.Parameter(torch.zeros(c.experts, c.ff))
        self.up_bias = nn.Parameter(torch.zeros(c.experts, c.ff))
        self.down_bias = nn.Parameter(torch.zeros(c.experts, c.hidden))
        self.quantized = False

    def forward(self, x: Tensor) -> Tensor:
        gate, up, down = (self._as_stored(w) for w in (self.gate, self.up, self.down))
        weights = self.router(x).softmax(-1)
        hidden = swiglu(
            functional.linear(x, gate.flatten(0, 1), self.gate_bias.flatten()),
            functional.linear(x, up.flatten(0, 1), self.up_bias.flatten()),
        )
        hidden = (hidden.unflatten(-1, (weights.shape[-1], -1)) * weights.unsqueeze(-1)).flatten(-2)
        return functional.linear(hidden, down.transpose(0, 1).flatten(1)) + weights @ self.down_bias

    def _as_stored(self, weight: Tensor) -> Tensor:
        return weight + (mxfp4(weight) - weight).detach() if self.quantized else weight


class Layer(nn.Module):
    """One block: attention, sliding in even layers and full in odd ones, then experts."""

    def __init__(self, c: Config, index: int) -> None:
        super().__init__()
        self.c = c
        self.window = c.window if index % 2 == 0 else None
        self.attn_norm = nn.Parameter(torch.ones(c.hidden))
        self.ffn_norm = nn.Parameter(torch.ones(c.hidden))
        self.q = nn.Linear(c.hidden, c.heads * c.head_dim)
        self.k = nn.Linear(c.hidden, c.kv_heads * c.head_dim)
        self.v = nn.Linear(c.hidden, c.kv_heads * c.head_dim)
        self.o = nn.Linear(c.heads * c.head_dim, c.hidden)
        self.sinks = nn.Parameter(torch.zeros(c.heads))
        self.experts = Experts(c)
        for linear in (self.q, self.k, self.v, self.o):
            nn.init.normal_(linear.weight, std=c.hidden**-0.5)
            nn.init.zeros_(linear.bias)
        self.o.weight.data.mul_((2 * c.layers) ** -0.5)

    def forward(
        self, x: Tensor, slots: Tensor, rope: tuple[Tensor, Tensor], prefix: Cache | None, own: Cache | None
    ) -> tuple[Tensor, Cache]:
        """Return the block's output and cache for `x`, which is (rows, positions, hidden).

        `slots` (rows or 1, positions) places each position behind the prefix. `own` holds what the rows' earlier calls
        cached, and is written to at `slots`; without it, rows attend only to `x` and the prefix.
        """
        c, (rows, length, _) = self.c, x.shape
        h = functional.rms_norm(x, (c.hidden,), self.attn_norm, EPS)
        q = rotate(self.q(h).view(rows, length, c.heads, c.head_dim), *rope)
        k = rotate(self.k(h).view(rows, length, c.kv_heads, c.head_dim), *rope).transpose(1, 2)
        v = self.v(h).view(rows, length, c.kv_heads, c.head_dim).transpose(1, 2)
        if own is None:
            own = Cache(k, v)
        else:
            at = slots[:, None, :, None].expand_as(k)
            own.keys.scatter_(2, at, k)
            own.values.scatter_(2, at, v)
        group = c.heads // c.kv_heads
        q = q.view(rows, length, c.kv_heads, group, c.head_dim).permute(0, 2, 3, 1, 4).flatten(2, 3)
        pieces, masks = [own.keys, own.values], [self._mask(slots, torch.arange(own.keys.shape[2]), group)]
        if prefix is not None:
            size = prefix.keys.shape[2]
            seen = size if self.window is None else min(self.window - 1, size)
            pieces += [prefix.keys[:, :, size - seen :], prefix.values[:, :, size - seen :]]
            masks.append(None if self.window is None else self._mask(slots, torch.arange(-seen, 0), group))
        sinks = self.sinks.view(c.kv_heads, group, 1).expand(-1, -1, length).flatten(1)
        out = _SinkAttention.apply(q, sinks, masks, *pieces)
        out = out.unflatten(2, (group, length)).permute(0, 3, 1, 2, 4).flatten(2)
        x = x + self.o(out)
        return x + self.experts(functional.rms_norm(x, (c.hidden,), self.ffn_norm, EPS)), own

    def _mask(self, slots: Tensor, keys: Tensor, group: int) -> Tensor:
        """Return a mask (rows or 1, 1, group · queries, keys): 0 where a query may see a key, else NEVER."""
        distance = slots.unsqueeze(-1) - keys
        visible = (distance >= 0) & (distance < (self.window or 1 << 30))
        mask = torch.zeros(visible.shape).masked_fill_(~visible, NEVER)
        return mask.repeat(1, group, 1).unsqueeze(1)


class GptOss(nn.Module):
    """The model. Input and output embeddings are one matrix: this saves parameters and makes copying words easy."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.embedding = nn.Parameter(torch.randn(c.vocab, c.hidden) * 0.1)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.layers))
        self.norm = nn.Parameter(torch.ones(c.hidden))
        self.frequencies, self.magnitude = yarn_frequencies(c.head_dim)

    def hidden(
        self, ids: Tensor, start: int = 0, prefix: list[Cache] | None = None,
        slots: Tensor | None = None, own: list[Cache] | None = None,
    ) -> tuple[Tensor, list[Cache]]:  # fmt: skip
        """Return normalized hidden states of (rows, positions) ids, `start` tokens into the text, and the caches."""
        slots = torch.arange(ids.shape[1]).unsqueeze(0) if slots is None else slots
        angles = (slots + start).double().unsqueeze(-1) * self.frequencies
        rope = (
            (angles.cos() * self.magnitude).float().unsqueeze(2),
            (angles.sin() * self.magnitude).float().unsqueeze(2),
        )
        x = functional.embedding(ids, self.embedding)
        caches = []
        for i, layer in enumerate(self.layers):
            x, cache = layer(x, slots, rope, prefix[i] if prefix else None, own[i] if own else None)
            caches.append(cache)
        return functional.rms_norm(x, (self.c.hidden,), self.norm, EPS), caches

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits over the vocabulary."""
        return functional.linear(hidden, self.embedding)

    def quantize(self, on: bool) -> None:
        """Compute with the experts as MXFP4 stores them; gradients pass straight through."""
        for layer in self.layers:
            layer.experts.quantized = on

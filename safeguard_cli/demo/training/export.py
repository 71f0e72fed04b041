"""The demo model's vocabulary and its GGUF file.

The first n ranks of o200k are a complete byte-pair vocabulary of their own; harmony's control tokens follow them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type

from safeguard_cli.demo.training.model import EPS, ROPE_BASE, ROPE_CONTEXT, ROPE_FACTOR, GptOss
from safeguard_cli.model.tokenizer import Tokenizer, _byte_of_symbol

CONTROL = ("startoftext", "endoftext", "return", "constrain", "channel", "start", "end", "message", "call")
CHAT_TEMPLATE = (
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\n\n"
    "Reasoning: {{ reasoning_effort or 'low' }}\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    "{% for m in messages %}{% if m.role in ('system', 'developer') %}<|start|>developer<|message|># Instructions\n\n"
    "{{ m.content }}<|end|>{% elif m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>{% else %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Spellings by id in GPT-2's byte alphabet, their kinds, and the merges in order."""

    tokens: list[str]
    types: list[int]
    merges: list[tuple[str, str]]

    def tokenizer(self) -> Tokenizer:
        """Return the program's own tokenizer for this vocabulary."""
        return Tokenizer(self.tokens, self.types, self.merges)


def read_vocabulary(ranks_file: Path, size: int) -> Vocabulary:
    """Return the first `size` ranks of a tiktoken file, then the control tokens, padded to a multiple of 32."""
    symbols = {byte: symbol for symbol, byte in _byte_of_symbol().items()}

    def spell(token: bytes) -> str:
        return "".join(symbols[b] for b in token)

    with ranks_file.open("rb") as lines:
        ranks = [base64.b64decode(line.split()[0]) for line, _ in zip(lines, range(size), strict=False)]
    rank = {token: i for i, token in enumerate(ranks)}
    merges = []
    for i, token in enumerate(ranks):
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:  # apply the earlier merges: the last pair left is this token's own merge
            best = min(range(len(parts) - 1), key=lambda j: rank.get(parts[j] + parts[j + 1], size))
            if rank.get(parts[best] + parts[best + 1], size) >= i:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            merges.append((spell(parts[0]), spell(parts[1])))
    control = [f"<|{name}|>" for name in CONTROL]
    control += [f"<|reserved_{i}|>" for i in range(-(size + len(control)) % 32)]
    types = [gguf.TokenType.NORMAL] * len(ranks) + [gguf.TokenType.CONTROL] * len(control)
    return Vocabulary([*map(spell, ranks), *control], [int(t) for t in types], merges)


def write_gguf(
    path: Path, model: GptOss, vocabulary: Vocabulary, facts: Mapping[str, str], *, small: bool = True
) -> None:
    """Write the model, replacing `path` at once: experts as MXFP4, other matrices as Q8_0, the rest as F32.

    `facts` are further metadata. `small=False` writes F32 throughout, to compare the arithmetic with llama.cpp's.
    """
    c, temporary = model.c, path.with_suffix(".part")
    w = gguf.GGUFWriter(temporary, "gpt-oss")
    w.add_name("safeguard demo")
    w.add_description("A demonstration model for the shipped policies; no stand-in for gpt-oss-safeguard.")
    w.add_license("apache-2.0")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_MXFP4_MOE if small else gguf.LlamaFileType.ALL_F32)
    w.add_block_count(c.layers)
    w.add_context_length(int(ROPE_FACTOR) * ROPE_CONTEXT)
    w.add_embedding_length(c.hidden)
    w.add_feed_forward_length(c.ff)
    w.add_expert_feed_forward_length(c.ff)
    w.add_head_count(c.heads)
    w.add_head_count_kv(c.kv_heads)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_layer_norm_rms_eps(EPS)
    w.add_expert_count(c.experts)
    w.add_expert_used_count(c.experts)
    w.add_sliding_window(c.window)
    w.add_rope_dimension_count(c.head_dim)
    w.add_rope_freq_base(ROPE_BASE)
    w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    w.add_rope_scaling_factor(ROPE_FACTOR)
    w.add_rope_scaling_orig_ctx_len(ROPE_CONTEXT)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-4o")
    w.add_token_list(vocabulary.tokens)
    w.add_token_types(vocabulary.types)
    w.add_token_merges([" ".join(pair) for pair in vocabulary.merges])
    w.add_bos_token_id(vocabulary.tokens.index("<|startoftext|>"))
    w.add_eos_token_id(vocabulary.tokens.index("<|return|>"))
    w.add_pad_token_id(vocabulary.tokens.index("<|endoftext|>"))
    w.add_add_bos_token(False)
    w.add_chat_template(CHAT_TEMPLATE)
    for key, value in facts.items():
        w.add_string(key, value)
    for name, tensor in _tensors(model).items():
        values = tensor.detach().float().numpy()
        kind = Type.F32
        if small and name.endswith("_exps.weight"):
            kind = Type.MXFP4
        elif small and values.ndim == 2 and "gate_inp" not in name and not name.endswith("bias"):
            kind = Type.Q8_0
        data = np.ascontiguousarray(values) if kind == Type.F32 else gguf.quants.quantize(values, kind)
        w.add_tensor(name, data, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    temporary.replace(path)


def _tensors(model: GptOss) -> dict[str, torch.Tensor]:
    """Return the tensors by llama.cpp's names; it needs an output matrix of its own even if that is the embedding."""
    tensors = {"token_embd.weight": model.embedding, "output.weight": model.embedding, "output_norm.weight": model.norm}
    for i, layer in enumerate(model.layers):
        experts = layer.experts
        named = {
            "attn_norm.weight": layer.attn_norm,
            "post_attention_norm.weight": layer.ffn_norm,
            "attn_sinks.weight": layer.sinks,
            "ffn_gate_inp.weight": experts.router.weight,
            "ffn_gate_inp.bias": experts.router.bias,
        }
        for name, linear in (("q", layer.q), ("k", layer.k), ("v", layer.v), ("output", layer.o)):
            named |= {f"attn_{name}.weight": linear.weight, f"attn_{name}.bias": linear.bias}
        for name in ("gate", "up", "down"):
            named[f"ffn_{name}_exps.weight"] = getattr(experts, name)
            named[f"ffn_{name}_exps.bias"] = getattr(experts, f"{name}_bias")
        tensors |= {f"blk.{i}.{name}": tensor for name, tensor in named.items()}
    return tensors

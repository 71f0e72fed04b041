"""Write a tiny GGUF of the gpt-oss architecture with random weights: sliding window, sinks, MXFP4 experts, harmony."""

from __future__ import annotations

import ctypes
import json
from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from safeguard_cli.model.gguf import Header

MARKERS = ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>"]
MARKERS += ["<|start|>", "<|end|>", "<|message|>", "<|call|>"]
GB = 10**9
HEADS, KV_HEADS, HEAD_DIM, EXPERTS = 4, 2, 32, 4


def vocabulary(size: int = 600) -> tuple[list[str], list[tuple[str, str]]]:
    """Return a byte-level vocabulary with merges learnt from a few sentences, always the same."""
    words = "system developer user assistant analysis commentary final label spam ham rationale rule content message "
    text = [words * 3 + "the of and to is not a message under this policy " * 2, '{"label":"', '","rationale":"', '"}']
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return tokens, [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]


def write(
    path: Path,
    *,
    layers: int = 2,
    hidden: int = 64,
    used: int = 2,
    seed: int = 0,
    head: int = HEAD_DIM,
    dense: str = "Q8_0",
    experts: str = "MXFP4",
    as_floats: bool = False,
    count: int = EXPERTS,
    window: int = 128,
    attention: float = 2.0,
) -> Path:
    """Write the model; `dense` and `experts` name the ggml types of the attention and the expert weights.

    It has `count` experts a layer, heads of `head` values and a sliding `window`. `attention` scales queries, keys and
    values: where it is large, rounding grows from layer to layer. With all experts `used`, no rounding can send a token
    to another expert. Types with blocks of 256 need a `hidden` and four times a `head` of a multiple of that.
    `as_floats` writes the values that the types hold, as F32.
    """
    rng = np.random.default_rng(seed)
    tokens, merges = vocabulary()
    kinds = [gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.CONTROL] * len(MARKERS)
    tokens = tokens + MARKERS
    ff = hidden
    out = gguf.GGUFWriter(str(path), "gpt-oss")
    out.add_block_count(layers)
    out.add_context_length(131072)
    out.add_embedding_length(hidden)
    out.add_feed_forward_length(ff)
    out.add_expert_feed_forward_length(ff)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_key_length(head)
    out.add_value_length(head)
    out.add_rope_freq_base(150000.0)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_expert_count(count)
    out.add_expert_used_count(used)
    out.add_sliding_window(window)
    out.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    out.add_rope_scaling_factor(32.0)
    out.add_rope_scaling_orig_ctx_len(4096)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-4o")
    out.add_token_list(tokens)
    out.add_token_types(kinds)
    out.add_token_merges([" ".join(pair) for pair in merges])
    out.add_bos_token_id(tokens.index("<|startoftext|>"))
    out.add_eos_token_id(tokens.index("<|return|>"))
    out.add_pad_token_id(tokens.index("<|endoftext|>"))

    def weights(name: str, *shape: int, kind: str = "F32", scale: float = 1.0) -> None:
        values = (rng.standard_normal(shape) * scale / np.sqrt(shape[-1])).astype(np.float32)
        qtype = gguf.GGMLQuantizationType[kind]
        data = values if kind == "F32" else quantized(values, qtype)
        if as_floats:
            data, qtype = gguf.quants.dequantize(data, qtype), gguf.GGMLQuantizationType.F32
        out.add_tensor(name, data, raw_dtype=qtype)

    weights("token_embd.weight", len(tokens), hidden, kind=dense, scale=8)
    weights("output.weight", len(tokens), hidden, kind=dense, scale=3)
    out.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    for i in range(layers):
        block = f"blk.{i}."
        out.add_tensor(block + "attn_norm.weight", np.ones(hidden, np.float32))
        out.add_tensor(block + "post_attention_norm.weight", np.ones(hidden, np.float32))
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            weights(f"{block}attn_{name}.weight", heads * head, hidden, kind=dense, scale=attention)
            weights(f"{block}attn_{name}.bias", heads * head)
        weights(block + "attn_output.weight", hidden, HEADS * head, kind=dense, scale=2)
        weights(block + "attn_output.bias", hidden)
        weights(block + "attn_sinks.weight", HEADS)
        weights(block + "ffn_gate_inp.weight", count, hidden)
        weights(block + "ffn_gate_inp.bias", count)
        for name in ("gate", "up"):
            weights(f"{block}ffn_{name}_exps.weight", count, ff, hidden, kind=experts)
            weights(f"{block}ffn_{name}_exps.bias", count, ff)
        weights(block + "ffn_down_exps.weight", count, hidden, ff, kind=experts)
        weights(block + "ffn_down_exps.bias", count, hidden)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def quantized(values: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """Return the rows of an array as blocks of a ggml type, by llama.cpp where the gguf package cannot make them."""
    with suppress(NotImplementedError):
        return gguf.quants.quantize(values, kind)
    from llama_cpp import llama_cpp

    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    out = np.empty((*values.shape[:-1], values.shape[-1] // block * nbytes), np.uint8)
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (values, out))
    sizes = map(ctypes.c_int64, (0, values.size // values.shape[-1], values.shape[-1]))
    make = llama_cpp._lib.ggml_quantize_chunk
    make.restype = ctypes.c_size_t
    assert make(int(kind), *pointers, *sizes, None) == out.nbytes
    return out


def header(
    *, layers: int = 24, hidden: int = 2880, kv: int = 8, vocabulary: int = 201_088, size: int = 12 * GB
) -> Header:
    """Return the header of a model of gpt-oss's architecture, by default of the 20b's size."""
    numbers = {"block_count": layers, "embedding_length": hidden, "attention.head_count_kv": kv}
    numbers |= {"attention.key_length": 64, "attention.value_length": 64, "context_length": 131_072}
    numbers |= {"expert_used_count": 4, "expert_feed_forward_length": hidden}
    metadata = {f"gpt-oss.{key}": value for key, value in numbers.items()}
    metadata |= {"general.architecture": "gpt-oss", "tokenizer.ggml.tokens": range(vocabulary)}
    return Header(Path("model.gguf"), size, metadata, ())


def split(path: Path, folder: Path, count: int) -> list[Path]:
    """Write a GGUF again in parts, as llama.cpp's gguf-split does, with all metadata in the first."""
    source = gguf.GGUFReader(path)
    size = -(-len(source.tensors) // count)
    parts = []
    for number in range(count):
        part = folder / f"parts-{number + 1:05}-of-{count:05}.gguf"
        out = gguf.GGUFWriter(str(part), "gpt-oss")
        if number == 0:
            for field in source.fields.values():
                if not field.name.startswith(("GGUF.", "general.architecture")):
                    kind = field.types[0]
                    sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
                    out.add_key_value(field.name, field.contents(), kind, sub)
        out.add_uint16("split.no", number)
        out.add_uint16("split.count", count)
        out.add_int32("split.tensors.count", len(source.tensors))
        for tensor in source.tensors[number * size : (number + 1) * size]:
            out.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        out.write_header_to_file()
        out.write_kv_data_to_file()
        out.write_tensors_to_file()
        out.close()
        parts.append(part)
    return parts

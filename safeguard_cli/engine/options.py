"""The options of models and engines, each declared once; see run/settings.py. Imports Typer alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import typer

from safeguard_cli.rows.options import Written


def _repacking(value: str) -> bool | None:
    if value not in ("auto", "on", "off"):
        raise ValueError(f"{value!r} is not one of 'auto', 'on', 'off'")
    return None if value == "auto" else value == "on"


@dataclass(frozen=True)
class Model:
    """Model and machine"""

    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A name that `safeguard models` lists, hf:OWNER/REPO[:FILE or quantization], a GGUF file, or"
            " demo. Default: SAFEGUARD_MODEL, safeguard.toml, else gpt-oss-safeguard-20b.",
        ),
    ] = None
    context: Annotated[
        int | None,
        typer.Option(
            "--ctx",
            min=64,
            metavar="TOKENS",
            help="The most tokens a row may take, policy and reasoning included; default 8192.",
        ),
    ] = None


@dataclass(frozen=True)
class Pace:
    """Model and machine"""

    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=512, metavar="N", help="CPU threads; default: all cores, fewer while others need them."
        ),
    ] = None
    slots: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="Rows decoded together; default: 16, or what memory allows. With --server: rows sent at once; default:"
            " found while labeling.",
        ),
    ] = None
    batch: Annotated[
        int | None,
        typer.Option(
            min=64, max=4096, metavar="TOKENS", help="The most tokens given to llama.cpp at once; default 512."
        ),
    ] = None


@dataclass(frozen=True)
class Local:
    """Model and machine"""

    engine: Annotated[
        Literal["auto", "llama.cpp", "ik"],
        typer.Option(
            help="The library that decodes: ik (ik_llama.cpp) is faster on a CPU; auto takes it where it is installed,"
            " proved with this model, and worth the start."
        ),
    ] = "auto"
    gpu_layers: Annotated[
        int,
        typer.Option(
            min=-1,
            metavar="N",
            help="Layers on the GPU, if llama.cpp was built for one; -1: as many as fit.",
        ),
    ] = -1
    cpu_moe: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Keep the experts of the first N layers off the GPU; default: as few as its memory allows.",
        ),
    ] = None
    kv_type: Annotated[
        Literal["f16", "q8_0"],
        typer.Option(help="How the cache stores keys and values; q8_0 takes half the memory."),
    ] = "f16"
    repack: Annotated[
        bool | None,
        Written(_repacking),
        typer.Option(
            metavar="auto|on|off",
            show_default="auto",
            help="Repack weights for this CPU: faster; with llama.cpp twice the memory; auto repacks if there is room.",
        ),
    ] = None


@dataclass(frozen=True)
class Servers:
    """Servers instead of this machine"""

    servers: Annotated[
        tuple[str, ...],
        typer.Option(
            "--server",
            metavar="URL",
            help="Label on this server (vLLM, llama-server, SGLang) instead of this machine. Repeatable, for several"
            " that serve the same model. An API key is read from SAFEGUARD_SERVER_KEY.",
        ),
    ] = field(default=(), repr=False)  # URLs may hold passwords
    server_api: Annotated[
        Literal["completion", "chat"],
        typer.Option(
            help="completion sends token ids, as on this machine; chat is for endpoints that take none, and weaker:"
            " there the server makes the prompt."
        ),
    ] = "completion"
    server_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name on the server, if it serves several.")
    ] = None
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="With --server: the model's tokenizer.json. Default: the vocabulary in --model's file.",
        ),
    ] = None

"""Options that several commands share, and the panels they stand in."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

INPUT, TEXT, POLICY, MODEL, SERVER, OUTPUT, DISPLAY, FIGURES = (
    "Reading the input",
    "What the model sees of a row",
    "Policy and decision",
    "Model and machine",
    "Servers instead of this machine",
    "Output",
    "Display",
    "What is shown",
)
EXAMPLES = "[bold]Examples[/bold]\n\n"

GoldField = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD",
        help="The field with the right label, default label; with several policies POLICY=FIELD, default POLICY_gold.",
        rich_help_panel=INPUT,
    ),
]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="V,V=LABEL;…",
        help="What the gold field's values mean: 'SP2,SP3,SP4=spam;SP0=ham'.",
        rich_help_panel=INPUT,
    ),
]
SkipRows = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Lines above a CSV's header; default: found by the gold field.",
        rich_help_panel=INPUT,
    ),
]
Limit = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Use the first N usable rows only.", rich_help_panel=INPUT)
]
By = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD", help="Figures for each value of a field. Repeatable.", rich_help_panel=FIGURES),
]
Wrong = Annotated[
    int, typer.Option(min=0, metavar="N", help="Show so many of the wrong or flipped rows.", rich_help_panel=FIGURES)
]


class InputFormat(Enum):
    jsonl, ndjson, csv, tsv, parquet = "jsonl", "ndjson", "csv", "tsv", "parquet"


class EffortName(Enum):
    none, auto, low, medium, high = "none", "auto", "low", "medium", "high"


class ServerApiName(Enum):
    completion, chat = "completion", "chat"


class CacheType(Enum):
    f16, q8_0 = "f16", "q8_0"


class Repacking(Enum):
    auto, on, off = "auto", "on", "off"


_POLICIES = typer.Option(
    "--policy",
    "-p",
    metavar="FILE",
    help="A policy file, or a built-in policy's name (spam, hate, …). Repeatable.",
    rich_help_panel=POLICY,
)
Policies = Annotated[list[str], _POLICIES]
OptionalPolicies = Annotated[list[str] | None, _POLICIES]
Format = Annotated[
    InputFormat | None,
    typer.Option(
        help="The input's format; by default its extension, or the first bytes of standard input.",
        rich_help_panel=INPUT,
    ),
]
Encoding = Annotated[str, typer.Option(help="The input's character encoding.", rich_help_panel=INPUT)]
IdField = Annotated[
    str | None,
    typer.Option(
        metavar="FIELD",
        help="The row's id: never taken for the text, and kept whatever --keep says.",
        rich_help_panel=INPUT,
    ),
]
TextField = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD",
        help="The field that holds the text or a list of chat messages; its name or a dotted path. Repeatable."
        " Default: text, else the only field that reads like one.",
        rich_help_panel=TEXT,
    ),
]
Template = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Build the text from fields, such as '{title}\\n{body}'.", rich_help_panel=TEXT),
]
Effort = Annotated[
    EffortName,
    typer.Option(
        help="How much the model reasons before it decides; none is fastest, auto reasons where it is not --sure.",
        rich_help_panel=POLICY,
    ),
]
Sure = Annotated[
    float,
    typer.Option(
        min=0.5,
        max=1.0,
        metavar="P",
        help="With --effort auto: the greater of p_violates and 1 - p_violates from which on a row is decided at once.",
        rich_help_panel=POLICY,
    ),
]
MaxReasoning = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="TOKENS",
        help="The most reasoning tokens; default 256, 1024 or 4096 by effort. Rather lower the effort.",
        rich_help_panel=POLICY,
    ),
]
Rationale = Annotated[
    bool, typer.Option("--rationale", help="Also write a short rationale for every row.", rich_help_panel=POLICY)
]
Together = Annotated[
    bool,
    typer.Option(
        "--together",
        help="Ask about all policies in one prompt and one answer: faster, and less exact.",
        rich_help_panel=POLICY,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A name that `safeguard models` lists, hf:OWNER/REPO[:FILE or quantization], a GGUF file, or"
        " demo. Default: SAFEGUARD_MODEL, safeguard.toml, else gpt-oss-safeguard-20b.",
        rich_help_panel=MODEL,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=512, metavar="N", help="CPU threads; default: the idle cores.", rich_help_panel=MODEL),
]
Slots = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=64,
        metavar="N",
        help="Rows decoded together; default: 16, or what memory allows. With --server: rows at once, else found.",
        rich_help_panel=MODEL,
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=64,
        max=4096,
        metavar="TOKENS",
        help="The most tokens that llama.cpp is given at once; default 512.",
        rich_help_panel=MODEL,
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        min=64,
        metavar="TOKENS",
        help="The most tokens a row may take, policy and reasoning included; default 8192.",
        rich_help_panel=MODEL,
    ),
]
Server = Annotated[
    list[str] | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Label on this server (vLLM, llama-server, SGLang) instead of this machine. Repeatable, for several that"
        " serve the same model. A key is taken from SAFEGUARD_SERVER_KEY.",
        rich_help_panel=SERVER,
    ),
]
ServerApi = Annotated[
    ServerApiName,
    typer.Option(
        help="completion: token ids, as on this machine. chat: for endpoints without them; weaker, see the README.",
        rich_help_panel=SERVER,
    ),
]
ServerModel = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The model's name there, where a server has several.", rich_help_panel=SERVER),
]
TokenizerFile = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        metavar="FILE",
        help="With --server: the model's tokenizer.json. Default: the vocabulary in --model's file.",
        rich_help_panel=SERVER,
    ),
]
GpuLayers = Annotated[
    int,
    typer.Option(
        min=-1,
        metavar="N",
        help="Layers on the GPU; -1 is all that fit, where llama.cpp was built for one.",
        rich_help_panel=MODEL,
    ),
]
CpuMoe = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Keep the experts of the first N layers off the GPU; default: as many as must be.",
        rich_help_panel=MODEL,
    ),
]
KvType = Annotated[
    CacheType,
    typer.Option(help="How the cache stores keys and values; q8_0 takes half the memory.", rich_help_panel=MODEL),
]
Repack = Annotated[
    Repacking,
    typer.Option(
        help="Repack weights for this CPU: faster, for twice the memory; auto does where there is room for it.",
        rich_help_panel=MODEL,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Everything as JSON.", rich_help_panel=FIGURES)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.", rich_help_panel=DISPLAY)]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show a traceback where something fails.", rich_help_panel=DISPLAY)
]


def repacking(choice: Repacking) -> bool | None:
    """As Settings has it: None where the program is to choose."""
    return None if choice is Repacking.auto else choice is Repacking.on

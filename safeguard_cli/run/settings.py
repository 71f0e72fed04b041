"""Every option of a run, each declared once: the fields of these dataclasses are the options of the commands.

A command takes the parts that mean something to it (cli/parts.py gives Typer their fields), and a run takes Settings,
which has them all. The first line of a part's docstring is the heading of its options in the help. This module is
imported whenever the command starts, so it imports only Typer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import typer

from safeguard_cli.engine.options import Local, Model, Pace, Servers
from safeguard_cli.rows.options import Grouping, Reading, Shard, Text, Windows, Written

VOTED_AT = 1.0  # the temperature of votes: that of the model's own probabilities

Effort: TypeAlias = Literal["none", "auto", "low", "medium", "high"]


def _list(value: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(",") if item.strip())


@dataclass(frozen=True)
class Asking:
    """Policy and decision"""

    policies: Annotated[
        tuple[str, ...],
        typer.Option(
            "--policy",
            "-p",
            metavar="FILE",
            help="A policy file, a built-in policy's name (spam, hate, …), or a pack of them. Repeatable.",
        ),
    ] = ()
    labels: Annotated[
        tuple[str, ...],
        Written(_list),
        typer.Option(metavar="A,B", help="The policy's labels, instead of those in its file."),
    ] = ()
    violates: Annotated[
        tuple[str, ...],
        Written(_list),
        typer.Option(metavar="B", help="The labels that violate, instead of those in its file."),
    ] = ()
    rename: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="The name under which verdicts are written, instead of the policy's."
        ),
    ] = None
    policy_only_prompt: Annotated[
        bool,
        typer.Option(
            "--policy-only-prompt",
            help="Leave the response format out of the prompt: the policy says how to answer.",
        ),
    ] = False
    together: Annotated[
        bool,
        typer.Option("--together", help="Ask about all policies in one prompt and one answer: faster but less exact."),
    ] = False


@dataclass(frozen=True)
class Answering:
    """Policy and decision"""

    effort: Annotated[
        Effort,
        typer.Option(
            metavar="EFFORT",
            help="How much the model reasons before it decides: none (fastest), low, medium or high; auto reasons only"
            " about rows that it is not --sure of.",
        ),
    ] = "low"
    sure: Annotated[
        float,
        typer.Option(
            min=0.5,
            max=1.0,
            metavar="P",
            help="With --effort auto: decide a row at once if p_violates or 1 - p_violates is at least P.",
        ),
    ] = 0.95
    rationale: Annotated[bool, typer.Option("--rationale", help="Also write a short rationale for every row.")] = False
    max_reasoning: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="TOKENS",
            help="The most reasoning tokens; default 256, 1024 or 4096 by effort. Lower the effort first.",
        ),
    ] = None
    votes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=99,
            metavar="K",
            help="Sample K reasonings of every row, an odd number, and let them vote: the row also has the votes for"
            " each label, and p_votes.",
        ),
    ] = None
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided",
            help="With --votes: end a row when its remaining votes cannot change the label; there is no p_votes then.",
        ),
    ] = False
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="T",
            help="Sample the reasoning at this temperature, instead of taking the likeliest tokens; with --votes 1 if"
            " not given.",
        ),
    ] = None
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed for --temperature and --votes.")] = 0

    @property
    def sampled_at(self) -> float:
        """Return the temperature at which reasoning is sampled, 0 if it is not."""
        return self.temperature if self.temperature is not None else VOTED_AT if self.votes else 0.0

    @property
    def differs_each_time(self) -> bool:
        """Return whether rows with the same text get answers of their own; votes depend on the text alone."""
        return self.sampled_at > 0 and not self.votes


@dataclass(frozen=True)
class Output:
    """Output"""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="The output; default: standard output; at a terminal, INPUT-stem.labels.jsonl (.csv, .xlsx, …).",
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Make a resumed run equal an uninterrupted one byte for byte; a little slower.",
        ),
    ] = False


@dataclass(frozen=True)
class Going:
    """Output"""

    append_input: Annotated[
        bool,
        typer.Option("--append-input", help="Resume a finished output whose input has grown at its end."),
    ] = False
    retry_errors: Annotated[
        bool,
        typer.Option(
            "--retry-errors",
            help="Label the error rows of a finished output again, in place, from the same input.",
        ),
    ] = False
    reuse: Annotated[
        tuple[str, ...],
        typer.Option(
            "--reuse",
            metavar="OUT",
            help="Copy the verdicts of this output to rows with the same text, and label only the others; it must have"
            " the same policies, model and settings, but any --threshold. Repeatable.",
        ),
    ] = ()
    on_error: Annotated[
        Literal["record", "stop"],
        typer.Option(help="On a row that cannot be labelled: write an error row, or stop."),
    ] = "record"
    keep: Annotated[
        str | None,
        typer.Option(metavar="FIELDS|none", help="Write only these fields of the row, separated by commas, or none."),
    ] = None
    only: Annotated[
        Literal["violates"] | None,
        typer.Option(help="Write only rows that violate or are in error: no longer one row out for every row in."),
    ] = None
    csv_safe: Annotated[
        bool,
        typer.Option(
            "--csv-safe",
            help="Put ' before every CSV cell that a spreadsheet could take for a formula, not only verdict cells.",
        ),
    ] = False
    layout: Annotated[
        Literal["verdicts", "perspective", "moderation"],
        typer.Option(
            metavar="LAYOUT",
            help="With perspective or moderation, JSONL rows also have the answer of the Perspective API or of OpenAI's"
            " moderation endpoint: attributeScores, or results.",
        ),
    ] = "verdicts"
    bom: Annotated[
        bool,
        typer.Option(
            "--bom",
            help="Begin a CSV output with a byte order mark, so that Excel shows é; kept where the input has one.",
        ),
    ] = False


@dataclass(frozen=True)
class Judging:
    """Policy and decision"""

    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="T",
            help="Set violates by p_violates ≥ T, instead of by the label.",
        ),
    ] = None
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Also write p_calibrated, the probability that a row violates: by a calibration of `eval --calibrate`"
            " for the same policy, model and effort.",
        ),
    ] = None
    reasoning: Annotated[
        bool,
        typer.Option(
            "--reasoning",
            help="Also write the model's reasoning; it is not meant for end users.",
        ),
    ] = False


@dataclass(frozen=True)
class Debugging:
    """Display"""

    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False


@dataclass(frozen=True)
class Telling(Debugging):
    """Display"""

    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")] = False


@dataclass(frozen=True)
class Display(Telling):
    """Display"""

    progress: Annotated[
        Literal["auto", "rich", "plain", "none"],
        typer.Option(help="The progress display on standard error; auto is rich at a terminal, plain elsewhere."),
    ] = "auto"
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print the run's slots and memory, and llama.cpp's log.")
    ] = False


@dataclass(frozen=True)
class Looking:
    """Display"""

    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Load the vocabulary only; show rows, tokens, memory and the first prompt."),
    ] = False


@dataclass(frozen=True)
class Cluster:
    """Many files on a Ray cluster"""

    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Label the files that match INPUT on a Ray cluster, one engine on each node; -o is a folder.",
        ),
    ] = False
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The cluster; default: RAY_ADDRESS, else the one on this machine, else a new one here.",
        ),
    ] = None


@dataclass(frozen=True)
class Answers:
    """Answers"""

    json: Annotated[
        bool,
        typer.Option("--json", help="Print each text with its verdicts as a line of JSON, as `label` writes rows."),
    ] = False
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Label the texts again whenever a policy's file is saved, and show what has changed; Ctrl-C ends.",
        ),
    ] = False


@dataclass(frozen=True)
class _Input:
    input: str = ""


@dataclass(frozen=True)
class OnMachine(Display, Local, Model, Answering, Windows, Text, Reading, Asking, _Input):
    """The options of a command that asks a model on this machine about rows."""


@dataclass(frozen=True)
class Asked(Servers, Pace, OnMachine):
    """The options of every command that labels rows."""


@dataclass(frozen=True)
class AskedOfTurns(Grouping, Asked):
    """The options of a command that labels rows of a file, which may be turns of conversations."""


@dataclass(frozen=True)
class OfTexts(Judging, Servers, Pace, Display, Local, Model, Answering, Windows, Asking):
    """The options of a command that is given texts, not files."""


@dataclass(frozen=True)
class Settings(Looking, Going, Judging, Output, Shard, AskedOfTurns):
    """All settings of a run; those that no option sets are for our own callers."""

    inputs: tuple[str, ...] = ()  # the files, folders and patterns, if the command names several files
    joined: tuple[tuple[str, str, int], ...] = ()  # files read as one input: path, name and number of rows of each
    scratch: bool = False  # the output is in a folder that is deleted when the command ends
    put_together: bool = False  # the texts are turns that were selected before
    each_row: bool = False  # a text that came before is labelled again, not given the same verdict
    says_text: bool | None = None  # whether to print which text was chosen; None: unless quiet

    @property
    def says_its_text(self) -> bool:
        """Return whether to print on standard error which text was chosen."""
        return not self.quiet if self.says_text is None else self.says_text

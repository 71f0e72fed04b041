"""Which library decodes a run on this machine, and whether it is proved to compute what llama.cpp does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from safeguard_cli.engine.local import proof
from safeguard_cli.engine.local.choose import check_installed, ik_usable, worth_proving
from safeguard_cli.engine.local.hardware import usable_cores
from safeguard_cli.engine.local.plan import IK, LLAMA, Device, Loading
from safeguard_cli.errors import UsageError
from safeguard_cli.model.fingerprint import model_key
from safeguard_cli.model.gguf import Header
from safeguard_cli.output.manifest import Refused
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import note, warn


@dataclass(frozen=True, slots=True)
class Chosen:
    """The engine of a run; `proved` is whether it computes what llama.cpp does with this model, None if unknown."""

    engine: str
    proved: bool | None = None


def choose_engine(
    settings: Settings, header: Header, before: Mapping[str, Any], rows: int | None, gpus: Sequence[Device]
) -> Chosen:
    """Return the library that decodes; a further session keeps the first one's.

    Raises Refused where it is asked to change, UsageError where the one that is asked for cannot be had.
    """
    asked = settings.engine
    if before:
        first = (before.get("engine") or {}).get("name", LLAMA)
        if asked not in ("auto", first):
            raise Refused(
                f"the output was begun with --engine {first}: its scores would not be comparable with {asked}'s;"
                f" leave --engine out to go on, or start over with --overwrite"
            )
        asked = first
    if asked == LLAMA:
        return Chosen(LLAMA, True)
    reference = Loading(usable_cores(), extra_buffers=False, cache_type=settings.kv_type)
    candidate = replace(reference, extra_buffers=True, engine=IK)
    if asked == IK:
        check_installed(IK)
        if settings.gpu_layers > 0 or settings.cpu_moe:
            raise UsageError("--engine ik computes on the CPU alone: leave --gpu-layers and --cpu-moe out")
        known = proof.known(header.path, candidate, reference)
        if not before and not (known and known.proved) and not settings.quiet:
            why = f"is not: {known.reason}" if known else "is not checked; safeguard doctor --prove does"
            warn(f"--engine ik: whether it computes what llama.cpp does with this model {why}")
        return Chosen(IK, known.proved if known else None)
    if gpus or not ik_usable():
        return Chosen(LLAMA, True)
    known = proof.known(header.path, candidate, reference)
    reasoning = settings.effort not in ("none", "auto")
    if known is None and not settings.dry_run and worth_proving(rows, reasoning, proof.TOKENS):
        if not settings.quiet:
            note(
                "proving once that ik_llama.cpp, which is faster here, computes what llama.cpp does with this model;"
                " --engine llama.cpp leaves it out"
            )
        known = proof.prove(header.path, model_key(header.path), reference, candidate)
        if not known.proved and not settings.quiet:
            note(f"llama.cpp decodes: {known.reason}")
    return Chosen(IK, True) if known and known.proved else Chosen(LLAMA, True)

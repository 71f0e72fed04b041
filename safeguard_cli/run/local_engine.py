"""Which library decodes a run on this machine, and whether it is proved to compute what llama.cpp does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from safeguard_cli.engine.local import proof
from safeguard_cli.engine.local.choose import check_installed, ik_usable, worth_proving
from safeguard_cli.engine.local.fit import REPACK_ROWS
from safeguard_cli.engine.local.hardware import usable_cores
from safeguard_cli.engine.local.plan import IK, LLAMA, Device, Loading
from safeguard_cli.errors import UsageError
from safeguard_cli.model.fingerprint import model_key
from safeguard_cli.model.gguf import Header
from safeguard_cli.output.manifest import Refused
from safeguard_cli.run.settings import Settings
from safeguard_cli.terminal import note, warn

LEAST_BYTES = 256 << 20  # smaller models are decoded before a proof is done


@dataclass(frozen=True, slots=True)
class Chosen:
    """The engine of a run; `proved` is whether it computes what llama.cpp does with this model, None if unknown."""

    engine: str
    proved: bool | None = True


def choose_engine(
    settings: Settings, header: Header, before: Mapping[str, Any], rows: int | None, gpus: Sequence[Device]
) -> Chosen:
    """Return the library that decodes; a further session keeps the first one's.

    Raises Refused where it is asked to change, UsageError where the one that is asked for cannot be had.
    """
    asked: str = settings.engine
    if before:
        first = first_engine(before)
        if asked not in ("auto", first):
            raise Refused(
                f"the output was begun with --engine {first}, and {asked}'s scores would not be comparable:"
                f" leave --engine out to go on, or start over with --overwrite"
            )
        asked = first
    if asked == LLAMA:
        return Chosen(LLAMA)
    if asked == IK:
        check_installed(IK)
        if settings.gpu_layers > 0 or settings.cpu_moe:
            raise UsageError("--engine ik computes on the CPU alone: leave --gpu-layers and --cpu-moe out")
        known = proof.known(header.path, *compared(settings.kv_type, settings.repack))
        if not before and not settings.quiet and not (known and known.proved):
            said = "not proved to compute what llama.cpp does with this model; safeguard bench proves it"
            if known:
                said = f"{'found wrong' if known.judged else 'not proved'} with this model: {known.reason}"
            warn(f"--engine ik: {said}")
        return Chosen(IK, known.proved if known else None)
    few = rows is not None and rows < REPACK_ROWS
    if gpus or few or header.size < LEAST_BYTES or not ik_usable():
        return Chosen(LLAMA)
    known = proof.known(header.path, *compared(settings.kv_type, settings.repack))
    reasoning = settings.effort not in ("none", "auto")
    if known is None and not settings.dry_run and worth_proving(rows, reasoning, proof.TOKENS):
        known = prove_engine(settings, header)
    return Chosen(IK if known and known.proved else LLAMA)


def first_engine(before: Mapping[str, Any]) -> str:
    """Return the library of the session that recorded this of its machine; llama.cpp goes unrecorded."""
    return str((before.get("engine") or {}).get("name", LLAMA))


def prove_engine(settings: Settings, header: Header) -> proof.Verdict:
    """Return whether ik_llama.cpp computes what llama.cpp does with a model, found now unless it is known."""
    candidate, reference = compared(settings.kv_type, settings.repack)
    known = proof.known(header.path, candidate, reference)
    if known is None:
        say = (lambda _: None) if settings.quiet else note
        say(
            "proving once that ik_llama.cpp computes what llama.cpp does with this model: both decode some 1,000 tokens"
        )
        known = proof.prove(header.path, model_key(header.path), reference, candidate)
        say("proved" if known.proved else f"not proved, so llama.cpp decodes: {known.reason}")
    return known


def compared(cache_type: str = "f16", repack: bool | None = None) -> tuple[Loading, Loading]:
    """Return how ik_llama.cpp decodes, and the llama.cpp that it is compared with: the mapped file, not a copy."""
    reference = Loading(usable_cores(), extra_buffers=False, cache_type=cache_type)
    return replace(reference, extra_buffers=repack is not False, engine=IK), reference

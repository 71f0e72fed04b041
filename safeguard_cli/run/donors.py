"""The outputs that --reuse names: whether their verdicts are those that a run of today would give, and if not, why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.files import sha256
from safeguard_cli.output.labelled import model_name
from safeguard_cli.output.manifest import Manifest, find_manifest, rows_path
from safeguard_cli.policy.policy import Policy
from safeguard_cli.rows.writable import is_stream
from safeguard_cli.terminal import warn

# The options that an answer depends on, with what an older version's manifest means where it has none.
_OPTIONS: Mapping[str, tuple[str, Any]] = {
    "effort": ("--effort", "low"),
    "sure": ("--sure", None),
    "ctx": ("--ctx", None),
    "long": ("--long", "split"),
    "max_windows": ("--max-windows", 16),
    "temperature": ("--temperature", 0.0),
    "seed": ("--seed", 0),
    "votes": ("--votes", None),
    "until_decided": ("--until-decided", False),
    "policy_only_prompt": ("--policy-only-prompt", False),
    "together": ("--together", False),
    "rationale": ("--rationale", False),
}


@dataclass(frozen=True, slots=True)
class Donor:
    """An output whose verdicts are copied; `rows` is the file that has them, a journal if it is not finished."""

    path: Path
    rows: Path
    manifest: Manifest
    sha256: str

    @property
    def format(self) -> str:
        return self.manifest.identity.output.format

    @property
    def cut(self) -> int:
        """Return the rows whose reasoning the budget cut, as far as is on record."""
        done, result = self.manifest.progress, self.manifest.result
        return result.cut if result else done.cut_rows

    def on_record(self) -> dict[str, Any]:
        """Return the output as a manifest names it, with no row so far."""
        return {"output": str(self.path.absolute()), "sha256": self.sha256, "rows": 0}


def find_donors(names: Sequence[str]) -> tuple[Donor, ...]:
    """Return the outputs that --reuse names, with their manifests.

    Raise UsageError if one is not there, has no manifest, or was changed after its run had finished.
    """
    return tuple(map(_find_donor, dict.fromkeys(map(Path, names))))


def _find_donor(path: Path) -> Donor:
    rows = rows_path(path)
    if str(path) == "-" or (path.exists() and is_stream(path)):
        raise UsageError(f"--reuse {path}: verdicts are copied from a file")
    if not rows.is_file():
        raise UsageError(f"--reuse {path}: " + ("this is a folder" if rows.is_dir() else "there is no such file"))
    try:
        manifest = find_manifest(rows)
    except SafeguardError:
        raise UsageError(
            f"--reuse {path}: the record beside it is damaged, or not of this version of safeguard"
        ) from None
    if manifest is None:
        raise UsageError(
            f"--reuse {path}: neither .manifest.json nor .run.json is beside it, so nobody knows which policy and model"
            " its verdicts are of"
        )
    if manifest.identity.input.turns:
        raise UsageError(
            f"--reuse {path}: its rows are turns of conversations (--group), and what is said of one depends on those"
            " before it"
        )
    digest = sha256(rows)
    if manifest.result and (rows.stat().st_size, digest) != (
        manifest.progress.output_bytes,
        manifest.result.output_sha256,
    ):
        raise UsageError(f"--reuse {path}: the file was changed after its run had finished")
    return Donor(path, rows, manifest, digest)


def only_model(donors: Sequence[Donor]) -> Manifest:
    """Return the first donor's manifest; raise UsageError if the donors were not all made with one model."""
    first = donors[0]
    for donor in donors:
        if donor.manifest.identity.model.record != first.manifest.identity.model.record:
            raise UsageError(
                f"--reuse: {first.path} was made with {model_on_record(first.manifest)}, {donor.path} with"
                f" {model_on_record(donor.manifest)}: name the outputs of one model"
            )
    return first.manifest


def usable_policies(donor: Donor, wanted: Mapping[str, Any], policies: Sequence[Policy], model: str) -> dict[int, str]:
    """Return the donor's policies whose verdicts can be copied, by the numbers of this run's.

    Raise UsageError with all that stands against it if there are none; warn of those that cannot.
    """
    made = donor.manifest.identity
    against = []
    if made.model.record != wanted["model"]:
        before = model_on_record(donor.manifest)
        model = f"another file of this name: {model}" if model == before else model
        against.append(f"{donor.path} was made with the model {before}, this run asks {model}")
    if made.prompt_layout != wanted["prompt_layout"]:
        against.append(f"{donor.path} was made by a version of safeguard that wrote other prompts")
    against += [f"{donor.path} was made {text}" for text in _other_settings(donor, wanted["answer"])]
    found, lacking = _policies(donor, wanted["policies"])
    together = wanted["answer"]["together"] and made.answer.together
    if together and [*wanted["policies"].items()] != [(name, one.record) for name, one in made.policies.items()]:
        before, now = ", ".join(made.policies), ", ".join(wanted["policies"])
        lacking = lacking or [f"{donor.path} was made with --together for {before}, this run is for {now}"]
        found = {}
    if against or not found:
        raise UsageError("--reuse: no verdict can be copied:", *against, *lacking)
    for text in lacking:
        warn(f"--reuse: {text}")
    numbers = {policy.name: number for number, policy in enumerate(policies)}
    return {numbers[name]: theirs for name, theirs in found.items()}


def _policies(donor: Donor, wanted: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """Return the donor's name for each policy that it has, by ours, and sentences on those that it has not."""
    theirs = {name: policy.record for name, policy in donor.manifest.identity.policies.items()}
    found: dict[str, str] = {}
    lacking = []
    for name, policy in wanted.items():
        same = [other for other, record in theirs.items() if record == policy]
        if same:
            found[name] = name if name in same else same[0]
        elif name not in theirs:
            lacking.append(f"{donor.path} has no verdicts under the policy {name}, but under {', '.join(theirs)}")
        elif theirs[name]["sha256"] != policy["sha256"]:
            lacking.append(f"{donor.path} was made with another text or other labels of the policy {name}")
        else:
            before, now = (", ".join(each["violates"]) or "none" for each in (theirs[name], policy))
            lacking.append(f"{donor.path} was made with other violating labels of {name}: {before}; now they are {now}")
    return found, lacking


def _other_settings(donor: Donor, wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of the donor's settings could have given other verdicts, as what follows "it was made"."""
    made = donor.manifest.identity.answer.record
    effort = made.get("effort") == wanted["effort"]
    for name, (option, default) in _OPTIONS.items():
        before, now = made.get(name, default), wanted.get(name, default)
        if before != now and (effort or name != "sure"):
            yield told_setting(option, before, now)
    if wanted["reasoning"] and not made.get("reasoning"):
        yield told_setting("--reasoning", False, True)
    if not effort:
        return
    before, now = made.get("most_reasoning", 0), wanted["most_reasoning"]
    told = told_setting("--max-reasoning", f"{before:,}", f"{now:,}")
    if before > now:
        yield told
    elif before < now and donor.format == "csv" and (donor.cut or not donor.manifest.finished):
        yield f"{told}, and a CSV does not tell which rows that cut"


def told_setting(option: str, before: Any, now: Any) -> str:
    """Return how a setting differs, as what follows "it was made"."""
    if isinstance(now, bool):
        return f"{'with' if before else 'without'} {option}, this run {'asks for it' if now else 'goes without it'}"
    made = f"without {option}" if before is None else f"with {option} {before}"
    return f"{made}, this run {'goes without it' if now is None else f'asks for {now}'}"


def model_on_record(manifest: Manifest) -> str:
    return model_name(manifest) or "one that is not on record"

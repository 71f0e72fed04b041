"""Builds prompts in Harmony, the format of gpt-oss; the only module that knows its markers and our layout.

Format: https://github.com/openai/harmony. A prompt is built from parts. Each part between two markers is tokenized on
its own as ordinary text, so that neither a policy nor a text can place a marker. The template's optional date line is
left out, so that a prompt is the same tomorrow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import TypeAlias

import orjson

from safeguard_cli.errors import SafeguardError
from safeguard_cli.model.tokenizer import Tokenizer, string_text
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Contract, Prefix, Question

EFFORTS = ("none", "low", "medium", "high")


class Marker(Enum):
    """Harmony's control tokens by their spelling in the model's vocabulary."""

    START = "<|start|>"
    MESSAGE = "<|message|>"
    CHANNEL = "<|channel|>"
    END = "<|end|>"
    RETURN = "<|return|>"
    CALL = "<|call|>"
    CONSTRAIN = "<|constrain|>"


Part: TypeAlias = "Marker | str"

_SYSTEM = (
    "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n\nReasoning: {effort}\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message."
)
_ANALYSIS: tuple[Part, ...] = (Marker.CHANNEL, "analysis", Marker.MESSAGE)
_NEXT_MESSAGE: tuple[Part, ...] = (Marker.END, Marker.START, "assistant", Marker.CHANNEL)
_FINAL: tuple[Part, ...] = ("final", Marker.MESSAGE, '{"label":"')
_RATIONALE = '","rationale":"'
_SUFFIX: tuple[Part, ...] = (Marker.END, Marker.START, "assistant")


def prefix_parts(
    policy: Policy, effort: str, *, rationale: bool = False, policy_only: bool = False
) -> tuple[Part, ...]:
    """Return what comes before every text of a run: system message, developer message, the user message's header.

    Efforts `none` and `auto` use the prompt of `low`. `policy_only` leaves out the response format.
    """
    return _parts({"label": policy}, effort, rationale=rationale, policy_only=policy_only)


def together_parts(policies: Sequence[Policy], effort: str, *, rationale: bool = False) -> tuple[Part, ...]:
    """Return the same for several policies in one prompt; its answer has a label under each policy's name."""
    return _parts({policy.name: policy for policy in policies}, effort, rationale=rationale, policy_only=False)


def _parts(policies: Mapping[str, Policy], effort: str, *, rationale: bool, policy_only: bool) -> tuple[Part, ...]:
    developer = _developer(policies, rationale=rationale, policy_only=policy_only)
    system = _SYSTEM.format(effort="low" if effort in ("none", "auto") else effort)
    return (
        *(Marker.START, "system", Marker.MESSAGE, system, Marker.END),
        *(Marker.START, "developer", Marker.MESSAGE, developer, Marker.END),
        *(Marker.START, "user", Marker.MESSAGE),
    )


def developer_text(policy: Policy, *, rationale: bool = False, policy_only: bool = False) -> str:
    """Return the developer message of one policy, for a server that builds prompts itself."""
    return _developer({"label": policy}, rationale=rationale, policy_only=policy_only)


def answer_schema(policy: Policy, *, rationale: bool = False) -> dict[str, object]:
    """Return the JSON schema of one policy's answer."""
    return _schema({"label": policy}, rationale)


def _developer(policies: Mapping[str, Policy], *, rationale: bool, policy_only: bool) -> str:
    text = "# Instructions\n\n" + "\n\n".join(policy.text for policy in policies.values())
    if policy_only:
        return text
    return f"{text}\n\n# Response Formats\n\n## verdict\n\n{orjson.dumps(_schema(policies, rationale)).decode()}"


def _schema(policies: Mapping[str, Policy], rationale: bool) -> dict[str, object]:
    properties: dict[str, object] = {
        key: {"type": "string", "enum": list(policy.labels)} for key, policy in policies.items()
    }
    if rationale:
        properties["rationale"] = {"type": "string"}
    return {"type": "object", "properties": properties, "required": list(properties)}


def layout_hash() -> str:
    """Return the hash of our layout, its text and markers; a model trained on another one does not know it."""
    sample = Policy("sample", "{policy}", ("{a}", "{b}"), ("{b}",))
    prefixes = [prefix_parts(sample, effort, rationale=r) for effort in EFFORTS for r in (False, True)]
    layout = (*prefixes, _SUFFIX, _ANALYSIS, _NEXT_MESSAGE, _FINAL, (_RATIONALE,))
    return hashlib.sha256("\x1e".join("\x1f".join(map(readable, parts)) for parts in layout).encode()).hexdigest()


def readable(part: Part) -> str:
    """Return a part as text, a marker as its spelling; for people and hashes, never to be tokenized."""
    return part.value if isinstance(part, Marker) else part


class ControlTokenError(Exception):
    """Ordinary text gave a control token: this should never happen, and the row must not be labelled."""


class Harmony:
    """Turns parts into token ids of one model; raises SafeguardError if its vocabulary lacks a marker."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        missing = [m.value for m in Marker if m.value not in tokenizer.control]
        if missing:
            raise SafeguardError(
                f"the model's vocabulary lacks harmony's {', '.join(missing)}; it is not a gpt-oss model"
            )
        self._marker_ids = {m: tokenizer.control[m.value] for m in Marker}
        self.marker_ids = tuple(self._marker_ids.values())
        self.suffix = self.ids(_SUFFIX)

    def ids(self, parts: Iterable[Part]) -> tuple[int, ...]:
        """Return the parts' token ids; raise ControlTokenError if a text part gives a control token."""
        out: list[int] = []
        for part in parts:
            if isinstance(part, Marker):
                out.append(self._marker_ids[part])
            else:
                out.extend(self.text_ids(part))
        return tuple(out)

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of ordinary text; raise ControlTokenError if one of them is a control token."""
        ids = self.tokenizer.encode(text)
        if self.tokenizer.has_control(ids):
            raise ControlTokenError
        return ids

    def content_ids(self, content: Sequence[int]) -> tuple[int, ...]:
        """Return a text's ids followed by what closes the user message and opens the assistant's."""
        return (*content, *self.suffix)

    def prefix(self, policy: Policy, effort: str, *, rationale: bool = False, policy_only: bool = False) -> Prefix:
        """Return the shared tokens and the contract of one policy under one effort."""
        parts = prefix_parts(policy, effort, rationale=rationale, policy_only=policy_only)
        return Prefix(self.ids(parts), self._contract(policy))

    def prefix_together(self, policies: Sequence[Policy], effort: str, *, rationale: bool = False) -> Prefix:
        """Return the shared tokens and the contract of several policies in one prompt and one answer."""
        first, *others = policies
        contract = self._contract(first, (*_FINAL[:-1], f'{{"{first.name}":"'))
        more = tuple(
            Question(self.ids((f'","{other.name}":"',)), self._label_ids(other), _violating(other)) for other in others
        )
        return Prefix(self.ids(together_parts(policies, effort, rationale=rationale)), replace(contract, more=more))

    def _label_ids(self, policy: Policy) -> tuple[tuple[int, ...], ...]:
        return tuple(self.ids((orjson.dumps(label).decode()[1:-1],)) for label in policy.labels)

    def _contract(self, policy: Policy, opening: tuple[Part, ...] = _FINAL) -> Contract:
        openings = {name: self.ids((name, Marker.MESSAGE)) for name in ("analysis", "commentary")}
        final = self.ids(opening)
        return Contract(
            labels=self._label_ids(policy),
            violating=_violating(policy),
            open_analysis=self.ids(_ANALYSIS),
            next_message=self.ids(_NEXT_MESSAGE),
            channels={ids[0]: ids for ids in openings.values()},
            final_token=final[0],
            open_final=final,
            open_final_at_once=self.ids((Marker.CHANNEL, *opening)),
            open_rationale=self.ids((_RATIONALE,)),
            quote_ids=self.tokenizer.closing_quote_ids,
            stops=self.tokenizer.control_ids,
        )

    def string_text(self, ids: Iterable[int]) -> str:
        """Return the text of a rationale's ids, which are the inside of a JSON string."""
        return string_text(self.tokenizer.decode_bytes(ids)).strip()

    def readable(self, ids: Iterable[int]) -> str:
        """Return the ids as text with the markers spelled out, for people only."""
        return self.tokenizer.decode(ids)


def _violating(policy: Policy) -> tuple[int, ...]:
    return tuple(i for i, label in enumerate(policy.labels) if label in policy.violates)

"""Writes rows in the forms of two services' answers, so that code which reads these goes on working.

The row's own fields and the verdicts stay what they are in any JSONL output, so that every reader of an output reads
these rows too. The service's members follow them:

- `perspective`: `attributeScores`, as comments:analyze of the Perspective API answers. An attribute is a policy's name
  in capitals (`severe-toxicity` → `SEVERE_TOXICITY`), its score is p_violates, and its one span is the whole text, in
  characters.
- `moderation`: `results`, as OpenAI's moderation endpoint answers, with one result. A category is a policy's name, or
  the service's name for what the policy is about.

A policy without a verdict has no score there: nothing reads an error as harmless. If nothing that was labelled
violates, `flagged` is null in place of false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

from safeguard_cli.errors import UsageError
from safeguard_cli.rows.layouts import JsonlLayout, field_names
from safeguard_cli.rows.records import Record
from safeguard_cli.rows.source import Source
from safeguard_cli.rows.verdict import Verdict

Service = Literal["perspective", "moderation"]
MEMBERS: Mapping[Service, str] = {"perspective": "attributeScores", "moderation": "results"}

# Policies whose subject has another name in OpenAI's answers.
CATEGORIES = {"sexual-content": "sexual", "child-safety": "sexual/minors", "dangerous-goods": "illicit"}


class ServiceLayout(JsonlLayout):
    """Rows as JSON objects with the verdicts, and after them the members of a service's answer."""

    def __init__(self, source: Source, keep: Sequence[str] | None, service: Service) -> None:
        super().__init__(source, keep)
        self._make = attribute_scores if service == "perspective" else results
        self._member = orjson.dumps(MEMBERS[service]) + b":"

    def row(self, record: Record, verdicts: Mapping[str, Verdict]) -> bytes:
        whole = super().row(record, verdicts)
        return whole.removesuffix(b"}\n") + b"," + self._member + orjson.dumps(self._make(verdicts)) + b"}\n"


def check_member(source: Source, service: Service, names: Sequence[str], keep: Sequence[str] | None) -> None:
    """Raise UsageError if the input or a policy already has the name of the service's member."""
    member = MEMBERS[service]
    if member in names or (member in field_names(source) and (keep is None or member in keep)):
        raise UsageError(
            f"{source.name}: {member!r}, which --layout {service} writes, is there already; --keep leaves it out"
        )


def attribute_of(policy: str) -> str:
    """Return the name of a policy's attribute."""
    return policy.upper().replace("-", "_")


def attribute_scores(verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """Return the scores of a row as comments:analyze has them under `attributeScores`."""
    return {attribute_of(name): _attribute(verdict) for name, verdict in verdicts.items() if verdict.error is None}


def _attribute(verdict: Verdict) -> dict[str, Any]:
    score = {"value": verdict.p_violates, "type": "PROBABILITY"}
    return {"spanScores": [{"begin": 0, "end": verdict.characters, "score": score}], "summaryScore": score}


def results(verdicts: Mapping[str, Verdict]) -> list[dict[str, Any]]:
    """Return the scores of a row as the moderation endpoint has them under `results`; none if all are in error."""
    found = {CATEGORIES.get(name, name): verdict for name, verdict in verdicts.items() if verdict.error is None}
    if not found:
        return []
    flagged = any(verdict.violates for verdict in found.values())
    return [
        {
            "flagged": flagged if flagged or len(found) == len(verdicts) else None,
            "categories": {name: verdict.violates for name, verdict in found.items()},
            "category_scores": {name: verdict.p_violates for name, verdict in found.items()},
        }
    ]

"""Chat endpoints, which take and return text: the server makes the prompt, and the answer is read as JSON.

This is weaker than token ids: the server chooses the row's place in the prompt, and scores are those of the label's
first token, where the server gives any.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from safeguard_cli.engine.decoding import MAX_RATIONALE, Options
from safeguard_cli.engine.servers.apis import BadReply, Body
from safeguard_cli.engine.servers.pool import Lease, Pool
from safeguard_cli.policy.policy import Policy
from safeguard_cli.prompt.contract import Completion, Prompt
from safeguard_cli.prompt.harmony import Harmony, answer_schema, developer_text

PATH = "/v1/chat/completions"
FEATURES = ("response_format", "logprobs", "reasoning_effort", "temperature")  # which not every server accepts
MOST_TOKENS = 1 << 24  # of an answer: a server that reports more has miscounted
_ROOM = 64  # tokens of the answer beside reasoning and rationale
_LABEL = re.compile(r'"label"\s*:\s*"')


@dataclass(frozen=True, slots=True)
class ChatApi:
    """One chat endpoint, and which of FEATURES it accepts."""

    model: str
    features: frozenset[str]
    name: str = "chat"

    def body(
        self, instructions: str, content: str, schema: Any, effort: str, most: int, sampling: Mapping[str, Any]
    ) -> Body:
        """Return a request about one row's text."""
        optional: dict[str, Body] = {
            "response_format": {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "verdict", "strict": True, "schema": schema},
                }
            },
            "logprobs": {"logprobs": True, "top_logprobs": 20},
            "reasoning_effort": {"reasoning_effort": effort},
            "temperature": dict(sampling),
        }
        body: Body = {
            "model": self.model,
            "messages": [{"role": "system", "content": instructions}, {"role": "user", "content": content}],
            "max_completion_tokens": most,
        }
        for feature in self.features:
            body |= optional[feature]
        return body


@dataclass(frozen=True, slots=True)
class Said:
    """The contents of one answer: all labels' scores, the reasoning, the rationale, and the number of tokens."""

    scores: tuple[float, ...]
    reasoning: str
    rationale: str | None
    tokens: int


class Chat:
    """Decides each prompt with one chat request; the text is decoded from the prompt's tokens, byte by byte."""

    def __init__(self, harmony: Harmony, policies: Sequence[Policy], effort: str, options: Options) -> None:
        self._harmony, self._options = harmony, options
        self._policies, self._effort = policies, effort
        rationale = options.string_kinds is not None
        self._rationale = rationale
        self._instructions = [developer_text(policy, rationale=rationale) for policy in policies]
        self._schemas = [answer_schema(policy, rationale=rationale) for policy in policies]

    async def decide(self, pool: Pool[ChatApi], lease: Lease[ChatApi], prompt: Prompt) -> Completion:
        """Decide one prompt. Raises RowFailed when no server gives one of the policy's labels."""
        encode, policy = self._harmony.tokenizer.encode, self._policies[prompt.policy]
        content = self._harmony.tokenizer.decode(prompt.ids[: -len(self._harmony.suffix)])
        most = self._options.budget + _ROOM + (MAX_RATIONALE if self._rationale else 0)
        sampling = {"temperature": self._options.temperature, "seed": self._options.seed}
        instructions, schema = self._instructions[prompt.policy], self._schemas[prompt.policy]
        said = await pool.ask(
            lease,
            lambda api, _: (PATH, api.body(instructions, content, schema, self._effort, most, sampling)),
            lambda _, reply: read_answer(reply, policy),
        )
        rationale = None
        if self._rationale:
            rationale = tuple(encode(orjson.dumps(said.rationale or "").decode()[1:-1]))
        reasoning = (tuple(encode(said.reasoning)),)
        return Completion(prompt, said.scores, reasoning, rationale=rationale, generated=said.tokens)


def read_answer(reply: Any, policy: Policy) -> Said:
    """Return the verdict in a chat completion. Raises BadReply when it holds none of the policy's labels."""
    choice = reply["choices"][0]
    message = choice["message"]
    answer = _object(message.get("content") or "")
    label = answer.get("label")
    if label not in policy.labels:
        raise BadReply("the server's answer holds none of the policy's labels")
    chosen = policy.labels.index(label)
    listed = (choice.get("logprobs") or {}).get("content") or []
    rationale = answer.get("rationale")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    tokens = (reply.get("usage") or {}).get("completion_tokens")
    return Said(
        _scores(listed, policy.labels, chosen),
        reasoning if isinstance(reasoning, str) else "",
        rationale if isinstance(rationale, str) else None,
        tokens if type(tokens) is int and 0 <= tokens <= MOST_TOKENS else 0,
    )


def _object(text: str) -> dict[str, Any]:
    """Return the JSON object in a text, whatever stands around it."""
    begin, end = text.find("{"), text.rfind("}")
    try:
        found = orjson.loads(text[begin : end + 1])
    except orjson.JSONDecodeError:
        raise BadReply("the server's answer is not a JSON object") from None
    if not isinstance(found, dict):
        raise BadReply("the server's answer is not a JSON object")
    return found


def _scores(listed: Sequence[Any], labels: Sequence[str], chosen: int) -> tuple[float, ...]:
    """Return the labels' probabilities at the label's first token; 1 and 0 where the server lists none.

    `listed` is OpenAI's `logprobs.content`: for each token its text and its likeliest alternatives.
    """
    alone = tuple(float(i == chosen) for i in range(len(labels)))
    texts = [str(each["token"]) for each in listed]
    found = list(_LABEL.finditer("".join(texts)))
    if not found:
        return alone
    at, place = found[-1].end(), 0
    for text, each in zip(texts, listed, strict=True):
        if at < place + len(text):
            head, alternatives = text[: at - place], each.get("top_logprobs") or [each]
            break
        place += len(text)
    else:
        return alone
    mass = [0.0] * len(labels)
    for alternative in alternatives:
        spelled, value = str(alternative["token"]), float(alternative["logprob"])
        if not value <= 0.01:
            raise BadReply("the server's log-probabilities are not valid")
        rest = spelled.removeprefix(head) if spelled.startswith(head) else ""
        fits = [
            i
            for i, label in enumerate(labels)
            if rest and (f'{label}"'.startswith(rest) or rest.startswith(f'{label}"'))
        ]
        if fits:
            mass[chosen if chosen in fits else fits[0]] += math.exp(value)
    total = sum(mass)
    # The answer is the label, even where sampling took another than the likeliest.
    if not total or max(mass) > mass[chosen]:
        return alone
    return tuple(value / total for value in mass)

"""Requests to each kind of server for tokens and log-probabilities, and the reading of its answers.

Sources: llama.cpp's tools/server/README.md; vLLM's vllm/entrypoints/openai/completion/protocol.py; SGLang's
python/sglang/srt/managers/io_struct.py. An answer is trusted only as far as it can be checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from safeguard_cli.prompt.harmony import Marker

MOST_MASS = 1.01  # what probabilities may sum to, rounding allowed for
LISTED = 20  # log-probabilities that every server lists for a token; vLLM's default --max-logprobs
_BIAS = 100.0  # lifts the tokens asked about above all others, and keeps their proportions
_MARKERS = [marker.value for marker in Marker if marker not in (Marker.RETURN, Marker.CALL)]  # those end it anyway

# What reading an answer of the wrong form raises.
MISSHAPEN = (KeyError, TypeError, IndexError, ValueError, AttributeError, ArithmeticError)

Body: TypeAlias = dict[str, Any]


class BadReply(Exception):
    """The answer is not a valid one; the message tells what it lacks or what is impossible in it."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How free tokens are chosen; at temperature 0, the likeliest."""

    temperature: float
    seed: int


@dataclass(frozen=True, slots=True)
class Generated:
    """Tokens that the model chose; `stopped` if it ended its message, whether or not the ending token is among them."""

    ids: tuple[int, ...]
    stopped: bool


class Api(Protocol):
    """Makes requests to one kind of server and reads its answers.

    `generate` asks for at most `most` tokens after `ids`, up to a marker or the text `until`; `choose` asks for the
    log-probabilities of the tokens `among` as the next one; `slot` is the server's cache to use. `generated` and
    `chosen` raise BadReply, or one of MISSHAPEN, when an answer is not what was asked for.
    """

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    def generate(
        self, ids: Sequence[int], most: int, until: str | None, stops: Iterable[int], sampling: Sampling, slot: int
    ) -> Body: ...

    def warm(self, ids: Sequence[int], slot: int) -> Body | None:
        """Return a request that only decodes `ids` into a cache; None where the server has none."""
        ...

    def generated(self, reply: Any) -> Generated: ...

    def choose(self, ids: Sequence[int], among: Sequence[int], slot: int) -> Body: ...

    def chosen(self, reply: Any) -> Mapping[int, float]: ...


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """llama.cpp's own /completion; a bias leaves only the tokens asked about before log-probabilities are taken."""

    name: str = "llama-server"
    path: str = "/completion"

    def generate(
        self, ids: Sequence[int], most: int, until: str | None, stops: Iterable[int], sampling: Sampling, slot: int
    ) -> Body:
        # The server does not stop at token ids: the markers' spellings are given, and the ids tell if it was a marker.
        stop = [*_MARKERS, until] if until else _MARKERS
        return {
            **_llama(ids, slot),
            "n_predict": most,
            "stop": stop,
            "return_tokens": True,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
        }

    def warm(self, ids: Sequence[int], slot: int) -> Body | None:
        return {**_llama(ids, slot), "n_predict": 0}

    def generated(self, reply: Any) -> Generated:
        if reply["truncated"]:
            raise BadReply("the server's context was too small for the row")
        return Generated(_ids(reply["tokens"]), reply["stop_type"] == "eos")

    def choose(self, ids: Sequence[int], among: Sequence[int], slot: int) -> Body:
        return {
            **_llama(ids, slot),
            "n_predict": 1,
            "n_probs": len(among),
            "post_sampling_probs": True,
            "logit_bias": [[token, _BIAS] for token in among],
            "temperature": 1.0,
        }

    def chosen(self, reply: Any) -> Mapping[int, float]:
        found = reply["completion_probabilities"][0]["top_probs"]
        return {int(each["id"]): _log(each["prob"]) for each in found}


def _llama(ids: Sequence[int], slot: int) -> Body:
    return {"prompt": list(ids), "cache_prompt": True, "id_slot": slot, "samplers": ["temperature"]}


@dataclass(frozen=True, slots=True)
class Completions:
    """OpenAI's /v1/completions with vLLM's token ids; only the tokens asked about are allowed."""

    model: str
    name: str = "vllm"
    path: str = "/v1/completions"

    def generate(
        self, ids: Sequence[int], most: int, until: str | None, stops: Iterable[int], sampling: Sampling, slot: int
    ) -> Body:
        return {
            **self._body(ids),
            "max_tokens": most,
            "stop_token_ids": list(stops),
            "stop": [until] if until else [],
            "include_stop_str_in_output": True,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
            "return_token_ids": True,
        }

    def warm(self, ids: Sequence[int], slot: int) -> Body | None:
        return None

    def generated(self, reply: Any) -> Generated:
        choice = reply["choices"][0]
        if choice.get("token_ids") is None:
            raise BadReply("the server gives no token ids")
        # `stop_reason` is the text or the id of the token at which it stopped, null for the end of the sequence.
        stopped = choice["finish_reason"] == "stop" and not isinstance(choice.get("stop_reason"), str)
        return Generated(_ids(choice["token_ids"]), stopped)

    def choose(self, ids: Sequence[int], among: Sequence[int], slot: int) -> Body:
        body = {
            **self._body(ids),
            "max_tokens": 1,
            "temperature": 0.0,
            "allowed_token_ids": list(among),
            "logprobs": min(len(among), LISTED),
            "return_tokens_as_token_ids": True,
        }
        # Newer versions list exactly these tokens; older ones ignore the field and list the likeliest of all.
        return body | {"logprob_token_ids": list(among)} if len(among) <= LISTED else body

    def chosen(self, reply: Any) -> Mapping[int, float]:
        found = reply["choices"][0]["logprobs"]["top_logprobs"][0]
        return {int(token.removeprefix("token_id:")): float(value) for token, value in found.items()}

    def _body(self, ids: Sequence[int]) -> Body:
        return {"model": self.model, "prompt": list(ids), "skip_special_tokens": False, "add_special_tokens": False}


@dataclass(frozen=True, slots=True)
class SGLang:
    """SGLang's own /generate, which gives log-probabilities of any tokens."""

    name: str = "sglang"
    path: str = "/generate"

    def generate(
        self, ids: Sequence[int], most: int, until: str | None, stops: Iterable[int], sampling: Sampling, slot: int
    ) -> Body:
        how = {
            "max_new_tokens": most,
            "temperature": sampling.temperature,
            "stop_token_ids": list(stops),
            "no_stop_trim": True,
            "skip_special_tokens": False,
        }
        if sampling.temperature:
            how["sampling_seed"] = sampling.seed
        return {"input_ids": list(ids), "sampling_params": how | ({"stop": [until]} if until else {})}

    def warm(self, ids: Sequence[int], slot: int) -> Body | None:
        return None

    def generated(self, reply: Any) -> Generated:
        reason = reply["meta_info"]["finish_reason"]
        return Generated(
            _ids(reply["output_ids"]), reason["type"] == "stop" and not isinstance(reason.get("matched"), str)
        )

    def choose(self, ids: Sequence[int], among: Sequence[int], slot: int) -> Body:
        return {
            "input_ids": list(ids),
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_logprob": True,
            "token_ids_logprob": list(among),
        }

    def chosen(self, reply: Any) -> Mapping[int, float]:
        return {int(token): float(value) for value, token, *_ in reply["meta_info"]["output_token_ids_logprobs"][0]}


def checked(found: Mapping[int, float], among: Sequence[int]) -> dict[int, float]:
    """Return the log-probabilities of the tokens asked about. Raises BadReply when they cannot be right."""
    if any(not value <= 0.01 for value in found.values()):  # also finds NaN; a little above 0 is rounding
        raise BadReply("the server's log-probabilities are not valid")
    if math.fsum(map(math.exp, found.values())) > MOST_MASS:
        raise BadReply("the server's probabilities sum to more than 1")
    wanted = set(among)
    mine = {token: value for token, value in found.items() if token in wanted}
    if not mine or max(mine.values()) == float("-inf"):
        raise BadReply("the server gave no log-probabilities of the tokens asked about")
    return mine


def _ids(found: Any) -> tuple[int, ...]:
    if not isinstance(found, list) or any(type(token) is not int or token < 0 for token in found):
        raise BadReply("the server's token ids are not valid")
    return tuple(found)


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else float("-inf") if probability == 0 else float("nan")

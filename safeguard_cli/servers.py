"""The servers that a run was given: where they are, what they speak, which model they serve, what they cannot do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

import orjson

from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.terminal import note, warn
from safeguard_cli.tokenizer import Tokenizer

if TYPE_CHECKING:
    import httpx

    from safeguard_cli.engine.apis import Api, Body
    from safeguard_cli.engine.chat import ChatApi
    from safeguard_cli.engine.pool import Address, Served

KEY = "SAFEGUARD_SERVER_KEY"
ApiName = Literal["completion", "chat"]
_URL = re.compile(r"(https?://)([^\s/?#]*@)?([^\s?#]*)([?#]\S*)?", re.IGNORECASE)
_WAIT = 30.0  # seconds for an answer while nothing has begun
_SAMPLE = 'Zero-shot moderation, 12345 rows: {"label":"naïve"}\n\n日本語 हिन्दी 🙂'


@dataclass(frozen=True, slots=True)
class Connected:
    """The servers that can be used. `model` is what decides labels and is the same for all, `context` the most tokens
    of a row, where they say it."""

    servers: tuple[Served[Any], ...]
    model: dict[str, Any]
    context: int | None


def without_secrets(text: str) -> str:
    """The text with user info, query and fragment taken out of every URL in it."""
    return _URL.sub(lambda found: found[1] + found[3], text)


def parse_address(text: str) -> Address:
    """A server's address from its URL; a final /v1 may be there or not. Raises UsageError, showing no secret."""
    from safeguard_cli.engine.pool import Address

    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host or any(char.isspace() for char in text):
        raise UsageError(f"--server {without_secrets(text)!r} is no URL such as http://localhost:8000")
    where = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    url = f"{parts.scheme}://{where}{re.sub(r'(/v1)?/*$', '', parts.path)}"
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Address(url, f"?{parts.query}" if parts.query else "", user, password, url)


def key() -> str | None:
    """The key for the servers, from the environment only."""
    return os.environ.get(KEY) or None


def connect(urls: Sequence[str], model: str | None, tokenizer: Tokenizer, api: ApiName) -> Connected:
    """Find out what each server speaks and serves, and that it has this vocabulary.

    A server that cannot be reached is left out, with a warning. Raises SafeguardError when none is left, when one lacks
    what every row takes, or when they serve different models.
    """
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise SafeguardError("--server needs an extra: pip install 'safeguard-cli[server]'") from None
    kind = _ChatProbe if api == "chat" else _Probe
    found = [kind(address, tokenizer) for address in _distinct(urls)]
    usable = [probe for probe in found if probe.reached(model)]
    if not usable:
        raise SafeguardError(f"no server can be reached: {', '.join(probe.address.shown for probe in found)}")
    for probe in usable:
        probe.check()
    first = usable[0]
    if other := next((probe for probe in usable if probe.model != first.model), None):
        raise UsageError(
            f"{first.address.shown} serves {_named(first.model)} and {other.address.shown} {_named(other.model)}:"
            " the servers of one run must serve the same model"
        )
    contexts = [probe.context for probe in usable if probe.context]
    return Connected(
        tuple(probe.served() for probe in usable),
        {**first.model, "vocabulary": tokenizer.fingerprint},
        min(contexts, default=None),
    )


def _distinct(urls: Iterable[str]) -> list[Address]:
    return list({address.shown: address for address in map(parse_address, urls)}.values())


def _named(model: dict[str, Any]) -> str:
    return " ".join(str(value) for value in model.values())


class _Probe:
    """One server before the run: what it says of itself, and what a few small requests show."""

    def __init__(self, address: Address, tokenizer: Tokenizer) -> None:
        self.address, self.tokenizer = address, tokenizer
        self.model: dict[str, Any] = {}
        self.served_name, self.owner = "", ""
        self.context: int | None = None
        self.slots = 0
        self.api: Api | ChatApi
        self.token_api: Api

    def served(self) -> Served[Any]:
        from safeguard_cli.engine.pool import Served

        return Served(self.address, self.api, self.slots)

    def reached(self, wanted: str | None) -> bool:
        """Ask what is served, False when nobody answers. Raises UsageError when a name must be chosen."""
        from safeguard_cli.engine.apis import Completions, LlamaServer, SGLang

        reply = self.ask("GET", "/v1/models")
        if reply is None:
            return False
        chosen = choose_model(self.address, reply, wanted)
        self.served_name, self.owner = str(chosen["id"]), str(chosen.get("owned_by"))
        self.model = model_identity(chosen)
        self.context = _number(chosen.get("max_model_len"))
        if self.owner == "llamacpp":
            props = self.ask("GET", "/props") or {}
            self.slots = _number(props.get("total_slots")) or 0
            self.context = _number((props.get("default_generation_settings") or {}).get("n_ctx"))
        known: dict[str, Api] = {"llamacpp": LlamaServer(), "sglang": SGLang()}
        self.api = self.token_api = known.get(self.owner) or Completions(self.served_name)
        return True

    def check(self) -> None:
        """The vocabulary is ours, token ids come back, and log-probabilities of the tokens asked about."""
        from safeguard_cli.engine.apis import MISSHAPEN, BadReply, Sampling, checked

        ids = self.tokenizer.encode(_SAMPLE)
        body = {"model": self.served_name, "tokens": ids}
        spelled = self.ask("POST", "/detokenize", body, may_lack=True) or {}
        text = spelled.get("content", spelled.get("prompt", spelled.get("text", _SAMPLE)))
        if text != _SAMPLE:
            raise UsageError(
                f"{self.address.shown} has another vocabulary than --model or --tokenizer: name the model it serves"
            )
        among, api = (ids[0], ids[1]), self.token_api
        try:
            reply = self.ask("POST", api.path, api.generate(ids, 1, None, (), Sampling(0.0, 0), -1))
            if not api.generated(reply).ids:
                raise BadReply("no token came back")
            chosen = checked(api.chosen(self.ask("POST", api.path, api.choose(ids, among, -1))), among)
        except (BadReply, *MISSHAPEN) as error:
            why = str(error) if isinstance(error, BadReply) else "its answer has another form"
            raise SafeguardError(
                f"{self.address.shown} cannot give token ids and log-probabilities as it must ({why});"
                " --server-api chat asks for less, see the README"
            ) from None
        if len(chosen) < len(among):
            note(
                f"{self.address.shown} lists the likeliest tokens only: labels that are not among them are asked about"
                " one by one"
            )

    def ask(self, method: str, path: str, body: Body | None = None, **allowed: bool) -> Any:
        return ask_once(self.address, method, path, body, **allowed)


class _ChatProbe(_Probe):
    """The same for a chat endpoint, of which less is asked."""

    def reached(self, wanted: str | None) -> bool:
        """Ask what is served, where a server says that at all; False when nobody answers."""
        reply = self.ask("GET", "/v1/models", may_lack=wanted is not None)
        if reply is None and wanted is None:
            return False
        self.served_name = str(choose_model(self.address, reply, wanted)["id"]) if reply else str(wanted)
        self.model = {"served": self.served_name}
        return True

    def check(self) -> None:
        """Find out what the endpoint takes, and say what is weaker than with token ids."""
        from safeguard_cli.engine.chat import FEATURES, PATH, ChatApi

        def takes(*features: str) -> Any:
            api = ChatApi(self.served_name, frozenset(features))
            schema = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
            body = api.body("Answer with JSON.", "hello", schema, "low", 64, {"temperature": 0.0, "seed": 0})
            return self.ask("POST", PATH, body, may_refuse=True)

        kept: tuple[str, ...] = FEATURES
        answer = takes(*kept)
        if answer is None:
            kept = tuple(feature for feature in FEATURES if takes(feature) is not None)
            answer = takes(*kept)
        if answer is None:
            raise SafeguardError(f"{self.address.shown} does not take a plain chat request for {self.served_name}")
        choice = (answer.get("choices") or [{}])[0] if isinstance(answer, dict) else {}
        if not ((choice.get("logprobs") or {}).get("content")):
            kept = tuple(feature for feature in kept if feature != "logprobs")
        self.api = ChatApi(self.served_name, frozenset(kept))
        weaker = ["the server itself makes the prompt, so content is only as harmless as it makes it"]
        weaker.append(
            "scores are those of the label's first token"
            if "logprobs" in kept
            else "there are no scores: a label has 1, the others 0"
        )
        if "response_format" not in kept:
            weaker.append("answers are not held to the schema")
        if "reasoning_effort" not in kept:
            weaker.append("--effort is not passed on")
        if "temperature" not in kept:
            weaker.append("answers are sampled")
        note(f"{self.address.shown}, chat: {'; '.join(weaker)}")


def ask_once(
    address: Address,
    method: str,
    path: str,
    body: Body | None = None,
    *,
    may_lack: bool = False,
    may_refuse: bool = False,
) -> Any:
    """One answer as JSON; None when the server cannot be reached or, with `may_lack`, has no such path, or, with
    `may_refuse`, does not take the request.

    Raises SafeguardError for every other failure.
    """
    import httpx

    from safeguard_cli.engine.pool import Patience, refusal

    with client(address, Patience(request=_WAIT)) as http:
        try:
            response: httpx.Response = http.request(
                method, f"{address.url}{path}{address.query}", content=orjson.dumps(body) if body else None
            )
            if may_lack and response.status_code in (404, 405, 501):
                return None
            if may_refuse and response.status_code in (400, 422):
                return None
            if response.status_code in (401, 403, 404):
                raise SafeguardError(refusal(address, path, response.status_code))
            if response.status_code != 200:
                raise SafeguardError(f"{address.shown} answered {path} with status {response.status_code}")
            return orjson.loads(response.content)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            warn(f"{address.shown} takes no connection; it is left out")
            return None
        except httpx.HTTPError as error:
            raise SafeguardError(f"{address.shown} gave no answer to {path} ({type(error).__name__})") from None
        except orjson.JSONDecodeError:
            raise SafeguardError(f"{address.shown} gave no JSON for {path}; is this the server's address?") from None


def client(address: Address, patience: Any) -> httpx.Client:
    """An httpx client for one server."""
    import httpx

    from safeguard_cli.engine.pool import client_options

    return httpx.Client(**client_options(address, key(), patience))


def choose_model(address: Address, reply: Any, wanted: str | None) -> dict[str, Any]:
    """The model that is meant among those that a server lists. Raises UsageError with their names."""
    try:
        listed = {str(each["id"]): each for each in reply["data"]}
    except (KeyError, TypeError):
        raise SafeguardError(f"{address.shown} does not list its models; is this the server's address?") from None
    if wanted is None and len(listed) == 1:
        return dict(next(iter(listed.values())))
    if wanted not in listed:
        names = ", ".join(sorted(listed)[:20])
        raise UsageError(f"{address.shown} serves {names}; name one of them with --server-model")
    return dict(listed[wanted])


def model_identity(chosen: dict[str, Any]) -> dict[str, Any]:
    """What is known of a served model that decides labels: its name without folders, and its size where it is told."""
    meta = chosen.get("meta") or {}
    sizes = {name: meta[name] for name in ("n_params", "size") if isinstance(meta, dict) and name in meta}
    return {"served": str(chosen["id"]).rstrip("/").rsplit("/", 1)[-1], **sizes}


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

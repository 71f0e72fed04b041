"""Finds out about a run's servers: where they are, which API they have, which model they serve, what they lack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from safeguard_cli.address import Address, key
from safeguard_cli.errors import SafeguardError, UsageError, missing_extra
from safeguard_cli.model.tokenizer import Tokenizer
from safeguard_cli.terminal import cut, note, warn

if TYPE_CHECKING:
    import httpx

    from safeguard_cli.engine.servers.apis import Api, Body
    from safeguard_cli.engine.servers.chat import ChatApi
    from safeguard_cli.engine.servers.exchange import Network
    from safeguard_cli.engine.servers.pool import Served

ApiName = Literal["completion", "chat"]
_CONNECT, _WAIT = 10.0, 30.0  # seconds for a connection, and for a whole answer, while nothing has begun
_MOST_NUMBER = 1 << 40  # that a server may report of itself
_NAME, _SHOWN_NAMES = 300, 20  # characters of a model's name; names that are listed
_SAMPLE = 'Zero-shot moderation, 12345 rows: {"label":"naïve"}\n\n日本語 हिन्दी 🙂'


@dataclass(frozen=True, slots=True)
class Connected:
    """The servers that can be used.

    `model` is what decides labels, the same for all servers; `context` is the most tokens of a row, where they tell it.
    """

    servers: tuple[Served[Any], ...]
    model: dict[str, Any]
    context: int | None


def connect(addresses: Sequence[Address], model: str | None, tokenizer: Tokenizer, api: ApiName) -> Connected:
    """Find out each server's API and model, and check that it has this vocabulary.

    A server that cannot be reached is left out, with a warning. Raises SafeguardError when none is left, when one lacks
    what every row needs, or when they serve different models.
    """
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise missing_extra("--server needs httpx", "server") from None
    with _asking(addresses) as lines:
        kind = _ChatProbe if api == "chat" else _Probe
        usable = [probe for line in lines if (probe := kind(line, tokenizer)).usable(model)]
    if not usable:
        raise SafeguardError(f"no server can be reached: {', '.join(address.shown for address in addresses)}")
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


@dataclass(frozen=True, slots=True)
class Line:
    """A connection to one server, for one request at a time."""

    address: Address
    network: Network
    client: httpx.AsyncClient

    def ask(
        self, method: str, path: str, body: Body | None = None, *, may_lack: bool = False, may_refuse: bool = False
    ) -> dict[str, Any] | None:
        """Return one answer.

        Returns None when the server lacks the path and `may_lack`, or refuses the request and `may_refuse`. Raises
        Silent when it cannot be reached, SafeguardError for every other failure.
        """
        from safeguard_cli.engine.servers.apis import BadReply
        from safeguard_cli.engine.servers.exchange import exchange, status_text
        from safeguard_cli.engine.servers.pool import refusal

        address = self.address
        try:
            reply = self.network.call(exchange(self.client, address, method, path, body, _WAIT)).result()
            if may_lack and reply.status in (404, 405, 501):
                return None
            if may_refuse and reply.status in (400, 422):
                return None
            if reply.status in (401, 403, 404):
                raise SafeguardError(refusal(address, path, reply.status))
            if reply.status != 200:
                raise SafeguardError(f"{address.shown}{path}: the server {status_text(reply.status)}")
            said = reply.json(address)
        except BadReply as bad:
            raise SafeguardError(f"{bad} ({path}); is this the server's address?") from None
        if not isinstance(said, dict):
            raise SafeguardError(
                f"{address.shown} did not answer {path} with a JSON object; is this the server's address?"
            )
        return said


@contextmanager
def _asking(addresses: Sequence[Address]) -> Iterator[list[Line]]:
    """Yield lines to servers, open while they are asked before a run."""
    from safeguard_cli.engine.servers.exchange import Network, open_client

    secret = key()
    if secret and (both := next((address for address in addresses if address.user is not None), None)):
        warn(f"{both.shown} gets the key, not the user and password of its URL: a request has room for one of them")
    clients = [open_client(address, secret, _CONNECT, _WAIT) for address in addresses]
    network = Network()
    try:
        yield [Line(address, network, client) for address, client in zip(addresses, clients, strict=True)]
    finally:
        network.close(*clients)


def member(value: Any, *path: str | int) -> Any:
    """Return the value at a path in an answer; None where the answer has another form."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and len(value) > step else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _named(model: dict[str, Any]) -> str:
    return " ".join(cut(str(value), 80) for value in model.values())


class _Probe:
    """One server before the run: what it reports of itself, and what a few small requests show."""

    def __init__(self, line: Line, tokenizer: Tokenizer) -> None:
        self.address, self.tokenizer, self.ask = line.address, tokenizer, line.ask
        self.model: dict[str, Any] = {}
        self.served_name, self.owner = "", ""
        self.context: int | None = None
        self.slots = 0
        self.api: Api | ChatApi
        self.token_api: Api

    def served(self) -> Served[Any]:
        from safeguard_cli.engine.servers.pool import Served

        return Served(self.address, self.api, self.slots)

    def usable(self, wanted: str | None) -> bool:
        """Ask for what must be known before rows are sent; return False when nobody answers. Raises SafeguardError."""
        from safeguard_cli.engine.servers.exchange import Silent

        try:
            self.identify(wanted)
            self.check()
        except Silent as silent:
            what = "gives no answer" if silent.connected else "takes no connection"
            warn(f"{self.address.shown} {what} ({silent}); it is left out")
            return False
        return True

    def identify(self, wanted: str | None) -> None:
        """Ask which model is served. Raises UsageError when a name must be chosen."""
        from safeguard_cli.engine.servers.apis import Completions, LlamaServer, SGLang
        from safeguard_cli.engine.servers.concurrency import MOST

        chosen = choose_model(self.address, self.ask("GET", "/v1/models"), wanted)
        self.served_name, self.owner = chosen["id"], str(chosen.get("owned_by"))
        self.model = model_identity(chosen)
        self.context = _number(chosen.get("max_model_len"))
        if self.owner == "llamacpp":
            props = self.ask("GET", "/props")
            self.slots = min(MOST, _number(member(props, "total_slots")) or 0)
            self.context = _number(member(props, "default_generation_settings", "n_ctx"))
        known: dict[str, Api] = {"llamacpp": LlamaServer(), "sglang": SGLang()}
        self.api = self.token_api = known.get(self.owner) or Completions(self.served_name)

    def check(self) -> None:
        """Check that vocabulary, token ids and log-probabilities of given tokens are as they must be."""
        from safeguard_cli.engine.servers.apis import MISSHAPEN, BadReply, Sampling, checked

        ids = self.tokenizer.encode(_SAMPLE)
        body = {"model": self.served_name, "tokens": ids}
        spelled = self.ask("POST", "/detokenize", body, may_lack=True) or {}
        text = next((spelled[name] for name in ("content", "prompt", "text") if name in spelled), _SAMPLE)
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
                f"{self.address.shown} cannot give the token ids and log-probabilities that are needed ({why});"
                " --server-api chat needs less"
            ) from None
        if len(chosen) < len(among):
            note(f"{self.address.shown} lists the likeliest tokens only: other labels are asked about one by one")


class _ChatProbe(_Probe):
    """The same for a chat endpoint, which must do less."""

    def identify(self, wanted: str | None) -> None:
        """Ask which model is served, where the server can tell."""
        reply = self.ask("GET", "/v1/models", may_lack=wanted is not None)
        self.served_name = wanted if reply is None and wanted else choose_model(self.address, reply, wanted)["id"]
        self.model = {"served": self.served_name}

    def check(self) -> None:
        """Find out what the endpoint accepts, and report what is weaker than with token ids."""
        from safeguard_cli.engine.servers.chat import FEATURES, PATH, ChatApi

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
            raise SafeguardError(f"{self.address.shown} does not accept a plain chat request for {self.served_name}")
        if not member(answer, "choices", 0, "logprobs", "content"):
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


def choose_model(address: Address, reply: Any, wanted: str | None) -> dict[str, Any]:
    """Return the wanted one of the models that a server lists. Raises UsageError with their names if it is unclear."""
    data = member(reply, "data")
    names = [member(each, "id") for each in data] if isinstance(data, list) else []
    if not names or not all(isinstance(name, str) and 0 < len(name) <= _NAME for name in names):
        raise SafeguardError(f"{address.shown} does not list its models; is this the server's address?")
    listed: dict[str, dict[str, Any]] = dict(zip(names, data, strict=True))
    if wanted is None and len(listed) == 1:
        return next(iter(listed.values()))
    if wanted not in listed:
        shown = ", ".join(cut(name, 80) for name in sorted(listed)[:_SHOWN_NAMES])
        more = f" and {len(listed) - _SHOWN_NAMES:,} more" if len(listed) > _SHOWN_NAMES else ""
        raise UsageError(f"{address.shown} serves {shown}{more}; name one of them with --server-model")
    return listed[wanted]


def model_identity(chosen: dict[str, Any]) -> dict[str, Any]:
    """Return what identifies a served model: its name without folders, and its size where the server tells it."""
    sizes = {name: size for name in ("n_params", "size") if (size := _number(member(chosen, "meta", name)))}
    return {"served": chosen["id"].rstrip("/").rsplit("/", 1)[-1], **sizes}


def _number(value: Any) -> int | None:
    return value if type(value) is int and 0 < value <= _MOST_NUMBER else None

"""How the hub is spoken to: what huggingface_hub believes of an answer is made harmless before it sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from safeguard_cli.address import check_key, read_address, seconds_of
from safeguard_cli.errors import SafeguardError, UsageError

# huggingface_hub reads its environment while it is imported, and quotes what it cannot read.
if endpoint := os.environ.get("HF_ENDPOINT"):
    read_address(endpoint, "HF_ENDPOINT")
try:
    import httpx2
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils._http import default_client_factory
except ValueError:
    raise UsageError("one of the HF_… environment variables has a value that huggingface_hub cannot read") from None

MOST_LISTED = 64 << 20  # bytes of what the hub says of a repository
LIST_SECONDS = 120.0  # in which all of that must come


def prepare() -> str:
    """Make ready for requests to the hub. Returns its address as it may be shown.

    Raises UsageError, showing nothing of it, when HF_ENDPOINT or HF_TOKEN cannot be one.
    """
    address = read_address(constants.ENDPOINT, "HF_ENDPOINT")
    if token := huggingface_hub.get_token():
        check_key(token, "the token for the hub (HF_TOKEN, or what `hf auth login` keeps)")
    huggingface_hub.set_client_factory(_client)
    return address.shown


def _client() -> httpx2.Client:
    try:
        client = default_client_factory()
    except (ValueError, ImportError, httpx2.InvalidURL):  # whose words hold the proxy's password
        raise SafeguardError(
            "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used; put the hub into NO_PROXY"
        ) from None
    client.headers["Accept-Encoding"] = "identity"
    client.event_hooks = {**client.event_hooks, "response": [_harmless]}
    return client


def _harmless(response: httpx2.Response) -> None:
    """Refuse an answer that is packed, bound one that is read as a whole, and a wait that is asked for."""
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise SafeguardError("the hub gave a packed answer, which was not asked for")
    after = seconds_of(response.headers.get("Retry-After"))
    for header in ("Retry-After", "RateLimit"):  # they are believed to the day, and to digits that are none
        response.headers.pop(header, None)
    if after is not None:
        response.headers["Retry-After"] = str(int(after))
    if response.request.url.path.startswith("/api/") or response.status_code >= 400:
        response.stream = _Bounded(response.stream)


class _Bounded(httpx2.SyncByteStream):
    """An answer's bytes, which are no more and take no longer than they may."""

    def __init__(self, stream: object) -> None:
        assert isinstance(stream, httpx2.SyncByteStream)
        self._stream, self._until = stream, time.monotonic() + LIST_SECONDS

    def __iter__(self) -> Iterator[bytes]:
        total = 0
        for chunk in self._stream:
            total += len(chunk)
            if total > MOST_LISTED or time.monotonic() > self._until:
                raise SafeguardError("the hub's answer is too large or takes too long to be one")
            yield chunk

    def close(self) -> None:
        self._stream.close()

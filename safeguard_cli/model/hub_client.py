"""The client for the hub: makes answers harmless before huggingface_hub, which trusts them, sees them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from safeguard_cli.address import check_key, read_address, seconds_of
from safeguard_cli.errors import SafeguardError, UsageError

# huggingface_hub reads its environment when it is imported, and quotes what it cannot read.
if endpoint := os.environ.get("HF_ENDPOINT"):
    read_address(endpoint, "HF_ENDPOINT")
try:
    import httpx2
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils._http import default_client_factory
except ValueError:
    raise UsageError("one of the HF_… environment variables has a value that huggingface_hub cannot read") from None

MOST_LISTED = 64 << 20  # bytes of the hub's answer about a repository
LIST_SECONDS = 120.0  # in which all of it must arrive


def prepare() -> str:
    """Prepare for requests to the hub; return its address as it may be shown.

    Raises UsageError, which quotes nothing of it, when HF_ENDPOINT or HF_TOKEN cannot be one.
    """
    address = read_address(constants.ENDPOINT, "HF_ENDPOINT")
    if token := huggingface_hub.get_token():
        check_key(token, "the token for the hub (HF_TOKEN, or what `hf auth login` keeps)")
    huggingface_hub.set_client_factory(_client)
    return address.shown


def _client() -> httpx2.Client:
    try:
        client = default_client_factory()
    except (ValueError, ImportError, httpx2.InvalidURL):  # their text holds the proxy's password
        raise SafeguardError(
            "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used; add the hub to NO_PROXY"
        ) from None
    client.headers["Accept-Encoding"] = "identity"
    client.event_hooks = {**client.event_hooks, "response": [_harmless]}
    return client


def _harmless(response: httpx2.Response) -> None:
    """Refuse a packed answer; bound the size of an answer that is read whole, and the wait that one asks for."""
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise SafeguardError("the hub gave a packed answer, which was not asked for")
    after = seconds_of(response.headers.get("Retry-After"))
    for header in ("Retry-After", "RateLimit"):  # huggingface_hub trusts waits of days, and odd digits
        response.headers.pop(header, None)
    if after is not None:
        response.headers["Retry-After"] = str(int(after))
    if response.request.url.path.startswith("/api/") or response.status_code >= 400:
        response.stream = _Bounded(response.stream)


class _Bounded(httpx2.SyncByteStream):
    """An answer's bytes, bounded in number and time."""

    def __init__(self, stream: object) -> None:
        assert isinstance(stream, httpx2.SyncByteStream)
        self._stream, self._until = stream, time.monotonic() + LIST_SECONDS

    def __iter__(self) -> Iterator[bytes]:
        total = 0
        for chunk in self._stream:
            total += len(chunk)
            if total > MOST_LISTED or time.monotonic() > self._until:
                raise SafeguardError("the hub's answer is too large or takes too long")
            yield chunk

    def close(self) -> None:
        self._stream.close()

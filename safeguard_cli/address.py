"""Where a server is, and what of that may be seen: its URL without user, password and query; and the servers' key.

What does not parse as a URL is never shown: nobody can tell which part of it is a password.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from safeguard_cli.errors import UsageError

KEY = "SAFEGUARD_SERVER_KEY"
OPTION = "--server"
MOST_URL = 2000  # characters
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_SECRET = re.compile(r"SAFEGUARD_SERVER_KEY|HF_TOKEN|HUGGING_FACE_HUB_TOKEN|.*_proxy", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:(?P<user>[^@]*)@)?(?P<host>\[[^][@]*\]|[^][:@]*)(?::(?P<port>[^@]*))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE)
_URL = re.compile(r"(https?://)(?:[^\s'\"<>/?#]*@)?([^\s'\"<>?#]*)([?#][^\s'\"<>]*)?", re.IGNORECASE)
_USER = re.compile(r"\b([a-z][a-z0-9+.-]*:/{1,2})[^\s'\"<>]*@", re.IGNORECASE)
_QUERY = re.compile(r"\b(https?:/{1,2}[^\s'\"<>?]*\?)[^\s'\"<>]*[^\s'\"<>:;,.]", re.IGNORECASE)
LONGEST_WAIT = 60.0  # seconds that a server may ask for


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is. Only `shown`, its URL without secrets, may be printed or kept; `query` begins with `?`."""

    shown: str
    query: str = field(default="", repr=False)
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @property
    def secret(self) -> bool:
        """Whether there is more to it than may be shown."""
        return bool(self.query) or self.user is not None

    @property
    def loopback(self) -> bool:
        """Whether it is this machine itself."""
        host = _authority(self.shown)["host"].strip("[]").rstrip(".")
        try:
            found = ipaddress.ip_address(host)
            return found.is_loopback or found.is_unspecified
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")


class _Wrong(Exception):
    """What is wrong with a URL, without anything of it."""


def read_addresses(texts: Sequence[str]) -> list[Address]:
    """The servers' addresses, each once. Raises UsageError, which says which one is wrong and shows nothing of it."""
    found = {}
    for at, text in enumerate(texts):
        ordinal = _ORDINALS[at] if at < len(_ORDINALS) else f"{at + 1}th"
        address = read_address(text, OPTION if len(texts) == 1 else f"the {ordinal} {OPTION}")
        found[address.shown] = address
    return list(found.values())


def read_address(text: str, name: str = OPTION) -> Address:
    """A server's address from its URL; a final /v1 may be there or not. Raises UsageError, showing nothing of it."""
    try:
        return _read(text)
    except _Wrong as wrong:
        raise UsageError(f"{name} {wrong}; it takes a URL such as http://localhost:8000") from None


def _read(text: str) -> Address:
    _check_characters(text)
    scheme, mark, rest = text.partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        raise _Wrong("does not begin with http:// or https://")
    path = rest[re.search(r"[/?]|$", rest).start() :]  # type: ignore[union-attr] # it always matches
    path, mark, query = path.partition("?")
    if "@" in path + query or "%40" in path:
        raise _Wrong("has an @ behind the host: in a user name or password, / ? # @ are written %2F %3F %23 %40")
    parts = _authority(text)
    host, port, user = _host(parts["host"]), parts["port"], None
    if port and not (re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
        raise _Wrong("has a port that is no number from 1 to 65535")
    password = ""
    if parts["user"] is not None:
        user, _, password = map(_plain, parts["user"].partition(":"))
        if not (user or password):
            raise _Wrong("has an @ without a user name before it")
        if ":" in user:
            raise _Wrong("has a user name with a : in it")
    shown = f"{scheme.lower()}://{host}{f':{int(port)}' if port else ''}{re.sub(r'(/v1)?/*$', '', path)}"
    return Address(shown, f"?{query}" if query else "", user, password)


def _check_characters(text: str) -> None:
    if not text:
        raise _Wrong("is empty")
    if len(text) > MOST_URL:
        raise _Wrong(f"is longer than {MOST_URL:,} characters")
    if any(char.isspace() for char in text):
        raise _Wrong("has white space in it")
    if not text.isprintable():
        raise _Wrong("has characters in it that cannot be seen")
    if "\\" in text:
        raise _Wrong("has a backslash in it")
    if "#" in text:
        raise _Wrong("has a # in it: in a user name or password it is written %23")
    if re.search("%(?![0-9a-fA-F]{2})", text):
        raise _Wrong("has a % in it that begins no %XX: a % itself is written %25")


def _authority(url: str) -> dict[str, str]:
    """User info, host and port, of which only the host is always there."""
    found = _AUTHORITY.fullmatch(re.split("[/?]", url.partition("://")[2], maxsplit=1)[0])
    if not found:
        raise _Wrong("has no user:password@host:port where it should: an @ of a user name or password is written %40")
    return found.groupdict()


def _host(text: str) -> str:
    """The host as it is looked up, in ASCII."""
    if not text:
        raise _Wrong("has no host")
    try:
        if text.startswith("["):
            return f"[{ipaddress.IPv6Address('' if '%' in text else text[1:-1])}]"
        if re.fullmatch("[0-9.]+", text):
            return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise _Wrong("has a host that is no IP address") from None
    if not text.isascii() or "xn--" in text.lower():
        try:
            import httpx
        except ImportError:
            raise _Wrong("has a host that is not spelled in ASCII") from None
        try:
            url = httpx.URL(f"http://{text}/")
            text = url.raw_host.decode("ascii") if url.host else ""  # which both can be impossible
        except (httpx.InvalidURL, ValueError):
            raise _Wrong("has a host that is no name of one") from None
    labels = text.removesuffix(".").split(".")
    if len(text) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise _Wrong("has a host that is no name of one")
    return text.lower()


def _plain(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _Wrong("has a user name or password that is no text") from None


def shown_command(arguments: Sequence[str]) -> list[str]:
    """A command's arguments as they may be printed and kept: without what is secret in the URLs of servers."""
    shown = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before == OPTION:
            shown.append(_shown_url(argument))
        elif argument.startswith(f"{OPTION}="):
            shown.append(f"{OPTION}={_shown_url(argument.removeprefix(f'{OPTION}='))}")
        else:
            # Somebody's URL in another place, with a password perhaps: none of our options takes one.
            shown.append("…" if re.fullmatch(r"\S*://\S*@\S*", argument) else argument)
    return shown


def _shown_url(text: str) -> str:
    try:
        address = _read(text)
    except _Wrong:
        return "…"
    return address.shown if address.secret else text


def without_arguments(text: str, arguments: Sequence[str]) -> str:
    """The text, in which no argument that may be a URL with a password is quoted."""
    for argument in arguments:
        for part in (argument, *argument.partition("=")[2:]):
            if "@" in part and (":" in part or "/" in part):
                text = text.replace(part, "…").replace(repr(part)[1:-1], "…")
    return text


def without_secrets(text: str) -> str:
    """What a library says, without the user info, query and fragment of the URLs in it; all of them are well-formed."""
    return _URL.sub(lambda found: found[1] + found[2], text)


def without_passwords(text: str) -> str:
    """A message without what is secret in the URLs in it, well-formed or not: one can stand where a file was to."""
    return _QUERY.sub(r"\1…", _USER.sub(r"\1…@", text))


def key() -> str | None:
    """The key for the servers, from the environment only. Raises UsageError when it can be none."""
    found = os.environ.get(KEY)
    if found is not None:
        check_key(found, KEY)
    return found


def check_key(text: str, name: str) -> None:
    """Raise UsageError, showing nothing of it, when a text cannot stand in a header as a key."""
    if not text:
        raise UsageError(f"{name} is set and empty: unset it, or give it the key")
    if any(char.isspace() for char in text):
        raise UsageError(f"{name} has white space or a line break in it: give it the key alone, without Bearer")
    if not (text.isascii() and text.isprintable()):
        raise UsageError(f"{name} has characters in it that no key has: give it the key alone")


@contextmanager
def no_secrets_for_children() -> Iterator[None]:
    """Keep keys, and proxies with their passwords, out of the environment of the processes that are started now."""
    kept = {name: os.environ.pop(name) for name in [*os.environ] if _SECRET.fullmatch(name)}
    try:
        yield
    finally:
        os.environ.update(kept)


def seconds_of(text: str | None) -> float | None:
    """Retry-After in seconds, at most a minute; a date, or anything but a plain number, counts as not given."""
    found = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{0,9})?)\s*", text or "", re.ASCII)
    return min(LONGEST_WAIT, float(found[1])) if found else None

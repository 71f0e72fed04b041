"""Server addresses, the part of them that may be shown (no user, password or query), and the key for servers.

A text that does not parse as a URL is never shown: nobody can tell which part of it is a password.
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
    """A server's address: only `shown`, the URL without secrets, may be printed or kept; `query` begins with `?`."""

    shown: str
    query: str = field(default="", repr=False)
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @property
    def secret(self) -> bool:
        """Whether the URL has parts that may not be shown."""
        return bool(self.query) or self.user is not None

    @property
    def loopback(self) -> bool:
        """Whether the server is on this machine."""
        host = _authority(self.shown)["host"].strip("[]").rstrip(".")
        try:
            found = ipaddress.ip_address(host)
            return found.is_loopback or found.is_unspecified
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")


class _Wrong(Exception):
    """What is wrong with a URL, in words that quote nothing of it."""


def read_addresses(texts: Sequence[str]) -> list[Address]:
    """Return the servers' addresses, each once.

    Raises UsageError, which tells which one is wrong and quotes nothing of it.
    """
    found = {}
    for at, text in enumerate(texts):
        ordinal = _ORDINALS[at] if at < len(_ORDINALS) else f"{at + 1}th"
        address = read_address(text, OPTION if len(texts) == 1 else f"the {ordinal} {OPTION}")
        found[address.shown] = address
    return list(found.values())


def read_address(text: str, name: str = OPTION) -> Address:
    """Return a server's address from its URL, with or without a final /v1.

    Raises UsageError, which quotes nothing of the URL.
    """
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
        raise _Wrong("has an @ after the host: in a user name or password, / ? # @ are written %2F %3F %23 %40")
    parts = _authority(text)
    host, port, user = _host(parts["host"]), parts["port"], None
    if port and not (re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
        raise _Wrong("has a port that is not a number from 1 to 65535")
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
        raise _Wrong("has unprintable characters in it")
    if "\\" in text:
        raise _Wrong("has a backslash in it")
    if "#" in text:
        raise _Wrong("has a # in it: in a user name or password it is written %23")
    if re.search("%(?![0-9a-fA-F]{2})", text):
        raise _Wrong("has a % in it without two hex digits after it: a % itself is written %25")


def _authority(url: str) -> dict[str, str]:
    """Return user info, host and port; only the host is always there."""
    found = _AUTHORITY.fullmatch(re.split("[/?]", url.partition("://")[2], maxsplit=1)[0])
    if not found:
        raise _Wrong("has no valid user:password@host:port: an @ in a user name or password is written %40")
    return found.groupdict()


def _host(text: str) -> str:
    """Return the host as it is looked up, in ASCII."""
    if not text:
        raise _Wrong("has no host")
    try:
        if text.startswith("["):
            return f"[{ipaddress.IPv6Address('' if '%' in text else text[1:-1])}]"
        if re.fullmatch("[0-9.]+", text):
            return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise _Wrong("has a host that is not a valid IP address") from None
    if not text.isascii() or "xn--" in text.lower():
        try:
            import httpx
        except ImportError:
            raise _Wrong("has a host that is not spelled in ASCII") from None
        try:
            url = httpx.URL(f"http://{text}/")
            text = url.raw_host.decode("ascii") if url.host else ""  # either can fail
        except (httpx.InvalidURL, ValueError):
            raise _Wrong("has a host that is not a valid host name") from None
    labels = text.removesuffix(".").split(".")
    if len(text) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise _Wrong("has a host that is not a valid host name")
    return text.lower()


def _plain(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _Wrong("has a user name or password that is not UTF-8 text") from None


def shown_command(arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments without the secrets in the URLs of servers, fit to be printed and kept."""
    shown = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before == OPTION:
            shown.append(_shown_url(argument))
        elif argument.startswith(f"{OPTION}="):
            shown.append(f"{OPTION}={_shown_url(argument.removeprefix(f'{OPTION}='))}")
        else:
            # A misplaced URL, perhaps with a password: none of our other options takes one.
            shown.append("…" if re.fullmatch(r"\S*://\S*@\S*", argument) else argument)
    return shown


def _shown_url(text: str) -> str:
    try:
        address = _read(text)
    except _Wrong:
        return "…"
    return address.shown if address.secret else text


def without_arguments(text: str, arguments: Sequence[str]) -> str:
    """Return the text without those arguments that may be URLs with a password."""
    for argument in arguments:
        for part in (argument, *argument.partition("=")[2:]):
            if "@" in part and (":" in part or "/" in part):
                text = text.replace(part, "…").replace(repr(part)[1:-1], "…")
    return text


def without_secrets(text: str) -> str:
    """Return a library's message without user info, query and fragment of its URLs, all of them well-formed."""
    return _URL.sub(lambda found: found[1] + found[2], text)


def without_passwords(text: str) -> str:
    """Return a message without the secrets of its URLs, well-formed or not: one may stand in place of a file's name."""
    return _QUERY.sub(r"\1…", _USER.sub(r"\1…@", text))


def key() -> str | None:
    """Return the key for the servers, from the environment only. Raises UsageError when it cannot be a key."""
    found = os.environ.get(KEY)
    if found is not None:
        check_key(found, KEY)
    return found


def check_key(text: str, name: str) -> None:
    """Raise UsageError, quoting nothing of the text, when it cannot stand in a header as a key."""
    if not text:
        raise UsageError(f"{name} is set but empty: unset it, or set it to the key")
    if any(char.isspace() for char in text):
        raise UsageError(f"{name} has white space or a line break in it: set it to the key alone, without Bearer")
    if not (text.isascii() and text.isprintable()):
        raise UsageError(f"{name} has characters in it that no key has: set it to the key alone")


@contextmanager
def no_secrets_for_children() -> Iterator[None]:
    """Keep keys, and proxies with their passwords, out of the environment of processes started meanwhile."""
    kept = {name: os.environ.pop(name) for name in [*os.environ] if _SECRET.fullmatch(name)}
    try:
        yield
    finally:
        os.environ.update(kept)


def seconds_of(text: str | None) -> float | None:
    """Return Retry-After in seconds, at most a minute; a date, or anything but a plain number, counts as not given."""
    found = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{0,9})?)\s*", text or "", re.ASCII)
    return min(LONGEST_WAIT, float(found[1])) if found else None

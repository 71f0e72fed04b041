"""Spoilt answers of a server, as a seed decides: head, framing, form, size, spelling."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

SECRET = "row 7 says hello"  # the text of a row, which no error message may contain
BOMB = gzip.compress(gzip.compress(bytes(1 << 27)))
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64 - 1, 1e308, -1e308, 0.5, 4.9e-324, "", "²", "1e9", "nan"),
    *([], {}, [[]], [{}], {"": 0}, [None], SECRET, SECRET * 200, "\x1b[31m\u202e", "llamacpp", "sglang", [SECRET]),
    *({"id": SECRET}, [1, -2, 3], ["1"], [[0.0, 1], [0.0, 2]], {"token_id:²": -1.0}, {"token_id:1": 10**30}, 1.5),
)
_RAW = (b"NaN", b"-Infinity", b"1e400", b"[" * 2000, b'"\xff\xfe"', b"9" * 5000, b'"\\ud800"', b"{", b"")
_STATUS = (100, 102, 199, 201, 204, 206, 302, 304, 400, 418, 422, 429, 451, 500, 501, 502, 503, 504, 529, 599, 999)
_AFTER = ("²", "-1", "1e9", "99999999999999999999", "٣", "", " ", "0", "0.01", "nan", "Wed, 21 Oct 2015 07:28:00 GMT")
_LINES = (
    *(b"HTTP/0.9 200 OK", b"HTTP/1.1 099 x", b"HTTP/1.1 20 OK", b"HTTP/1.1", b"ICY 200 OK", b"", b"\x00\xff"),
    *(b"HTTP/2 200 OK", b"HTTP/1.1 200 " + SECRET.encode(), b"HTTP/1.1 +200 OK", b"SSH-2.0-OpenSSH_9.6"),
)
_HEADERS = (
    *(b"Content-Length: 5", b"Content-Length: 99999", b"Content-Length: -1", b"Content-Length: \xb2"),
    *(
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: chunked",
        b"X: " + b"y" * 200_000,
        b": no name",
        b"bad name : x",
    ),
    *(b"X: a\x00b", b"Content-Encoding: gzip", b"Content-Encoding: br", b"Content-Type: " + SECRET.encode()),
    *(b"Set-Cookie: a=" + b"b" * 4000, b"Location: http://127.0.0.1:9/" + SECRET.replace(" ", "+").encode()),
    *(b"Content-Encoding: identity, gzip", b"Connection: upgrade\r\nUpgrade: h2c", b"Transfer-Encoding: \xb2"),
)


def spoil(answer: bytes, seed: int) -> Iterator[bytes]:
    """Return the answer, spoilt in a way that the seed decides."""
    rng = random.Random(seed)
    head, _, body = answer.partition(b"\r\n\r\n")
    return rng.choice(_WAYS)(rng, head, body)


def _whole(head: bytes, body: bytes) -> Iterator[bytes]:
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length:")]
    yield b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body


def _other_form(rng: random.Random, head: bytes, body: bytes) -> Iterator[bytes]:
    """Return the answer with one value or more replaced by something else."""
    found: Any = [json.loads(body)]
    for _ in range(rng.choice((1, 1, 3))):
        places = list(_places(found))
        holder, key = rng.choice(places)
        if rng.random() < 0.2:
            del holder[key]
            found = found or [None]
        else:
            holder[key] = rng.choice(_VALUES)
    return _whole(head, json.dumps(found[0] if found else None).encode())


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner)


def _not_json(rng: random.Random, head: bytes, body: bytes) -> Iterator[bytes]:
    at = rng.randrange(len(body) + 1)
    cuts = (body[:at], body[:at] + rng.choice(_RAW) + body[at:], body + body, b"<html>" + SECRET.encode() + b"</html>")
    return _whole(head, rng.choice((*cuts, *_RAW)))


def _flipped(rng: random.Random, head: bytes, body: bytes) -> Iterator[bytes]:
    spoilt = bytearray(head + b"\r\n\r\n" + body)
    for _ in range(rng.choice((1, 2, 8))):
        spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
    yield bytes(spoilt)


def _other_status(rng: random.Random, head: bytes, body: bytes) -> Iterator[bytes]:
    lines = [b"HTTP/1.1 %d %s" % (rng.choice(_STATUS), SECRET.encode()), *head.split(b"\r\n")[1:]]
    lines.append(b"Retry-After: " + rng.choice(_AFTER).encode())
    return _whole(b"\r\n".join(lines), rng.choice((body, SECRET.encode(), b"")))


def _other_line(rng: random.Random, head: bytes, body: bytes) -> Iterator[bytes]:
    yield b"\r\n".join([rng.choice(_LINES), *head.split(b"\r\n")[1:]]) + b"\r\n\r\n" + body


def _other_header(rng: random.Random, head: bytes, body: bytes) -> Iterator[bytes]:
    lines = head.split(b"\r\n")
    kept = lines if rng.random() < 0.5 else lines[:1]
    yield b"\r\n".join([*kept, rng.choice(_HEADERS)]) + b"\r\n\r\n" + body


def _chunked(rng: random.Random, head: bytes, body: bytes) -> Iterator[bytes]:
    size = rng.choice(
        (b"%x" % len(body), b"ffffffffffffffff", b"-1", b"\xb2", b"0x5", b"%x;" % len(body) + b"e" * 9000)
    )
    yield head.split(b"\r\n")[0] + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\n" + body + b"\r\n0\r\n\r\n"


def _packed(rng: random.Random, head: bytes, body: bytes) -> Iterator[bytes]:
    how = rng.choice((b"gzip", b"gzip, gzip", b"deflate", b"br", b"zstd", b"GZIP"))
    return _whole(head + b"\r\nContent-Encoding: " + how, rng.choice((BOMB, gzip.compress(body))))


def _endless(rng: random.Random, head: bytes, body: bytes) -> Iterator[bytes]:
    """Yield more than was asked for, without end unless the client disconnects."""
    first = rng.choice((head.split(b"\r\n")[0] + b"\r\n\r\n" + body, b"", head + b"\r\nX: "))
    yield first
    piece = rng.choice((b" " * 65536, b"HTTP/1.1 100 Continue\r\n\r\n" * 2000))
    for _ in range(400):
        yield piece


def _nothing(rng: random.Random, head: bytes, body: bytes) -> Iterator[bytes]:
    yield (head + b"\r\n\r\n" + body)[: rng.choice((0, 1, 12, len(head), len(head) + 4, len(head) + 5))]


_WAYS: tuple[Callable[[random.Random, bytes, bytes], Iterator[bytes]], ...] = (
    *(_other_form, _other_form, _other_form, _other_form, _not_json, _not_json, _flipped, _flipped),
    *(_other_status, _other_status, _other_line, _other_header, _other_header, _chunked, _packed, _endless, _nothing),
)

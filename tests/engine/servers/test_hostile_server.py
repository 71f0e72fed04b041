"""Servers that answer anything at all cause no internal error, lose no row, and get no row's text into a message."""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import ssl
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from helpers.fault_server import FaultServer
from helpers.hostile import BOMB, SECRET, spoil
from helpers.server_runs import HURRIED, fill, run

from safeguard_cli import address, errors
from safeguard_cli.address import read_addresses, seconds_of
from safeguard_cli.engine.servers import connect, pool
from safeguard_cli.errors import SafeguardError

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")
FATAL_STATUS = (b"HTTP/1.1 401", b"HTTP/1.1 403", b"HTTP/1.1 404", b"HTTP/1.1 405", b"HTTP/1.1 407")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, own_cache: None) -> None:
    monkeypatch.setattr(pool, "PATIENCE", HURRIED)
    monkeypatch.setattr(connect, "_WAIT", 1.0)
    monkeypatch.delenv(address.KEY, raising=False)


@pytest.mark.promise("Whatever a server does or answers, no row is lost or doubled.")
@pytest.mark.parametrize("seed", range(3))
def test_of_rows_under_spoilt_answers_none_is_lost_and_no_error_holds_text(tiny, tmp_path, capfd, seed) -> None:
    seeds, spoilt = itertools.count(1000 * seed), []

    def mangle(answer: bytes, first: bool) -> Iterator[bytes]:
        number = next(seeds)
        if first or number % 3 == 0:
            return iter([answer])
        pieces = spoil(answer, number)
        head = next(pieces, b"")
        spoilt.append(number)
        return itertools.chain([b"" if head.startswith(FATAL_STATUS) else head], pieces)

    with FaultServer(mangle=mangle) as server:
        effort = ("none", "low")[seed % 2]
        code, rows = run(
            fill(tmp_path, 50), tmp_path / "out.jsonl", server.address, model=str(tiny), effort=effort, slots=8
        )
    assert len(spoilt) >= 50
    assert [row["id"] for row in rows] == list(range(50))
    found = [row["spam"]["error"] for row in rows if "error" in row["spam"]]
    assert code == (errors.ROWS_IN_ERROR if found else errors.OK)
    assert {error["code"] for error in found} <= {"server"}
    said = "".join(error["message"] for error in found) + "".join(capfd.readouterr())
    assert "hello" not in said
    assert "internal" not in said


@pytest.mark.parametrize("api", ["completion", "chat"])
def test_first_questions_that_are_answered_with_anything_end_in_a_sentence(tiny, harmony, capfd, api) -> None:
    chat = {"choices": [{"message": {"content": '{"label":"spam"}'}, "logprobs": {"content": [{"token": "a"}]}}]}
    refused = 0
    for seed in range(60):
        rng, questions = random.Random(seed), itertools.count()
        at = rng.randrange(4)

        def mangle(answer: bytes, _: bool, seed: int = seed, at: int = at, n: itertools.count = questions):
            return spoil(answer, seed) if next(n) in (at, at + 7) else iter([answer])

        with FaultServer(mangle=mangle, chat=chat) as server:
            began = time.monotonic()
            try:
                found = connect.connect(read_addresses([server.address]), None, harmony.tokenizer, api)
                assert 0 <= found.servers[0].slots <= 256
            except SafeguardError as error:
                refused += 1
                assert SECRET not in str(error).replace("serves " + SECRET, ""), "but for a model's name"
                assert len(str(error)) < 600
            assert time.monotonic() - began < 12
    assert refused >= 20
    assert "Traceback" not in capfd.readouterr().err


def connected(server: FaultServer, tokenizer: object) -> None:
    connect.connect(read_addresses([server.address]), None, tokenizer, "completion")


def test_a_packed_answer_is_refused_before_it_is_unpacked(harmony) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB)
    with FaultServer(mangle=lambda *_: [head, BOMB]) as server:
        tracemalloc.start()
        with pytest.raises(SafeguardError, match="packed"):
            connected(server, harmony.tokenizer)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most < 16 << 20


def test_an_answer_that_comes_byte_by_byte_or_never_ends_is_given_up(harmony) -> None:
    def dripping(answer: bytes, _: bool) -> Iterator[bytes]:
        for at in range(len(answer)):
            time.sleep(0.05)
            yield answer[at : at + 1]

    def endless(answer: bytes, _: bool) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        for _ in range(1000):
            yield b" " * 65536

    for mangle, why in ((dripping, "longer than 1 seconds"), (endless, "more than 1,048,576 bytes")):
        began = time.monotonic()
        with FaultServer(mangle=mangle) as server, pytest.raises(SafeguardError, match=why):
            connected(server, harmony.tokenizer)
        assert time.monotonic() - began < 5


def test_a_redirect_is_not_followed(harmony) -> None:
    with FaultServer() as other:
        answer = f"HTTP/1.1 302 Found\r\nLocation: {other.address}/v1/models\r\nContent-Length: 0\r\n\r\n".encode()
        with FaultServer(mangle=lambda *_: [answer]) as server, pytest.raises(SafeguardError, match="not followed"):
            connected(server, harmony.tokenizer)
        assert not other.requests


def test_ctrl_c_ends_the_first_questions_at_once(tmp_path) -> None:
    def never(*_: object) -> Iterator[bytes]:
        for _ in range(200):
            time.sleep(0.1)
            yield b"H"

    with FaultServer(mangle=never) as server:
        command = [SAFEGUARD, "label", str(fill(tmp_path, 1)), "-p", "spam", "--model", "demo", "--effort", "none"]
        process = subprocess.Popen([*command, "--server", server.address], stderr=subprocess.PIPE, text=True)
        while not server.asked:
            time.sleep(0.02)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[1]
        assert time.monotonic() - began < 2.0 + 1.0, "a second for a busy machine"
    assert process.returncode == errors.INTERRUPTED
    assert "Traceback" not in said


def test_why_there_is_no_connection_is_said(harmony, capfd, tmp_path) -> None:
    openssl = shutil.which("openssl")
    with FaultServer() as plain:
        port = plain.address.rpartition(":")[2]
        cases = {f"https://127.0.0.1:{port}": "TLS", "http://no-such-host.invalid": "no such host"}
        cases["http://[::1]:9"] = "connection is refused"
        with ExitStack() as stack:
            if openssl:
                cases[stack.enter_context(self_signed(openssl, tmp_path))] = "certificate is not trusted"
            for url, why in cases.items():
                with pytest.raises(SafeguardError, match="no server can be reached"):
                    connect.connect(read_addresses([url]), None, harmony.tokenizer, "completion")
                assert why in capfd.readouterr().err


@contextmanager
def self_signed(openssl: str, folder: Path) -> Iterator[str]:
    """Yield a TLS server with a certificate that is not trusted."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run([*command, "-days", "2", "-subj", "/CN=localhost"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with FaultServer() as server:
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        yield server.address.replace("http://127.0.0.1", "https://localhost")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("0", 0.0), ("7", 7.0), (" 2.5 ", 2.5), ("999999999", 60.0), ("0.000", 0.0)],
        *[(text, None) for text in ("²", "٣", "-1", "1e3", "", " ", "nan", "inf", "9" * 30, "1,5", "\n5\n5", "0x5")],
        *[("Wed, 21 Oct 2015 07:28:00 GMT", None), (None, None)],
    ],
)
def test_retry_after_is_a_plain_number_of_at_most_a_minute_or_not_given(text, seconds) -> None:
    assert seconds_of(text) == seconds

"""Keys, and passwords in URLs, are never printed, kept, raised or passed to a child, however they are spelled."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import typer
from helpers.fault_server import FaultServer
from helpers.prompts import prefix_of
from helpers.server_runs import HURRIED, fill, run
from hypothesis import example, given
from hypothesis import strategies as st

from safeguard_cli import address, errors
from safeguard_cli.address import KEY, read_address, read_addresses, shown_command
from safeguard_cli.cli import guard
from safeguard_cli.engine.decoding import Options
from safeguard_cli.engine.local.plan import Loading, Plan
from safeguard_cli.engine.local.probe import Probe
from safeguard_cli.engine.local.process import EngineSpec, LocalEngine
from safeguard_cli.engine.servers import pool
from safeguard_cli.errors import SafeguardError, UsageError

pytestmark = pytest.mark.promise(
    "No password and no key is printed, kept, or handed to a process that does not need it."
)

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")
SECRET = "S3cr3t"
REFUSED = (
    *("user:S3cr3t@h:1", "http://user:S3cr3t/x@h:1", "http://user:S3cr3t#x@h:1", "http://user:S3 cr3t@h:1"),
    *("ftp://user:S3cr3t@h:1", "http://u:12/S3cr3t@h:1", "http:/user:S3cr3t@h", "//u:S3cr3t@h", "http:user:S3cr3t@h"),
    *("http//user:S3cr3t@h", "htp://u:S3cr3t@h", "http://u:S3cr3t@h:99999", "http://u:S3cr3t@h:0", "u@S3cr3t"),
    *("http://u:S3cr3t@h:²", "http://u:S3cr3t@h:-1", "http://u:S3cr3t@h:1:2", "http://u:S3cr3t@", "http://S3cr3t@"),
    *("http://u:S3cr3t@h@h2", "http://u:S3cr3t\\@h", "http://u:S3cr3t@h\\x", "http://u:S3cr3t@h\r\nX: y"),
    *("http://u:S3cr3t@h\n", "http://u:S3cr3t@h\t", " http://u:S3cr3t@h", "http://u:S3cr3t@h\x00", "http:///S3cr3t@h"),
    *("http://u%3AS3cr3t%40h", "http://u:S3cr3t%40h:1", "http://h/u:S3cr3t%40x", "http://u:S3cr3t?@h"),
    *(
        "http://h?S3cr3t@x",
        "http://h/?u:S3cr3t@x",
        "http://u:S3cr3t＠h",
        "http://u:S3cr3t@h／x",
        "http://u:S3cr3t@h。。x",
    ),
    *("http://u:S3cr3t@h..x", "http://u:S3cr3t@.h", "http://u:S3cr3t@" + "a" * 64, "http://u:S3cr3t@" + "a." * 130),
    *("http://u:S3cr3t@[::1", "http://u:S3cr3t@[::g]", "http://u:S3cr3t@[::1]x", "http://u:S3cr3t@::1"),
    *("http://u:S3cr3t@[fe80::1%25eth0]", "http://u:S3cr3t@256.1.1.1", "http://u:S3cr3t@1", "http://u:S3cr3t@-h"),
    *("http://u:S3cr3t%zz@h", "http://u:S3cr3t%ff@h", "http://u:S3cr3t@h\u200b", "http://u:S3cr3t@\ud800h"),
    *("http://us%3Aer:S3cr3t@h", "http://u:S3cr3t@h/" + "x" * 3000, '"http://u:S3cr3t@h"', "http://u:S3cr3t@xn--a"),
    *("http://u:S3cr3t@h|x", "http://u:S3cr3t@h'x", "http://u:S3cr3t@{h}", "S3cr3t", "", "http://", "http://@h"),
)
TAKEN = (  # what follows the scheme, and what follows the port
    *(("u:S3cr3t@", ""), ("u:S3cr3t@", "/v1/"), (":S3cr3t@", ""), ("u:S3cr3t%40%2F%23%3F@", ""), ("S3cr3t@", "")),
    *(
        ("S3cr3t:@", "/"),
        ("us%C3%A9r:S3cr3t@", "/v1"),
        ("usér:S3cr3t@", ""),
        ("", "?token=S3cr3t"),
        ("u:S3cr3t@", "?a=%40"),
    ),
    *(("u:S3cr3t:S3cr3t@", ""), ("u:S3cr3t!$&'()*+,;=@", ""), ("u:S3cr3t%25@", "/v1?key=S3cr3t&x=y")),
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, own_cache: None) -> None:
    monkeypatch.setattr(pool, "PATIENCE", HURRIED)
    for name in [name for name in os.environ if address._SECRET.fullmatch(name)]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_url_is_refused_without_a_word_of_it(tiny, tmp_path, capfd, monkeypatch, text) -> None:
    source, out = fill(tmp_path, 1), tmp_path / "out.jsonl"
    for argument in (["--server", text], [f"--server={text}"]):
        assert SECRET not in " ".join(shown_command(["safeguard", "label", *argument]))

    def command() -> int:
        return run(source, out, "http://127.0.0.1:9", text, model=str(tiny))[0]

    with pytest.raises(typer.Exit) as end:
        guard.run(command)
    assert end.value.exit_code == errors.USAGE
    said = "".join(capfd.readouterr())
    assert said.startswith("error: the second --server ")
    assert said.count("\n") == 1
    with pytest.raises(typer.Exit) as end:
        guard.run(command, debug=True)
    assert end.value.exit_code == errors.USAGE
    traced = "".join(capfd.readouterr())
    assert "Traceback" in traced
    with pytest.raises(UsageError) as raised:
        command()
    said += traced + "".join(traceback.format_exception(raised.value))
    assert SECRET not in said
    assert "cr3t" not in said
    assert not out.exists()


@pytest.mark.parametrize(("before", "behind"), TAKEN)
def test_what_is_secret_in_a_url_is_used_and_never_seen(tiny, tmp_path, capfd, monkeypatch, before, behind) -> None:
    source, out = fill(tmp_path, 3), tmp_path / "out.jsonl"
    with FaultServer() as server:
        url = server.address.replace("//", f"//{before}") + behind
        monkeypatch.setattr(sys, "argv", ["safeguard", "label", str(source), "--server", url, f"--server={url}"])
        code, rows = run(source, out, url, model=str(tiny), quiet=False, verbose=True, progress="plain")
        path, _, headers = server.requests[-1]
        assert ("Authorization" in headers) == bool(before)
        assert path.partition("?")[2] == behind.partition("?")[2]
        manifest = out.with_name("out.jsonl.manifest.json").read_text()
        assert manifest.count(server.address) >= 3, "in the command and among the servers"
        monkeypatch.setattr(pool, "PATIENCE", HURRIED)
    assert (code, len(rows)) == (errors.OK, 3)
    with pytest.raises(SafeguardError) as gone:  # the server is gone
        run(source, out, url, model=str(tiny))
    said = "".join(capfd.readouterr()) + "".join(traceback.format_exception(gone.value))
    assert SECRET not in said + manifest + out.read_text() + repr(read_address(url))


def test_the_command_that_goes_on_has_no_secret_and_says_that_it_lacks_one(tiny, tmp_path, capfd, monkeypatch) -> None:
    source, out = fill(tmp_path, 60), tmp_path / "out.jsonl"
    with FaultServer(dies_after=20) as server:
        url = server.address.replace("//", "//u:S3cr3t@")
        monkeypatch.setattr(sys, "argv", ["safeguard", "label", "in.jsonl", f"--server={url}", "--overwrite"])
        with pytest.raises(SafeguardError, match="no server has taken a connection"):
            run(source, out, url, model=str(tiny), slots=4)
    said = "".join(capfd.readouterr())
    assert (
        f"to go on: safeguard label in.jsonl --server={server.address} (with what is secret in its URLs put back)"
        in (said)
    )
    assert SECRET not in said


@given(before=st.text(max_size=12), after=st.text(max_size=12), rest=st.text(max_size=12), path=st.booleans())
@example("u:", "", "h", False)
@example("", "/v1", "h", True)
def test_nothing_before_an_at_sign_is_ever_shown(before: str, after: str, rest: str, path: bool) -> None:
    for begin in ("", "http://", "https://host/" if path else "https://u:"):
        text = f"{begin}{before}{SECRET}{after}@{rest}"
        try:
            found = read_address(text)
        except UsageError as error:
            assert SECRET not in str(error)
            continue
        assert SECRET not in found.shown
        assert read_address(found.shown) == type(found)(found.shown), "what is shown is an address again"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("HTTPS://Host.Example./v1/", "https://host.example."),
        ("http://u:p@[2001:DB8::1]:080/a/v1?q=1", "http://[2001:db8::1]:80/a"),
        ("http://bücher.example/ä", "http://xn--bcher-kva.example/ä"),
        ("http://gpu_1:1", "http://gpu_1:1"),
        ("http://h:/", "http://h"),
        ("http://10.0.0.7:8000//", "http://10.0.0.7:8000"),
    ],
)
def test_addresses_are_shown_as_they_are_used(text: str, shown: str) -> None:
    assert read_addresses([text, text])[0].shown == shown
    assert len(read_addresses([text, shown])) == 1


@pytest.mark.parametrize(
    "key",
    ["", " ", "schlüssel-S3cr3t", "S3cr3t\n", "S3\ncr3t", "Bearer S3cr3t", "S3cr3t\x7f", "S3cr3t\udcff", "S3cr3t\r"],
)
def test_a_key_that_can_be_none_is_a_sentence(tiny, tmp_path, monkeypatch, key) -> None:
    monkeypatch.setenv(KEY, key)
    with FaultServer() as server, pytest.raises(UsageError, match=KEY) as raised:
        run(fill(tmp_path, 1), tmp_path / "out.jsonl", server.address, model=str(tiny))
    assert SECRET not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "proxy",
    ["http://u:S3cr3t@127.0.0.1:9", "foo://u:S3cr3t@h", "socks5://u:S3cr3t@h:1", "u:S3cr3t@h:x", "http://u:S3cr3t@"],
)
def test_a_proxy_of_the_environment_is_used_but_for_this_machine_and_not_shown(
    tiny, tmp_path, monkeypatch, capfd, proxy
) -> None:
    source, out = fill(tmp_path, 2), tmp_path / "out.jsonl"
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(SafeguardError) as raised:
        run(source, out, "http://192.0.2.1:1", model=str(tiny))
    said = "".join(capfd.readouterr()) + "".join(traceback.format_exception(raised.value))
    assert "reached" in said or "NO_PROXY" in said
    assert SECRET not in said
    with FaultServer() as server:
        assert run(source, out, server.address, model=str(tiny))[0] == errors.OK


def test_children_that_need_no_secret_get_none(tiny, harmony, monkeypatch) -> None:
    secrets = {KEY: "S3cr3t1", "HF_TOKEN": "S3cr3t2", "https_proxy": "http://u:S3cr3t3@h", "ALL_PROXY": "S3cr3t4"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    spec = EngineSpec(tiny, (prefix_of(harmony, 60),), Options(6), Plan(4, 2048), Loading(1))
    with LocalEngine(spec) as engine, Probe() as probe:
        child = probe._start()
        for number in (engine._process.pid, child.pid, *_children(os.getpid())):
            assert SECRET.encode() not in Path(f"/proc/{number}/environ").read_bytes()
            assert b"PATH=" in Path(f"/proc/{number}/environ").read_bytes()
    assert {name: os.environ[name] for name in secrets} == secrets


def _children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/self/task/{process}/children").read_text().split()]


def test_what_is_called_wrongly_is_not_quoted_where_it_may_hold_a_password(tmp_path) -> None:
    begin = [SAFEGUARD, "label", str(fill(tmp_path, 1)), "--policy", "spam", "--model", "demo"]
    wrong = (
        ["--server:http://u:S3cr3t@h:1"],
        ["http://u:S3 cr3t@h:1"],
        ["\u2014server", "http://u:S3cr3t\\@h:1"],
        ["--effort", "http://u:S3cr3t@h"],
        ["--server", "http://u:S3cr3t@h:x", "--debug"],
    )
    for more in wrong:
        done = subprocess.run([*begin, *more], capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert done.returncode == errors.USAGE, done.stderr
        assert "cr3t" not in done.stdout + done.stderr.replace("\n", "")
        assert done.stderr


@pytest.mark.parametrize(
    "url",
    [f"https://u:{SECRET}@h/x", f"http:/u:{SECRET}@h/x", f"https://u:a/{SECRET}@h/x", f"https://h/x?token={SECRET}"],
)
@pytest.mark.parametrize(
    "command",
    [
        "label URL --policy spam",
        "label in --policy URL",
        "label in --policy spam --model URL",
        "pull URL",
        "report URL",
    ],
)
def test_a_url_where_a_file_should_be_shows_no_password(url, command, tmp_path) -> None:
    (tmp_path / "in").write_text('{"text":"a text"}\n')
    words = [url if word == "URL" else word for word in command.split()]
    if words[1] == "in":
        words += ["--format", "jsonl", "--debug"]
    ended = subprocess.run([SAFEGUARD, *words], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    said = (ended.stdout + ended.stderr).decode()
    assert ended.returncode in (errors.USAGE, errors.FATAL)
    assert "error: " in said
    assert SECRET not in said


def test_a_message_without_a_password_stays_as_it_is() -> None:
    for text in ("a@b/x.jsonl: not there", "ask a@b.org, or see https://b.org/x@1.", "x.jsonl:3: no {field}?"):
        assert address.without_passwords(text) in (text, "ask a@b.org, or see https://…@1.")

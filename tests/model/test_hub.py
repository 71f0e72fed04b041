"""A model is fetched whole or not at all, whatever the connection does, and found again without a network."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import tiny_model
from helpers.hub_server import FILE, HASTY, REPO, Hub, Machine

from safeguard_cli import files
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.model import config
from safeguard_cli.model.config import configured_model
from safeguard_cli.model.fingerprint import HASHES, model_key
from safeguard_cli.model.names import choose_files, hub_name

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of a model of some megabytes."""
    return tiny_model.write(tmp_path_factory.mktemp("hub") / "model.gguf", layers=4, hidden=256).read_bytes()


@pytest.fixture
def machine(tmp_path: Path, content: bytes):
    with Hub({REPO: {FILE: content, "README.md": b"hello", "tiny-Q4_K_M.gguf": content[:-7]}}) as hub:
        yield Machine(tmp_path, hub)


def test_a_pull_is_found_again_without_network_and_can_be_removed(machine: Machine, content: bytes) -> None:
    done = machine.run("pull", f"hf:{REPO}:Q8_0")
    assert done.returncode == 0, done.stderr
    assert [blob.name for blob in machine.blobs()] == [hashlib.sha256(content).hexdigest()]
    assert machine.blobs()[0].read_bytes() == content
    listed = machine.run("models", HF_HUB_OFFLINE="1")
    assert f"hf:{REPO}:{FILE}" in listed.stdout
    served = machine.hub.served
    assert machine.run("pull", f"hf:{REPO}:Q8_0").returncode == 0
    assert machine.hub.served == served, "nothing is fetched twice"
    kept = json.loads((machine.cache.parents[1] / ".cache" / "safeguard" / HASHES).read_bytes())
    assert kept == {model_key(machine.blobs()[0]): machine.blobs()[0].name}, "a run need not hash it again"
    seen = len(machine.hub.log)
    assert machine.run("pull", f"hf:{REPO}:Q8_0", HF_HUB_OFFLINE="1").returncode == 0
    offline = machine.run("label", "-", "-p", "spam", "--model", f"hf:{REPO}:{FILE}", "--dry-run", "--threads", 1)
    assert offline.returncode in (0, 2)
    assert "is not here" not in offline.stderr
    assert len(machine.hub.log) == seen, "only pull uses the network"
    removed = machine.run("models", "rm", f"hf:{REPO}:{FILE}")
    assert removed.returncode == 0
    assert machine.blobs() == []
    assert "not here" in machine.run("models", "rm", f"hf:{REPO}:{FILE}").stderr


@pytest.mark.promise(
    "`pull`, `merge`, `--retry-errors` and the last step to Parquet can be killed anywhere: the "
    "same command finishes the work."
)
def test_a_pull_cut_at_30_random_points_completes_with_the_right_checksum(machine: Machine, content: bytes) -> None:
    machine.hub.cuts = sorted(random.Random(7).sample(range(1, len(content)), 30))
    done = machine.run("pull", f"hf:{REPO}:{FILE}")
    assert done.returncode == 0, done.stderr
    assert machine.hub.cuts == []
    assert machine.blobs()[0].read_bytes() == content
    assert sum("bytes=" in line for line in machine.hub.log) >= 29, "it goes on, it does not begin again"


def test_a_pull_that_was_killed_goes_on_where_it_was(machine: Machine, content: bytes) -> None:
    machine.hub.cuts, machine.hub.stall = [len(content) // 2], threading.Event()
    process = subprocess.Popen(machine.command("pull", f"hf:{REPO}:{FILE}"), env=machine.env, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not any(blob.stat().st_size > len(content) // 3 for blob in machine.blobs()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    machine.hub.stall.set()
    assert [blob.suffix for blob in machine.blobs()] == [".incomplete"]
    served = machine.hub.served
    done = machine.run("pull", f"hf:{REPO}:{FILE}")
    assert done.returncode == 0, done.stderr
    assert "resuming at" in done.stderr
    assert machine.hub.served - served < 0.7 * len(content)
    assert machine.blobs()[0].read_bytes() == content


@pytest.mark.parametrize("what", ["link", "pipe", "cut"])
def test_what_is_in_the_place_of_a_blob_is_not_believed(machine: Machine, content: bytes, tmp_path, what) -> None:
    blobs = machine.cache / f"models--{REPO.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    name = hashlib.sha256(content).hexdigest()
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    if what == "link":
        (blobs / f"{name}.incomplete").symlink_to(precious)
    elif what == "pipe":
        os.mkfifo(blobs / f"{name}.incomplete")
    else:
        (blobs / name).write_bytes(content[:-1])
    done = machine.run("pull", f"hf:{REPO}:Q8_0")
    assert done.returncode == 0, done.stderr
    assert [blob.read_bytes() for blob in machine.blobs()] == [content]
    assert precious.read_bytes() == b"precious"


def test_what_arrives_damaged_never_enters_the_cache(machine: Machine) -> None:
    machine.hub.wrong = {FILE}
    done = machine.run("pull", f"hf:{REPO}:{FILE}")
    assert done.returncode == 1
    assert "arrived damaged" in done.stderr
    assert machine.blobs() == []


@pytest.mark.parametrize(
    ("status", "files", "said"),
    [
        (401, 0, "log in with `hf auth login`"),
        (404, 0, "check"),
        (429, 0, "too many requests"),
        (503, 0, "the hub may be down"),
        (0, 403, "403"),
        (0, 429, "too many requests"),
    ],
)
def test_a_refusal_is_a_sentence_that_says_what_to_do(machine: Machine, status: int, files: int, said: str) -> None:
    machine.hub.status, machine.hub.status_of_files = status, files
    done = machine.run("pull", f"hf:{REPO}:{FILE}")
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]


def test_a_file_that_is_not_there_lists_those_that_are(machine: Machine) -> None:
    done = machine.run("pull", f"hf:{REPO}:Q5_K")
    assert done.returncode == 1
    assert "has no Q5_K" in done.stderr
    assert FILE in done.stderr
    assert machine.run("pull", f"hf:{REPO}").stderr.count(".gguf") == 2
    assert "the hub has no some/other" in machine.run("pull", "hf:some/other").stderr


def test_offline_and_unreachable_are_said(machine: Machine) -> None:
    assert "HF_HUB_OFFLINE is set" in machine.run("pull", HF_HUB_OFFLINE="1").stderr
    done = machine.run("pull", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "cannot reach the hub at http://127.0.0.1:9" in done.stderr.replace("error: ", "")


def test_a_full_disk_is_said_before_the_first_byte(machine: Machine, content: bytes) -> None:
    tricked = "import shutil; shutil.disk_usage = lambda p: type('D', (), {'free': 1000})(); " + HASTY
    command = [sys.executable, "-c", tricked, "pull", f"hf:{REPO}:{FILE}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=machine.env)
    assert done.returncode == 1
    assert "not enough room" in done.stderr
    assert machine.hub.served == 0


def test_a_token_is_sent_to_the_hub_and_to_nobody_else(machine: Machine) -> None:
    assert machine.run("pull", f"hf:{REPO}:{FILE}", HF_TOKEN="hf_secret").returncode == 0
    sent = {(path.split("/")[1], token) for path, token in machine.hub.authorizations}
    assert sent == {("api", "Bearer hf_secret"), ("some-body", "Bearer hf_secret"), ("cdn", None)}, (
        "and no other request"
    )


def test_what_is_secret_in_the_hubs_address_and_in_a_token_is_never_shown(machine: Machine) -> None:
    address = machine.hub.address.removeprefix("http://")
    done = machine.run("pull", f"hf:{REPO}:Q8_0", HF_ENDPOINT=f"http://us3r:S3cr3t@{address}")
    assert done.returncode == 0, done.stderr
    said = done.stderr
    for endpoint in ("http://us3r:S3cr3t@127.0.0.1:9", f"us3r:S3cr3t@{address}", f"http://us3r:S3cr3t/x@{address}"):
        done = machine.run("pull", "hf:some-body/other", HF_ENDPOINT=endpoint)
        assert done.returncode != 0
        assert "HF_ENDPOINT" in done.stderr or "cannot reach the hub at http://127.0.0.1:9" in done.stderr
        said += done.stderr
    done = machine.run("pull", f"hf:{REPO}:Q8_0", HF_TOKEN="S3cr3t-schl\u00fcssel")
    assert "HF_TOKEN" in done.stderr
    assert done.returncode == 2
    said += done.stderr
    machine.hub.status = 503
    said += machine.run("pull", "hf:some-body/other", HF_ENDPOINT=f"http://us3r:S3cr3t@{address}").stderr
    assert "503" in said
    assert "S3cr3t" not in said
    assert "us3r" not in said


def test_a_hub_that_packs_its_answers_asks_for_odd_waits_or_never_ends_is_a_sentence(machine: Machine) -> None:
    machine.hub.more = {"Content-Encoding": "gzip"}
    done = machine.run("pull", f"hf:{REPO}:Q8_0")
    assert done.returncode == 1
    assert "packed" in done.stderr
    machine.hub.more, machine.hub.status = {"Retry-After": "\u00b2", "RateLimit": '"api";r=0;t=999999999'}, 429
    done = machine.run("pull", f"hf:{REPO}:Q8_0")
    assert done.returncode == 1
    assert "429" in done.stderr
    machine.hub.more, machine.hub.status, machine.hub.endless = {}, 0, True
    done = machine.run("pull", f"hf:{REPO}:Q8_0")
    assert done.returncode == 1
    assert "more than the" in done.stderr
    assert all(path.stat().st_size < 50 << 20 for path in machine.blobs())


@pytest.mark.parametrize("name", ["../../evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf", "..\\evil.gguf", ".gguf"])
def test_names_from_the_hub_cannot_lead_out_of_the_cache(name: str) -> None:
    with pytest.raises(SafeguardError, match="has no model"):
        choose_files([name], "", "evil/repo")


@pytest.mark.parametrize(
    "name", ["hf:../x", "hf:a/b/c", "hf:/a/b", "hf:a/b:../c.gguf", "hf:a/b:/c.gguf", "hf:a", "hf:a/b:"]
)
def test_names_that_could_lead_anywhere_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not of the form hf:OWNER/REPO"):
        hub_name(name)


def test_a_model_in_parts_is_pulled_whole(machine: Machine, tmp_path: Path, content: bytes) -> None:
    third = len(content) // 3
    pieces = (content[:third], content[third : 2 * third], content[2 * third :])
    parts = {f"Q8_0/big-00{i}-of-00003.gguf".replace("00", "0000", 1): p for i, p in enumerate(pieces, 1)}
    machine.hub.repos["big/model"] = parts
    done = machine.run("pull", "hf:big/model:Q8_0")
    assert len(machine.blobs()) == 3
    assert done.returncode == 1, "these parts are no GGUF of their own, and that is said"
    del machine.hub.repos["big/model"]["Q8_0/big-00002-of-00003.gguf"]
    assert "only 2 of the 3 parts" in machine.run("pull", "hf:big/model").stderr


def test_without_model_and_network_every_command_says_what_to_do(machine: Machine, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": 1, "text": "hi"}\n')
    machine.env |= {"HF_ENDPOINT": "http://127.0.0.1:9"}
    label = machine.run("label", source, "-p", "spam")
    assert label.returncode == 1
    assert label.stderr.count("\n") == 3
    assert "safeguard pull gpt-oss-safeguard-20b" in label.stderr
    assert "--model demo" in label.stderr
    for name in ("gpt-oss-20b", "gpt-oss-120b", "hf:a/b"):
        assert f"safeguard pull {name}" in machine.run("label", source, "-p", "spam", "--model", name).stderr
    assert "safeguard pull gpt-oss-safeguard-20b" in machine.run("models").stdout
    assert "check the connection" in machine.run("pull").stderr
    assert machine.run("models", "rm", "gpt-oss-20b").returncode == 0


def test_the_model_is_chosen_by_flag_environment_project_user_in_this_order(machine: Machine, tmp_path: Path) -> None:
    def chosen(**env: str) -> str:
        lines = machine.run("models", cwd=tmp_path / "project", **env).stdout.splitlines()
        return next(line.split()[1] for line in lines if line.startswith("* "))

    project, user = tmp_path / "project", tmp_path / ".config" / "safeguard" / "safeguard.toml"
    project.mkdir()
    user.parent.mkdir(parents=True)
    assert chosen() == "gpt-oss-safeguard-20b"
    user.write_text('model = "gpt-oss-20b"\n')
    assert chosen() == "gpt-oss-20b"
    (project / "pyproject.toml").write_text('[tool.safeguard]\nmodel = "gpt-oss-120b"\n')
    assert chosen() == "gpt-oss-120b"
    (project / "safeguard.toml").write_text('model = "gpt-oss-safeguard-120b"\n')
    assert chosen() == "gpt-oss-safeguard-120b"
    assert chosen(SAFEGUARD_MODEL="demo") == "demo"


@pytest.mark.parametrize(
    "setting",
    [
        'model = "../other.gguf"',
        'model = "/etc/passwd"',
        'model = "link.gguf"',
        'server = "http://x"',
        'token = "x"',
        "x",
    ],
)
def test_a_project_file_cannot_lead_out_of_its_folder(machine: Machine, tmp_path: Path, setting: str) -> None:
    (tmp_path / "outside.gguf").write_bytes(b"GGUF")
    project = tmp_path / "project"
    project.mkdir()
    (project / "link.gguf").symlink_to(tmp_path / "outside.gguf")
    (project / "safeguard.toml").write_text(setting + "\n")
    done = machine.run("models", cwd=project)
    assert done.returncode == 2
    assert "safeguard.toml" in done.stderr


def test_a_file_inside_the_project_may_be_named(machine: Machine, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "m.gguf").write_bytes(tiny.read_bytes())
    (tmp_path / "safeguard.toml").write_text('model = "sub/m.gguf"\n')
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": "hi"}\n')
    done = machine.run("label", "in.jsonl", "-p", "spam", "--dry-run", "--threads", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_user_without_a_home_gets_no_folder_named_tilde(monkeypatch, tmp_path) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert config.user_file() is None
    folder = files.cache_folder()
    assert folder.is_absolute()
    assert "~" not in folder.parts
    assert not folder.is_relative_to(tmp_path)


@pytest.mark.promise(
    "A damaged or hostile model file, `tokenizer.json` or settings file is refused in one sentence, without delay."
)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'model = "a\\u0000b"', "model must be a name"),
        (b"model = " + b"[" * 100_000, "nested too deep"),
        (b"model = " + b"{a=" * 100_000, "nested too deep"),
        (b"#" * ((1 << 20) + 1), "larger than 1,048,576 bytes"),
        (b'model = "\xff"', "not valid TOML"),
        (b"model = 1979-05-27", "model must be a name"),
        (b"model = {path = 1}", "model must be a name"),
        (Path("/dev/zero"), "no regular file"),
        (None, "no regular file"),
    ],
)
def test_hostile_settings_are_refused_in_one_sentence(tmp_path, monkeypatch, content, said) -> None:
    monkeypatch.delenv("SAFEGUARD_MODEL", raising=False)
    file = tmp_path / "safeguard.toml"
    if content is None:
        os.mkfifo(file)
    elif isinstance(content, Path):
        file.symlink_to(content)
    else:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=said) as refused:
        configured_model(tmp_path)
    assert str(refused.value).startswith(str(file))
    assert len(str(refused.value)) < len(str(file)) + 120


def test_a_user_without_a_home_has_no_models_and_is_told_of_hf_home(tmp_path) -> None:
    script = (
        "import os, pathlib; os.path.expanduser = lambda path: path\nfrom safeguard_cli.cli.app import main; main()"
    )
    (tmp_path / "in.jsonl").write_text('{"text":"a text"}\n')
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    for command, code in (("models", 0), ("label in.jsonl --policy spam", 1), ("models rm gpt-oss-20b", 1)):
        ended = subprocess.run(
            [sys.executable, "-c", script, *command.split()],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == code, ended.stderr
        assert "internal error" not in ended.stderr
    assert "set HF_HOME" in ended.stderr
    assert not list(tmp_path.glob("~*"))

"""The engine on servers gives the labels of the local engine, whatever the servers do, and leaks no secret."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import ROOT, tokenizer_file
from helpers.fault_server import FAULTS, FaultServer, share
from helpers.llama_server import llama_server
from helpers.server_runs import HURRIED, fill, run
from hypothesis import given, settings
from hypothesis import strategies as st

from safeguard_cli import address, errors
from safeguard_cli.engine.reports import Report
from safeguard_cli.engine.servers import concurrency, pool
from safeguard_cli.engine.servers.apis import MISSHAPEN, BadReply, Completions, LlamaServer, SGLang, checked
from safeguard_cli.engine.servers.chat import read_answer
from safeguard_cli.engine.servers.concurrency import Pace
from safeguard_cli.engine.servers.pool import Patience
from safeguard_cli.errors import SafeguardError, UsageError
from safeguard_cli.model.find import find_model
from safeguard_cli.output.manifest import Refused
from safeguard_cli.policy.policy import Policy
from safeguard_cli.run.progress import Progress

SAFEGUARD = str(Path(sys.executable).parent / "safeguard")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(pool, "PATIENCE", HURRIED)
    monkeypatch.delenv(address.KEY, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def real() -> Iterator[str]:
    with llama_server(find_model("demo")) as address:
        yield address


@pytest.mark.promise("Whatever a server does or answers, no row is lost or doubled.")
@given(script=st.lists(st.sampled_from((*FAULTS, "ok", "ok", "ok")), min_size=1, max_size=12), low=st.booleans())
@settings(max_examples=5)
def test_of_200_rows_none_is_lost_or_doubled_whatever_the_server_does(tiny, tmp_path_factory, script, low) -> None:
    folder = tmp_path_factory.mktemp("faults")
    script = [*("ok" if fault == "slow" else fault for fault in script[1:]), script[0]]  # slow ones take time
    if set(script) <= {"slow", "429", "503"}:
        script.append("ok")
    with FaultServer(script) as server:
        options = {"effort": "low" if low else "none", "model": str(tiny), "slots": 8}
        code, rows = run(fill(folder, 200), folder / "out.jsonl", server.address, **options)
    assert [row["id"] for row in rows] == list(range(200))
    found = [row["spam"].get("error", {}).get("code") for row in rows]
    assert set(found) <= {None, "server"}
    assert code == (errors.ROWS_IN_ERROR if any(found) else errors.OK)
    assert all(row["spam"]["label"] in ("ham", "spam") for row, error in zip(rows, found, strict=True) if not error)
    if set(script) <= {"ok", "429", "503"} and "ok" in script:
        assert code == errors.OK, "to be put off is no failure"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_never_ends_makes_error_rows_and_the_right_code(tiny, tmp_path, fault) -> None:
    with FaultServer([fault]) as server:
        code, rows = run(fill(tmp_path, 3), tmp_path / "out.jsonl", server.address, model=str(tiny), effort="low")
    assert code == errors.ROWS_IN_ERROR
    for row in rows:
        error = row["spam"]["error"]
        assert error["code"] == "server"
        assert "row " not in error["message"].replace("the row", "").replace("this row", ""), "content stays out of it"


def test_scores_are_what_the_server_says(tiny, tmp_path) -> None:
    with FaultServer() as server:
        code, rows = run(fill(tmp_path, 20), tmp_path / "out.jsonl", server.address, model=str(tiny))
        asked = [body["prompt"] for _, body, _ in server.requests if "allowed_token_ids" in body][1:]
    assert code == errors.OK
    assert sorted(row["spam"]["scores"]["ham"] for row in rows) == pytest.approx(sorted(map(share, asked)), abs=1e-6)


def test_a_server_that_is_gone_is_left_out_and_one_that_goes_away_is_replaced(tiny, tmp_path, capsys) -> None:
    with FaultServer() as gone:
        dead = gone.address
    with FaultServer() as good, FaultServer(["500"]) as bad:
        code, rows = run(fill(tmp_path, 60), tmp_path / "out.jsonl", dead, bad.address, good.address, model=str(tiny))
    assert code == errors.OK
    assert len(rows) == 60
    assert f"{dead} takes no connection" in capsys.readouterr().err
    with pytest.raises(SafeguardError, match="no server can be reached"):
        run(fill(tmp_path, 1), tmp_path / "out.jsonl", dead, model=str(tiny))


def test_a_run_whose_servers_all_go_away_ends_and_goes_on_when_they_are_back(tiny, tmp_path) -> None:
    source, out = fill(tmp_path, 80), tmp_path / "out.jsonl"
    with FaultServer(dies_after=30) as server, pytest.raises(SafeguardError, match="no server has taken a connection"):
        run(source, out, server.address, model=str(tiny), slots=4)
    done = len(out.read_bytes().splitlines())
    assert 0 < done < 80
    with FaultServer() as again:
        code, rows = run(source, out, again.address, model=str(tiny), overwrite=False)
    assert (code, [row["id"] for row in rows]) == (errors.OK, list(range(80)))


def test_another_model_refuses_to_go_on_and_another_address_does_not(tiny, tmp_path) -> None:
    source, out = fill(tmp_path, 6), tmp_path / "out.jsonl"
    with FaultServer() as server:
        run(source, out, server.address, model=str(tiny), limit=3)
    with FaultServer(models=["org/other"]) as other, pytest.raises(Refused, match="served"):
        run(source, out, other.address, model=str(tiny), overwrite=False)
    with FaultServer() as elsewhere:
        assert len(run(source, out, elsewhere.address, model=str(tiny), overwrite=False)[1]) == 6
    with FaultServer() as one, FaultServer(models=["org/other"]) as two, pytest.raises(UsageError, match="same model"):
        run(source, out, one.address, two.address, model=str(tiny))
    with FaultServer(models=["a", "b"]) as several, pytest.raises(UsageError, match="a, b"):
        run(source, out, several.address, model=str(tiny))


@pytest.mark.promise("No password and no key is printed, kept, or handed to a process that does not need it.")
def test_the_key_comes_from_the_environment_and_no_secret_is_printed_or_kept(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(address.KEY, "s3cret-key")
    source, out = fill(tmp_path, 3), tmp_path / "out.jsonl"
    with FaultServer(taken="Bearer s3cret-key") as server:
        url = server.address.replace("http://", "http://us3r:passw0rd@") + "/v1/?token=qu3ry"
        command = [SAFEGUARD, "label", str(source), "-p", "spam", "--model", str(tiny), "--effort", "none"]
        command += ["--server", url, "-o", str(out), "-v"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert all("?token=qu3ry" in path for path, *_ in server.requests)
        monkeypatch.delenv(address.KEY)
        refused = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, timeout=60)
        assert refused.returncode == errors.FATAL
        assert address.KEY in refused.stderr
    written = out.read_text() + out.with_name("out.jsonl.manifest.json").read_text()
    for text in (done.stdout, done.stderr, refused.stdout, refused.stderr, written):
        for secret in ("s3cret", "us3r", "passw0rd", "qu3ry"):
            assert secret not in text


@given(user=st.text("abc%:é", max_size=5), query=st.text("abc=&?%@/", min_size=1, max_size=8))
def test_no_url_shows_its_secrets(user: str, query: str) -> None:
    text = address.without_secrets(f"--server=https://{user}@host:80/path?XX{query}")
    assert text == "--server=https://host:80/path"


def test_ctrl_c_ends_a_run_on_a_slow_server_within_two_seconds(tiny, tmp_path) -> None:
    source, out = fill(tmp_path, 500), tmp_path / "out.jsonl"
    with FaultServer(seconds=0.05) as server:
        command = [SAFEGUARD, "label", str(source), "-p", "spam", "--model", str(tiny), "--effort", "none"]
        command += ["--server", server.address, "-o", str(out), "--slots", "4", "--progress", "none"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while not out.exists() or not out.stat().st_size:
            time.sleep(0.02)
        began = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        said = process.communicate(timeout=20)[1]
        assert time.monotonic() - began < 2.0 + 1.0, "a second for a busy machine"
    assert process.returncode == errors.INTERRUPTED
    assert "to go on:" in said
    done = out.read_bytes()
    assert done.endswith(b"\n")
    with FaultServer() as server:
        code, rows = run(source, out, server.address, model=str(tiny), overwrite=False)
    assert (code, [row["id"] for row in rows]) == (errors.OK, list(range(500)))


def test_refusals_are_obeyed(tiny, tmp_path) -> None:
    with FaultServer(["429"] * 8 + ["ok"] * 40, seconds=0.002) as server:
        code, rows = run(fill(tmp_path, 150), tmp_path / "out.jsonl", server.address, model=str(tiny))
        assert (code, len(rows)) == (errors.OK, 150)
        assert server.most_at_once <= 256


def throughput(pace: Pace, rate: Callable[[int], float], rows: int) -> int:
    """Run a pace against a server that does `rate(limit)` work a second; return its final limit. Rows differ."""
    now = 1.0
    for row in range(rows):
        work = (1.0, 9.0, 2.0, 5.0)[row % 4]
        now += work / rate(pace.limit)
        pace.finished(now, work)
    return pace.limit


@pytest.mark.parametrize("best", [3, 20, 90, 250])
def test_the_pace_rises_until_more_rows_at_once_are_no_faster(best: int) -> None:
    found = Pace()
    limit = throughput(found, lambda limit: min(limit, best), 6000)
    assert min(limit, best) >= 0.95 * best
    assert limit <= max(16, 4 * best)


@pytest.mark.parametrize(("start", "best"), [(4, 4), (4, 9), (1, 6)])
def test_the_pace_goes_back_where_more_rows_at_once_are_slower(start: int, best: int) -> None:
    def rate(limit: int) -> float:
        return min(limit, best) - 0.1 * max(0, limit - best)

    limit = throughput(Pace(16, start), rate, 1000)
    assert rate(limit) >= 0.95 * rate(best)


def test_the_pace_falls_with_refusals_and_comes_back_one_by_one() -> None:
    found = Pace(start=64)
    for second in range(10):
        found.refused(10.0 + second / 10)
    assert found.limit == 42, "refusals within a second are one"
    for second in range(20, 40, 2):
        found.refused(float(second))
    low = found.limit
    assert low == 1
    assert throughput(found, lambda _: 10, 200) > low
    assert Pace(fixed=7).limit == 7


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "tokens",
                        "token_ids",
                        "logprobs",
                        "top_logprobs",
                        "meta_info",
                        "completion_probabilities",
                        "top_probs",
                        "stop_type",
                        "truncated",
                        "finish_reason",
                        "output_ids",
                        "message",
                        "content",
                        "id",
                        "prob",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_an_answer_of_any_form_is_refused_and_never_a_fault(reply: object) -> None:
    expected = (BadReply, *MISSHAPEN)
    for api in (LlamaServer(), Completions("m"), SGLang()):
        for read in (api.generated, lambda reply, api=api: checked(api.chosen(reply), (1, 2))):
            with contextlib.suppress(expected):
                read(reply)
    with contextlib.suppress(expected):
        read_answer(reply, Policy("p", "x", ("a", "b"), ("b",)))


def answers(real: str, folder: Path, rows: int = 1000, **options: object) -> tuple[list[dict], list[dict]]:
    source = folder / "in.jsonl"
    golden = (ROOT / "samples/golden/spam.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in (ROOT / "samples/messages.jsonl").read_text().splitlines() + golden]
    source.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts[:rows])))
    here = run(source, folder / "here.jsonl", model="demo", threads=1, reasoning=True, **options)[1]
    there = run(source, folder / "there.jsonl", real, model="demo", reasoning=True, **options)[1]
    return [row["spam"] for row in here], [row["spam"] for row in there]


@pytest.mark.parametrize("effort", ["none", "low"])
def test_a_real_llama_server_gives_the_labels_and_scores_of_the_local_engine(
    real, tmp_path, monkeypatch, effort
) -> None:
    """One row at a time: with several, scores of both engines depend a little on what is decoded beside a row."""
    monkeypatch.setattr(pool, "PATIENCE", Patience())
    here, there = answers(real, tmp_path, effort=effort, slots=1)
    same = sum(a["label"] == b["label"] for a, b in zip(here, there, strict=True))
    assert same >= len(here) - math.ceil(0.005 * len(here))
    equal = [(a, b) for a, b in zip(here, there, strict=True) if a["reasoning"] == b["reasoning"]]
    assert len(equal) >= (0.9 if effort == "low" else 1.0) * len(here)
    assert max(abs(a["p_violates"] - b["p_violates"]) for a, b in equal) <= 0.02


def test_rows_that_are_clear_at_once_are_so_on_a_real_llama_server_too(real, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE", Patience())
    here, there = answers(real, tmp_path, 60, effort="auto", slots=1)
    assert {row["effort"] for row in there} == {"none", "low"}
    for a, b in zip(here, there, strict=True):
        assert (a["label"], a["effort"]) == (b["label"], b["effort"])
        assert a["effort"] == "low" or a["p_violates"] == pytest.approx(b["p_violates"], abs=0.02)


def test_prompts_are_the_same_with_a_tokenizer_file(tiny, harmony, tmp_path) -> None:
    source, published = fill(tmp_path, 20), tokenizer_file.write(tmp_path / "tokenizer.json", harmony.tokenizer)
    asked = []
    for options in ({"model": str(tiny)}, {"tokenizer": str(published)}):
        with FaultServer() as server:
            code, rows = run(source, tmp_path / "out.jsonl", server.address, **options)
            asked.append((code, rows, sorted(body["prompt"] for path, body, _ in server.requests if "prompt" in body)))
    assert asked[0] == asked[1]


def test_caches_brought_into_use_in_the_middle_of_a_run_give_the_same_scores(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE", Patience())
    monkeypatch.setattr(concurrency, "WORTH", 0.0)  # the limit always rises
    warm, in_use = pool.Pool._warm, []

    async def counted(self: pool.Pool, server: pool.Server) -> None:
        await warm(self, server)
        in_use.append(server.warm)

    monkeypatch.setattr(pool.Pool, "_warm", counted)
    with llama_server(find_model("demo"), slots=16, context=2048) as address:
        here, there = answers(address, tmp_path, effort="none")
    assert in_use == [8, 12, 16]
    assert [row["label"] for row in here] == [row["label"] for row in there]
    assert max(abs(a["p_violates"] - b["p_violates"]) for a, b in zip(here, there, strict=True)) <= 0.02


def test_labels_that_begin_alike_and_rationales_come_from_a_real_llama_server_too(real, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE", Patience())
    options = {"labels": ("VALID", "INVALID", "INVALID + ESCALATE", "VALIDATED"), "violates": ("INVALID",)}
    here, there = answers(real, tmp_path, 24, effort="none", rationale=True, **options)
    for a, b in zip(here, there, strict=True):
        assert a["scores"] == pytest.approx(b["scores"], abs=0.05)
    alike = sum(a["rationale"] == b["rationale"] for a, b in zip(here, there, strict=True))
    assert alike >= 0.8 * len(here)


def test_a_server_with_another_vocabulary_is_refused(real, tiny, tmp_path) -> None:
    with pytest.raises(UsageError, match="another vocabulary"):
        run(fill(tmp_path, 1), tmp_path / "out.jsonl", real, model=str(tiny))


def chat_answer(content: str, **more: object) -> dict:
    return {"choices": [{"message": {"content": content, "reasoning_content": "It sells."}, **more}]}


def listed(*tokens: tuple[str, dict[str, float]]) -> dict:
    content = [
        {"token": t, "logprob": -0.1, "top_logprobs": [{"token": a, "logprob": v} for a, v in top.items()]}
        for t, top in tokens
    ]
    return {"logprobs": {"content": content}}


def test_a_chat_endpoint_labels_and_says_what_is_weaker(tmp_path, capsys) -> None:
    logprobs = listed(('{"', {}), ("label", {}), ('":"', {}), ("spam", {"spam": -0.1054, "ham": -2.3026}), ('"}', {}))
    with FaultServer(chat=chat_answer('{"label":"spam"}', **logprobs), refused=frozenset({"temperature"})) as server:
        options = {"server_api": "chat", "effort": "low", "reasoning": True, "quiet": False, "progress": "none"}
        code, rows = run(fill(tmp_path, 5), tmp_path / "out.jsonl", server.address, **options)
        body = server.requests[-1][1]
    assert code == errors.OK
    assert rows[0]["spam"]["label"] == "spam"
    assert rows[0]["spam"]["p_violates"] == pytest.approx(0.9, abs=1e-3)
    assert rows[0]["spam"]["reasoning"] == "It sells."
    assert body["messages"][1]["content"].startswith("row ")
    assert body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"] == ["ham", "spam"]
    assert "temperature" not in body
    said = capsys.readouterr().err
    assert "the server itself makes the prompt" in said
    assert "answers are sampled" in said


def test_a_chat_answer_without_a_label_of_the_policy_is_an_error_row(tmp_path) -> None:
    with FaultServer(chat=chat_answer('{"label":"maybe"}')) as server:
        code, rows = run(fill(tmp_path, 2), tmp_path / "out.jsonl", server.address, server_api="chat", effort="low")
    assert code == errors.ROWS_IN_ERROR
    assert {row["spam"]["error"]["code"] for row in rows} == {"server"}
    with pytest.raises(UsageError, match="token ids"):
        run(fill(tmp_path, 1), tmp_path / "out.jsonl", "http://127.0.0.1:9", server_api="chat")


def test_what_a_server_cannot_keep_is_refused(tiny, tmp_path) -> None:
    with FaultServer() as server, pytest.raises(UsageError, match="--deterministic"):
        run(fill(tmp_path, 1), tmp_path / "out.jsonl", server.address, model=str(tiny), deterministic=True)


def test_the_display_knows_how_many_rows_are_under_way(tiny, tmp_path, monkeypatch) -> None:
    under_way: list[int] = []

    def report(progress: Progress, said: Report) -> None:
        under_way.append(said.under_way)

    monkeypatch.setattr(Progress, "report", report)
    with FaultServer() as server:
        options = {"slots": 4, "quiet": False, "progress": "plain", "model": str(tiny)}
        run(fill(tmp_path, 30), tmp_path / "out.jsonl", server.address, **options)
    assert max(under_way) == 4 and under_way[-1] == 0

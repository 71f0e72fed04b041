"""The review in a browser: who is answered, one tab at a time, and that no text of a row becomes markup."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.command import rows
from helpers.reviews import COMMAND, LABELS, labelled, opened, task

from safeguard_cli import errors
from safeguard_cli.review.web import MOST_BYTES, PAGE, SILENT, Desk

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\x1b[2J\u202eabc"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with opened(tmp_path / "golden.jsonl", task(4)) as (session, _):
        yield Desk(session, clock=lambda: clock[0])


clock = [0.0]  # seconds


def ask(desk: Desk, do: str = "look", text: str = "", tab: str = "a", **more: object) -> dict:
    status, answer = desk.answer({"do": do, "text": text, "tab": tab, **more})
    assert status == 200
    return answer


def test_what_a_page_asks_for_is_done(desk: Desk) -> None:
    assert [each["label"] for each in ask(desk)["labels"]] == list(LABELS)
    assert ask(desk, "note", "a note")["note"] == "a note"
    assert ask(desk, "label", LABELS[1])["row"] == 2
    assert ask(desk, "skip")["row"] == 3
    assert ask(desk, "back")["skipped"]
    assert ask(desk, "undo")["row"] == 2
    assert "no label of this policy" in ask(desk, "label", "nonsense")["problem"]
    assert ask(desk, "unheard of")["row"] == 2
    assert ask(desk, "end") == {"ended": True} == ask(desk)


def test_what_was_meant_for_another_row_is_not_done(desk: Desk) -> None:
    assert ask(desk, "label", LABELS[0], row=1)["row"] == 2
    found = ask(desk, "label", LABELS[0], row=1)
    assert found["row"] == 2
    assert found["label"] is None


@pytest.mark.promise("A review is held by one tab of a browser at a time; another one is told by whom.")
def test_a_second_tab_is_told_who_holds_the_review_and_can_take_it_over(desk: Desk) -> None:
    ask(desk, tab="a")
    held = ask(desk, "label", LABELS[0], tab="b")["held"]
    assert held.startswith("anna, in another tab")
    assert ask(desk, tab="a")["label"] is None, "the second tab did nothing"
    assert ask(desk, "take", tab="b")["row"] == 1
    assert "held" in ask(desk, "label", LABELS[0], tab="a")
    clock[0] += SILENT + 1
    assert ask(desk, tab="a")["row"] == 1, "a tab that was closed holds nothing"


@contextmanager
def serving(out: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str, str]]:
    """Run the command; yield its process, its address and its token."""
    command = [*COMMAND, out.name, "-o", "golden.jsonl", "--as", "anna", "--web", *options]
    process = subprocess.Popen(command, cwd=out.parent, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert process.stderr
        told = next(line for line in iter(process.stderr.readline, b"") if b"http://" in line).decode()
        found = re.search(r"http://(127\.0\.0\.1:\d+)/([\w-]{32}) ", told)
        assert found, told
        yield process, found[1], found[2]
    finally:
        process.kill()
        process.communicate()


def request(host: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, str]:
    connection = http.client.HTTPConnection(host, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers.get("Content-Security-Policy", "")
    connection.close()
    return found


def test_only_who_has_the_token_and_means_this_address_is_answered(tmp_path: Path) -> None:
    with serving(labelled(tmp_path / "out.jsonl", 3)) as (process, host, token):
        look = b'{"do":"look","tab":"a"}'
        nothing = (404, b"", "")
        for path in ("/", "/x", f"/{token}x", f"/{token[:-1]}", f"/?token={token}", "/do", "/%C3%A9"):
            assert request(host, "GET", path) == nothing
        assert request(host, "GET", f"/{token}", Host="evil.example:80") == nothing
        for headers in ({}, {"X_Token": "x"}, {"X_Token": token, "Host": "evil.example"}):
            assert request(host, "POST", "/do", look, **headers) == nothing
        assert request(host, "POST", "/do", look, X_Token=token, Origin="http://evil.example") == nothing
        assert request(host, "POST", "/do", b"x" * (MOST_BYTES + 1), X_Token=token)[0] == 404
        assert request(host, "POST", "/do", b"[", X_Token=token)[0] == 400
        assert request(host, "POST", "/do", b"[]", X_Token=token)[0] == 400
        status, page, policy = request(host, "GET", f"/{token}")
        assert status == 200
        assert "default-src 'none'" in policy
        nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)
        assert nonce
        assert page.count(f'nonce="{nonce[1]}"'.encode()) == 2
        assert request(host, "GET", f"/{token}")[2] != policy, "a nonce is used once"
        assert request(host, "POST", "/do", look, X_Token=token, Origin=f"http://{host}")[0] == 200
        assert process.poll() is None


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    page = PAGE.read_text()
    assert "://" not in page
    assert re.findall(r"(?:src|href|url\(|@import|innerHTML|insertAdjacent|document\.write|eval\()", page) == []


def test_answers_are_on_disk_before_the_next_row_comes_and_a_signal_ends_the_review(tmp_path: Path) -> None:
    out = labelled(tmp_path / "out.jsonl", 3)
    golden = tmp_path / "golden.jsonl"
    with serving(out) as (process, host, token):
        for answered, label in enumerate((LABELS[0], LABELS[1]), 1):
            body = json.dumps({"do": "label", "text": label, "tab": "a"}).encode()
            _, answer, _ = request(host, "POST", "/do", body, X_Token=token)
            assert f"{answered} labelled" in json.loads(answer)["place"]
            assert [row["label"] for row in rows(golden.read_bytes())] == list(LABELS[:answered])
        second = subprocess.run(
            [*COMMAND, out.name, "-o", "golden.jsonl", "--as", "anna", "--plain"],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        assert second.returncode == errors.RESUME_REFUSED
        assert b"is open in another session" in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    with serving(out) as (process, host, token):
        body = json.dumps({"do": "end", "tab": "a"}).encode()
        assert json.loads(request(host, "POST", "/do", body, X_Token=token)[1]) == {"ended": True}
        assert process.wait(20) == errors.OK


@pytest.fixture
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("needs a Chromium to open the page in")
    return found


QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


def test_a_browser_without_a_network_shows_texts_as_they_are(tmp_path: Path, browser: str) -> None:
    out = labelled(tmp_path / "out.jsonl", 3, text=HOSTILE)
    profile = tmp_path / "profile"
    no_network = ["--proxy-server=127.0.0.1:1", "--proxy-bypass-list=127.0.0.1", f"--user-data-dir={profile}"]
    headless = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=380,800", "--virtual-time-budget=3000"]
    with serving(out) as (_, host, token):
        done = subprocess.run(
            [browser, *headless, *QUIET, *no_network, "--dump-dom", f"http://{host}/{token}"],
            capture_output=True,
            timeout=120,
            env={**os.environ, "HOME": str(tmp_path)},
        )
    page = done.stdout.decode()
    assert "row 1 of 3" in page
    assert "&lt;script&gt;document.title='owned'&lt;/script&gt;" in page
    assert r"\x1b[2J\u202eabc" in page
    assert "<title>safeguard review</title>" in page
    assert len(re.findall(r'aria-pressed="false"', page)) == len(LABELS)


def test_a_person_labels_rows_in_a_browser(tmp_path: Path, browser: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright to press keys")
    golden = tmp_path / "golden.jsonl"
    with (
        serving(labelled(tmp_path / "out.jsonl", 4)) as (process, host, token),
        playwright.sync_playwright() as started,
    ):
        chromium = started.chromium.launch(executable_path=browser, args=["--no-sandbox", *QUIET])
        page = chromium.new_page(viewport={"width": 380, "height": 800})
        asked: list[str] = []
        page.on("request", lambda each: asked.append(each.url))
        page.goto(f"http://{host}/{token}")
        page.wait_for_selector("#labels button")
        assert page.url == f"http://{host}/", "the token has left the address bar"
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
        page.keyboard.press("n")
        page.keyboard.type("looks like 1 to me")
        page.keyboard.press("Enter")
        page.keyboard.press("1")
        page.get_by_text("row 2 of 4").wait_for()
        page.get_by_role("button", name=LABELS[1]).click()
        page.get_by_text("row 3 of 4").wait_for()
        page.keyboard.press("u")
        page.get_by_text("row 2 of 4").wait_for()
        other = chromium.new_page()
        other.goto(f"http://{host}/{token}")
        other.get_by_text("held by anna").wait_for()
        other.get_by_role("button", name="Take over").click()
        other.get_by_text("row 2 of 4").wait_for()
        other.keyboard.press("q")
        other.get_by_text("The review has ended").wait_for()
        chromium.close()
        assert process.wait(20) == errors.OK
        assert {url.partition("/")[0] + "//" + url.split("/")[2] for url in asked} == {f"http://{host}"}
    found = rows(golden.read_bytes())
    assert [(row["label"], row["note"]) for row in found if not row.get("undone")] == [
        (LABELS[0], "looks like 1 to me")
    ]

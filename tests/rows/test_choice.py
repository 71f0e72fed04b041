"""A row's text is found without an option, or asked for; an id, a date or a gold label is never silently taken."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import time
from pathlib import Path

import pytest
from helpers.command import safeguard
from helpers.fake_engine import FakeEngine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safeguard_cli.errors import UsageError
from safeguard_cli.machine.bench import read_work
from safeguard_cli.measure.golden import read_golden
from safeguard_cli.output.labelled import LabelSet
from safeguard_cli.output.manifest import Refused
from safeguard_cli.rows.choice import reads_like_text
from safeguard_cli.rows.field_names import never_text
from safeguard_cli.rows.source import open_source
from safeguard_cli.rows.text import make_selector
from safeguard_cli.run import prepare
from safeguard_cli.run.label import label
from safeguard_cli.run.settings import Settings

CHAT = [{"role": "user", "content": "WIN a prize"}, {"role": "assistant", "content": "ok"}]
SHAREGPT = [{"from": "human", "value": "WIN a prize"}, {"from": "gpt", "value": "ok"}]


def chosen(*rows: object, **options: object) -> str:
    """Return in words what is labelled of JSON rows."""
    data = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    with open_source(io.BytesIO(data.encode()), format="jsonl") as source:
        return make_selector(source, **options).described


CLEAR = """see you at lunch|Congratulations|免费领取大奖请点击|สวัสดีครับวันนี้อากาศดี|see http://a.example|5 kg of it
I will come on Monday at 5 pm|mail me: bob@a.example|say "yes"|a b"""
UNCLEAR = """ok|spam|免费|12|1,234.56|50 %|$ 12.00|(555) 123-4567|+49 172 6634918|12:30|2024-01-31|2024-01-31 10:00:00|
2024-01-31T10:00:00.123Z|Mon, 01 Jan 2024 10:00:00 GMT|May 5th, 2024|31.01.2024 10:00|Jan 31, 2024 10:00 AM
2024年1月31日 10时|https://a.example/b?c=d|www.a.example/b|/v1/chat/completions|a.example|bob@a.example
Bob Smith <bob@a.example>|./img/cat.png|C:\\x\\y.txt|https://a.example https://b.example|@someone_there| |
550e8400-e29b-41d4-a716-446655440000|9e107d9d372bb6826bd81d3542a419d6|dGhpcyBpcyBhIHRva2Vu9A==|conv-1234-abcdefgh
user_name_of_me|camelCaseName"""
OTHER_VALUES = [12, 1.5, True, None, [], {}, ["a", "b"], {"role": "user", "content": "hi there"}, [1, 2]]


@pytest.mark.parametrize("value", [*re.split(r"[|\n]", CLEAR), CHAT, SHAREGPT, [{"type": "text", "text": "a"}]])
def test_what_reads_like_a_text(value) -> None:
    assert reads_like_text(value)


@pytest.mark.parametrize("value", [*re.split(r"[|\n]", UNCLEAR), *OTHER_VALUES])
def test_what_does_not(value) -> None:
    assert not reads_like_text(value)


@pytest.mark.parametrize("value", ["<" + "@" * 9000, "@" * 9000, "@." * 9000, "a." * 9000, "(" * 9000, "1st " * 9000])
def test_hostile_values_take_no_time(value) -> None:
    begun = time.process_time()
    for _ in range(100):
        reads_like_text(value)
    assert time.process_time() - begun < 2


NAMES = ["id", "ID", "custom_id", "postId", "Message ID", "label", "labels", "gold", "spam_gold", "class", "category"]
NAMES += ["target", "expected_output", "ground truth", "created_at", "createdAt", "date", "timestamp", "author"]
NAMES += ["user_name", "language", "lang", "url", "content_hash", "tags", "annotator_1", "is_spam"]


@pytest.mark.parametrize("name", NAMES)
def test_fields_of_such_names_are_never_a_text(name) -> None:
    assert never_text(name)
    with pytest.raises(UsageError, match="which field holds the text"):
        chosen({name: "see you at lunch", "n": 1})
    assert chosen({name: "see you at lunch", "n": 1}, text_fields=[name]) == name


@pytest.mark.parametrize(
    "name", ["text", "Text", "body", "message", "user_message", "title", "paid", "translation", "x"]
)
def test_others_may_be(name) -> None:
    assert not never_text(name)


def test_the_field_text_is_it_wherever_it_is_unless_it_is_gold() -> None:
    assert chosen({"id": "a", "body": "see you at lunch"}, {"text": None}) == "text"
    assert chosen({"text": 12, "body": "see you at lunch"}) == "text"
    assert chosen({"text": "spam", "body": "see you at lunch"}, gold=["text"]) == "body"
    assert chosen({"text": "spam", "body": "see you at lunch"}, others=["text"]) == "body"


def test_else_chat_messages_under_their_usual_names() -> None:
    assert chosen({"id": "conv-1", "title": "A title here", "messages": CHAT}) == "messages"
    assert chosen({"id": "identity_0", "conversations": SHAREGPT}) == "conversations"
    assert chosen({"id": 1, "messages": None}, {"id": 2, "messages": CHAT, "label": "spam"}) == "messages"
    assert chosen({"messages": "see you at lunch", "n": 1}) == "messages"
    for row in ({"messages": CHAT, "conversation": CHAT}, {"messages": [{"user": "hi there"}]}, {"messages": [1]}):
        with pytest.raises(UsageError, match="which field"):
            chosen(row)


def test_else_the_only_field_that_reads_like_a_text_in_the_first_hundred_rows() -> None:
    assert chosen({"id": "a-1", "body": None}, {"id": "a-2", "body": "see you at lunch"}) == "body"
    assert chosen(*[{"id": n, "body": ""} for n in range(98)], {"body": "ok"}, {"body": "see you at lunch"}) == "body"
    assert chosen({"id": 1, "created": "2024-01-01 10:00:00", "body": "免费领取大奖请点击"}) == "body"
    assert chosen("{", {"body": "ok"}, {"body": "see you"}, {"body": "lol"}, {"body": "brb"}) == "body"
    assert chosen({"body": "see you at lunch", "user": {"name": "Bob Smith"}, "tags": ["a b", "c"]}) == "body"
    assert chosen({"id": 1, "turns": CHAT}) == "turns"
    with pytest.raises(UsageError, match="which field"):
        chosen(*[{"id": n, "body": ""} for n in range(100)], {"body": "see you at lunch"})


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": 1, "title": "Hello there friend", "body": "see you at lunch"}], r"'title' \(Hello.*'body' \(see you"),
        ([{"id": "a1", "score": 3}], r"none looks like one.*'id' \(a1\), 'score' \(3\)"),
        ([{"id": "a1", "kind": "conversation"}] * 9, r"'kind' \(conversation\)"),
        (
            [{"custom_id": "r-0", "result": {"message": {"content": [{"type": "text", "text": "WIN a prize"}]}}}],
            r"could be 'result\.message\.content'",
        ),
        (
            [
                {
                    "id": "b",
                    "response": {"body": {"choices": [{"message": {"role": "assistant", "content": "WIN a prize"}}]}},
                }
            ],
            r"'response\.body\.choices\.0\.message\.content'",
        ),
        ([{"id": "0_gab", "annotators": {"label": [0, 2]}, "post_tokens": ["WIN", "a", "prize"]}], r"'post_tokens'"),
        (
            [{"id": 1, "about": "hate speech set", "post_tokens": ["WIN", "a", "FREE", "prize", "today", "now"]}],
            r"'about'",
        ),
        (
            [{"id": 1, "title": "A talk", "turns": [{"speaker": "a", "said": "WIN a prize"}, {"said": "no, thanks"}]}],
            r"'title'",
        ),
        ([{"id": 1, "note": "\x1b[31mred \u202e" + "x" * 99}, {"other": "see you at lunch"}], r"\\x1b\[31mred \\u202e"),
        ([{"label": "spam and ham", "n": 1}], r"'label' \(spam and ham\)"),
    ],
)
def test_where_it_is_not_clear_the_fields_are_listed_with_a_value_of_each(rows, said) -> None:
    with pytest.raises(UsageError, match=f"which field holds the text.*{said}") as refused:
        chosen(*rows)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "table",
    [
        "ham\tsee you at lunch\nspam\tWIN a prize now\nham\tok\n",
        '1,"WIN a prize",spam\n2,see you,ham\n',
        "ham,ok lar\nham,see you\nspam,WIN a prize\n",
        "免费领取大奖请点击这里,a\n明天中午一起吃饭好吗,b\n",
    ],
)
def test_a_table_without_a_header_does_not_lose_its_first_row_in_silence(table) -> None:
    with open_source(io.BytesIO(table.encode()), format="csv") as source:
        with pytest.raises(UsageError, match=r"is the first line a header\?.*--text-field"):
            make_selector(source)
        assert make_selector(source, text_fields=source.names[:1]).fields == source.names[:1]


def test_a_title_above_the_header_is_not_taken_for_it() -> None:
    with (
        open_source(
            io.BytesIO(b"My export;;\n\nnr;kommentar;wertung\n1;see you at lunch;ham\n"), format="csv"
        ) as source,
        pytest.raises(UsageError, match=r"no name; is there a title above the header\? --skip-rows N"),
    ):
        make_selector(source)


def test_few_values_that_come_again_are_asked_about() -> None:
    answers = ["not spam", "spam", "not spam", "clearly spam", "not spam", "spam"] * 3
    with pytest.raises(UsageError, match=r"could be 'answer' \(not spam\)"):
        chosen(*[{"post": "12", "answer": answer} for answer in answers])
    assert chosen(*[{"body": f"see you at {n % 9}"} for n in range(18)]) == "body"
    assert chosen({"body": "see you"}, {"body": "see you"}) == "body"
    assert chosen(*[{"body": "see you at lunch"}] * 20) == "body"  # no label is as long as that


def test_the_requests_of_a_batch_file_are_read() -> None:
    batch = {"custom_id": "r-0", "method": "POST", "url": "/v1/chat/completions"}
    assert chosen({**batch, "body": {"model": "m", "messages": CHAT}}) == "body.messages"
    with pytest.raises(UsageError, match="which field"):
        chosen({**batch, "body": {"model": "m", "messages": CHAT}, "messages": [{"shape": "unknown"}]})


def test_messages_of_a_shape_that_is_not_known_are_not_passed_over() -> None:
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a.example"}}]}]
    with pytest.raises(UsageError, match=r"could be 'messages' .*'system_prompt' \(You are"):
        chosen({"messages": picture, "system_prompt": "You are a bot that helps people, whatever they ask. " * 9})
    with pytest.raises(UsageError, match="could be 'messages'"):
        chosen({"messages": picture, "conversation": CHAT})


def test_texts_within_the_document_of_a_search_engine_are_named() -> None:
    with pytest.raises(UsageError, match=r"could be '_source\.body' \(see you"):
        chosen({"_index": "posts", "_source": {"body": "see you at lunch"}})


def test_columns_without_a_name_do_not_speak_against_a_header() -> None:
    with open_source(
        io.BytesIO(b"v1,v2,,,\nham,see you at lunch,,,\nspam,WIN a prize now,,,\n"), format="csv"
    ) as source:
        assert make_selector(source).described == "v2"


def test_a_table_without_a_header_is_told_where_several_columns_could_be_the_text() -> None:
    table = b"0,1467,Mon Apr 06,bob_smith,Awww that's a bummer\n0,1468,Tue Apr 07,anna brown,is upset that he cannot\n"
    with (
        open_source(io.BytesIO(table), format="csv") as source,
        pytest.raises(UsageError, match=r"is the first line a header\?.*\"Awww that"),
    ):
        make_selector(source)


@pytest.mark.parametrize(
    "table",
    [
        "Nr;Kommentar;Kategorie\n1;Das ist doch Unsinn;Beschwerde\n",
        "Identifiant;Commentaire;Catégorie\n1;C'est un peu cher;indésirable\n",
        "Timestamp,How do you feel about our product today?\n2024-01-01,very well indeed\n",
        ",tweet,class\n0,see you at lunch,1\n",
        "Nachricht;Kanal\nsee you at lunch;sms\n",
        "Kommentar;Kanal\nsee you at lunch;sms\nKommentar;Kanal\nWIN a prize;sms\n",
    ],
)
def test_other_headers_are_taken_for_one(table) -> None:
    with open_source(io.BytesIO(table.encode()), format="csv") as source:
        assert make_selector(source).fields[0] in source.names


def test_what_an_earlier_run_added_is_no_text() -> None:
    verdict = {"label": "ham", "p_violates": 0.1, "rationale": "because it says so at length " * 9}
    assert chosen({"body": "see you at lunch", "spam": verdict}) == "body"
    columns = {"spam_label": "ham", "spam_p_violates": "0.1", "spam_rationale": "because it says so"}
    assert chosen({"body": "see you at lunch", **columns}) == "body"


def test_a_field_that_was_named_for_something_else_is_asked_for_by_name_only() -> None:
    row = {"key word": "see you", "body": "see you at lunch"}
    with pytest.raises(UsageError, match="which field"):
        chosen(row)
    assert chosen(row, others=["key word"]) == "body"
    assert chosen(row, others=["key word"], text_fields=["key word"]) == "key word"


def test_a_gold_field_is_refused_as_text() -> None:
    row = {"text": "see you at lunch", "verdict": "ham", "nested": {"gold": "ham"}}
    for options in ({"text_fields": ["verdict"]}, {"template": "{text} {verdict}"}, {"text_fields": ["nested.gold"]}):
        with pytest.raises(UsageError, match="right label"):
            chosen(row, gold=["verdict", "nested"], **options)


def test_an_input_without_rows_settles_nothing() -> None:
    assert chosen() == "text"
    with open_source(io.BytesIO(b"id,body\n"), format="csv") as source:
        assert make_selector(source).described == "text"


def said_once(done: object, name: str) -> bool:
    lines = done.stderr.decode().splitlines()  # type: ignore[attr-defined]
    return [line for line in lines if line.startswith("text: ")] == [f"text: {name}"]


def test_every_command_that_labels_says_what_once_and_not_when_quiet(tmp_path, tiny) -> None:
    pytest.importorskip("sklearn")
    path = tmp_path / "g.jsonl"
    rows = [{"id": f"a b {n}", "body": f"see you at {n}", "label": "ham"} for n in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = ("--model", tiny, "--threads", 1, "--max-reasoning", 2)
    policy = ("-p", "spam")
    calls = [
        (("label", path, *policy, *run, "-o", tmp_path / "out.jsonl"), "body"),
        (("label", path, *policy, *run, "--template", "{id}: {body}", "--dry-run"), "--template of id, body"),
        (("eval", path, *policy, *run), "body"),
        (("eval", path, *policy, *run, "--json"), "body"),
        (("compare", path, *policy, *run, "--effort", "none", "--effort", "low"), "body"),
        (("stress", path, *policy, "--export", tmp_path / "variants.jsonl"), "body"),
    ]
    for args, name in calls:
        done = safeguard(*args)
        assert done.returncode == 0 and said_once(done, name), (args, done.stderr)
        if args[0] == "eval":
            assert b"text: body" not in safeguard(*args, "-q").stderr
        if "--json" in args:
            assert json.loads(done.stdout)["rows"] == 3
    assert b"which field" in safeguard("label", path, *policy, *run, "--id-field", "body").stderr


def test_bench_measures_the_same_text(tmp_path, tiny, capsys) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text('{"id":"a b","body":"see you at lunch"}\n')
    settings = Settings(str(path), ("spam",), model=str(tiny), threads=1, slots=1)
    prepared = prepare.prepare(settings, prepare.load_policies(settings), {})
    capsys.readouterr()
    assert len(read_work(settings, prepared).rows) == 1
    assert capsys.readouterr().err == "text: body\n"


def test_a_run_goes_on_with_the_field_that_it_chose(bench, no_fsync) -> None:
    bench.source.write_text('{"id":1,"body":"see you at lunch"}\n')
    assert bench() == 0
    assert bench.manifest()["decides"]["input"]["text_fields"] == ["body"]
    with bench.source.open("a") as file:
        file.write('{"id":2,"body":"WIN a prize","title":"a title that came later"}\n')
    with pytest.raises(UsageError, match="which field"):
        bench(output=str(bench.folder / "other.jsonl"))
    assert bench(append_input=True) == 0
    assert [row["id"] for row in map(json.loads, bench.out.read_text().splitlines())] == [1, 2]
    with pytest.raises(Refused, match=r"input\.text_fields"):
        bench(append_input=True, text_fields=("title",))


SENTENCES = ("see you at lunch in room", "WIN a prize now, call", "免费领取大奖请点击这里", "ok thanks for the book")
IDS = ("id", "ID", "message_id", "uuid", "postId")
GOLD = ("label", "spam_gold", "Category", "expected")
TEXTS = ("text", "body", "Title", "note to us", "文本", "messages")
OTHERS = ("created_at", "n", "author", "url")
VALUES = {
    **dict.fromkeys(IDS, "row-{0}-of the file"),
    **dict.fromkeys(GOLD, "this is spam {0}"),
    "created_at": "2024-01-{0:02} 10:00:00",
    "n": "{0}",
    "author": "Bob Smith {0}",
    "url": "https://a.example/{0}",
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[dict[str, str | None]], str]:
    """Generate columns, rows, and the format to write them in; no two cells with a text are equal."""
    names = draw(st.lists(st.sampled_from([*IDS, *GOLD, *TEXTS, *OTHERS]), min_size=1, max_size=6, unique=True))
    empty = st.sampled_from([False, False, False, True])
    rows: list[dict[str, str | None]] = []
    for at in range(draw(st.integers(1, 6))):
        row = {
            name: VALUES[name].format(at) if name in VALUES else f"{draw(st.sampled_from(SENTENCES))} {name} {at}"
            for name in names
        }
        rows.append({name: None if draw(empty) else value for name, value in row.items()})
    return names, rows, draw(st.sampled_from(["jsonl", "csv,", "csv;", "csv\t", "csv|", "tsv\t", "parquet"]))


def write(folder: Path, names: list[str], rows: list[dict[str, str | None]], kind: str) -> Path:
    path = folder / f"in.{kind.rstrip(',;|').strip()}"
    if kind == "jsonl":
        lines = (
            {name: value for name, value in row.items() if value is not None or at % 2} for at, row in enumerate(rows)
        )
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    elif kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names}), path)
    else:
        with path.open("w", newline="") as file:
            table = csv.writer(file, delimiter=kind[-1])
            table.writerow(names)
            table.writerows([row[name] or "" for name in names] for row in rows)
    return path


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables(), st.booleans())
def test_the_text_that_a_run_labels_is_the_one_it_names_and_never_gold_or_an_id(
    at_once, tiny, harmony, tmp_path, monkeypatch, table, piped
) -> None:
    names, rows, kind = table
    path = write(tmp_path, names, rows, kind)
    piped = piped and kind != "parquet"
    shown: list[str] = []

    def engine(*given: object) -> FakeEngine:
        return FakeEngine(*given, before=lambda prompt: shown.append(harmony.readable(prompt.ids)))

    if piped:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    run = Settings(
        "-" if piped else str(path),
        ("spam",),
        model=str(tiny),
        slots=2,
        threads=1,
        progress="none",
        overwrite=True,
        output=str(tmp_path / "out.jsonl"),
    )
    said = io.StringIO()
    texts = [name for name in names if name in TEXTS]
    with contextlib.redirect_stderr(said):
        try:
            label(run, engine)
        except UsageError:
            assert not shown
            only = len(texts) == 1 and len(names) > 1 and any(row[texts[0]] for row in rows)
            assert not only and not any(row.get("text") for row in rows), "the only text is found"
            return
    lines = [line.removeprefix("text: ") for line in said.getvalue().splitlines() if line.startswith("text: ")]
    if not lines:
        assert not any(any(row.values()) for row in rows), "no row can be labelled"
        return
    (name,) = lines
    assert name in texts
    wanted = [row[name] for row in rows if row[name]]
    assert len(shown) == len(wanted)
    assert all(
        text is not None and prompt.startswith(f"{text}<|end|>") for text, prompt in zip(wanted, shown, strict=True)
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables(), st.data())
def test_a_golden_set_is_never_shown_its_gold(tmp_path, table, data) -> None:
    names, rows, kind = table
    gold = data.draw(st.sampled_from(names))
    answers = LabelSet("spam", tuple(dict.fromkeys(str(row[gold]) for row in rows)) or ("a",), ())
    try:
        golden = read_golden(write(tmp_path, names, rows, kind), [answers], {"spam": gold})
    except UsageError:
        return
    assert golden.text != gold and golden.text in TEXTS
    numbers = [at for at, row in enumerate(rows, 1) if row[gold] and row[golden.text]]
    assert [row.number for row in golden.rows] == numbers
    assert [row.text for row in golden.rows] == [rows[number - 1][golden.text] for number in numbers]

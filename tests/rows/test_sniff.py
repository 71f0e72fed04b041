"""An input that is not what its name says is read correctly, or refused with advice that works."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguard_cli.errors import UsageError
from safeguard_cli.rows.source import open_source

LINES = '{"id":1,"text":"WIN a prize, call now"}\n{"id":2,"text":"see you at lunch, I will bring the book"}\n'
TABLE = 'id,text\r\n1,"WIN a prize, call now"\r\n2,see you at lunch\r\n'


def zipped(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(name, "<xml/>")
    return out.getvalue()


def texts(source: object, **options: object) -> list[str]:
    with open_source(source, **options) as rows:  # type: ignore[arg-type]
        return [row.fields["text"] for row in rows]


PRINTED = [
    " id |     msg      \n----+--------------\n  1 | see you soon\n(1 row)\n",
    "| id | text |\n|:---|-----:|\n| 1 | see you soon |\n",
    "+----+------+\n| id | text |\n+----+------+\n| 1 | see you |\n+----+------+\n",
    "id,text\n--,----\n1,see you soon\n",
]


@pytest.mark.parametrize("table", PRINTED)
def test_a_table_printed_for_people_is_refused(table) -> None:
    with pytest.raises(UsageError, match=r"a table printed for people"):
        open_source(io.BytesIO(table.encode()), format="csv")


@pytest.mark.parametrize(
    "table", ["text\n----\nsee you\n", "id,text\n1,--\n", "id,text\n-,--\n", "a,text\n--,see -- you\n"]
)
def test_dashes_may_be_values(table) -> None:
    assert len(texts(io.BytesIO(table.encode()), format="csv")) == table.count("\n") - 1


@pytest.mark.parametrize(
    "table",
    [
        "Export of comments\n\nid, comment\n1, see you soon\n",
        "Weekly report,,\nid,text,score\n1,see you,3\n",
        "# exported 2024\nid,comment,score\n1,see you,3\n",
    ],
)
def test_a_title_of_one_cell_above_a_table_is_refused(table) -> None:
    with pytest.raises(UsageError, match=r"the first line is a title.*--skip-rows 1"):
        open_source(io.BytesIO(table.encode()), format="csv")
    below = table.partition("\n")[2]
    with open_source(io.BytesIO(below.encode()), format="csv") as source:
        assert source.names[0] == "id"


OTHER_KINDS = {
    "a spreadsheet": (zipped("xl/workbook.xml"), "name it \\*.xlsx"),
    "an old spreadsheet": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", "name it \\*.xls"),
    "Parquet": (b"PAR1\x15\x04\x15\x00", "--format parquet"),
    "lz4": (b"\x04\x22\x4d\x18\x64\x40", "lz4 -dc"),
    "bzip2 in bzip2": (bz2.compress(bz2.compress(LINES.encode())), "bzip2 -dc"),
    "gzip twice": (gzip.compress(gzip.compress(LINES.encode())), "gunzip -c"),
    "a PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "this is a PDF"),
    "rich text": (b"{\\rtf1\\ansi hello}", "RTF"),
    "SQLite": (b"SQLite format 3\0\x10\0\x01\x01", "sqlite3 -csv"),
    "a web page": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "HTML or XML"),
    "a web page that begins with a comment": (b"<!-- saved from url -->\n<html>", "HTML or XML"),
    "a table in HTML": (b"\xef\xbb\xbf<table><tr><td>text</td></tr></table>", "HTML or XML"),
    "XML": (b'<?xml version="1.0"?><rows/>', "HTML or XML"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:df2\nsize 1\n", "git lfs pull"),
    "UTF-16": (TABLE.encode("utf-16"), "--encoding utf-16$"),
    "UTF-32": (TABLE.encode("utf-32"), "--encoding utf-32$"),
}
JSON = {
    "a JSON array": b'[{"id":1,"text":"a b"}]',
    "a JSON array over lines": b'[\n  {\n "text": "a b"\n }\n]',
    "a pretty JSON object": b'{\n  "text": "a b"\n}\n',
    "a pretty JSON object that begins on its first line": b'{"id": 1,\n "text": "a b"}\n',
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.tsv", "x.csv.gz", "x.json", ""])
def test_a_file_of_another_kind_is_refused_with_what_it_is_whatever_its_name(tmp_path, kind, name):
    content, sentence = OTHER_KINDS[kind]
    path = tmp_path / name
    if name:
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(UsageError, match=sentence):
        open_source(path if name else io.BytesIO(content))


@pytest.mark.parametrize("content", JSON.values(), ids=JSON)
def test_json_is_read_from_a_pipe_and_refused_by_another_name_with_the_format_that_reads_it(tmp_path, content):
    assert texts(io.BytesIO(content)) == ["a b"]
    for name in ("x.csv", "x.jsonl", "x.txt", "x.log", "x.jsonl.gz"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        with pytest.raises(UsageError, match=r"--format json\b"):
            open_source(path)
        assert texts(path, format="json") == ["a b"]


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", ""])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_wide_characters_without_a_mark_are_refused_with_the_encoding_that_reads_them(tmp_path, name, encoding, end):
    content = (LINES if name != "x.csv" else TABLE).replace("\r\n", "\n").replace("\n", end).encode(encoding)
    path = tmp_path / name
    if name:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"--encoding {encoding}$"):
        open_source(path if name else io.BytesIO(content))
    assert len(texts(path if name else io.BytesIO(content), encoding=encoding)) == 2


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("header", ["сообщение,id", "κείμενο", "الرسالة,n", "הודעה"])
def test_headers_in_other_alphabets_too(encoding, header):
    with pytest.raises(UsageError, match=f"--encoding {encoding}"):
        open_source(io.BytesIO(f"{header}\nтекст,1\n".encode(encoding)), format="csv")


@pytest.mark.parametrize(
    ("content", "encoding", "sentence"),
    [
        (TABLE.encode("utf-8-sig"), "cp1252", "leave out --encoding"),
        (TABLE.encode("utf-16"), "latin-1", "--encoding utf-16$"),
        (TABLE.encode("utf-16-le"), "cp1252", "--encoding utf-16-le"),
        (b"\xff\xfe" + TABLE.encode("utf-16-le"), "utf-16-be", "--encoding utf-16$"),
        ("ข้อความ\nสวัสดี\n".encode("utf-16-le"), "utf-8", "utf-16-le"),
        ("文本\n中午见\n".encode("utf-16-le"), "utf-8", "--encoding"),
        ("文本\n中午见\n".encode("utf-16-be"), "utf-8", "--encoding"),
        ("Größe,text\n".encode("cp1252"), "utf-8", "cp1252"),
    ],
)
def test_an_encoding_that_the_first_bytes_contradict_is_refused(content, encoding, sentence):
    with pytest.raises(UsageError, match=sentence):
        open_source(io.BytesIO(content), format="csv", encoding=encoding)


def test_the_hint_line_of_excel_is_skipped_and_its_delimiter_used():
    for line, mark in (("sep=;", ";"), ('"sep=,"', ","), ("SEP=\t", "\t"), ("sep=|", "|"), ("sep=^", "^")):
        data = f"\ufeff{line}\r\nid{mark}text\r\n1{mark}a b\r\n".encode()
        for options in ({"format": "csv"}, {}):
            with open_source(io.BytesIO(data), **options) as source:
                assert (source.names, source.delimiter) == (("id", "text"), mark)
                assert [(row.line, row.fields["text"]) for row in source] == [(3, "a b")]
    assert texts(io.BytesIO(b"sep=,\r\ntext\r\nsee you, soon\r\n"), format="csv") == ["see you, soon"]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_the_delimiter_is_the_one_that_the_next_lines_bear_out(mark):
    table = f"id{mark}text, notes, and all\n1{mark}a, b\n3{mark}c, d, e, f, g\n"
    with open_source(io.BytesIO(table.encode()), format="csv") as source:
        assert source.delimiter == mark
        assert all(row.error is None for row in source)


def test_a_tsv_without_a_tab_is_refused_unless_it_is_asked_for(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text("id,text\n1,a b\n")
    with pytest.raises(UsageError, match=r"--format csv.*--format tsv"):
        open_source(path)
    assert texts(path, format="csv") == ["a b"]
    with open_source(path, format="tsv") as source:
        assert source.names == ("id,text",)
    path.write_text("text\na, b\n")
    assert texts(path) == ["a, b"]
    path.write_text("id\ttext, all\n1\ta, b\n")
    with open_source(path) as source:
        assert source.names == ("id", "text, all")


@pytest.mark.parametrize(
    "lines",
    [
        "see you at lunch tomorrow\nWIN a prize\n",
        "WIN a prize, call now\nsee you at lunch\nok\n",
        "thanks\nok\n",
        "Hi, Bob\nBye, Bob\n",
        "1,WIN a prize,spam\n2,see you,ham\n",
        "no\nyes\n",
        "Great post: read it at https://a.example | thanks\nwell\n",
    ],
)
def test_plain_lines_in_a_pipe_are_not_read_as_a_table_under_the_first_of_them(lines):
    with pytest.raises(UsageError, match=r"--format csv.*--format lines"):
        open_source(io.BytesIO(lines.encode()))
    with open_source(io.BytesIO(lines.encode()), format="csv") as source:
        assert len(list(source)) == lines.count("\n") - 1


@pytest.mark.parametrize(
    "header",
    ["text", "message", "id,text", "id, text", "Nachricht;Kanal;Zeit", "post_id|2021|text", '"a","b"', "comment\tn"],
)
def test_a_header_in_a_pipe_is_known_for_one(header):
    mark = next((mark for mark in ",;|\t" if mark in header), ",")
    row = mark.join(["a"] * (header.count(mark) + 1))
    with open_source(io.BytesIO(f"{header}\n{row}\n{row}\n".encode())) as source:
        assert len(source.names) == header.count(mark) + 1 and len(list(source)) == 2


def test_json_lines_under_another_name_are_told(tmp_path):
    for name in ("x.csv", "x.tsv", "x.log", "x.txt"):
        (tmp_path / name).write_text(LINES)
        with pytest.raises(UsageError, match="--format jsonl"):
            open_source(tmp_path / name)
        assert len(texts(tmp_path / name, format="jsonl")) == 2


@pytest.mark.parametrize("content", [TABLE.encode(), b"version https://git-lfs.github.com/spec/v1\n", zipped("a"), b""])
def test_what_is_named_parquet_and_is_none_is_told(tmp_path, content):
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(UsageError, match=r"--format jsonl|git lfs pull|zip file"):
        open_source(tmp_path / "x.parquet")


def test_bare_carriage_returns_are_refused_in_json_lines_too():
    with pytest.raises(UsageError, match="bare CR"):
        open_source(io.BytesIO(b'{"text":"a"}\r{"text":"b"}\r'))


@pytest.mark.parametrize(
    ("content", "format", "wanted"),
    [
        (b'[1]\n{"text":"a"}\n', "jsonl", [None, "a"]),
        (b'{"text":\n{"text":"a"}\n', "jsonl", [None, "a"]),
        (b"{\n{\n", "jsonl", [None, None]),
        (b"<b>\n", "jsonl", [None]),
        (b'"[a]",text\n1,b\n', "csv", ["b"]),
        (b"[id],text\n1,<html>\n", "csv", ["<html>"]),
        (b"{id},text\n1,PK\x03\x04\n", "csv", ["PK\x03\x04"]),
        (b"BZh,text\n1,b\n", "csv", ["b"]),
        (b"seppl=;,text\n1,b\n", "csv", ["b"]),
        (b"no,text\n1,a\0b\n", "csv", ["a\0b"]),
    ],
)
def test_what_somebody_may_have_written_is_read(content, format, wanted):
    with open_source(io.BytesIO(content), format=format) as source:
        assert [row.fields and row.fields.get("text") for row in source] == wanted


@given(st.lists(st.dictionaries(st.sampled_from(["a", "text"]), st.text(max_size=20)), min_size=1, max_size=5))
def test_json_lines_are_never_taken_for_another_kind(rows):
    for ascii in (True, False):
        data = "".join(json.dumps(row, ensure_ascii=ascii) + "\n" for row in rows).encode()
        with open_source(io.BytesIO(data), format="jsonl") as source:
            assert [row.fields for row in source] == rows


def test_nothing_is_waited_for_that_is_not_needed():
    """The pipe gives one row, and nothing more for now."""

    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.pieces = [b'{"id":1,"text":"a b"}\n']

        def readable(self) -> bool:
            return True

        def read1(self, size: int = -1) -> bytes:
            assert self.pieces, "nobody may wait for more"
            return self.pieces.pop()

    with open_source(Slow()) as source:
        assert source.lacks(["text"]) == []
        assert next(iter(source)).fields == {"id": 1, "text": "a b"}


def test_the_name_of_a_file_is_quoted_in_the_command(tmp_path):
    path = tmp_path / "a; rm x.csv"
    path.write_bytes(b"\x04\x22\x4d\x18\x64\x40")
    with pytest.raises(UsageError, match=r"'[^']*a; rm x\.csv'"):
        open_source(path)


def test_commas_within_texts_say_nothing_about_a_header_of_semicolons() -> None:
    data = b"uuid;note to us\n1-2;WIN a prize now, call 5\n"
    with open_source(io.BytesIO(data)) as source:
        assert source.names == ("uuid", "note to us")


def test_plain_text_whose_lines_end_in_a_bare_cr_is_refused(tmp_path) -> None:
    path = tmp_path / "old.txt"
    path.write_bytes(b"see you at noon\rWIN a prize\rbye")
    with pytest.raises(UsageError, match="bare CR; convert them first"):
        open_source(path)
    assert texts(path, format="lines") == ["see you at noon\rWIN a prize\rbye"], "asked for, it is one line"
    path.write_bytes(b"10 %\r90 %\ndone\r\n")
    assert texts(path) == ["10 %\r90 %", "done"]
